"""The lowest value of a pairwise model that descents from many random starts find."""

from __future__ import annotations

import torch
from torch import Tensor

ENOUGH = 1e-9
"""A change that gains less is rounding."""


def descents(table: Tensor, pairs: Tensor, starts: int, seed: int = 0) -> Tensor:
    """Where steepest descent by single changes ends from ``starts`` random architectures: choices ``[starts, D]``.

    The model is ``sum_d table[d, h_d] + sum_{d, e} pairs[d, h_d, e, h_e]``, of ``[D, K]`` and ``[D, K, D, K]``, with
    every decision of K choices and nothing between a decision and itself. All ends are local minima: no single change
    is better. All starts step together; the model's slope is kept up to date, so that a step costs two rows of
    ``pairs`` a start.
    """
    D, K = table.shape
    between = pairs.reshape(D * K, D * K)
    between = between + between.T
    generator = torch.Generator().manual_seed(seed)
    each = torch.arange(starts)
    at = torch.randint(K, (starts, D), generator=generator) + torch.arange(D) * K
    slope = table.flatten() + between[at].sum(1)
    while True:
        gain = slope.view(starts, D, K) - slope.gather(1, at).unsqueeze(-1)
        best, change = gain.flatten(1).min(1)
        moving = best < -ENOUGH
        if not bool(moving.any()):
            return at % K
        d = change // K
        old = at[each, d]
        new = torch.where(moving, change, old)
        slope += between[new] - between[old]
        at[each, d] = new
