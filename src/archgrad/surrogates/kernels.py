"""What is known of a space beyond its decisions, as kernels for ``Interactions``."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from archgrad.surrogates.interactions import Kernel

Features = Callable[[Tensor], Tensor]
"""Counts that equal networks share: vertices ``[n, D, K] -> [n, F]``."""


def cosine(features: Features) -> Kernel:
    """Effects that add up over what is counted: the angle between two vectors of counts."""

    def kernel(b: Tensor) -> Callable[[Tensor], Tensor]:
        right = torch.nn.functional.normalize(features(b), dim=-1)
        return lambda a: torch.nn.functional.normalize(features(a), dim=-1) @ right.T

    return kernel


def laplace(features: Features, length: float) -> Kernel:
    """exp(-|c - c'|_1 / length) of counts c: near is what differs in few."""

    def kernel(b: Tensor) -> Callable[[Tensor], Tensor]:
        right = features(b)
        return lambda a: torch.exp(torch.cdist(features(a), right, p=1) / -length)

    return kernel


def of_counts(features: Features) -> list[Kernel]:
    """Three that cover counts well: additive, near, and far."""
    return [cosine(features), laplace(features, 2.0), laplace(features, 8.0)]
