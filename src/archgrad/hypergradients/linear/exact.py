"""The whole Hessian."""

from __future__ import annotations

import torch
from torch import Tensor

from archgrad.errors import UsageError
from archgrad.hypergradients.linear.contract import Product, Solved, check_damping, lengths

LARGEST = 5000
"""Weights; the Hessian of so many takes 200 MB in float64 and minutes to decompose."""


class Exact:
    """By the eigenvalues of the dense Hessian, a product a column: for small problems, to judge the others by.

    Where H is indefinite it is solved as it stands. UsageError above 5,000 weights, and where H + damping is singular.
    """

    def __init__(self, damping: float = 0.0) -> None:
        check_damping(damping)
        self.damping = damping

    def check(self, size: int) -> None:
        if size > LARGEST:
            raise UsageError(
                f"Exact should have at most {LARGEST} weights, got {size}; use ConjugateGradient or Nystrom"
            )

    def __call__(self, product: Product, b: Tensor) -> Solved:
        hessian = dense(product, b)
        values, vectors = torch.linalg.eigh(hessian)
        shifted = values + self.damping
        least, most = float(shifted.abs().min()), float(shifted.abs().max())
        if least <= len(b) * torch.finfo(b.dtype).eps * most:
            raise UsageError(
                f"H + damping should be regular, got an eigenvalue of {least:.1g} beside one of {most:.1g}; add damping"
            )
        x = vectors @ (vectors.T @ b / shifted)
        return Solved(x, lengths(hessian @ x + self.damping * x - b, b), float(values[0]), len(b), "all columns")


def dense(product: Product, like: Tensor) -> Tensor:
    """H ``[P, P]``, symmetric to the last digit."""
    hessian = like.new_zeros(len(like), len(like))
    unit = torch.zeros_like(like)
    for i in range(len(like)):
        unit[i] = 1
        hessian[i] = product(unit)
        unit[i] = 0
    return (hessian + hessian.T) / 2
