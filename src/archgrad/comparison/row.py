"""What is said of one method in a comparison."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from archgrad.benchmarks.benchmark import Benchmark
from archgrad.comparison.measuring import Course
from archgrad.comparison.statistics import Quartiles, dense, first_hit, incumbents, looks, quartiles


@dataclass(frozen=True)
class Row:
    """One method over all runs; ``json`` has all but ``curve``.

    samples_to: level to quartiles of the evaluations until an architecture was evaluated whose noiseless value is
    at (mean - value) / (mean - optimum) >= level; None where the quartile never got there. regret: n to quartiles of
    the incumbent's noiseless value less the optimum; the incumbent has the lowest *observed* value of the first n.
    reported: name to n to mean and standard deviation over runs, of the incumbent. seconds_per_sample: CPU time of
    the searcher, an evaluation. curve: ``regret`` at more places, for a picture.
    """

    recipe: str
    runs: int
    budget: int
    samples_to: Mapping[float, Quartiles]
    regret: Mapping[int, Quartiles]
    reported: Mapping[str, Mapping[int, tuple[float, float | None]]]
    seconds_per_sample: float
    curve: Mapping[int, Quartiles]

    def json(self) -> dict[str, Any]:
        """Plain values; keys are text."""
        return {
            "recipe": self.recipe,
            "runs": self.runs,
            "budget": self.budget,
            "samples_to": {f"{k:.12g}": list(v) for k, v in self.samples_to.items()},
            "regret": {str(k): list(v) for k, v in self.regret.items()},
            "reported": {name: {str(n): list(v) for n, v in of.items()} for name, of in self.reported.items()},
            "seconds_per_sample": self.seconds_per_sample,
        }


def row_of(name: str, benchmark: Benchmark, course: Course, levels: Sequence[float]) -> Row:
    """The course of all runs, summed up."""
    runs, budget = course.values.shape
    at = incumbents(course.observed)
    regret = course.values.gather(-1, at) - benchmark.optimum.unsqueeze(-1)
    reach = benchmark.mean - benchmark.optimum
    rounding = 1e-9 * reach + 1e-14 * benchmark.mean.abs()  # or the optimum itself might not count as found
    samples_to: dict[float, Quartiles] = {}
    for level in levels:
        hits = first_hit(course.values, benchmark.mean - level * reach + rounding)
        samples_to[level] = tuple(None if q is None else int(q) for q in quartiles(hits))  # type: ignore[assignment]
    reported: dict[str, dict[int, tuple[float, float | None]]] = {}
    places = looks(budget)
    for title, fact in benchmark.reported.items():
        found = fact(vertices(benchmark, course.choices, at[:, [n - 1 for n in places]]))
        reported[title] = {
            n: (float(column.mean()), float(column.std()) if runs > 1 else None)
            for n, column in zip(places, found.unbind(-1), strict=True)
        }
    return Row(
        name,
        runs,
        budget,
        samples_to,
        {n: quartiles(regret[:, n - 1]) for n in places},
        reported,
        course.seconds / (runs * budget),
        {n: quartiles(regret[:, n - 1]) for n in dense(budget)},
    )


def vertices(benchmark: Benchmark, choices: Tensor, at: Tensor) -> Tensor:
    """The architectures at these places, ``[R, n, D, K]``."""
    picked = torch.take_along_dim(choices, at.unsqueeze(-1), 1)
    return one_hot(picked.long(), benchmark.space.K).float()
