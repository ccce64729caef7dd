"""The learned baseline: a regression on the prefix, never on what it corrects; unbiased, and of lower variance."""

import itertools

import pytest
import torch

from archgrad import Autoregressive, Batch, Factorised, ScoreFunction
from archgrad.estimators.prefix_baseline import PrefixBaseline, score_by_decision
from archgrad.policies.replicated import replicated
from archgrad.testing import check_unbiased, conditional_space, exact_gradient, plain_space
from tests.estimators.test_score_function import POLICIES, curved
from tests.policies.test_policies import scrambled


def trained(policy, f, batches=30, samples=1, **settings):
    """A learned baseline after some batches at the policy's alpha."""
    estimator = ScoreFunction(samples, "learned", **settings)
    for seed in range(batches):
        batch = Batch(policy.sample(8, torch.Generator().manual_seed(seed)))
        estimator.gradient(policy, batch, f(batch.h))
    return estimator


def copies(estimator, samples):
    def make():
        fresh = ScoreFunction(samples, "learned")
        fresh.load_state_dict(estimator.state_dict())
        return fresh

    return make


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("samples", [1, 2])
def test_is_unbiased_once_it_has_learned(policy, samples):
    policy = policy()
    make = copies(trained(policy, curved), samples)
    baseline = make().prefix(policy.space.enumerate().double())
    assert (baseline[..., 0] > 1).all()
    assert (baseline[..., -1].std() > 0.1) or policy.space.conditional
    check_unbiased(make, policy, curved)


def test_each_decision_has_the_ridge_regression_of_its_prefix():
    """One factorisation, D regressions: against each regression solved on its own, with forgetting."""
    space, baseline = plain_space(2, 3, 4), PrefixBaseline(0.5)
    first, second = (space.uniform(20, torch.Generator().manual_seed(s)).double() for s in (0, 1))
    baseline.update(first, curved(first))
    baseline.update(second, curved(second))
    h = torch.cat([first, second])
    age = torch.cat([torch.full((20,), 0.5), torch.ones(20)]).double()
    got = baseline(h)
    for d in range(3):
        x = torch.cat([torch.ones(40, 1).double(), h[:, :d].flatten(1)], -1)
        ridge = torch.diag(torch.tensor([1e-6] + [1.0] * (x.shape[1] - 1)).double())
        weights = torch.linalg.solve(x.T @ (age[:, None] * x) + ridge, x.T @ (age * curved(h)))
        assert torch.allclose(got[:, d], x @ weights, atol=1e-9)


def test_it_reads_the_choices_before_a_decision_and_no_other():
    policy = POLICIES[2]()
    prefix = trained(policy, curved).prefix
    h = policy.space.encode([("b", "a"), ("b", "c"), ("a", "c")]).double()
    b = prefix(h)
    assert torch.equal(b[0], b[1])
    assert b[1, 0] == b[2, 0]
    assert abs(b[1, 1] - b[2, 1]) > 0.1


def test_it_learns_from_a_batch_only_after_using_it():
    policy = POLICIES[0]()
    estimator, plain = ScoreFunction(4, "learned"), ScoreFunction(4, "none")
    batch = estimator.propose(policy, torch.Generator().manual_seed(0))
    first = estimator.gradient(policy, batch, curved(batch.h)).gradient[0]
    assert torch.allclose(first, plain.gradient(policy, batch, curved(batch.h)).gradient[0], atol=1e-12)
    again = estimator.gradient(policy, batch, curved(batch.h)).gradient[0]
    assert not torch.allclose(first, again)


def test_frozen_it_stays_as_it_is_and_a_resumed_one_goes_on_equally():
    policy = POLICIES[0]()
    estimator = trained(policy, curved, samples=4)
    batch = estimator.propose(policy, torch.Generator().manual_seed(0))
    resumed = copies(estimator, 4)()
    estimator.learns = False
    a, b, c = (estimator.gradient(policy, batch, curved(batch.h)).gradient[0] for _ in range(3))
    assert torch.equal(a, b)
    assert torch.equal(a, c)
    assert torch.equal(resumed.gradient(policy, batch, curved(batch.h)).gradient[0], a)
    assert not torch.equal(resumed.gradient(policy, batch, curved(batch.h)).gradient[0], a)


@pytest.mark.parametrize("make", [Factorised, Autoregressive])
def test_it_lowers_the_variance_below_the_best_constant(make):
    """Exact variances of one sample: f has interactions; the constant is E[f] itself, which nobody would know."""
    torch.manual_seed(0)
    policy = scrambled(make(plain_space(3, 3, 3)).double(), scale=0.3)
    h = policy.space.enumerate().double()
    p = policy.log_prob(h).exp().detach()

    def f(h):
        k = h.argmax(-1).double()
        return 10 + 3 * k[..., 0] - 2 * k[..., 1] + k[..., 0] * k[..., 1] - k[..., 1] * k[..., 2] + k[..., 2]

    exact = exact_gradient(policy, f)
    frozen = trained(policy, f)
    frozen.learns = False

    def variance(gradient):
        total = 0.0
        for i in range(len(h)):
            total += float(p[i] * sum(((g - e) ** 2).sum() for g, e in zip(gradient(h[i : i + 1]), exact, strict=True)))
        return total

    learned = variance(lambda one: frozen.gradient(policy, Batch(one), f(one)).gradient)
    constant = variance(lambda one: policy.score(one, f(one) - (p * f(h)).sum()))
    assert learned < 0.8 * constant


def test_scores_by_decision_add_up_to_the_score():
    for make in POLICIES:
        policy = make()
        h = policy.sample(5, torch.Generator().manual_seed(0))
        weights = torch.randn(5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        got = score_by_decision(policy, h, weights.unsqueeze(-1).expand(5, policy.space.D))
        for a, b in zip(got, policy.score(h, weights), strict=True):
            assert torch.allclose(a, b, atol=1e-12)


@pytest.mark.parametrize("make", [Factorised, Autoregressive])
def test_runs_learn_together_as_they_do_alone(make):
    torch.manual_seed(0)
    space = conditional_space()
    many = scrambled(make(space, runs=(3,)).double())
    batches = [Batch(many.sample(6, torch.Generator().manual_seed(s))) for s in range(3)]
    together = ScoreFunction(6, "learned", standardise=True)
    estimates = [together.gradient(many, b, curved(b.h)).gradient for b in batches]
    for r in range(3):
        one, alone = make(space).double(), ScoreFunction(6, "learned", standardise=True)
        with torch.no_grad():
            for p, q in zip(one.parameters(), many.parameters(), strict=True):
                p.copy_(q[r])
        for b, estimate in zip(batches, estimates, strict=True):
            for got, want in zip(alone.gradient(one, Batch(b.h[r]), curved(b.h[r])).gradient, estimate, strict=True):
                assert torch.allclose(got, want[r], atol=1e-10)


def test_what_one_run_learned_serves_many_replicas():
    policy = POLICIES[2]()
    estimator = trained(policy, curved, samples=3)
    estimator.learns = False
    many = replicated(policy, 5)
    batch = estimator.propose(many, torch.Generator().manual_seed(0))
    together = estimator.gradient(many, batch, curved(batch.h)).gradient
    for r, which in itertools.product(range(5), range(len(together))):
        alone = estimator.gradient(policy, Batch(batch.h[r]), curved(batch.h[r])).gradient[which]
        assert torch.allclose(together[which][r], alone, atol=1e-12)
