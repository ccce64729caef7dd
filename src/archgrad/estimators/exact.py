"""The exact gradient."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from archgrad.errors import UsageError
from archgrad.protocols import Policy
from archgrad.records import Batch, Estimate

LARGEST = 100_000
"""Architectures beyond which enumeration is refused."""


class Exact:
    """d/dalpha sum_h p_alpha(h) f(h): no bias, no variance.

    By enumeration: f at every architecture of the space, each time; any policy, values only. For tables and for
    spaces of a few decisions. UsageError above 100,000 architectures.

    expectation: J(alpha) = E_{h ~ p_alpha}[f(h)] in closed form, a function of the policy, ``[*R]``, differentiable
    in alpha, where f decomposes so that there is one (``AdditiveCost.expectation``, ``Known.expectation``). f is then
    not evaluated at all: a proposal has no rows.
    """

    differentiates = 0
    independent = False
    epochs = 1
    learns = False
    samples = 0

    def __init__(self, expectation: Callable[[Any], Tensor] | None = None) -> None:
        self.expectation = expectation

    def propose(self, policy: Policy, generator: torch.Generator) -> Batch:
        del generator  # nothing is drawn
        like = next(policy.parameters())
        if self.expectation is not None:
            return Batch(like.new_zeros(*policy.runs, 0, policy.space.D, policy.space.K))
        space: Any = policy.space
        if space.size > LARGEST:
            raise UsageError(
                f"Exact enumerates at most {LARGEST:,} architectures, this space has {space.size:,}; "
                "give it a closed-form expectation, or sample, as ScoreFunction does"
            )
        every = space.enumerate().to(like)
        return Batch(every.expand(*policy.runs, *every.shape))

    def gradient(self, policy: Policy, batch: Batch, values: Tensor) -> Estimate:
        if self.expectation is not None:
            total = self.expectation(policy).sum()
            parameters = list(policy.parameters())
            return Estimate(torch.autograd.grad(total, parameters, allow_unused=True, materialize_grads=True))
        values = values.detach()
        with torch.no_grad():
            p = policy.log_prob(batch.h).exp()
        mean = (p * values).sum(-1, keepdim=True)  # sum_h dp(h) = 0: taken off, a large common part does not round
        return Estimate(policy.score(batch.h, p * (values - mean)))

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        del state  # between batches it remembers nothing
