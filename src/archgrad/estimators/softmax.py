"""The softmax relaxation: f at the mean."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from archgrad.estimators.pathwise import chained, without_noise
from archgrad.protocols import Policy
from archgrad.records import Batch, Estimate


class Softmax:
    """d/dalpha f(E[h]) in place of d/dalpha E[f(h)]: <df/dh at the mean, d mean / dalpha>.

    The relaxation of DARTS, Liu et al. (2019). One evaluation of f and one slope, between the architectures: f should
    make sense there. No noise. Biased, except where decisions are independent and f is affine in each with the others
    held, as the multilinear extension of a table is: then f at the mean is the mean of f. (Where a decision may be
    switched off by one that may not: where f is a sum over decisions.)

    Under an autoregressive policy the "mean" is the mean field: each decision's probabilities, fed forward as the next
    one's prefix. A decision that may be switched off is drawn to its first choice by the chance of that.
    """

    differentiates = 1
    independent = False
    epochs = 1
    learns = False
    samples = 1

    def propose(self, policy: Policy, generator: torch.Generator) -> Batch:
        del generator  # nothing is drawn
        with torch.no_grad():
            return Batch(mean(policy))

    def gradient(self, policy: Policy, batch: Batch, values: Tensor) -> Estimate:
        return Estimate(chained(policy, batch, values, mean(policy)))

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        del state  # between batches it remembers nothing


def mean(policy: Policy) -> Tensor:
    """``[*R, 1, D, K]``, differentiable in alpha."""
    return policy.relax(without_noise(policy, 1), lambda log_p, g: log_p.exp())
