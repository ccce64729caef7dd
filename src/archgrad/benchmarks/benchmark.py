"""What searches are compared on: cheap values, and the truth beside what a search sees."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from archgrad.benchmarks.table import Table
from archgrad.errors import UsageError
from archgrad.spaces.decisions import Decisions


@dataclass(frozen=True)
class Benchmark:
    """f for R runs at once, lower is better.

    observe: ``(h [R, n, D, K], generator) -> [R, n]``, what a search sees, noise included. value: ``h -> [R, n]``, what
    a run is judged by, without noise. optimum: the smallest value ``[R]``, or ``[1]`` if it is the same in all runs.
    mean: the mean value under uniform h, alike. reported: other facts about h, ``h -> [R, n]`` each, that no search
    ever sees; of the incumbent they are told at the end.
    """

    name: str
    space: Decisions
    observe: Callable[[Tensor, torch.Generator], Tensor]
    value: Callable[[Tensor], Tensor]
    optimum: Tensor
    mean: Tensor
    reported: Mapping[str, Callable[[Tensor], Tensor]] = field(default_factory=dict)

    def check_runs(self, runs: int) -> None:
        """UsageError where it does not hold so many runs."""
        if runs < 1:
            raise UsageError(f"runs should be at least 1, got {runs}")
        if len(self.optimum) not in (1, runs):
            raise UsageError(f"{self.name} was made for {len(self.optimum)} runs, got {runs}; make it for as many")


def noisy(value: Callable[[Tensor], Tensor], noise: float) -> Callable[[Tensor, torch.Generator], Tensor]:
    """Values with Gaussian noise of this standard deviation, drawn anew at every look. UsageError below 0."""
    if not noise >= 0:
        raise UsageError(f"noise should be a standard deviation, at least 0, got {noise}")

    def observe(h: Tensor, generator: torch.Generator) -> Tensor:
        values = value(h)
        if noise == 0:
            return values
        return values + noise * torch.randn(values.shape, generator=generator, dtype=values.dtype)

    return observe


def from_table(table: Table, search: str, report: Sequence[str] = (), noise: float = 0.0) -> Benchmark:
    """Search on one column, as a loss; others are told of the architecture found, as they stand in the table.

    noise: standard deviation, in units of the searched column. Every run sees the same table. UsageError for columns
    that are not there.
    """
    space = table.space
    counts = [len(d.options) for d in space.decisions]
    place = torch.zeros(space.D, space.K, dtype=torch.float64)
    step = 1
    for d in reversed(range(space.D)):  # the order of ``enumerate``: the last decision changes fastest
        place[d] = step * torch.arange(space.K)
        step *= counts[d]
    # one product finds the row: of a table's at most a million, float32 counts exactly, and twice as fast
    weight = place.float().flatten()

    def looked_up(values: Tensor) -> Callable[[Tensor], Tensor]:
        return lambda h: values[(h.flatten(-2).float() @ weight).long()]

    losses = table.loss(search)
    value = looked_up(losses)
    return Benchmark(
        table.name,
        space,
        noisy(value, noise),
        value,
        losses.min().reshape(1),
        losses.mean().reshape(1),
        {name: looked_up(table.column(name).values) for name in report},
    )
