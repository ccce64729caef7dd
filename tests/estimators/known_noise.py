"""Estimators under noise of the test's choice, and sums over all of it in one batch."""

import contextlib
import itertools
from unittest import mock

import numpy as np
import torch

from archgrad import Autoregressive, Factorised
from archgrad.pairing import valued
from archgrad.policies.replicated import replicated
from archgrad.spaces.decisions import Decision, Decisions
from archgrad.testing import conditional_space, plain_space
from tests.policies.test_policies import scrambled


def recurrent(space):
    """A small LSTM, the same each time."""
    return scrambled(Autoregressive(space, hidden=4, generator=torch.Generator().manual_seed(4)).double())


POLICIES = {
    "factorised, ragged": lambda: scrambled(Factorised(plain_space(2, 3)).double()),
    "factorised, conditional": lambda: scrambled(Factorised(conditional_space()).double()),
    "autoregressive, ragged": lambda: recurrent(plain_space(2, 3, 2)),
    "autoregressive, conditional": lambda: recurrent(conditional_space()),
}


def one_level_space():
    """The second decision matters only under the first's choice b."""
    return Decisions(
        [Decision("kind", ("a", "b")), Decision("depth", ("a", "b", "c"), when=((0, 1),)), Decision("head", ("a", "b"))]
    )


def three_runs(make):
    """The policy three times, with different parameters."""
    return scrambled(replicated(make(), 3), seed=5, scale=0.3)


def curved(h):
    """Smooth, with interactions, affine in nothing."""
    weight = torch.linspace(-1, 2, h.shape[-1] * h.shape[-2], dtype=h.dtype).reshape(h.shape[-2:])
    s = (weight * h).sum((-2, -1))
    return 3 + s + s**2 + torch.cos(3 * s)


def additive(h, curve=lambda x: x):
    """A sum over decisions."""
    weight = torch.linspace(-1, 2, h.shape[-1] * h.shape[-2], dtype=h.dtype).reshape(h.shape[-2:]).sin()
    return curve((weight * h).sum(-1)).sum(-1)


def product(h, curve=lambda x: x):
    """A product over decisions: affine in each if the curve is."""
    weight = torch.linspace(-1, 2, h.shape[-1] * h.shape[-2], dtype=h.dtype).reshape(h.shape[-2:]).sin()
    return curve(1 + (weight * h).sum(-1)).prod(-1)


@contextlib.contextmanager
def given(*noise):
    """The next calls of torch.rand return these."""
    left = iter(noise)

    def rand(shape, **options):
        tensor = next(left)
        assert tuple(shape) == tuple(tensor.shape)
        return tensor.to(options["dtype"])

    with mock.patch.object(torch, "rand", rand):
        yield


def estimate(estimator, policy, f, generator=None, weights=None):
    """Propose, evaluate, estimate. weights ``[n]``: sum_i weights_i estimate_i in place of the mean."""
    batch = estimator.propose(policy, generator or torch.Generator().manual_seed(0))
    values = valued(estimator, batch, f)
    if weights is not None:
        values = values * weights * len(weights)
    return estimator.gradient(policy, batch, values).gradient


def every_draw(policy):
    """Noise ``[n, D, K]`` that draws every combination of choices once, inactive ones too, and its probability.

    For a policy of independent decisions.
    """
    space = policy.space
    p = policy.conditionals(space.enumerate().double()[:1])[0].exp().detach()
    rows = list(itertools.product(*[range(len(d.options)) for d in space.decisions]))
    index = torch.tensor(rows)
    noise = torch.full((len(rows), space.D, space.K), 1e-9, dtype=torch.float64)
    noise.scatter_(-1, index.unsqueeze(-1), 1 - 1e-9)
    weights = p.gather(-1, index.T).prod(0)
    return noise, weights


def logistic(panels, jump=0.5):
    """Noise ``[n, 1, 2]`` and weights ``[n]``: the uniform of the logistic variable g_1 - g_0, 20 Gauss nodes a panel.

    Panels end at ``jump``, where an integrand may have one.
    """
    x, w = np.polynomial.legendre.leggauss(20)
    ends = np.concatenate([np.linspace(0, jump, panels + 1), np.linspace(jump, 1, panels + 1)[1:]])
    width = np.diff(ends)[:, None]
    q = torch.tensor((ends[:-1, None] + width * (x + 1) / 2).reshape(-1))
    g = torch.stack([-q.logit() / 2, q.logit() / 2], -1)
    return torch.exp(-torch.exp(-g)).unsqueeze(-2), torch.tensor((width * w / 2).reshape(-1))


def check_derivative(estimator, policy, f):
    """The estimate is the derivative of mean_i f(the i-th point) with the noise held, by central differences."""
    generator = torch.Generator().manual_seed(9)
    parameters = list(policy.parameters())
    direction = [torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in parameters]
    got = estimate(estimator, policy, f)
    values = []
    for step in (1e-5, -1e-5):
        with torch.no_grad():
            for p, d in zip(parameters, direction, strict=True):
                p += step * d
            h = estimator.propose(policy, torch.Generator().manual_seed(0)).h
            values.append(f(h).mean(-1).sum())
            for p, d in zip(parameters, direction, strict=True):
                p -= step * d
    want = (values[0] - values[1]) / 2e-5
    assert abs(want) > 1e-3, "a derivative of zero would show nothing"
    assert torch.allclose(sum((g * d).sum() for g, d in zip(got, direction, strict=True)), want, rtol=1e-6)


def check_runs(make, estimator_of, f):
    """A policy of three runs gives three single estimates, from the same noise."""
    many = three_runs(make)
    estimator = estimator_of()
    batch = estimator.propose(many, torch.Generator().manual_seed(0))
    together = estimator.gradient(many, batch, valued(estimator, batch, f)).gradient
    for r in range(3):
        one, alone = make(), estimator_of()
        with torch.no_grad():
            for p, q in zip(one.parameters(), many.parameters(), strict=True):
                p.copy_(q[r])
        part = type(batch)(batch.h.detach()[r], {k: v[r] for k, v in batch.memo.items()})
        single = alone.gradient(one, part, valued(alone, part, f)).gradient
        for a, b in zip(single, together, strict=True):
            assert torch.allclose(a, b[r], atol=1e-12)
            assert torch.isfinite(a).all()
