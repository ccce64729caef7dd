"""The exact gradient, by enumeration and in closed form."""

import pytest
import torch

from archgrad import Batch, Factorised, UsageError
from archgrad.estimators.exact import Exact
from archgrad.objectives.additive import AdditiveCost
from archgrad.pairing import valued
from archgrad.policies.replicated import replicated
from archgrad.testing import exact_gradient, plain_space, relative_error
from tests.estimators.known_noise import POLICIES, check_runs, curved, estimate
from tests.policies.test_policies import scrambled


@pytest.mark.parametrize("make", POLICIES.values(), ids=POLICIES)
def test_enumeration_is_exact_for_any_policy(make):
    policy = make()
    assert relative_error(estimate(Exact(), policy, curved), exact_gradient(policy, curved)) < 1e-12
    check_runs(make, Exact, curved)


def test_a_large_constant_does_not_round_the_gradient_away():
    policy = scrambled(Factorised(plain_space(2, 3)))
    (plain,) = estimate(Exact(), policy, curved)
    (lifted,) = estimate(Exact(), policy, lambda h: curved(h.double()) + 1e6)
    assert torch.allclose(plain, lifted.to(plain), atol=1e-5)


def test_a_closed_form_asks_f_nothing():
    policy = POLICIES["factorised, conditional"]()
    cost = AdditiveCost(policy.space, 3.0, torch.randn(4, 3, generator=torch.Generator().manual_seed(1)).double())
    estimator = Exact(cost.expectation)
    batch = estimator.propose(policy, torch.Generator())
    assert batch.h.shape == (0, 4, 3)
    assert len(Batch.join([batch, batch])) == 0
    assert len(batch.rows(slice(0, 4))) == 0
    values = valued(estimator, batch, cost)
    assert values.shape == (0,)
    got = estimator.gradient(policy, batch, values).gradient
    assert relative_error(got, exact_gradient(policy, cost)) < 1e-12


def test_a_closed_form_of_many_runs():
    policy = POLICIES["factorised, ragged"]()
    cost = AdditiveCost(policy.space, 3.0, torch.arange(6.0).reshape(2, 3).double())
    many = replicated(policy, 2, 3)
    batch = Exact(cost.expectation).propose(many, torch.Generator())
    assert batch.h.shape == (2, 3, 0, 2, 3)
    (got,) = Exact(cost.expectation).gradient(many, batch, cost(batch.h)).gradient
    assert torch.allclose(got, exact_gradient(policy, cost)[0].expand_as(got), atol=1e-12)


def test_a_space_too_large_to_enumerate_is_refused():
    policy = Factorised(plain_space(*[10] * 5, 2))
    with pytest.raises(UsageError, match=r"at most 100,000 architectures, this space has 200,000"):
        Exact().propose(policy, torch.Generator())
