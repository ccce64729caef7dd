"""Objectives against arithmetic, exact expectations against enumeration."""

import pytest
import torch

from archgrad import (
    Batch,
    Choice,
    Decision,
    Decisions,
    Factorised,
    LossPlusCost,
    ScoreFunction,
    UsageError,
    ValidLoss,
    WeightedProduct,
    chain,
)
from archgrad.objectives import AdditiveCost, additive_cost
from archgrad.records import Estimate
from archgrad.searchers.recipe import plus
from archgrad.spaces import space_of
from archgrad.testing import conditional_space, exact_gradient, plain_space
from tests.policies.test_policies import scrambled

METRICS = [{"valid_loss": 0.5, "params": 200.0, "macs": 10.0}, {"valid_loss": 0.25, "params": 50.0, "macs": 40.0}]


def test_values_by_hand():
    assert ValidLoss()(METRICS).tolist() == [0.5, 0.25]
    assert LossPlusCost("params", 100, weight=0.1)(METRICS).tolist() == pytest.approx([0.7, 0.3])
    assert WeightedProduct("macs", 10, weight=0.5)(METRICS).tolist() == pytest.approx([0.5, 0.5])
    assert LossPlusCost("params", 100).sampled(METRICS).tolist() == [0.5, 0.25]
    with pytest.raises(UsageError, match="should be positive, got 0"):
        LossPlusCost("params", 0)


@pytest.mark.parametrize("space", [plain_space(2, 3), conditional_space()])
def test_the_expectation_of_an_additive_cost_and_its_gradient_are_exact(space):
    table = torch.rand(space.D, space.K, generator=torch.Generator().manual_seed(0)).double()
    cost = AdditiveCost(space, 5.0, table)
    policy = scrambled(Factorised(space).double())
    h = space.enumerate().double()
    p = policy.log_prob(h).exp()
    assert torch.allclose(cost.expectation(policy), (p * cost(h)).sum(), atol=1e-12)
    (got,) = torch.autograd.grad(cost.expectation(policy), [policy.alpha])
    (want,) = exact_gradient(policy, cost)
    assert torch.allclose(got, want, atol=1e-12)
    assert torch.allclose(plus(Estimate((want,)), (got,)).gradient[0], 2 * want)
    assert torch.allclose(plus(Estimate((want,), scale=torch.tensor(0.5)), (got,)).gradient[0], 1.5 * want)


@pytest.mark.parametrize("standardise", [False, True])
def test_loss_and_exact_cost_together_are_the_gradient_of_their_sum(standardise):
    """Every batch of two: a part from samples and a part in closed form, against both from samples (in one scale)."""
    space = plain_space(2, 3)
    policy = scrambled(Factorised(space).double())
    table = torch.rand(2, 3, generator=torch.Generator().manual_seed(0)).double()
    cost = AdditiveCost(space, 5.0, table)

    def loss(h):
        return (h[..., 0, 0] + 2 * h[..., 1, 2]) ** 2 + 1

    h = space.enumerate().double()
    p = policy.log_prob(h).exp().detach()
    exact = torch.autograd.grad(cost.expectation(policy), [policy.alpha])
    mixed, alone, costs = (torch.zeros(2, 3).double() for _ in range(3))
    for i in range(len(h)):
        for j in range(len(h)):
            pair = Batch(h[[i, j]])
            estimate = ScoreFunction(2, standardise=standardise).gradient(policy, pair, loss(pair.h))
            scale = 1.0 if estimate.scale is None else estimate.scale
            mixed += p[i] * p[j] * plus(estimate, exact).gradient[0]
            alone += p[i] * p[j] * estimate.gradient[0]
            costs += p[i] * p[j] * scale * exact[0]
    assert torch.allclose(mixed, alone + costs, atol=1e-12)
    if not standardise:
        (want,) = exact_gradient(policy, lambda h: loss(h) + cost(h))
        assert torch.allclose(mixed, want, atol=1e-12)


def test_an_expectation_that_would_not_be_exact_is_refused():
    space = Decisions([Decision("a", ("x", "y")), Decision("b", ("x", "y")), Decision("c", ("p",), ((0, 1), (1, 1)))])
    with pytest.raises(UsageError, match="'c' has several"):
        AdditiveCost(space, 0.0, torch.zeros(3, 2)).expectation(Factorised(space))


def test_a_chains_sizes_add_up():
    space = chain((1, 8, 8), 10, width=4, layers=6)
    for metric in ("params", "macs"):
        cost = additive_cost(space, metric)
        for architecture in space.decode(space.uniform(5, torch.Generator().manual_seed(9))):
            assert float(cost(space.encode([architecture]).double())) == space.sizes(architecture)[metric]


def test_sizes_that_do_not_add_up_are_noticed():
    """Behind an option that is none, the other decision's parameters are dead: a product, not a sum."""

    class Zero(torch.nn.Module):
        def forward(self, x):
            return torch.zeros_like(x)

    def pair(name):
        return Choice(name, {"linear": torch.nn.Linear(3, 3), "none": Zero()})

    space = space_of(torch.nn.Sequential(pair("a"), pair("b")), example=torch.rand(2, 3))
    assert additive_cost(space, "params") is None
