"""A problem whose exact gradient is known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from archgrad.protocols import Policy
from archgrad.spaces.decisions import Decisions


@dataclass(frozen=True)
class Known:
    """f and what it is on average.

    f: ``[*R, n, D, K] -> [*R, n]`` at vertices and relaxed rows, lower is better; differentiable so many times.
    expectation: J(alpha) = E_{h ~ p_alpha}[f(h)], ``[*R]``, exact and differentiable in alpha.
    """

    name: str
    space: Decisions
    f: Callable[[Tensor], Tensor]
    expectation: Callable[[Policy], Tensor]
    differentiable: int = 2

    def gradient(self, policy: Policy) -> tuple[Tensor, ...]:
        """dJ/dalpha, exact, a tensor a parameter."""
        return torch.autograd.grad(self.expectation(policy).sum(), list(policy.parameters()))


def enumerated(name: str, space: Decisions, f: Callable[[Tensor], Tensor], differentiable: int = 2) -> Known:
    """A known problem over a space that is small enough to enumerate: J = sum_h p_alpha(h) f(h)."""
    vertices = space.enumerate().double()
    with torch.no_grad():
        values = f(vertices)

    def expectation(policy: Policy) -> Tensor:
        h = vertices.to(next(policy.parameters())).expand(*policy.runs, *vertices.shape)
        return (policy.log_prob(h).exp() * values.to(h)).sum(-1)

    return Known(name, space, f, expectation, differentiable)
