"""ReinMax: Heun's rule, exact on quadratics."""

import pytest
import torch

from archgrad import Factorised, UsageError
from archgrad.estimators.reinmax import ReinMax
from archgrad.estimators.straight_through import StraightThrough
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
    one_level_space,
    product,
)
from tests.policies.test_policies import scrambled


def slopes(batch, f):
    (slope,) = torch.autograd.grad(f(batch.h).sum(), batch.h)
    return slope


def test_at_temperature_one_it_is_the_trapezoid_rule():
    policy = POLICIES["factorised, ragged"]()
    estimator = ReinMax(7)
    batch = estimator.propose(policy, torch.Generator().manual_seed(0))
    (got,) = estimator.gradient(policy, batch, valued(estimator, batch, curved)).gradient
    s, b, p = slopes(batch, curved), batch.h.detach(), policy.marginals().detach()
    at_p, at_b = (p * s).sum(-1, keepdim=True), (b * s).sum(-1, keepdim=True)
    assert torch.allclose(got, ((b * (s - at_p) + p * (s - at_b)) / 2).mean(0), atol=1e-12)


def test_at_other_temperatures_it_is_two_jacobians_and_answers_late():
    policy, t = POLICIES["factorised, ragged"](), 1.7
    estimator = ReinMax(7, t)
    batch = estimator.propose(policy, torch.Generator().manual_seed(0))
    values = valued(estimator, batch, curved)
    s, b = slopes(batch, curved), batch.h.detach()
    with torch.no_grad():
        policy.alpha.copy_(-2 * policy.alpha)  # late: b stays what f was asked at, p is the present one
    (got,) = estimator.gradient(policy, batch, values).gradient
    log_p = policy.log_probabilities().detach()
    p, q = log_p.exp(), (b + (log_p / t).softmax(-1)) / 2

    def jacobian(x):
        return torch.diag_embed(x) - x.unsqueeze(-1) * x.unsqueeze(-2)

    want = ((2 * jacobian(q) - jacobian(p) / 2) @ s.unsqueeze(-1)).squeeze(-1).mean(0)
    assert torch.allclose(got, want, atol=1e-12)


def mean_over_all_draws(estimator_of, policy, f):
    noise, weights = every_draw(policy)
    with given(noise):
        return estimate(estimator_of(len(noise)), policy, f, weights=weights)


def squares(f):
    return lambda h: f(h, lambda x: (x - 0.3) ** 2)


def cubes(f):
    return lambda h: f(h, lambda x: (x - 0.3) ** 3)


@pytest.mark.parametrize(
    ("space", "f"), [(plain_space(2, 3), product), (plain_space(3), additive), (one_level_space(), additive)]
)
def test_is_exact_where_f_is_quadratic_in_each_of_independent_decisions(space, f):
    policy = scrambled(Factorised(space).double())
    exact = exact_gradient(policy, squares(f))
    assert relative_error(mean_over_all_draws(ReinMax, policy, squares(f)), exact) < 1e-7
    assert relative_error(mean_over_all_draws(lambda n: ReinMax(n, 1.5), policy, squares(f)), exact) > 0.01
    first_order = mean_over_all_draws(lambda n: StraightThrough(n, gumbel=False), policy, squares(f))
    assert relative_error(first_order, exact) > 0.1


def test_is_not_exact_on_a_cubic():
    policy = POLICIES["factorised, ragged"]()
    exact = exact_gradient(policy, cubes(product))
    assert relative_error(mean_over_all_draws(ReinMax, policy, cubes(product)), exact) > 0.02


@pytest.mark.parametrize("make", POLICIES.values(), ids=POLICIES)
def test_runs_and_missing_choices(make):
    check_runs(make, lambda: ReinMax(5, 1.2), curved)


@pytest.mark.parametrize("make", POLICIES.values(), ids=POLICIES)
def test_is_its_graph_in_one_piece(make):
    """As the paper writes it: softmax(log q, its distance from log p held), through the policy's own forward pass."""
    policy, t = make(), 1.3
    estimator = ReinMax(6, t)
    batch = estimator.propose(policy, torch.Generator().manual_seed(0))

    def row(log_p, g):
        hard = torch.nn.functional.one_hot((log_p + g).argmax(-1), log_p.shape[-1]).double()
        q = (hard + (log_p / t).softmax(-1)) / 2
        towards = (q.detach().log() - log_p.detach() + log_p).masked_fill(log_p == -torch.inf, -torch.inf).softmax(-1)
        soft = 2 * towards - log_p.softmax(-1) / 2
        return hard + (soft - soft.detach())

    h = policy.relax(batch.memo["noise"], row)
    want = torch.autograd.grad(curved(h).mean(), list(policy.parameters()))
    got = estimator.gradient(policy, batch, valued(estimator, batch, curved)).gradient
    for a, b in zip(got, want, strict=True):
        assert torch.allclose(a, b, atol=1e-12)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [({"samples": 0}, "samples should be at least 1"), ({"temperature": -1}, "temperature should be positive, got -1")],
)
def test_impossible_settings_are_refused(arguments, says):
    with pytest.raises(UsageError, match=says):
        ReinMax(**arguments)
