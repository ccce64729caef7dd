"""Re-use of old samples: the pooled estimate where nothing moved, a guard where too much did, a bias that is known."""

import math

import pytest
import torch

from archgrad import Autoregressive, Batch, Factorised, ScoreFunction, UsageError
from archgrad.estimators.reuse import Reuse
from archgrad.policies.replicated import replicated
from archgrad.testing import check_unbiased, conditional_space, exact_gradient, plain_space
from tests.estimators.test_score_function import POLICIES, curved
from tests.policies.test_policies import scrambled


def batches_of(estimator, policy, seeds):
    return [estimator.propose(policy, torch.Generator().manual_seed(s)) for s in seeds]


def assert_equal(got, want, atol=1e-12):
    for a, b in zip(got, want, strict=True):
        assert torch.allclose(a, b, atol=atol)


def shifted(policy, by):
    with torch.no_grad():
        for i, p in enumerate(policy.parameters()):
            p += by * torch.randn(p.shape, generator=torch.Generator().manual_seed(i), dtype=p.dtype)


@pytest.mark.parametrize("policy", POLICIES)
def test_alone_it_is_the_score_function_and_unbiased(policy):
    check_unbiased(lambda: Reuse(2), policy(), curved)


@pytest.mark.parametrize("policy", POLICIES)
def test_with_alpha_unchanged_it_is_the_score_function_of_the_pooled_sample(policy):
    policy, reuse = policy(), Reuse(5)
    batches = batches_of(reuse, policy, range(4))
    for batch in batches:
        estimate = reuse.gradient(policy, batch, curved(batch.h))
    assert estimate.diagnostics["pool"] == 20
    assert estimate.diagnostics["effective"] == pytest.approx(20)
    pooled = Batch(torch.cat([b.h for b in batches]))
    assert_equal(estimate.gradient, ScoreFunction(20).gradient(policy, pooled, curved(pooled.h)).gradient)


def test_it_is_the_weighted_score_function_by_hand():
    policy, reuse = POLICIES[3](), Reuse(4, least=0)
    old, new = batches_of(reuse, policy, range(2))
    reuse.gradient(policy, old, curved(old.h))
    shifted(policy, 0.7)
    got = reuse.gradient(policy, new, curved(new.h))  # late: drawn before alpha moved
    h, f = torch.cat([old.h, new.h]), curved(torch.cat([old.h, new.h]))
    ratio = (policy.log_prob(h).detach() - torch.cat([old.memo["log_prob"], new.memo["log_prob"]])).exp()
    w = ratio / ratio.sum()
    baseline = torch.stack([(w * f)[torch.arange(8) != i].sum() / w[torch.arange(8) != i].sum() for i in range(8)])
    assert_equal(got.gradient, policy.score(h, w * (f - baseline)))
    assert got.diagnostics["effective"] == pytest.approx(float(1 / (w**2).sum()))
    assert w.max() > 1.5 * w.min()


def test_old_batches_that_no_longer_speak_for_p_are_left_out():
    space = plain_space(2, 2)
    policy, reuse = Factorised(space).double(), Reuse(6, least=0.6)
    with torch.no_grad():
        policy.alpha[:, 0] = 2
    first, second = batches_of(reuse, policy, (0, 1))
    assert reuse.gradient(policy, first, curved(first.h)).diagnostics["pool"] == 6
    assert reuse.gradient(policy, second, curved(second.h)).diagnostics["pool"] == 12
    with torch.no_grad():
        policy.alpha[:, 0] = -6  # of the old samples only those with b, b are probable now
    (third,) = batches_of(reuse, policy, (2,))
    values = torch.linspace(0, 1, 6).double()
    estimate = reuse.gradient(policy, third, values)
    assert estimate.diagnostics["pool"] == 6
    assert_equal(estimate.gradient, ScoreFunction(6).gradient(policy, third, values).gradient)
    assert min(float(policy.log_prob(b.h).detach().min()) for b in (first, second)) < -11
    keeping = Reuse(6, least=0.0)
    for batch in (first, second):
        keeping.gradient(policy, batch, curved(batch.h))
    assert keeping.gradient(policy, third, values).diagnostics["pool"] == 18


def test_the_guard_asks_for_the_fraction_it_says_and_takes_the_largest_pool_that_has_it():
    reuse = Reuse(2, least=0.75)
    weights, effective, kept = reuse._weights(torch.tensor([1.0, 1, 2, 2, 40, 40]).double().log(), [2, 2, 2])
    assert kept == 4
    assert float(effective) == pytest.approx(36 / 10)
    assert weights.tolist() == pytest.approx([1 / 6, 1 / 6, 1 / 3, 1 / 3, 0, 0])
    assert Reuse(2, least=0.95)._weights(torch.tensor([1.0, 1, 2, 2]).double().log(), [2, 2])[2] == 2
    # two odd batches in the middle of a pool of equals: the whole pool has enough
    log_ratio = torch.zeros(20).double()
    log_ratio[2:4] = math.log(2.0)
    assert Reuse(2, least=0.93)._weights(log_ratio[:4], [2, 2])[2] == 2
    assert Reuse(2, least=0.92)._weights(log_ratio, [2] * 10)[2] == 20


def test_the_memory_is_as_long_as_it_says():
    policy, reuse = POLICIES[0](), Reuse(3, memory=2)
    pools = [
        reuse.gradient(policy, batch, curved(batch.h)).diagnostics["pool"]
        for batch in batches_of(reuse, policy, range(4))
    ]
    assert pools == [3, 6, 6, 6]


def bias(n, f):
    """Exact bias, relative, of n samples of one binary decision drawn at p(b) = 1/2 and used at p(b) = .77."""
    policy = Factorised(plain_space(2)).double()
    with torch.no_grad():
        policy.alpha[0, 1] = 1.2
    a, b = policy.space.enumerate().double()
    total = 0.0
    for m in range(n + 1):
        h = torch.stack([b] * m + [a] * (n - m))
        batch = Batch(h, {"log_prob": torch.full((n,), math.log(0.5)).double()})
        estimate = Reuse(n).gradient(policy, batch, f(h)).gradient[0][0, 1]
        total += math.comb(n, m) / 2**n * float(estimate)
    exact = float(exact_gradient(policy, f)[0][0, 1])
    return total / exact - 1


def test_the_bias_of_samples_from_elsewhere_falls_as_one_over_their_number():
    biases = {n: bias(n, lambda h: 2 + 3 * h[..., 0, 1]) for n in (8, 16, 32, 64, 128)}
    assert abs(biases[8]) > 0.005  # it is biased, and says so
    for n in (32, 64):
        assert biases[n] / biases[2 * n] == pytest.approx(2, abs=0.1)


@pytest.mark.parametrize("make", [Factorised, Autoregressive])
def test_a_resumed_one_goes_on_equally_and_a_frozen_one_stays(make):
    torch.manual_seed(0)
    policy, reuse = scrambled(make(conditional_space()).double()), Reuse(4)
    for batch in batches_of(reuse, policy, range(3)):
        reuse.gradient(policy, batch, curved(batch.h))
        shifted(policy, 0.05)
    resumed = Reuse(4)
    resumed.load_state_dict(reuse.state_dict())
    first, second = batches_of(reuse, policy, (7, 8))
    for batch in (first, second):
        a = reuse.gradient(policy, batch, curved(batch.h))
        b = resumed.gradient(policy, batch, curved(batch.h))
        assert a.diagnostics == b.diagnostics
        for x, y in zip(a.gradient, b.gradient, strict=True):
            assert torch.equal(x, y)
    assert a.diagnostics["pool"] > 4
    reuse.learns = False
    a, b = (reuse.gradient(policy, first, curved(first.h)).gradient for _ in range(2))
    for x, y in zip(a, b, strict=True):
        assert torch.equal(x, y)


@pytest.mark.parametrize(("make", "step"), [(Factorised, 1.0), (Autoregressive, 0.15)])
def test_runs_step_together_as_they_do_alone_each_with_its_own_pool(make, step):
    torch.manual_seed(0)
    space = conditional_space()
    many, together = scrambled(make(space, runs=(3,)).double()), Reuse(4, least=0.85)
    ones, alone = [make(space).double() for _ in range(3)], [Reuse(4, least=0.85) for _ in range(3)]
    pools = set()
    for seed in range(4):
        batch = together.propose(many, torch.Generator().manual_seed(seed))
        estimate = together.gradient(many, batch, curved(batch.h)).gradient
        for r, (one, reuse) in enumerate(zip(ones, alone, strict=True)):
            with torch.no_grad():
                for p, q in zip(one.parameters(), many.parameters(), strict=True):
                    p.copy_(q[r])
            single = Batch(batch.h[r], {"log_prob": batch.memo["log_prob"][r]})
            got = reuse.gradient(one, single, curved(batch.h[r]))
            pools.add((seed, got.diagnostics["pool"]))
            assert_equal(got.gradient, [g[r] for g in estimate])
        with torch.no_grad():
            for p in many.parameters():
                p += step * torch.randn(p.shape, generator=torch.Generator().manual_seed(seed), dtype=p.dtype)
    assert len(pools) > 4, "the runs should differ in how much they keep, or the test says little"


def test_what_one_run_kept_serves_many_replicas():
    policy, reuse = POLICIES[1](), Reuse(4)
    (old,) = batches_of(reuse, policy, (0,))
    reuse.gradient(policy, old, curved(old.h))
    reuse.learns = False
    many = replicated(policy, 3)
    batch = reuse.propose(many, torch.Generator().manual_seed(1))
    (together,) = reuse.gradient(many, batch, curved(batch.h)).gradient
    for r in range(3):
        single = Batch(batch.h[r], {"log_prob": batch.memo["log_prob"][r]})
        (alone,) = reuse.gradient(policy, single, curved(batch.h[r])).gradient
        assert torch.allclose(together[r], alone, atol=1e-12)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [({"samples": 1}, "at least 2"), ({"memory": 0}, "at least 1"), ({"least": 1.5}, "a fraction of the pool")],
)
def test_impossible_settings_are_refused(arguments, says):
    with pytest.raises(UsageError, match=says):
        Reuse(**arguments)
