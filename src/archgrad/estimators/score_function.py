"""REINFORCE: the gradient of an expectation from values alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from archgrad.errors import UsageError
from archgrad.estimators.prefix_baseline import PrefixBaseline, score_by_decision
from archgrad.protocols import Policy
from archgrad.records import Batch, Estimate

Baseline = Literal["none", "moving-average", "leave-one-out", "learned"]


class ScoreFunction:
    """d/dalpha E[f] ~ mean_i (f_i - b_i) d/dalpha log p_alpha(h_i), h_i ~ p_alpha. Williams (1992).

    Unbiased for every b_i that does not depend on h_i; n evaluations of f, which needs no derivative.

    baseline: "none"; "moving-average", of the batches *before* this one (decay ``decay`` a batch, 0 at the first);
        "leave-one-out", the mean of the other values of the batch (Kool et al. 2019), which needs samples >= 2;
        "learned", a b_d(h_<d) for every decision, regressed on the batches *before* this one (forgetting by
        ``decay``, 0 at the first): each decision is judged by what it adds to those before it.
    standardise: divide f - b by the batch's standard deviation. A step length, then, that does not know the scale
        of f; no longer unbiased, since the deviation depends on h_i.
    entropy: subtract entropy times the policy's entropy from the objective, so that it keeps exploring. In units of
        f, or of f's standard deviation when standardised.
    """

    differentiates = 0
    independent = False
    epochs = 1

    def __init__(
        self,
        samples: int = 10,
        baseline: Baseline = "leave-one-out",
        *,
        decay: float = 0.9,
        standardise: bool = False,
        entropy: float = 0.0,
    ) -> None:
        if baseline not in ("none", "moving-average", "leave-one-out", "learned"):
            raise UsageError(f"baseline should be none, moving-average, leave-one-out or learned, got {baseline!r}")
        least = 2 if baseline == "leave-one-out" or standardise else 1
        if samples < least:
            raise UsageError(
                f"samples should be at least {least} with {baseline=} and {standardise=}, got {samples}; "
                "a leave-one-out baseline and a standard deviation need a second sample (moving-average needs none)"
            )
        if not 0 <= decay < 1:
            raise UsageError(f"decay should be in [0, 1), got {decay}; 0.9 is usual")
        self.samples, self.baseline, self.decay = samples, baseline, decay
        self.standardise, self.entropy = standardise, entropy
        self.learns = baseline in ("moving-average", "learned")
        self.average: Tensor | None = None
        self.prefix = PrefixBaseline(decay)

    def propose(self, policy: Policy, generator: torch.Generator) -> Batch:
        return Batch(policy.sample(self.samples, generator))

    def gradient(self, policy: Policy, batch: Batch, values: Tensor) -> Estimate:
        if self.baseline == "learned":
            by_decision = values.detach().unsqueeze(-1) - self.prefix(batch.h)
            if self.standardise:
                by_decision = by_decision / spread(values.detach()).unsqueeze(-1)
            gradient = score_by_decision(policy, batch.h, by_decision / len(batch))
        else:
            gradient = policy.score(batch.h, self.advantage(values) / len(batch))
        if self.entropy:
            log_prob, entropy = policy.log_prob(batch.h), policy.entropy(batch.h)
            bonus = torch.autograd.grad(entropy_term(entropy, log_prob).sum(), list(policy.parameters()))
            gradient = tuple(g - self.entropy * e for g, e in zip(gradient, bonus, strict=True))
        else:
            with torch.no_grad():
                entropy = policy.entropy(batch.h)
        if self.learns:
            self._update(batch.h, values)
        scale = 1 / spread(values.detach()).squeeze(-1) if self.standardise else None
        return Estimate(gradient, {"entropy": float(entropy.detach().mean())}, scale)

    def advantage(self, values: Tensor) -> Tensor:
        """f_i - b_i, ``[*R, n]``, without a graph."""
        values = values.detach()
        if self.baseline == "leave-one-out":
            advantage = leave_one_out(values)
        elif self.baseline == "moving-average" and self.average is not None:
            advantage = values - self.average.to(values).unsqueeze(-1)
        else:
            advantage = values
        return advantage / spread(values) if self.standardise else advantage

    def _update(self, h: Tensor, values: Tensor) -> None:
        if self.baseline == "learned":
            self.prefix.update(h, values)
        else:
            mean = values.detach().mean(-1)
            self.average = mean if self.average is None else self.decay * self.average + (1 - self.decay) * mean

    def state_dict(self) -> dict[str, Any]:
        return {"average": self.average, "prefix": self.prefix.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.average = state["average"]
        if "prefix" in state:  # runs made before there was a learned baseline do without
            self.prefix.load_state_dict(state["prefix"])


def leave_one_out(values: Tensor) -> Tensor:
    """f_i - mean_{j != i} f_j = (f_i - mean f) n / (n - 1), ``[*R, n]``."""
    n = values.shape[-1]
    return (values - values.mean(-1, keepdim=True)) * n / (n - 1)


def spread(values: Tensor) -> Tensor:
    """The batch's standard deviation ``[*R, 1]``; 1 where all values are equal, which then carry no signal anyway.

    Equal up to rounding, that is: f / 1e-16 would be a step of its own.
    """
    deviation = values.std(-1, keepdim=True)
    rounding = 4 * torch.finfo(values.dtype).eps * values.abs().amax(-1, keepdim=True)
    return torch.where(deviation > rounding, deviation, torch.ones_like(deviation))


def entropy_term(entropy: Tensor, log_prob: Tensor) -> Tensor:
    """A scalar a run whose gradient estimates d/dalpha H(p_alpha) without bias.

    entropy ``[*R, n]`` is summed along sampled prefixes, and the prefixes depend on alpha too:
    d E[e(h)] = E[d e(h)] + E[(e(h) - baseline) d log p(h)].
    """
    centred = leave_one_out(entropy.detach()) if entropy.shape[-1] > 1 else torch.zeros_like(entropy)
    return entropy.mean(-1) + (centred * log_prob).mean(-1)
