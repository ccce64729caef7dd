"""Samples without replacement: no evaluation of f is spent twice on the same architecture."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from archgrad.errors import UsageError
from archgrad.policies.sequence import active_sum, entropy, gumbel
from archgrad.protocols import Policy
from archgrad.records import Batch, Estimate


class Unordered:
    """d/dalpha E[f] ~ sum_{s in S} R(S, s) (f(s) - B(S, s)) d/dalpha p_alpha(s), S drawn without replacement.

    The unordered-set estimator of Kool, van Hoof & Welling (2020). S are ``samples`` different architectures, drawn
    one after the other from what is left of p; R(S, s) = P(S | s came first) / P(S), so that the order, which says
    nothing about f, is averaged out. The baseline "leave-one-out" is
    B(S, s) = p(s) f(s) + sum_{s' != s} p(s') R(S without s, s') f(s'): E[f] as the rest of S tells it; "none" is 0.

    Any policy, f at n = ``samples`` points, no derivative; unbiased with either baseline. Linear in the values, so
    residuals f - c may be given for them. The more a policy has decided, the more it gains: with replacement almost
    all samples are the same; here the set soon holds nearly all of p, and what remains is the only error. It equals
    the exact gradient where S is the whole space; a smaller space is refused (UsageError, use Exact).
    """

    differentiates = 0
    independent = False
    epochs = 1
    learns = False

    def __init__(self, samples: int = 16, baseline: Literal["none", "leave-one-out"] = "leave-one-out") -> None:
        if baseline not in ("none", "leave-one-out"):
            raise UsageError(f"baseline should be none or leave-one-out, got {baseline!r}")
        least = 2 if baseline == "leave-one-out" else 1
        if samples < least:
            raise UsageError(f"samples should be at least {least} with {baseline=}, got {samples}; 16 is usual")
        self.samples, self.baseline = samples, baseline

    def propose(self, policy: Policy, generator: torch.Generator) -> Batch:
        space: Any = policy.space
        if space.size < self.samples:
            raise UsageError(
                f"Unordered draws {self.samples} different architectures, the space has {space.size}; "
                "use Exact, which evaluates them all"
            )
        return Batch(without_replacement(policy, self.samples, generator))

    def gradient(self, policy: Policy, batch: Batch, values: Tensor) -> Estimate:
        h, values = batch.h, values.detach()
        with torch.no_grad():
            log_p = policy.conditionals(h).double()
            inclusion, pair, p = set_weights(policy, h, log_p)
            advantage = values.double()
            if self.baseline == "leave-one-out":
                advantage = advantage - (pair @ advantage.unsqueeze(-1)).squeeze(-1)
            mean_entropy = (inclusion * entropy(policy.space, h.double(), log_p)).sum(-1)  # type: ignore[arg-type]
        gradient = policy.score(h, (inclusion * advantage).to(h.dtype))
        return Estimate(gradient, {"entropy": float(mean_entropy.mean()), "covered": float(p.sum(-1).mean())})

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        del state  # between batches it remembers nothing


@torch.no_grad()
def without_replacement(policy: Policy, n: int, generator: torch.Generator | None = None) -> Tensor:
    """n different vertices ``[*R, n, D, K]``, in the order drawn, by stochastic beam search; Kool et al. (2019).

    The n best of all log p(h) + Gumbel are a sample without replacement. They are found top-down: a prefix holds the
    maximum over its completions, and its children's maxima are drawn given theirs, so n prefixes a decision are
    enough. UsageError where fewer than n architectures have positive probability.
    """
    space: Any = policy.space
    D, K = space.D, space.K
    h = torch.zeros(*policy.runs, n, D, K, dtype=next(policy.parameters()).dtype)
    h[..., 0] = 1
    noise = torch.rand(*policy.runs, n, D, K, dtype=torch.float64, generator=generator)
    log_prefix = h.new_zeros(h.shape[:-2], dtype=torch.float64)
    # The order of the leaves does not depend on their maximum, so the root's may be 0. The other places are empty.
    best = torch.full_like(log_prefix, -math.inf)
    best[..., 0] = 0
    for d in range(D):
        log_p = policy.conditionals(h)[..., d, :].double()
        if space.decisions[d].when:
            certain = torch.full_like(log_p, -math.inf)
            certain[..., 0] = 0
            log_p = torch.where(space.active(h)[..., d, None] > 0, log_p, certain)
        log_child = log_prefix.unsqueeze(-1) + log_p
        child = _given_maximum(log_child + gumbel(noise[..., d, :]), best.unsqueeze(-1))
        best, index = child.flatten(-2).topk(n)
        parent = index // K
        log_prefix = log_child.flatten(-2).gather(-1, index)
        h = h.gather(-3, parent[..., None, None].expand(h.shape))
        h[..., d, :] = torch.nn.functional.one_hot(index % K, K).to(h.dtype)
    if bool((best == -math.inf).any()):
        raise UsageError(f"fewer than {n} architectures have positive probability; use Exact, or fewer samples")
    return h


def _given_maximum(z: Tensor, maximum: Tensor) -> Tensor:
    """Gumbel variables z ``[..., K]`` moved so that their maximum is the given one ``[..., 1]``; -inf stays.

    -log(exp(-maximum) - exp(-max z) + exp(-z)), written as Kool et al. (2019, appendix B.3) do, without overflow.
    """
    alive = (z > -math.inf) & (maximum > -math.inf)
    top = z.amax(-1, keepdim=True)
    gap = torch.where(alive, z - top, torch.zeros_like(z))
    v = torch.where(alive, maximum - z, torch.zeros_like(z)) + torch.log(-torch.expm1(gap))
    moved = maximum - v.clamp(min=0) - torch.log1p(torch.exp(-v.abs()))
    return torch.where(alive, moved, torch.full_like(z, -math.inf))


def set_weights(policy: Policy, h: Tensor, log_p: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The ratios of the unordered-set estimator at the policy's present alpha, in double precision, no graph.

    h: sets of different vertices ``[*R, n, D, K]``; log_p: ``policy.conditionals(h)`` in double precision.
    Returns p(s) R(S, s) ``[*R, n]``, with which sum_s p R f estimates E[f]; the weights of B(S, s)
    ``[*R, n, n]``, row s, of which the diagonal is p(s); and p(s) ``[*R, n]``.
    """
    space: Any = policy.space
    p = active_sum(space, h.double(), log_p).exp()
    first, second = ratios(p, outside(policy, h, log_p))
    return first, second + torch.diag_embed(p), p


def outside(policy: Policy, h: Tensor, log_p: Tensor) -> Tensor:
    """1 - sum_{s in S} p(s), ``[*R]``, without cancellation: S leaves a tree of prefixes; sum the branches cut off.

    Late in a search S holds all but 1e-9 of p, and 1 minus a sum in single precision would be noise.
    """
    space: Any = policy.space
    h = h.double()
    on = space.active(h)
    finite = log_p.masked_fill(log_p == -math.inf, 0)
    chosen = (finite * h).sum(-1) * on
    before = (chosen.cumsum(-1) - chosen).exp()  # p of the prefix h_<d, [*R, n, D]
    total = h.new_zeros(h.shape[:-3])
    same = h.new_ones(*h.shape[:-3], h.shape[-3], h.shape[-3])  # whether two members share the prefix
    for d in range(space.D):
        row = h[..., d, :]
        taken = same @ row > 0
        cut = log_p[..., d, :].exp().masked_fill(taken, 0).sum(-1) * on[..., d]
        total = total + (before[..., d] * cut / same.sum(-1)).sum(-1)  # each prefix once
        same = same * (row @ row.transpose(-1, -2))
    return total


def ratios(p: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
    """p(s) R(S, s) ``[..., n]`` and p(s') R(S without s, s') ``[..., n, n]`` (row s, diagonal 0), from p(s) and q.

    q ``[...]``: the probability outside S. Let every architecture ring at a rate of its p: S is what has rung when
    the first outside S rings, so with r = p / q and y in units of 1 / q

        P(S less C | C came first) = int_0^inf exp(-y) prod_{s in S, not in C} (1 - exp(-r_s y)) dy.

    All of them by one trapezoidal rule in x = log y. There the integrand is analytic for |Im x| < pi / 2 and falls
    off as exp(x) and exp(-exp(x)), so equal steps converge exponentially, for any r. The products without one and
    without two members are the whole product divided by their factors; factors are taken relative to y = 1.
    """
    n = p.shape[-1]
    step = 0.6 / max(16, n) ** 0.5  # n factors that all matter make a peak of width 1 / sqrt(n)
    # Left of -28 lies less than e exp(-28) of any of these integrals (the products increase), and as a product of n
    # factors grows at most as y^n, right of y = 40 + 2 n log(n + 2) less still.
    x = torch.arange(-28.0, math.log(40 + 2 * n * math.log(n + 2)) + step, step, dtype=torch.float64, device=p.device)
    runs = p.shape[:-1]
    # a few runs at a time: their integrands stay in the cache
    chunks = zip(torch.split(p.reshape(-1, n), 64), torch.split(q.reshape(-1), 64), strict=True)
    parts = [_ratios(*chunk, x) for chunk in chunks]
    first, second = (torch.cat(part) for part in zip(*parts, strict=True))
    return first.reshape(*runs, n), second.reshape(*runs, n, n)


def _ratios(p: Tensor, q: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """``ratios`` of p ``[R, n]`` and q ``[R]`` by the nodes x."""
    q = q.clamp(min=1e-290).unsqueeze(-1)  # 0 where S is the whole space; the ratios are then 1
    r = (p / q).clamp(1e-200, 1e290)
    factor = torch.log(-torch.expm1(-r.unsqueeze(-1) * x.exp()))  # [R, n, nodes]
    unit = -torch.expm1(-r)
    product = x - x.exp() + factor.sum(-2)
    product = (product - product.amax(-1, keepdim=True)).exp()
    divided = (unit.log().unsqueeze(-1) - factor).exp()
    whole = product.sum(-1)
    less_one = (divided @ product.unsqueeze(-1)).squeeze(-1)
    less_two = (divided * product.unsqueeze(-2)) @ divided.transpose(-1, -2)
    less_two = less_two - torch.diag_embed(less_two.diagonal(dim1=-2, dim2=-1))
    scaled = torch.maximum(p, 1e-200 * q) / unit
    return scaled * less_one / whole.unsqueeze(-1), scaled.unsqueeze(-2) * less_two / less_one.unsqueeze(-1)
