"""The natural gradient of independent decisions, which is exponentiated weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from archgrad.errors import UsageError
from archgrad.estimators.score_function import leave_one_out, spread
from archgrad.protocols import Policy
from archgrad.records import Batch, Estimate


class NaturalGradient:
    """F^-1 dJ/dalpha ~ mean_i A_i (h_i / p - 1) / P(active) at every decision, A_i the leave-one-out advantage.

    F is the Fisher information of p_alpha, Amari (1998); for a softmax decision F = P(active) (diag p - p p^T), whose
    inverse is closed-form. The result is dJ/dp, the derivative in the probabilities themselves, less its mean, so it
    does not vanish with p(1 - p) as the gradient in logits does. One step of plain SGD on the logits then multiplies
    every probability by exp(-lr estimate) and renormalises: exponentiated gradient (Kivinen & Warmuth 1997), mirror
    descent with the entropy as potential, and, with other schedules, EXP3 and PBIL.

    Logits [D, K] of independent decisions (Factorised); n evaluations of f, no derivative. Unbiased at damping 0, but
    1 / p makes the variance of rare choices large.

    damping: added to a choice's probability (active and chosen) before dividing by it, the implicit exploration of
        EXP3-IX (Neu 2015): the estimate shrinks by p / (p + damping) at choice k, a bias that buys bounded variance.
    standardise, entropy: as in ScoreFunction. Of the entropy the part inside a decision is exact: log p + H.
    """

    differentiates = 0
    independent = True
    epochs = 1
    learns = False

    def __init__(
        self, samples: int = 10, *, damping: float = 0.0, standardise: bool = False, entropy: float = 0.0
    ) -> None:
        if samples < 2:
            raise UsageError(f"samples should be at least 2 for a leave-one-out baseline, got {samples}; 10 is usual")
        if not damping >= 0:
            raise UsageError(f"damping should be 0 or more, got {damping}; 0 is unbiased, 0.05 is cautious")
        self.samples, self.damping, self.standardise, self.entropy = samples, damping, standardise, entropy

    def propose(self, policy: Policy, generator: torch.Generator) -> Batch:
        if [a.shape for a in policy.parameters()] != [(*policy.runs, policy.space.D, policy.space.K)]:
            raise UsageError(
                f"NaturalGradient steps along the logits [D, K] of independent decisions, which "
                f"{type(policy).__name__} does not have as its one parameter; use Factorised, or ScoreFunction"
            )
        return Batch(policy.sample(self.samples, generator))

    @torch.no_grad()
    def gradient(self, policy: Policy, batch: Batch, values: Tensor) -> Estimate:
        values = values.detach()
        log_p = policy.conditionals(batch.h[..., :1, :, :]).squeeze(-3)
        entropies = policy.entropy(batch.h)
        advantage = leave_one_out(values)
        if self.standardise:
            advantage = advantage / spread(values)
        if self.entropy:  # a choice that switches decisions on brings their entropy along
            advantage = advantage - self.entropy * leave_one_out(entropies)
        natural = self._natural(policy, batch.h, advantage, log_p.exp())
        if self.entropy:
            finite = log_p.masked_fill(log_p == -torch.inf, 0)
            natural = natural + self.entropy * _centred(policy, finite, log_p.exp())
        scale = 1 / spread(values).squeeze(-1) if self.standardise else None
        return Estimate((natural,), {"entropy": float(entropies.mean())}, scale)

    def _natural(self, policy: Policy, h: Tensor, advantage: Tensor, p: Tensor) -> Tensor:
        """``[*R, D, K]``: mean_i A_i h_i / P(active and chosen), over active decisions, less its mean under p."""
        on = policy.space.active(h)
        chosen = ((advantage.unsqueeze(-1) * on).unsqueeze(-1) * h).mean(-3)
        # the marginals tell how probable it is that a decision is active, see Decisions.active
        probability = policy.space.active(p).unsqueeze(-1) * p + self.damping
        return _centred(policy, torch.where(chosen == 0, chosen, chosen / probability), p)

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        del state  # between batches it remembers nothing


def _centred(policy: Policy, x: Tensor, p: Tensor) -> Tensor:
    """x ``[*R, D, K]`` less its mean under each decision's p; 0 at choices that do not exist."""
    return (x - (p * x).sum(-1, keepdim=True)) * policy.space.mask.to(x)
