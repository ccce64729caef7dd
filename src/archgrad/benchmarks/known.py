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
    optimum: the smallest f of an architecture, where it is known.
    """

    name: str
    space: Decisions
    f: Callable[[Tensor], Tensor]
    expectation: Callable[[Policy], Tensor]
    differentiable: int = 2
    optimum: float | None = None

    def gradient(self, policy: Policy) -> tuple[Tensor, ...]:
        """dJ/dalpha, exact, a tensor a parameter."""
        return torch.autograd.grad(self.expectation(policy).sum(), list(policy.parameters()))


def enumerated(name: str, space: Decisions, f: Callable[[Tensor], Tensor], differentiable: int = 2) -> Known:
    """A known problem over a space that is small enough to enumerate: J = sum_h p_alpha(h) f(h).

    Independent decisions are summed out one after the other, which is as exact and a hundred times as fast.
    """
    vertices = space.enumerate().double()
    with torch.no_grad():
        values = f(vertices)
    counts = [len(d.options) for d in space.decisions]

    def expectation(policy: Policy) -> Tensor:
        if policy.independent and not space.conditional:
            p = means(policy)
            total = values.to(p).expand(*policy.runs, -1)
            for d in reversed(range(space.D)):
                table = total.reshape(*policy.runs, -1, counts[d])
                total = (table @ p[..., d, : counts[d], None]).squeeze(-1)
            return total.squeeze(-1)
        h = vertices.to(next(policy.parameters())).expand(*policy.runs, *vertices.shape)
        return (policy.log_prob(h).exp() * values.to(h)).sum(-1)

    return Known(name, space, f, expectation, differentiable, float(values.min()))


def means(policy: Policy) -> Tensor:
    """E[h] of a policy of independent decisions that are always active, ``[*R, D, K]``, differentiable in alpha."""
    some = next(policy.parameters()).new_zeros(*policy.runs, 1, policy.space.D, policy.space.K)
    return policy.conditionals(some).exp().squeeze(-3)
