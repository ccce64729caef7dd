"""What this project trained itself and ships: every network of a small space, and a model of a larger one.

Fashion-MNIST (Xiao, Rasul & Vollgraf 2017; MIT licence), means over 2 x 2 pixels. How it was made, how noisy it is and
what the model's error means: docs/benchmarks_made.md.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.functional import one_hot

from archgrad.benchmarks.benchmark import Benchmark, noisy
from archgrad.benchmarks.convolutional import Family
from archgrad.benchmarks.descents import descents
from archgrad.benchmarks.known import Known, multilinear
from archgrad.benchmarks.making import Training
from archgrad.benchmarks.table import Table, read_table
from archgrad.surrogates import Pairwise

DATA = Path(__file__).parent / "data"

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
LARGE_TRAINING, LARGE_SEEDS = Training((224,), batch=16, lr=1e-2), (2, 3)
GROUPS = ("uniform", "children", "again", "best", "best again")
"""Where a network of the large space comes from: drawn uniformly; a child of the best so far; and, with the second
seed, one of these again; what surrogates of all these hold for best; what they hold for best when they know that."""

STARTS = 1000
"""Descents on the large space's model; of all but a few the end is the same."""

SHRINK, VALID, TEST = 2, 3000, 3000
"""Images are means over 2 x 2 pixels; how many examples of validation and of test networks are measured on."""


def made_rows() -> dict[str, Tensor]:
    """Every network of the large space that was trained, in order.

    choices: uint8 ``[n, 20]``. seed: uint8. group: uint8, place in GROUPS. valid_accuracy (in percent) and valid_loss:
    float32. The test split was not touched.
    """
    return load_file(DATA / "large.safetensors")


def made_large(*, noise: float = 0.0, seed: int = 0) -> Known:
    """A model of the validation error in percent over the 7^20 networks of LARGE, as a problem to search.

    f is ``Pairwise``, fitted to ``made_rows`` without its group "best again": multilinear in the rows of h, so that
    E[f] is exact for independent decisions (UsageError for others). Its optimum is not known, only the best that many
    descents find, see ``made_large_benchmark``. f is the *model*: a searcher that goes far from what was trained finds
    the model's optimism rather than good networks.

    noise: standard deviation of what is added to every observed value; that of a seed is in docs/benchmarks_made.md.
    """
    return multilinear("made_large", LARGE.space, large_model().mean, noise=noise, seed=seed)


def made_large_benchmark(noise: float = 0.0) -> Benchmark:
    """The problem of ``made_large`` to compare searchers on; every run has the same one.

    optimum is the best *known* value, the lowest end of STARTS descents by single changes, in every process the same
    up to rounding: nobody has proved that nothing is lower, and the regret of a run that found it would be negative.
    mean is exact. noise: standard deviation of what is added to an observed value, UsageError below 0.
    """
    model = large_model()
    assert model.table is not None
    assert model.pairs is not None
    ends = one_hot(descents(model.table, model.pairs, STARTS), LARGE.space.K).double()
    uniform = torch.full((1, LARGE.space.D, LARGE.space.K), 1 / LARGE.space.K, dtype=torch.float64)
    best = model.mean(ends).min().reshape(1)
    return Benchmark("made_large", LARGE.space, noisy(model.mean, noise), model.mean, best, model.mean(uniform))


def large_model() -> Pairwise:
    """The surrogate that ``made_large`` is."""
    model = Pairwise()
    model.load_state_dict(load_file(DATA / "large_model.safetensors"))
    return model


def made_small() -> Table:
    """Every network of SMALL, trained twice, as a table to look up.

    Columns valid_accuracy_T_seedS and valid_loss_T_seedS after T steps with seed S, test_accuracy_T_seedS and
    test_loss_T_seedS after the last; the last accuracies' means over seeds, without "_seedS"; params, macs, latency_ms.
    A search should see one seed's validation column, and be judged by a mean.
    """
    return read_table(DATA / "small.safetensors")
