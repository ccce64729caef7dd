"""DisARM: antithetic pairs of a categorical choice, made by a tree of coins."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from archgrad.errors import UsageError
from archgrad.estimators.gumbel import uniforms
from archgrad.protocols import Policy
from archgrad.records import Batch, Estimate


class DisARM:
    """Pairs (b, b~) of antithetic samples, sum_nodes (f(b) - f(b~)) / 2 * weight * deta/dalpha, averaged over pairs.

    Dong, Mnih & Tucker (2020), and the tree form of their (2021). A decision is a balanced binary tree of coins over
    its choices; node i goes right with log-odds eta_i = log p(right) - log p(left). Both samples toss the same coin of
    a node, b with the uniform u and b~ with 1 - u. The weight of a node is

        (b_i - b~_i) sigmoid(|eta_i|)    where both pass it,
        b_i - sigmoid(eta_i)             where only b does,
        sigmoid(eta_i) - b~_i            where only b~ does,
        0                                elsewhere:

    ARM's, averaged over the uniforms given the two samples and over the coins that did not matter, decisions that
    are switched off among them. Unbiased. ``samples`` evaluations of f, an even number, values only.

    Any policy. Under independent decisions the coins of every decision are shared. Otherwise a whole sequence is one
    tree: the two share the coins of a decision while their earlier choices agree, and toss their own from there on.
    """

    differentiates = 0
    independent = False
    epochs = 1
    learns = False

    def __init__(self, samples: int = 2) -> None:
        if samples < 2 or samples % 2:
            raise UsageError(f"samples should be even, as they come in antithetic pairs, got {samples}; 2 is the least")
        self.samples = samples

    @torch.no_grad()
    def propose(self, policy: Policy, generator: torch.Generator) -> Batch:
        pairs = self.samples // 2
        u = uniforms(policy, pairs, generator)
        b, other = policy.relax(u, toss), policy.relax(1 - u, toss)
        if not policy.independent:
            v = uniforms(policy, pairs, generator)
            other = policy.relax(torch.where(agree(b, other).unsqueeze(-1) > 0, 1 - u, v), toss)
        return Batch(torch.stack([b, other], -3).flatten(-4, -3))

    def gradient(self, policy: Policy, batch: Batch, values: Tensor) -> Estimate:
        space, h = policy.space, batch.h
        left, right = (side.to(h) for side in tree(space.K))
        eta = log_odds(policy.conditionals(h))
        passed = (h @ (left + right).T) * space.active(h).unsqueeze(-1)  # [*R, 2 n, D, nodes]
        side = h @ right.T
        with torch.no_grad():
            b, other = h[..., ::2, :, :], h[..., 1::2, :, :]
            both = passed[..., ::2, :, :] * passed[..., 1::2, :, :]
            if not policy.independent:
                both = both * agree(b, other).unsqueeze(-1)
            each = both.repeat_interleave(2, -3)
            difference = side[..., ::2, :, :] - side[..., 1::2, :, :]
            # half of a shared node's weight through either sample's eta: they are equal
            shared = torch.stack([difference, difference], -3).flatten(-4, -3) * eta.abs().sigmoid() / 2
            sign = torch.tensor([1.0, -1.0]).to(h).repeat(difference.shape[-3]).reshape(-1, 1, 1)
            weight = each * shared + (passed - each) * (side - eta.sigmoid()) * sign
            half = (values[..., ::2] - values[..., 1::2]) / 2
            weight = weight * half.repeat_interleave(2, -1)[..., None, None]
        total = (weight * eta).sum() / half.shape[-1]
        parameters = list(policy.parameters())
        return Estimate(torch.autograd.grad(total, parameters, allow_unused=True, materialize_grads=True))

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        del state  # between batches it remembers nothing


def tree(K: int) -> tuple[Tensor, Tensor]:
    """The K - 1 nodes of a balanced binary tree over K choices: which are left and right of each, bool ``[K-1, K]``."""
    left, right = torch.zeros(K - 1, K, dtype=torch.bool), torch.zeros(K - 1, K, dtype=torch.bool)
    ranges = [(0, K)]
    for node in range(K - 1):
        low, high = ranges.pop(0)
        middle = (low + high + 1) // 2
        left[node, low:middle] = True
        right[node, middle:high] = True
        ranges += [(a, b) for a, b in ((low, middle), (middle, high)) if b - a > 1]
    return left, right


def log_odds(log_p: Tensor) -> Tensor:
    """eta of every node ``[..., K-1]`` from log p ``[..., K]``.

    Huge but finite where a side has no choices that exist: the coin falls on the other one, sigmoid(eta) is exactly
    what it shows, and the node's weight is 0, not NaN.
    """
    least = torch.finfo(log_p.dtype).min / 4
    sides = (side.to(log_p.device) for side in tree(log_p.shape[-1]))
    left, right = (log_p.unsqueeze(-2).masked_fill(~side, least).logsumexp(-1) for side in sides)
    return right - left


def toss(log_p: Tensor, g: Tensor) -> Tensor:
    """A choice ``[..., K]``: at every node right if u < sigmoid(eta), u the first K - 1 uniforms behind g."""
    u = torch.exp(-torch.exp(-g[..., :-1]))
    u = u.clamp(max=1 - torch.finfo(u.dtype).eps / 2)  # not rounded up to 1: a right side that is certain is taken
    goes_right = (u < log_odds(log_p).sigmoid()).unsqueeze(-1)
    left, right = (side.to(log_p.device) for side in tree(log_p.shape[-1]))
    return torch.where(goes_right, ~left, ~right).all(-2).to(log_p)


def agree(b: Tensor, other: Tensor) -> Tensor:
    """``[*R, n, D]``: 1 where all earlier decisions are equal."""
    equal = (b == other).all(-1).to(b).cumprod(-1)
    return torch.cat([torch.ones_like(equal[..., :1]), equal[..., :-1]], -1)
