"""REINFORCE: its expectation over every batch there is, against the exact gradient."""

import pytest
import torch

from archgrad import Autoregressive, Batch, Factorised, ScoreFunction, UsageError
from archgrad.testing import (
    Replay,
    check_unbiased,
    conditional_space,
    exact_gradient,
    expected_estimate,
    plain_space,
    relative_error,
)
from tests.policies.test_policies import scrambled


def curved(h):
    """A value for every architecture, with interactions, far from centred: a baseline matters."""
    weight = torch.linspace(-1, 2, h.shape[-1] * h.shape[-2], dtype=h.dtype).reshape(h.shape[-2:])
    s = (weight * h).sum((-2, -1))
    return 3 + s + s**2 + torch.cos(3 * s)


POLICIES = [
    lambda: scrambled(Factorised(plain_space(2, 3)).double()),
    lambda: scrambled(Factorised(conditional_space()).double()),
    lambda: scrambled(Autoregressive(plain_space(2, 3), hidden=4, generator=torch.Generator().manual_seed(0)).double()),
    lambda: scrambled(
        Autoregressive(conditional_space(), hidden=4, generator=torch.Generator().manual_seed(0)).double()
    ),
]


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize(
    ("baseline", "samples"), [("none", 1), ("none", 2), ("leave-one-out", 2), ("moving-average", 2)]
)
def test_is_unbiased(policy, baseline, samples):
    check_unbiased(lambda: ScoreFunction(samples, baseline), policy(), curved)


def test_is_unbiased_with_a_leave_one_out_baseline_of_three():
    check_unbiased(lambda: ScoreFunction(3, "leave-one-out"), POLICIES[0](), curved)


def test_a_baseline_that_contains_the_current_value_would_be_seen():
    """The power of the test above: subtracting the batch mean shrinks the estimate by (n - 1) / n."""

    class WithItself(ScoreFunction):
        def advantage(self, values):
            return values - values.mean(-1, keepdim=True)

    with pytest.raises(AssertionError, match="biased"):
        check_unbiased(lambda: WithItself(2), POLICIES[0](), curved)


def test_the_moving_average_is_of_earlier_batches_only():
    policy, estimator = POLICIES[0](), ScoreFunction(2, "moving-average", decay=0.5)
    h = policy.space.enumerate().double()[:2]
    assert estimator.advantage(torch.tensor([4.0, 6.0])).tolist() == [4, 6]
    estimator.gradient(policy, Batch(h), torch.tensor([4.0, 6.0]).double())
    assert estimator.advantage(torch.tensor([100.0, 0.0])).tolist() == [95, -5]
    estimator.gradient(policy, Batch(h), torch.tensor([1.0, 1.0]).double())
    assert estimator.advantage(torch.tensor([0.0, 0.0])).tolist() == [-3, -3]  # (5 + 1) / 2

    restored = ScoreFunction(2, "moving-average", decay=0.5)
    restored.load_state_dict(estimator.state_dict())
    assert restored.advantage(torch.tensor([0.0])).tolist() == [-3]


def test_the_entropy_bonus_has_the_gradient_of_the_entropy():
    """With f = 0 what is left is - entropy * dH/dalpha, exact on average for either policy."""
    for make in POLICIES:
        policy = make()
        h = policy.space.enumerate().double()
        p = policy.log_prob(h).exp()
        want = torch.autograd.grad((p * p.log()).sum(), list(policy.parameters()))
        got = expected_estimate(lambda: ScoreFunction(2, entropy=1.0), policy, lambda h: torch.zeros(len(h)).double())
        assert relative_error(got, want) < 1e-9


def test_a_leave_one_out_baseline_lowers_the_variance():
    """Exact variances by enumeration, not samples: the sum of squares over every batch of two."""
    policy = POLICIES[0]()
    h = policy.space.enumerate().double()
    p = policy.log_prob(h).exp().detach()
    exact = exact_gradient(policy, curved)[0]
    variance = {}
    for baseline in ("none", "leave-one-out"):
        total = 0.0
        for i in range(len(h)):
            for j in range(len(h)):
                pair = h[[i, j]]
                (g,) = ScoreFunction(2, baseline).gradient(policy, Batch(pair), curved(pair)).gradient
                total += float(p[i] * p[j] * ((g - exact) ** 2).sum())
        variance[baseline] = total
    assert variance["leave-one-out"] < 0.5 * variance["none"]


def test_standardising_makes_the_step_blind_to_the_scale_of_f():
    policy = POLICIES[0]()
    batch = ScoreFunction(4).propose(policy, torch.Generator().manual_seed(0))
    (a,) = ScoreFunction(4, standardise=True).gradient(policy, batch, curved(batch.h)).gradient
    (b,) = ScoreFunction(4, standardise=True).gradient(policy, batch, 7 + 1000 * curved(batch.h)).gradient
    assert torch.allclose(a, b)
    (flat,) = ScoreFunction(4, standardise=True).gradient(policy, batch, torch.ones(4).double()).gradient
    assert (flat == 0).all()
    rounded = torch.tensor([3.0, 3.0, 3.0, 3.0 + 2**-51]).double()
    (flat,) = ScoreFunction(4, "none", standardise=True).gradient(policy, batch, rounded).gradient
    assert flat.abs().max() < 4


def test_runs_step_together_as_they_do_alone():
    space = plain_space(2, 3)
    many = scrambled(Factorised(space, runs=(3,)).double())
    batch = ScoreFunction(4).propose(many, torch.Generator().manual_seed(0))
    (together,) = ScoreFunction(4).gradient(many, batch, curved(batch.h)).gradient
    for r in range(3):
        one = Factorised(space).double()
        one.alpha.data.copy_(many.alpha[r])
        (alone,) = ScoreFunction(4).gradient(one, Batch(batch.h[r]), curved(batch.h[r])).gradient
        assert torch.allclose(alone, together[r], atol=1e-12)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"samples": 1}, "at least 2"),
        ({"samples": 0, "baseline": "none"}, "at least 1"),
        ({"baseline": "mean"}, "none, moving-average, leave-one-out or learned"),
        ({"decay": 1.0}, "in \\[0, 1\\)"),
    ],
)
def test_impossible_settings_are_refused_before_any_work(arguments, says):
    with pytest.raises(UsageError, match=says):
        ScoreFunction(**arguments)


def test_replay_is_the_same_distribution():
    policy = POLICIES[0]()
    h = policy.space.enumerate().double()[:3]
    assert torch.equal(Replay(policy, h).log_prob(h), policy.log_prob(h))
