"""The Neumann series."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from archgrad.errors import UsageError
from archgrad.hypergradients.linear.contract import Product, Solved, check_steps, lengths


class Neumann:
    """x = rate sum_{i = 0..steps} (1 - rate H)^i b, Lorraine et al. (2020): one product with H a term after the first.

    What ``steps`` + 1 steps of descent with that rate, unrolled at a minimum, would give. rate: below 2 / the largest
    eigenvalue of H, or the series diverges; the learning rate that g trains with is a start. The residual reported is
    that before the last term, which comes for free.
    """

    def __init__(self, steps: int, rate: float) -> None:
        check_steps(steps)
        if not (rate > 0 and math.isfinite(rate)):
            raise UsageError(f"rate should be positive, got {rate}; the learning rate of the weights is a start")
        self.steps, self.rate = steps, rate

    def check(self, size: int) -> None:
        del size

    def __call__(self, product: Product, b: Tensor) -> Solved:
        term, total, curvature = b, b, math.inf
        rounding = torch.finfo(b.dtype).eps ** 2 * float(b @ b)
        for _ in range(self.steps):
            bent = product(term)
            square = float(term @ term)
            if square > rounding:
                curvature = min(curvature, float(term @ bent) / square)
            term = term - self.rate * bent
            total = total + term
        if not bool(torch.isfinite(total).all()):
            raise ArithmeticError(f"the Neumann series diverged in {self.steps} steps with rate {self.rate}; lower it")
        return Solved(self.rate * total, lengths(term, b), curvature, self.steps, "steps")
