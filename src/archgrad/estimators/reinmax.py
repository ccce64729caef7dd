"""ReinMax: straight-through of second order."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from archgrad.estimators.gumbel import check_temperature, uniforms
from archgrad.estimators.pathwise import chained, check_samples
from archgrad.estimators.straight_through import straight
from archgrad.protocols import Policy
from archgrad.records import Batch, Estimate


class ReinMax:
    """mean_i <df/dh at the sample b_i, (2 J(q_i) - J(p) / 2) dlog p/dalpha>, q_i = (b_i + softmax(log p / t)) / 2.

    J(p) = diag p - p p' is the Jacobian of softmax. Liu et al. (2023). With s = df/dh at b and t = 1 it reads, a
    choice k, (b_k (s_k - <p, s>) + p_k (s_k - s_b)) / 2: the exact gradient is a mean of differences f(k) - f(b), and
    each is replaced by the trapezoid of the slopes at its two ends (Heun's rule), where the straight-through estimator
    uses one end.

    ``samples`` evaluations of f and its slopes, at architectures only. Any policy. Biased; exact in expectation at
    t = 1 where decisions are independent and f is quadratic in each with the others held (where a decision may be
    switched off by one that may not: where f is a sum of such, one a decision). A larger t trades bias for variance.
    """

    differentiates = 1
    independent = False
    epochs = 1
    learns = False

    def __init__(self, samples: int = 16, temperature: float = 1.0) -> None:
        check_samples(samples)
        check_temperature(temperature)
        self.samples, self.temperature = samples, temperature

    def propose(self, policy: Policy, generator: torch.Generator) -> Batch:
        noise = uniforms(policy, self.samples, generator)
        return Batch(policy.sample(self.samples, noise=noise), {"noise": noise})

    def gradient(self, policy: Policy, batch: Batch, values: Tensor) -> Estimate:
        def soft(log_p: Tensor, g: Tensor, b: Tensor) -> Tensor:
            del g
            logits = log_p.masked_fill(log_p == -torch.inf, 0)
            p, tempered = log_p.detach().exp(), (log_p.detach() / self.temperature).softmax(-1)
            return 2 * tangent((b + tempered) / 2, logits) - tangent(p, logits) / 2

        points = policy.relax(batch.memo["noise"], straight(policy, batch, soft))
        return Estimate(chained(policy, batch, values, points))

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        del state  # between batches it remembers nothing


def tangent(p: Tensor, logits: Tensor) -> Tensor:
    """J(p) logits = p (logits - <p, logits>), ``[..., K]``: linear in the logits, p held."""
    return p * (logits - (p * logits).sum(-1, keepdim=True))
