"""What one method does in many runs, evaluation by evaluation."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from archgrad.benchmarks.benchmark import Benchmark
from archgrad.errors import UsageError
from archgrad.protocols import Searcher

JUDGED = 2**15
"""Architectures judged at once."""


@dataclass(frozen=True)
class Course:
    """R runs of N evaluations.

    choices: what was evaluated, ``[R, N, D]`` int32. observed: what the search saw, ``[R, N]``. values: the same
    without noise. seconds: CPU time of the searcher alone, all runs together.
    """

    choices: Tensor
    observed: Tensor
    values: Tensor
    seconds: float


def measure(benchmark: Benchmark, searcher: Searcher, runs: int, budget: int, seed: int) -> Course:
    """Spend ``budget`` evaluations in each of ``runs`` runs of a searcher that has them.

    The last batch is cut to the budget and not learned from, as in a search. UsageError where the searcher asks for
    nothing, or has another number of runs.
    """
    draws, noise = (torch.Generator().manual_seed(seed + i) for i in (0, 10**6))
    space = benchmark.space
    numbers = torch.arange(space.K, dtype=torch.float32)
    choices = torch.zeros(runs, budget, space.D, dtype=torch.int32)
    observed = torch.zeros(runs, budget, dtype=torch.float64)
    spent, seconds = 0, 0.0
    while spent < budget:
        began = time.process_time()
        batch = searcher.propose(draws)
        seconds += time.process_time() - began
        n = min(len(batch), budget - spent)
        if n == 0 or batch.h.shape[:-3] != (runs,):
            raise UsageError(f"{searcher.name} should propose architectures for {runs} runs, got {list(batch.h.shape)}")
        h = batch.h[:, :n]
        seen = benchmark.observe(h, noise)
        if not bool(torch.isfinite(seen).all()):
            raise UsageError(f"values of {benchmark.name} should be finite, got {seen[~torch.isfinite(seen)][0]:g}")
        choices[:, spent : spent + n] = (h.float() @ numbers).to(torch.int32)
        observed[:, spent : spent + n] = seen
        spent += n
        if n == len(batch):
            began = time.process_time()
            searcher.observe(batch, seen)
            seconds += time.process_time() - began
    # judged afterwards, many at once: one at a time f would be looked up twice
    blocks = torch.split(choices, max(1, JUDGED // runs), 1)
    values = [benchmark.value(one_hot(block.long(), space.K).float()).double() for block in blocks]
    return Course(choices, observed, torch.cat(values, 1), seconds)
