"""Gumbel variables of a categorical choice, relaxed, and conditional on the choice made."""

from __future__ import annotations

import torch
from torch import Tensor

from archgrad.errors import UsageError
from archgrad.policies.sequence import gumbel
from archgrad.protocols import Policy


def uniforms(policy: Policy, n: int, generator: torch.Generator) -> Tensor:
    """``[*R, n, D, K]`` in the policy's precision."""
    shape = (*policy.runs, n, policy.space.D, policy.space.K)
    return torch.rand(shape, generator=generator, dtype=next(policy.parameters()).dtype)


def perturbed(log_p: Tensor, noise: Tensor) -> Tensor:
    """z = log p + Gumbel, ``[..., K]``: argmax z is a sample of p. noise: uniforms. -inf where p is 0."""
    return log_p + gumbel(noise.to(log_p))


def conditional(log_p: Tensor, b: Tensor, noise: Tensor) -> Tensor:
    """z~ given argmax z~ = b, from fresh uniforms ``noise``; differentiable in log p, which should be normalised.

    Tucker et al. (2017), Grathwohl et al. (2018): z~_b = -log(-log v_b), z~_i = -log(-log v_i / p_i - log v_b).
    With Gumbels g = -log(-log v) the second is -logaddexp(-g_i - log p_i, -g_b): no division, and no overflow for
    the smallest p.
    """
    g = gumbel(noise.to(log_p))
    exists = log_p > -torch.inf
    safe = torch.where(exists, log_p, torch.zeros_like(log_p))
    top = (b * g).sum(-1, keepdim=True)
    rest = -torch.logaddexp(-g - safe, -top)
    return torch.where(b > 0, top, rest).masked_fill(~exists, -torch.inf)


def relaxed(z: Tensor, temperature: Tensor | float) -> Tensor:
    """softmax(z / temperature), ``[..., K]``: a vertex as temperature goes to 0."""
    exists = z > -torch.inf
    # -inf / t has no derivative in t: a choice that does not exist would make a learned temperature NaN
    return (z.masked_fill(~exists, 0) / temperature).masked_fill(~exists, -torch.inf).softmax(-1)


def check_temperature(temperature: float) -> None:
    """UsageError unless positive."""
    if not temperature > 0:
        raise UsageError(f"temperature should be positive, got {temperature}; 0.5 is a usual start")
