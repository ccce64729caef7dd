"""Conjugate gradients."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from archgrad.errors import UsageError
from archgrad.hypergradients.linear.contract import Product, Solved, check_damping, check_steps, lengths


class ConjugateGradient:
    """Hestenes & Stiefel (1952) from x = 0, for the hypergradient Pedregosa (2016); one product with H a step.

    Ends after ``steps``, at a residual of ``tolerance`` times |b|, or where H + damping has no positive curvature along
    the next direction: x is then what had been found before it (0 at the first: first order is what is left).
    """

    def __init__(self, steps: int, tolerance: float = 1e-10, damping: float = 0.0) -> None:
        check_steps(steps)
        check_damping(damping)
        if not 0 <= tolerance < 1:
            raise UsageError(f"tolerance should be in [0, 1), got {tolerance}; it is relative to |df/dz|")
        self.steps, self.tolerance, self.damping = steps, tolerance, damping

    def check(self, size: int) -> None:
        del size

    def __call__(self, product: Product, b: Tensor) -> Solved:
        x, r = torch.zeros_like(b), b
        p, square = r, float(r @ r)
        goal = self.tolerance**2 * square
        curvature, products, ended = math.inf, 0, "steps"
        for _ in range(self.steps):
            if square <= goal:
                ended = "tolerance"
                break
            bent = product(p) + self.damping * p
            products += 1
            along, length = float(p @ bent), float(p @ p)
            curvature = min(curvature, along / length - self.damping)
            if not along > 0:
                ended = "negative curvature"
                break
            step = square / along
            x = x + step * p
            r = r - step * bent
            before, square = square, float(r @ r)
            p = r + square / before * p
        else:
            ended = "tolerance" if square <= goal else "steps"
        return Solved(x, lengths(r, b), curvature, products, ended)
