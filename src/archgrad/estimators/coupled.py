"""A hard sample and its two relaxed companions, and where a control variate may look at them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from archgrad.estimators.gumbel import conditional, perturbed, relaxed
from archgrad.protocols import Policy, Space


@dataclass(frozen=True)
class Coupled:
    """b ~ p_alpha, z with argmax z = b, and z~ drawn anew given b; z and z~ are differentiable in alpha.

    b: vertices ``[*R, n, D, K]``. z, tilde: ``[*R, n, D, K]``, -inf at choices that do not exist. site_log_prob:
    log p(b_d | b_<d) at active decisions, 0 elsewhere, ``[*R, n, D]``. log_p: the log conditionals on the hard
    prefix, ``[*R, n, D, K]``. Gradients reach alpha through active decisions only, in all of them.
    rest: the policy's mean field ``[*R, 1, D, K]``, None for independent decisions.
    """

    space: Space
    b: Tensor
    z: Tensor
    tilde: Tensor
    site_log_prob: Tensor
    log_p: Tensor
    rest: Tensor | None

    def points(self, z: Tensor, temperature: Tensor) -> Tensor:
        """Where c looks at z (or z~): relaxed architectures ``[*R, n, S, D, K]``; temperature ``[*R]`` or scalar.

        The terms of REBAR cancel in expectation only if c is continuous in z with everything else held. Under a
        policy of independent decisions that is c(all rows of z), S = 1. Under any other it is not: a relaxed choice
        near a tie flips the hard prefix that later decisions read, the law of the rest jumps, and a pathwise
        derivative does not see jumps. There c is asked once a decision, S = D: decision d relaxed, the ones before
        it hard, the ones after it at the policy's mean field, which knows nothing of the sample.
        """
        space = self.space
        rows = relaxed(z, per_run(temperature, z.dim()))
        if self.rest is None:
            return space.blend(rows).unsqueeze(-3)
        D = space.D
        before, here = (m.to(z).unsqueeze(-1) for m in (torch.ones(D, D).tril(-1), torch.eye(D)))
        rest = self.rest.unsqueeze(-3)
        placed = before * self.b.unsqueeze(-3) + here * rows.unsqueeze(-3) + (1 - before - here) * rest
        return space.blend(placed)


def coupled(policy: Policy, h: Tensor, u: Tensor, v: Tensor) -> Coupled:
    """The sample ``h`` (drawn from the uniforms ``u``) with z, and z~ from the fresh uniforms ``v``.

    z~ is drawn decision by decision on the same hard prefix: fed a relaxed prefix it would be another estimator.
    """
    log_p = policy.conditionals(h)
    active = policy.space.active(h)
    log_p = torch.where(active.unsqueeze(-1) > 0, log_p, log_p.detach())
    z = perturbed(log_p, u)
    # a decision that is switched off reads its first choice in h; its z keeps the choice it was drawn with
    drawn = one_hot(z.detach().argmax(-1), z.shape[-1]).to(h)
    b = torch.where(active.unsqueeze(-1) > 0, h, drawn)
    site = (log_p.masked_fill(log_p == -torch.inf, 0) * h).sum(-1) * active
    rest = None if policy.independent else mean_field(policy)
    return Coupled(policy.space, h, z, conditional(log_p, b, v), site, log_p, rest)


@torch.no_grad()
def mean_field(policy: Policy) -> Tensor:
    """The means of the decisions, each fed forward as the next one's prefix: ``[*R, 1, D, K]``, without a graph."""
    half = torch.full((*policy.runs, 1, policy.space.D, policy.space.K), 0.5)
    return policy.relax(half, lambda log_p, g: log_p.exp())


def per_run(x: Tensor, dim: int) -> Tensor:
    """A tensor ``[*R]`` with trailing dimensions of 1, to meet one of ``dim`` dimensions ``[*R, ...]``."""
    return x if x.dim() == 0 else x.reshape(*x.shape, *[1] * (dim - x.dim()))


def log_density(log_p: Tensor, z: Tensor) -> Tensor:
    """log of the density of z = log p + Gumbel, ``[..., K] -> [...]``, over the choices that exist."""
    exists = log_p > -torch.inf
    distance = torch.where(exists, z, torch.zeros_like(z)) - torch.where(exists, log_p, torch.zeros_like(log_p))
    return ((-distance - torch.exp(-distance)) * exists).sum(-1)
