"""Every choice of one decision, the others held: no variance is left in that decision."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from archgrad.errors import UsageError
from archgrad.estimators.score_function import leave_one_out
from archgrad.policies.sequence import gumbel
from archgrad.protocols import Policy
from archgrad.records import Batch, Estimate


class LocalExpectation:
    """d/dalpha E[f] ~ mean_i sum_d sum_k p(h_d=k | h_i without d) f(h_i with h_d=k) d/dalpha log p(h_d=k | h_i,<d).

    Local expectation gradients of Titsias & Lazaro-Gredilla (2015): the score function in which every decision's own
    choice is averaged out given all the others. Those weights are p(h_d=k) where decisions are independent; else the
    neighbours' joint probabilities, normalised, which asks of p_alpha what asking f costs anyway. Unbiased for any
    policy. f at 1 + sum_d (K_d - 1) points a sample, no derivative; worth that late, where samples hardly differ.

    A decision that is switched off is drawn all the same, from the policy's conditional, and f does not see it:
    otherwise a neighbour that switches decisions on would have no choices for them. Its own neighbours are the sample
    again. From two samples on, the others' mean f is subtracted (the weights of an autoregressive policy look ahead,
    so a constant in f does not cancel in one estimate; with independent decisions it does, and this changes nothing).
    """

    differentiates = 0
    independent = False
    epochs = 1
    learns = False

    def __init__(self, samples: int = 1) -> None:
        if samples < 1:
            raise UsageError(f"samples should be at least 1, got {samples}; each asks f at all its neighbours")
        self.samples = samples

    def propose(self, policy: Policy, generator: torch.Generator) -> Batch:
        h = policy.sample(self.samples, generator)
        with torch.no_grad():
            drawn = neighbours(policy, _with_inactive(policy, h, generator))
        space: Any = policy.space
        return Batch(space.canonical(drawn), {"drawn": drawn})

    def gradient(self, policy: Policy, batch: Batch, values: Tensor) -> Estimate:
        values = values.detach()
        every = _points(policy)
        n = len(batch) // every
        drawn = batch.memo["drawn"]
        own = torch.unflatten(batch.h, -3, (n, every))[..., 0, :, :]
        log_p = policy.conditionals(own)
        finite = log_p.masked_fill(log_p == -torch.inf, 0)
        f = torch.unflatten(values, -1, (n, every))
        if n > 1:
            others = f[..., 0] - leave_one_out(f[..., 0])
            f = f - others.unsqueeze(-1)
        with torch.no_grad():
            if policy.independent:
                weights = log_p.exp()
            else:
                # p of the extended samples: the inactive decisions count, having been drawn from these conditionals
                joint = policy.conditionals(batch.h)
                joint = (joint.masked_fill(joint == -torch.inf, 0) * drawn).sum((-2, -1))
                joint = torch.unflatten(joint, -1, (n, every))
                weights = _table(policy, drawn, joint, -torch.inf).softmax(-1)
            # at an inactive decision f and p beyond it are constant in k: the term is sum_k f d p_k = 0 by itself
            weights = weights * _table(policy, drawn, f, 0)
        gradient = torch.autograd.grad((weights * finite).sum() / n, list(policy.parameters()))
        with torch.no_grad():
            entropy = policy.entropy(own)
        return Estimate(gradient, {"entropy": float(entropy.mean())})

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        del state  # between batches it remembers nothing


def neighbours(policy: Policy, h: Tensor) -> Tensor:
    """``[*R, n, D, K]`` to ``[*R, n (1 + sum_d (K_d - 1)), D, K]``: each sample, then its neighbours by decision.

    The j-th neighbour at decision d has choice (own + j) mod K_d, so only choices that exist are asked for.
    """
    own = h.argmax(-1)
    rows = [h]
    for d, size in enumerate(policy.space.mask.sum(-1).tolist()):
        for j in range(1, size):
            other = h.clone()
            other[..., d, :] = torch.nn.functional.one_hot((own[..., d] + j) % size, policy.space.K).to(h.dtype)
            rows.append(other)
    return torch.stack(rows, -3).flatten(-4, -3)


def _points(policy: Policy) -> int:
    return 1 + int((policy.space.mask.sum(-1) - 1).sum())


def _table(policy: Policy, drawn: Tensor, per_point: Tensor, absent: float) -> Tensor:
    """``[*R, n, points]`` to ``[*R, n, D, K]``: what belongs to choice k of decision d, ``absent`` where none is."""
    own = torch.unflatten(drawn, -3, per_point.shape[-2:])[..., 0, :, :].argmax(-1)
    sizes = policy.space.mask.sum(-1).tolist()
    table = per_point.new_full((*own.shape, policy.space.K), absent)
    start = 1
    for d, size in enumerate(sizes):
        column = torch.cat([per_point[..., :1], per_point[..., start : start + size - 1]], -1)
        choice = (own[..., d, None] + torch.arange(size, device=own.device)) % size
        table[..., d, :].scatter_(-1, choice, column)
        start += size - 1
    return table


def _with_inactive(policy: Policy, h: Tensor, generator: torch.Generator) -> Tensor:
    """The samples with a choice for every inactive decision too, from the policy's conditional there."""
    space: Any = policy.space
    if not space.conditional:
        return h
    noise = torch.rand(h.shape, generator=generator)
    best = (policy.conditionals(h) + gumbel(noise.to(h))).argmax(-1)
    drawn = torch.nn.functional.one_hot(best, space.K).to(h.dtype)
    return torch.where(space.active(h).unsqueeze(-1) > 0, h, drawn)
