"""A chain of decisions that interact with their neighbours: too large to enumerate, and yet everything is known."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from archgrad.benchmarks.known import Known, multilinear
from archgrad.errors import UsageError
from archgrad.testing import plain_space

SHARES = (0.45, 0.35, 0.20)
"""Of the variance of f under uniform h: single decisions, neighbours, and three in a row."""


def nk_chain(D: int = 20, K: int = 7, seed: int = 0, *, noise: float = 0.0) -> Known:
    """-f(h) = sum_i u_i(h_i) + sum_i w_i(h_i, h_{i+1}) + sum_i t_i(h_i, h_{i+1}, h_{i+2}), lower being better.

    Tables are i.i.d. N(0, 1), centred on every axis and scaled so that under uniform h the mean is 0 and the variance
    1, with shares .45, .35 and .20 of the three orders; about what real tables of architectures show. The optimum is
    found by dynamic programming over pairs of choices; E[f] and its gradient are exact for policies of independent
    decisions, UsageError for others.

    At relaxed rows f is its multilinear extension. So E[f] is f at the mean: the softmax relaxation is *exact* here,
    and this problem can show no bias of it. noise: standard deviation of what is added to every observed value.
    """
    if D < 3 or not 2 <= K <= 13:
        raise UsageError(f"a chain should have at least 3 decisions of 2 to 13 choices, got D={D} and K={K}")
    u, w, t = tables(D, K, seed)

    def clean(h: Tensor) -> Tensor:
        singles = (h * u.to(h)).sum((-2, -1))
        first, second, third = h[..., :-2, :], h[..., 1:-1, :], h[..., 2:, :]
        pairs = torch.einsum("...ik,...il,ikl->...", h[..., :-1, :], h[..., 1:, :], w.to(h))
        # the outer product first: K ** 3 numbers a triple and row would not fit the cache
        outer = (first.unsqueeze(-1) * second.unsqueeze(-2)).flatten(-2)
        triples = (torch.einsum("...iq,iqm->...im", outer, t.to(h).flatten(1, 2)) * third).sum((-2, -1))
        return -(singles + pairs + triples)

    return multilinear("nk_chain", plain_space(*[K] * D), clean, noise=noise, seed=seed, optimum=-best(u, w, t))


def tables(D: int, K: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """u ``[D, K]``, w ``[D-1, K, K]`` and t ``[D-2, K, K, K]``: drawn in this order, centred, scaled."""
    random = np.random.RandomState(seed)
    found = []
    for order, share in enumerate(SHARES, start=1):
        table = torch.from_numpy(random.randn(D + 1 - order, *[K] * order))
        for axis in range(1, order + 1):
            table = table - table.mean(axis, keepdim=True)
        # centred effects do not correlate under uniform h, so variances add up over positions
        variance = table.square().flatten(1).mean(1).sum()
        found.append(table * (share / variance).sqrt())
    return found[0], found[1], found[2]


def best(u: Tensor, w: Tensor, t: Tensor) -> float:
    """max_h of the sum: over every last pair of choices, the best way to arrive there."""
    value = u[0].unsqueeze(-1) + u[1] + w[0]
    for i in range(2, len(u)):
        value = (value.unsqueeze(-1) + t[i - 2] + w[i - 1] + u[i]).amax(0)
    return float(value.max())
