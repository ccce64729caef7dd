"""Measuring: what is counted, what is trained, and that known answers come out."""

import dataclasses

import pytest
import torch
from torch.nn.functional import one_hot

from archgrad import Autoregressive, Batch, Estimate, Factorised, Rebar, Relax, ScoreFunction, UsageError
from archgrad.laboratory import Candidate, measure
from archgrad.laboratory.candidates import plain
from archgrad.laboratory.measuring import flat, shares
from archgrad.testing import exact_gradient, plain_space, toy
from tests.policies.test_policies import scrambled


class Relaxed:
    """f at the mean: one evaluation, no noise, biased wherever f is curved. A test's own, of a third party's form."""

    differentiates, independent, samples, epochs, learns = 1, True, 1, 1, False

    def propose(self, policy, generator):
        with torch.no_grad():
            return Batch(self.mean(policy).unsqueeze(-3))

    def mean(self, policy):
        return policy.marginals()

    def gradient(self, policy, batch, values):
        (slope,) = torch.autograd.grad(values.sum(), batch.h)
        total = (slope.squeeze(-3) * self.mean(policy)).sum()
        return Estimate(torch.autograd.grad(total, list(policy.parameters())))

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass


@pytest.fixture(scope="module")
def problem():
    return toy()


@pytest.fixture(scope="module")
def policy(problem):
    return scrambled(Factorised(problem.space).double(), scale=0.5)


def test_the_variance_of_one_sample_is_the_one_that_enumeration_gives(problem, policy):
    h = problem.space.enumerate().double()
    p = policy.log_prob(h).exp().detach()
    g = exact_gradient(policy, problem.f)[0]
    each = problem.f(h).reshape(-1, 1, 1) * (h - policy.marginals().detach())
    exact = float((p * (each - g).square().sum((-2, -1))).sum() / g.square().sum())
    row = measure(problem, policy, Candidate("r", lambda n, space: ScoreFunction(n, "none")), samples=1, draws=20000)
    assert row.quality.variance == pytest.approx(exact, rel=0.05)  # 20,000 draws: a standard error below 1%
    four = measure(problem, policy, Candidate("r", lambda n, space: ScoreFunction(n, "none")), samples=4, draws=20000)
    assert four.quality.variance == pytest.approx(exact / 4, rel=0.05)
    assert (row.samples, row.evaluations, four.samples, four.evaluations) == (1, 1, 4, 4)
    assert row.norm == pytest.approx(float(g.norm()))
    assert row.quality.draws == 20000
    assert row.seconds > 0


@pytest.mark.parametrize("baseline", ["none", "leave-one-out", "moving-average"])
def test_the_score_function_passes(problem, policy, baseline):
    candidate = Candidate(baseline, lambda n, space: ScoreFunction(n, baseline), training=40)
    row = measure(problem, policy, candidate, samples=4, draws=4000)
    assert not row.quality.biased
    assert row.quality.detectable < (0.2 if baseline == "none" else 0.1)
    assert row.quality.left_out == 0


def test_subtracting_the_batch_mean_is_flagged(problem, policy):
    """(n - 1) / n of the gradient, 6% off at 16 samples."""

    class WithItself(ScoreFunction):
        def advantage(self, values):
            return values - values.mean(-1, keepdim=True)

    row = measure(problem, policy, Candidate("mean", plain(WithItself)), samples=16, draws=8000)
    assert row.quality.verdict == "biased"
    assert row.quality.bias == pytest.approx(1 / 16, abs=0.02)


def test_a_relaxation_is_flagged_by_its_exact_bias(problem, policy):
    row = measure(problem, policy, Candidate("softmax", lambda n, space: Relaxed()), samples=16, draws=50)
    h = policy.marginals().unsqueeze(-3)
    g = exact_gradient(policy, problem.f)[0]
    wrong = torch.autograd.grad(problem.f(h).sum(), policy.alpha)[0]
    assert row.quality.verdict == "biased"
    assert row.quality.bias == pytest.approx(float((wrong - g).norm() / g.norm()))
    assert row.quality.variance == pytest.approx(0, abs=1e-12)
    assert (row.samples, row.evaluations) == (1, 1)


def test_one_by_one_measures_what_replicas_measure(problem, policy):
    make = lambda n, space: ScoreFunction(n)  # noqa: E731
    many = measure(problem, policy, Candidate("a", make), samples=4, draws=1500)
    single = measure(problem, policy, Candidate("a", make, runs=False), samples=4, draws=1500)
    assert single.quality.variance == pytest.approx(many.quality.variance, rel=0.15)
    assert single.quality.draws == 1500
    assert not single.quality.biased


def test_relaxed_evaluations_count_as_evaluations(problem, policy):
    row = measure(problem, policy, Candidate("rebar", lambda n, space: Rebar(n, learn="none")), samples=4, draws=300)
    assert (row.samples, row.evaluations) == (4, 12)
    row = measure(problem, policy, Candidate("relax", plain(Relax)), samples=4, draws=300)
    assert (row.samples, row.evaluations) == (4, 4)


def test_training_is_counted_and_then_frozen(problem, policy):
    made, alpha = [], policy.alpha.detach().clone()

    def make(n, space):
        made.append(Relax(n))
        return made[-1]

    row = measure(problem, policy, Candidate("relax", make, training=150), samples=4, draws=500)
    assert row.training_evaluations == 148  # whole batches, never more than was said
    assert made[0].learns is False
    fresh, generator = Relax(4), torch.Generator().manual_seed(0)
    fresh.propose(policy, generator)
    before = fresh.state_dict()["parameters"]
    assert any(not torch.equal(v, before[k]) for k, v in made[0].state_dict()["parameters"].items())
    assert torch.equal(policy.alpha, alpha)


def test_a_past_is_a_third_uniform_and_is_drawn_anew(problem):
    policy = Factorised(problem.space).double()
    target = one_hot(torch.zeros(problem.space.D, dtype=torch.long), problem.space.K)
    policy.alpha.data.copy_(100.0 * target)  # decided: what is not the mode came from the uniform part
    policy.alpha.data[0, 1] = 100.0  # and something to estimate
    pasts = []

    class Surrogate(ScoreFunction):
        def observe(self, h, values):
            assert torch.equal(values, problem.f(h))
            pasts.append(h)

    row = measure(problem, policy, Candidate("s", plain(Surrogate), training=90, preparations=3), samples=4, draws=100)
    assert row.training_evaluations == 90
    assert [len(h) for h in pasts] == [90] * 3
    assert not torch.equal(pasts[0], pasts[1])
    decided = [(h[:, 1:] == target[1:]).all(-1).all(-1) for h in pasts]
    assert all(bool(d[30:].all()) for d in decided)
    assert all(int(d[:30].sum()) < 15 for d in decided)
    assert row.quality.draws == 100


def test_what_is_not_finite_is_told_by_name(problem, policy):
    broken = dataclasses.replace(problem, f=lambda h: problem.f(h) / (h[..., 0, 0] != 1))
    with pytest.raises(UsageError, match=r"of odd at early of toy have NaN or infinite"):
        measure(broken, policy, Candidate("odd", plain(ScoreFunction)), samples=4, draws=50, alpha="early")


def test_a_gradient_of_zero_is_told(problem):
    flat_problem = dataclasses.replace(problem, expectation=lambda policy: 0 * policy.alpha.sum())
    with pytest.raises(UsageError, match="exact gradient of toy is 0"):
        measure(flat_problem, Factorised(problem.space), Candidate("a", plain(ScoreFunction)), samples=4, draws=50)


def test_wrong_pairings_are_refused_before_any_work(problem, policy):
    values_only = dataclasses.replace(problem, differentiable=0)
    with pytest.raises(UsageError, match=r"Relaxed differentiates f.*the problem toy gives values only"):
        measure(values_only, policy, Candidate("a", lambda n, space: Relaxed()), samples=4, draws=50)
    lstm = Autoregressive(problem.space, hidden=2).double()
    with pytest.raises(UsageError, match="independent decisions"):
        measure(problem, lstm, Candidate("a", lambda n, space: Relaxed()), samples=4, draws=50)


def test_equal_seeds_give_equal_numbers(problem, policy):
    a, b, c = (
        measure(problem, policy, Candidate("a", plain(ScoreFunction)), samples=4, draws=300, seed=s).quality
        for s in (1, 1, 2)
    )
    assert a == b
    assert a != c


def test_an_autoregressive_policy_is_measured_in_all_its_parameters():
    problem = toy(2, 3)
    policy = scrambled(Autoregressive(problem.space, hidden=3).double())
    row = measure(problem, policy, Candidate("a", plain(ScoreFunction)), samples=4, draws=3000)
    assert not row.quality.biased
    assert row.quality.coordinates + row.quality.left_out > sum(p.numel() for p in policy.parameters()) * 0.8


def test_small_parts():
    assert shares(10, 3) == [4, 3, 3]
    gradient = (torch.ones(5, 2, 3), torch.ones(5, 4))
    assert flat(gradient, 1).shape == (5, 10)
    assert plain_space(2).D == 1
