"""Many NK chains at once, one a run, with their exact optima."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from archgrad.benchmarks.benchmark import Benchmark, noisy
from archgrad.benchmarks.nk_chain import tables
from archgrad.errors import UsageError
from archgrad.testing import plain_space

BEND = 0.7
"""exp(-BEND x) of a normal x is at best 1 / sqrt(exp(BEND^2) - 1) = 1.26 standard deviations below its mean."""


def landscapes(
    D: int = 20, K: int = 7, seeds: Sequence[int] = (0,), *, noise: float = 0.0, saturating: bool = False
) -> Benchmark:
    """Run r searches ``nk_chain(D, K, seeds[r])``; at vertices only, by looking up, so that it is fast.

    The optimum is exact (dynamic programming over pairs of choices), the mean 0, the standard deviation under uniform
    h 1. noise: standard deviation of what is added to an observed value.

    saturating: a search sees exp(BEND * f) instead, standardised exactly for each landscape. The chain's best
    architecture is 7.5 standard deviations better than the mean, which no table of real accuracies shows; in
    NAS-Bench-201 it is 1.25, since there is little left to win once most are good. An error rate whose *logarithm* is
    the chain saturates so: were f normal, the best would be 1 / sqrt(exp(BEND^2) - 1) = 1.26 deviations below the mean.
    The squash is monotone: the optimum is that of the chain, squashed, and what is better stays better, so runs are
    judged on the chain's own scale in both variants and their rows can be compared. ``reported`` has the squashed
    value, "saturated", whose optimum is ``squash`` of the chain's.
    """
    if D < 3 or not 2 <= K <= 13:
        raise UsageError(f"a chain should have at least 3 decisions of 2 to 13 choices, got D={D} and K={K}")
    if not seeds:
        raise UsageError("landscapes should have a seed a run, got none")
    folded = torch.stack([fold(*tables(D, K, seed)) for seed in seeds])
    value = chained(folded)
    name, mean = "nk_chain", torch.zeros(len(seeds), dtype=torch.float64)
    optimum = lowest(folded)
    space = plain_space(*[K] * D)
    if not saturating:
        return Benchmark(name, space, noisy(value, noise), value, optimum, mean)
    bend = squash(folded)

    def saturated(h: Tensor) -> Tensor:
        return bend(value(h))

    return Benchmark(
        "nk_chain_saturating", space, noisy(saturated, noise), value, optimum, mean, {"saturated": saturated}
    )


def fold(u: Tensor, w: Tensor, t: Tensor) -> Tensor:
    """One table a triple, ``[D-2, K, K, K]``, with f = -sum_i: singles and pairs join the first triple they are in."""
    table = t + w[:-1].unsqueeze(-1) + u[:-2, :, None, None]
    table[-1] += w[-1] + u[-2].unsqueeze(-1) + u[-1]
    return -table


def chained(folded: Tensor) -> Callable[[Tensor], Tensor]:
    """f of tables ``[R, D-2, K, K, K]``: vertices ``[R, n, D, K] -> [R, n]``, float64."""
    R, T, K = folded.shape[:3]
    flat = folded.flatten()
    base = (torch.arange(R * T) * K**3).reshape(R, 1, T)
    numbers = torch.arange(K, dtype=torch.float32)

    def f(h: Tensor) -> Tensor:
        c = (h.to(numbers) @ numbers).long()
        return flat[base + (c[..., :-2] * K + c[..., 1:-1]) * K + c[..., 2:]].sum(-1)

    return f


def lowest(folded: Tensor) -> Tensor:
    """min_h f of every landscape ``[R]``: over every last pair of choices, the best way to arrive there."""
    value = folded.new_zeros(folded.shape[0], *folded.shape[2:4])
    for i in range(folded.shape[1]):
        value = (value.unsqueeze(-1) + folded[:, i]).amin(1)
    return value.flatten(1).amin(1)


def moment(folded: Tensor, power: float) -> Tensor:
    """E exp(power * f) under uniform h, ``[R]``: the recursion of ``lowest`` with means in place of minima."""
    value = folded.new_ones(folded.shape[0], *folded.shape[2:4])
    for i in range(folded.shape[1]):
        value = (value.unsqueeze(-1) * (power * folded[:, i]).exp()).mean(1)
    return value.flatten(1).mean(1)


def squash(folded: Tensor) -> Callable[[Tensor], Tensor]:
    """f ``[R, n]`` to (exp(BEND f) - its mean) / its standard deviation, both exact for each landscape."""
    mean = moment(folded, BEND)
    deviation = (moment(folded, 2 * BEND) - mean.square()).sqrt()
    return lambda f: ((BEND * f).exp() - mean.unsqueeze(-1)) / deviation.unsqueeze(-1)
