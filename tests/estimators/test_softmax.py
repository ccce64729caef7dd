"""The softmax relaxation: the slope at the mean; exact where f is affine in each decision, and only there."""

import pytest
import torch

from archgrad import Factorised
from archgrad.estimators.softmax import Softmax
from archgrad.testing import exact_gradient, plain_space, relative_error
from tests.estimators.known_noise import (
    POLICIES,
    additive,
    check_derivative,
    check_runs,
    curved,
    estimate,
    one_level_space,
    product,
)
from tests.policies.test_policies import scrambled


@pytest.mark.parametrize("make", POLICIES.values(), ids=POLICIES)
def test_is_the_derivative_of_f_at_the_mean(make):
    check_derivative(Softmax(), make(), curved)
    check_runs(make, Softmax, curved)


def test_the_mean_of_independent_decisions_is_their_probabilities():
    policy = POLICIES["factorised, ragged"]()
    assert torch.equal(Softmax().propose(policy, torch.Generator()).h, policy.marginals().unsqueeze(0))


def test_an_autoregressive_policy_reads_its_own_mean_as_prefix():
    policy = POLICIES["autoregressive, ragged"]()
    h = Softmax().propose(policy, torch.Generator()).h
    assert torch.allclose(policy.conditionals(h).exp(), h, atol=1e-12)


def test_is_exact_where_f_is_affine_in_each_of_independent_decisions():
    policy = POLICIES["factorised, ragged"]()
    assert relative_error(estimate(Softmax(), policy, product), exact_gradient(policy, product)) < 1e-12
    policy = scrambled(Factorised(one_level_space()).double())
    assert relative_error(estimate(Softmax(), policy, additive), exact_gradient(policy, additive)) < 1e-12


def test_is_not_exact_elsewhere():
    for name in ("factorised, conditional", "autoregressive, ragged"):
        policy = POLICIES[name]()
        assert relative_error(estimate(Softmax(), policy, product), exact_gradient(policy, product)) > 0.02


def test_the_bias_on_a_parabola_is_what_calculus_says():
    """f = (b - t)^2, p = P(b = 1): 2 (p - t) p (1 - p) where the truth is (1 - 2 t) p (1 - p)."""
    policy = scrambled(Factorised(plain_space(2)).double())
    p = policy.marginals()[0, 1].detach()

    def f(h):
        return (h[..., 0, 1] - 0.45) ** 2

    (got,) = estimate(Softmax(), policy, f)
    assert torch.allclose(got[0, 1], 2 * (p - 0.45) * p * (1 - p), rtol=1e-12)
    assert torch.allclose(exact_gradient(policy, f)[0][0, 1], 0.1 * p * (1 - p), rtol=1e-12)
