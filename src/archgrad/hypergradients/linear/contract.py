"""What a linear solver is given and gives."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from archgrad.errors import UsageError

Product = Callable[[Tensor], Tensor]
"""x ``[P]`` to H x."""


@dataclass(frozen=True)
class Solved:
    """x ``[P]``; the others as in ``Report``."""

    x: Tensor
    residual: float
    curvature: float
    products: int
    ended: str


class LinearSolver(Protocol):
    """(H + damping) x = b from products with H alone."""

    def check(self, size: int) -> None:
        """UsageError where P = ``size`` unknowns are not for this solver; asked before any work."""

    def __call__(self, product: Product, b: Tensor) -> Solved: ...


def check_damping(damping: float) -> None:
    if not (damping >= 0 and math.isfinite(damping)):
        raise UsageError(
            f"damping should be 0 or more, got {damping}; the training loss's own L2 coefficient is a start"
        )


def check_steps(steps: int) -> None:
    if steps < 1:
        raise UsageError(f"steps should be at least 1, got {steps}; 5 to 20 are usual")


def lengths(residual: Tensor, b: Tensor) -> float:
    """|residual| / |b|, 0 where b is."""
    size = float(b.norm())
    return float(residual.norm()) / size if size else 0.0
