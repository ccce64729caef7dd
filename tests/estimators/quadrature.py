"""Expectations over Gumbel noise without a random number: Gauss-Legendre nodes, for decisions of two choices."""

import itertools
import math

import numpy as np
import torch

from archgrad.policies.replicated import replicated


def legendre(nodes):
    """Nodes and weights on (0, 1)."""
    x, w = np.polynomial.legendre.leggauss(nodes)
    return torch.tensor((x + 1) / 2), torch.tensor(w / 2)


def uniforms_of(q):
    """Uniforms ``[..., 2]`` whose Gumbels differ by logit(q).

    The difference of two Gumbels is logistic, and softmax and argmax of two choices see nothing else: so one uniform
    a decision, q, stands for two.
    """
    first = torch.full_like(q, math.exp(-1))  # a Gumbel of 0
    return torch.stack([first, torch.exp(-torch.exp(-torch.logit(q)))], -1)


def grid(policy, nodes, samples=1, kinds=2):
    """Noise for every combination of nodes: a list of ``kinds`` tensors ``[N, samples, D, 2]``, and weights ``[N]``.

    The first kind decides the sample, which jumps where q passes p(first choice): its intervals are split there,
    decision by decision along the hard prefix, and each part gets nodes of its own, so that all is smooth.
    """
    space = policy.space
    x, w = legendre(nodes)
    branches = [(torch.zeros(1, 0, dtype=torch.float64), torch.ones(1, dtype=torch.float64), torch.zeros(1, 0).long())]
    for d in range(space.D):
        grown = []
        for q, weight, chosen in branches:
            h = torch.zeros(1, space.D, space.K, dtype=torch.float64)
            h[..., 0] = 1
            for e in range(d):
                h[0, e] = torch.nn.functional.one_hot(chosen[0, e], space.K)
            with torch.no_grad():
                p0 = float(policy.conditionals(space.canonical(h))[0, d, 0].exp())
            for k, low, high in ((0, 0.0, p0), (1, p0, 1.0)):
                node, part = low + (high - low) * x, (high - low) * w
                grown.append(
                    (
                        torch.cat([q.repeat_interleave(nodes, 0), node.repeat(len(q)).unsqueeze(-1)], -1),
                        weight.repeat_interleave(nodes) * part.repeat(len(q)),
                        torch.cat([chosen.repeat_interleave(nodes, 0), torch.full((len(q) * nodes, 1), k)], -1),
                    )
                )
        branches = grown
    one_q = torch.cat([b[0] for b in branches])
    one_w = torch.cat([b[1] for b in branches])
    rest = torch.tensor(list(itertools.product(x.tolist(), repeat=space.D)), dtype=torch.float64)
    rest_w = torch.tensor(list(itertools.product(w.tolist(), repeat=space.D)), dtype=torch.float64).prod(-1)
    parts = [(one_q, one_w)] * samples + [(rest, rest_w)] * (samples * (kinds - 1))
    index = torch.cartesian_prod(*[torch.arange(len(p[0])) for p in parts]).reshape(-1, len(parts))
    weight = torch.stack([p[1][index[:, i]] for i, p in enumerate(parts)]).prod(0)
    noise = [uniforms_of(p[0][index[:, i]]) for i, p in enumerate(parts)]
    return [torch.stack(noise[k * samples : (k + 1) * samples], 1) for k in range(kinds)], weight


def integrate(policy, weights, batch_of, gradient_of):
    """Mean and second moment of an estimate, a tensor a parameter each: every node a run of its own."""
    many = replicated(policy, len(weights))
    estimate = gradient_of(many, batch_of(many))
    spread = [weights.reshape(-1, *[1] * (g.dim() - 1)) for g in estimate]
    mean = tuple((w * g).sum(0) for w, g in zip(spread, estimate, strict=True))
    second = tuple((w * g * g).sum(0) for w, g in zip(spread, estimate, strict=True))
    return mean, second


def whole_grid(policy, nodes):
    """Noise u for z, both Gumbels of every decision, and weights: for scores that see more than their difference.

    All choices h, and z given h by the conditional sampler on nodes of its own uniforms; then the u behind that z. The
    score of a Gumbel has a logarithmic tail in its uniform, so nodes crowd at both ends (q = s^2 (3 - 2 s)).
    """
    from archgrad.estimators.gumbel import conditional

    space = policy.space
    s, w = legendre(nodes)
    x, w = s**2 * (3 - 2 * s), w * 6 * s * (1 - s)
    v = torch.tensor(list(itertools.product(x.tolist(), repeat=2 * space.D)), dtype=torch.float64)
    v = v.reshape(-1, space.D, 2)
    v_weight = torch.tensor(list(itertools.product(w.tolist(), repeat=2 * space.D)), dtype=torch.float64).prod(-1)
    noise, weights = [], []
    with torch.no_grad():
        for choices in itertools.product(range(2), repeat=space.D):
            h = torch.nn.functional.one_hot(torch.tensor([choices]), 2).double()
            # of decisions that are switched off too: their z is drawn, and c may look at it
            log_p = policy.conditionals(space.canonical(h))
            z = conditional(log_p, h.expand_as(v), v)
            noise.append(torch.exp(-torch.exp(-(z - log_p))))
            weights.append((log_p * h).sum().exp() * v_weight)
    return torch.cat(noise).unsqueeze(1), torch.cat(weights)
