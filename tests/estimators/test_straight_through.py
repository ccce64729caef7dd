"""Straight-through: the sample forward, the relaxation backward; where that is exact and where not."""

import pytest
import torch

from archgrad import Factorised, UsageError
from archgrad.estimators.gumbel_softmax import GumbelSoftmax
from archgrad.estimators.straight_through import StraightThrough, straight
from archgrad.pairing import valued
from archgrad.testing import exact_gradient, plain_space, relative_error
from tests.estimators.known_noise import (
    POLICIES,
    additive,
    check_runs,
    curved,
    estimate,
    every_draw,
    given,
    logistic,
    one_level_space,
    product,
)
from tests.policies.test_policies import scrambled


@pytest.mark.parametrize("make", POLICIES.values(), ids=POLICIES)
@pytest.mark.parametrize("gumbel", [True, False])
def test_is_the_straight_through_graph_in_one_piece(make, gumbel):
    """The estimate equals autograd through f(hard + soft - soft.detach()), which is how it is usually written."""
    policy, t = make(), 0.7
    estimator = StraightThrough(6, t, gumbel=gumbel)
    batch = estimator.propose(policy, torch.Generator().manual_seed(0))

    def row(log_p, g):
        hard = torch.nn.functional.one_hot((log_p + g).argmax(-1), log_p.shape[-1]).double()
        soft = ((log_p + g if gumbel else log_p) / t).softmax(-1)
        return hard + (soft - soft.detach())

    h = policy.relax(batch.memo["noise"], row)
    assert torch.allclose(h, batch.h, atol=1e-12)
    want = torch.autograd.grad(curved(h).mean(), list(policy.parameters()))
    got = estimator.gradient(policy, batch, valued(estimator, batch, curved)).gradient
    for a, b in zip(got, want, strict=True):
        assert torch.allclose(a, b, atol=1e-12)
    check_runs(make, lambda: StraightThrough(6, t, gumbel=gumbel), curved)


@pytest.mark.parametrize("make", POLICIES.values(), ids=POLICIES)
def test_the_sample_is_an_architecture_and_the_graph_has_exactly_its_value(make):
    policy = make()
    batch = StraightThrough(50).propose(policy, torch.Generator().manual_seed(0))
    assert len(policy.space.decode(batch.h.float())) == 50
    points = policy.relax(batch.memo["noise"], straight(policy, batch, lambda log_p, g, b: (log_p + g).softmax(-1)))
    assert torch.equal(points, batch.h)
    assert points.requires_grad


def mean_over_all_draws(estimator_of, policy, f):
    noise, weights = every_draw(policy)
    with given(noise):
        return estimate(estimator_of(len(noise)), policy, f, weights=weights)


def test_with_the_softmax_jacobian_it_is_exact_where_f_is_affine_in_each_decision():
    def plain(n):
        return StraightThrough(n, gumbel=False)

    for space, f in ((plain_space(2, 3), product), (one_level_space(), additive)):
        policy = scrambled(Factorised(space).double())
        assert relative_error(mean_over_all_draws(plain, policy, f), exact_gradient(policy, f)) < 1e-7
        assert relative_error(mean_over_all_draws(plain, policy, curved), exact_gradient(policy, curved)) > 0.1


def test_with_gumbel_noise_it_is_gumbel_softmax_where_f_is_affine():
    policy = POLICIES["factorised, ragged"]()
    (a,) = estimate(StraightThrough(5, 0.6), policy, additive)
    (b,) = estimate(GumbelSoftmax(5, 0.6), policy, additive)
    assert torch.allclose(a, b, atol=1e-12)


def test_the_mean_with_gumbel_noise_is_the_integral_over_the_noise():
    """One decision of two, f = (b - .45)^2: slopes 2 (b - .45), weights y (1 - y) / t; biased by a third and more."""
    from scipy.integrate import quad
    from scipy.special import expit, logit

    policy = scrambled(Factorised(plain_space(2)).double())
    odds = float(policy.alpha.detach()[0, 1] - policy.alpha.detach()[0, 0])

    def f(h):
        return (h[..., 0, 1] - 0.45) ** 2

    def integrand(q):
        y = expit(odds + logit(q))
        return 2 * ((y > 0.5) - 0.45) * y * (1 - y)

    want, _ = quad(integrand, 0, 1, points=[expit(-odds)], epsabs=1e-12)
    noise, weights = logistic(10, expit(-odds))
    with given(noise):
        (g,) = estimate(StraightThrough(len(noise)), policy, f, weights=weights)
    assert float(g[0, 1]) == pytest.approx(want, rel=1e-9)
    exact = float(exact_gradient(policy, f)[0][0, 1])
    assert abs(want - exact) > abs(exact) / 3


def test_a_late_answer_is_chained_at_the_present_alpha():
    policy = POLICIES["factorised, ragged"]()
    estimator = StraightThrough(8, gumbel=False)
    batch = estimator.propose(policy, torch.Generator().manual_seed(0))
    values = valued(estimator, batch, curved)
    (slope,) = torch.autograd.grad(curved(batch.h).sum(), batch.h)
    with torch.no_grad():
        policy.alpha.copy_(-3 * policy.alpha)
    p = policy.marginals().detach()
    want = (p * (slope - (p * slope).sum(-1, keepdim=True))).mean(0)
    assert torch.allclose(estimator.gradient(policy, batch, values).gradient[0], want, atol=1e-12)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [({"samples": 0}, "samples should be at least 1"), ({"temperature": 0}, "temperature should be positive")],
)
def test_impossible_settings_are_refused(arguments, says):
    with pytest.raises(UsageError, match=says):
        StraightThrough(**arguments)
