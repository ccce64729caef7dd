"""What the relaxations share: the slope of f chained with the derivative of the points where it was taken."""

from __future__ import annotations

import torch
from torch import Tensor

from archgrad.errors import UsageError
from archgrad.protocols import Policy
from archgrad.records import Batch


def chained(policy: Policy, batch: Batch, values: Tensor, points: Tensor) -> tuple[Tensor, ...]:
    """mean_i <df/dh at h_i, d points_i / dalpha>, a tensor a parameter, summed per run.

    points: ``[*R, n, D, K]`` with a graph to alpha; a parameter they do not depend on (the embedding of a last
    decision) gets zeros.
    """
    (slope,) = torch.autograd.grad(values.sum(), batch.h)
    total = (slope * points).sum() / len(batch)
    parameters = list(policy.parameters())
    return torch.autograd.grad(total, parameters, allow_unused=True, materialize_grads=True)


def without_noise(policy: Policy, n: int) -> Tensor:
    """What ``policy.relax`` is given where the row does not look at it, ``[*R, n, D, K]``."""
    like = next(policy.parameters())
    return like.new_full((*policy.runs, n, policy.space.D, policy.space.K), 0.5)


def check_samples(samples: int) -> None:
    """UsageError unless positive."""
    if samples < 1:
        raise UsageError(f"samples should be at least 1, got {samples}; 16 is usual")
