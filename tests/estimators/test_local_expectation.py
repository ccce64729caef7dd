"""Local expectations: unbiased over every sample there is, inactive decisions included, and exact where they may be."""

import itertools
import math

import pytest
import torch

from archgrad import Autoregressive, Batch, Factorised, ScoreFunction, UsageError
from archgrad.estimators.local_expectation import LocalExpectation, neighbours
from archgrad.testing import check_unbiased, conditional_space, exact_gradient, plain_space, relative_error
from tests.estimators.test_score_function import POLICIES, curved
from tests.policies.test_policies import scrambled


def extended(policy):
    """Every sample with a choice for each decision, active or not, and its probability: the product of conditionals."""
    sizes = policy.space.mask.sum(-1).tolist()
    rows = torch.tensor(list(itertools.product(*[range(k) for k in sizes])))
    h = torch.nn.functional.one_hot(rows, policy.space.K).double()
    log_p = policy.conditionals(policy.space.canonical(h)).detach()
    return h, (log_p.masked_fill(log_p == -math.inf, 0) * h).sum((-2, -1)).exp()


def batch_of(policy, h):
    drawn = neighbours(policy, h)
    return Batch(policy.space.canonical(drawn), {"drawn": drawn})


def moments(policy, f, samples=1):
    """Mean and summed variance of the estimate over every batch of extended samples."""
    h, p = extended(policy)
    assert float(p.sum()) == pytest.approx(1)
    total, square = [torch.zeros_like(a) for a in policy.parameters()], 0.0
    for rows in itertools.product(range(len(h)), repeat=samples):
        batch = batch_of(policy, h[list(rows)])
        chance = p[list(rows)].prod()
        estimate = LocalExpectation(samples).gradient(policy, batch, f(batch.h)).gradient
        for t, g in zip(total, estimate, strict=True):
            t += chance * g
        square += float(chance * sum((g**2).sum() for g in estimate))
    return total, square - float(sum((t**2).sum() for t in total))


@pytest.mark.parametrize("policy", POLICIES)
def test_is_unbiased(policy):
    policy = policy()
    assert relative_error(moments(policy, curved)[0], exact_gradient(policy, curved)) < 1e-9


@pytest.mark.parametrize("policy", [POLICIES[0], POLICIES[2]])
def test_is_unbiased_with_two_samples(policy):
    policy = policy()
    check_unbiased(lambda: LocalExpectation(2), policy, curved)
    assert relative_error(moments(policy, curved, 2)[0], exact_gradient(policy, curved)) < 1e-9


@pytest.mark.parametrize("policy", POLICIES)
def test_what_propose_draws_is_the_extended_distribution(policy):
    """Chi-square on 4,000 samples, fixed seed, false alarm 1e-4; f is asked at canonical, existing points only."""
    from scipy.stats import chi2

    policy, n = policy(), 4000
    batch = LocalExpectation(n).propose(policy, torch.Generator().manual_seed(1))
    every = len(batch) // n
    assert every == 1 + int((policy.space.mask.sum(-1) - 1).sum())
    assert torch.equal(batch.h, policy.space.canonical(batch.memo["drawn"]))
    policy.space.decode(batch.h)  # refuses choices that do not exist
    h, p = extended(policy)
    same = (batch.memo["drawn"][::every].flatten(1) @ h.flatten(1).T) == policy.space.D
    count = same.double().sum(0)
    assert count.sum() == n
    big = p * n >= 5
    observed, expected = (torch.cat([x[big], x[~big].sum().reshape(1)]) for x in (count, p * n))
    keep = expected > 1e-9
    assert float(((observed - expected) ** 2 / expected)[keep].sum()) < chi2.ppf(1 - 1e-4, int(keep.sum()) - 1)


def test_it_is_exact_where_f_is_a_sum_over_independent_decisions():
    policy = POLICIES[0]()
    table = torch.tensor([[3.0, -1.0, 0.0], [0.5, 2.0, 7.0]]).double()

    def f(h):
        return (table * h).sum((-2, -1))

    for seed in range(3):
        batch = LocalExpectation().propose(policy, torch.Generator().manual_seed(seed))
        assert len(batch) == 4
        estimate = LocalExpectation().gradient(policy, batch, f(batch.h))
        assert relative_error(estimate.gradient, exact_gradient(policy, f)) < 1e-12


def test_a_nearly_decided_policy_is_seen_far_more_sharply_also_at_equal_cost():
    """Exact variances: four points of f a sample, against four samples of the score function."""
    policy = Factorised(plain_space(2, 3)).double()
    with torch.no_grad():
        policy.alpha[..., 0] = 3.3
    exact, h = exact_gradient(policy, curved)[0], policy.space.enumerate().double()
    p = policy.log_prob(h).exp().detach()
    with_replacement = 0.0
    for rows in itertools.product(range(6), repeat=4):
        (g,) = ScoreFunction(4).gradient(policy, Batch(h[list(rows)]), curved(h[list(rows)])).gradient
        with_replacement += float(p[list(rows)].prod() * ((g - exact) ** 2).sum())
    assert moments(policy, curved)[1] < with_replacement / 8


def test_a_decision_that_switches_others_on_is_explored():
    """kind=a switches depth off; its neighbour kind=b gets a depth, or that decision would have no neighbour."""
    space = conditional_space()
    policy = Factorised(space).double()
    batch = LocalExpectation(60).propose(policy, torch.Generator().manual_seed(0))
    groups = [space.decode(batch.h)[i : i + 7] for i in range(0, len(batch), 7)]
    switched = [g[1] for g in groups if g[0][0] == "a"]
    assert {a[0] for a in switched} == {"b"}
    assert {a[1] for a in switched} == {"a", "b", "c"}


@pytest.mark.parametrize("make", [Factorised, Autoregressive])
def test_runs_step_together_as_they_do_alone(make):
    space, estimator = conditional_space(), LocalExpectation(2)
    many = scrambled(make(space, runs=(3,)).double())
    batch = estimator.propose(many, torch.Generator().manual_seed(0))
    together = estimator.gradient(many, batch, curved(batch.h)).gradient
    for r in range(3):
        one = make(space).double()
        with torch.no_grad():
            for p, q in zip(one.parameters(), many.parameters(), strict=True):
                p.copy_(q[r])
        single = Batch(batch.h[r], {"drawn": batch.memo["drawn"][r]})
        alone = estimator.gradient(one, single, curved(batch.h[r])).gradient
        for a, b in zip(alone, together, strict=True):
            assert torch.allclose(a, b[r], atol=1e-12)


def test_impossible_settings_are_refused():
    with pytest.raises(UsageError, match="at least 1"):
        LocalExpectation(0)
