"""f(z*(h); h): a space, a solver and an objective put together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from archgrad.protocols import Objective, Solver
from archgrad.records import Architecture, Job, Trial
from archgrad.spaces.decisions import Decisions


@dataclass(frozen=True)
class Problem:
    """minimise over alpha E_{h ~ p_alpha}[f(z*(h); h)]: everything but p_alpha."""

    space: Decisions
    solver: Solver
    objective: Objective

    def measure(self, architecture: Architecture, seed: int, fidelity: float) -> dict[str, float]:
        """What one training of one architecture gives; pure."""
        return self.solver.measure(architecture, seed, fidelity)

    def value(self, h: Tensor, seed: int, fidelity: float) -> Tensor:
        """f(z*(h); h) at n vertices, ``[n, D, K] -> [n]``, here and now; a search evaluates through an executor."""
        return self.objective([self.measure(a, seed, fidelity) for a in self.space.decode(h)])

    def values(self, trials: Sequence[Trial], worst: float, *, sampled: bool = False) -> Tensor:
        """f of finished trials ``[n]``, in their order.

        A failed trial gets the worst value among ``worst`` and these: to leave it out would bias the estimate
        towards architectures that fail, and break a leave-one-out baseline.
        """
        f = self.objective.sampled if sampled else self.objective
        done = [t.metrics for t in trials if t.error is None]
        values = f(done) if done else torch.zeros(0, dtype=torch.float64)
        bad = max([worst, *values.tolist()])
        found = iter(values.tolist())
        return torch.tensor([next(found) if t.error is None else bad for t in trials], dtype=torch.float64)


@dataclass(frozen=True)
class Measure:
    """``Problem.measure`` of a job, for an executor; weights asked for go under ``folder``."""

    solver: Solver
    folder: str = "."

    def __call__(self, job: Job) -> dict[str, float]:
        save = None if job.save is None else f"{self.folder}/{job.save}"
        return self.solver.measure(job.architecture, job.seed, job.fidelity, save)
