"""What this project trained itself and ships: every network of a small space, and a model of a larger one."""

from __future__ import annotations

from archgrad.benchmarks.convolutional import Family
from archgrad.benchmarks.making import Training

SMALL = Family("small", ("skip", "avgpool3x3", "conv3x3"), (3, 4), channels=8, residual=False)
"""3^7 = 2,187 networks."""
SMALL_TRAINING, SMALL_SEEDS = Training((80, 320), lr=1e-2), (2, 3)

LARGE = Family(
    "large",
    ("skip", "conv1x1", "conv3x3", "depthwise3x3", "depthwise5x5", "maxpool3x3", "avgpool3x3"),
    (2, 18),
    channels=8,
)
"""7^20 networks."""
LARGE_TRAINING, LARGE_SEEDS = Training((256,), lr=1e-2), (2, 3)

SHRINK, VALID, TEST = 2, 3000, 3000
"""Images are means over 2 x 2 pixels; how many examples of validation and of test networks are measured on."""
