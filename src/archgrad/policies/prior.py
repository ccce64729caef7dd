"""Where a policy starts: uniform, or near an architecture that is known to be sensible."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from archgrad.errors import UsageError
from archgrad.records import Architecture
from archgrad.spaces.decisions import Decisions


def near(space: Decisions, architecture: Architecture, probability: float) -> Tensor:
    """Logits ``[D, K]`` under which each decision takes the architecture's choice with ``probability``.

    The rest is spread evenly over its other choices, so that (1 - probability) D decisions differ on average.
    UsageError unless probability is in (0, 1).
    """
    if not 0 < probability < 1:
        raise UsageError(f"the probability of a choice should be between 0 and 1, got {probability}; 0.9 is usual")
    h = space.encode([architecture])[0]
    others = (space.mask.sum(-1, keepdim=True) - 1).clamp(min=1)
    return h * (math.log(probability / (1 - probability)) + torch.log(others))
