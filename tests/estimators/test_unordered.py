"""Sampling without replacement: its ratios against exact rationals, its expectation over every set there is."""

import itertools
import math
from fractions import Fraction

import pytest
import torch

from archgrad import Autoregressive, Batch, Factorised, ScoreFunction, UsageError
from archgrad.estimators.unordered import Unordered, outside, ratios, without_replacement
from archgrad.policies.replicated import replicated
from archgrad.testing import conditional_space, exact_gradient, plain_space, relative_error
from tests.estimators.test_score_function import POLICIES, curved
from tests.policies.test_policies import scrambled


def by_subsets(p, q):
    """p(s) R(S, s) and p(s') R(S without s, s') in rational arithmetic: P(S) by inclusion and exclusion."""
    n = len(p)

    def chance(left):
        subsets = (a for m in range(len(left) + 1) for a in itertools.combinations(left, m))
        return sum((-1) ** len(a) * q / (q + sum((p[i] for i in a), Fraction(0))) for a in subsets)

    def without(*gone):
        return chance([i for i in range(n) if i not in gone])

    first = [p[i] * without(i) / without() for i in range(n)]
    return first, [[p[j] * without(i, j) / without(i) if i != j else Fraction(0) for j in range(n)] for i in range(n)]


@pytest.mark.parametrize("n", [1, 2, 3, 6])
@pytest.mark.parametrize("q", [0.99, 0.5, 1e-2, 1e-6, 1e-12])
@pytest.mark.parametrize("spread", [0.1, 3.0, 20.0])
def test_the_ratios_are_exact_to_eleven_digits(n, q, spread):
    e = [math.exp(-spread * ((7 * i + 3) % 11) / 11) for i in range(n)]
    p = [x / sum(e) * (1 - q) for x in e]
    want = by_subsets([Fraction(x) for x in p], Fraction(q))
    first, second = ratios(*(torch.tensor(x, dtype=torch.float64) for x in (p, q)))
    for i in range(n):
        assert float(first[i]) == pytest.approx(float(want[0][i]), rel=1e-11)
        assert second[i].tolist() == pytest.approx([float(x) for x in want[1][i]], rel=1e-11, abs=0)


@pytest.mark.parametrize("n", [2, 16, 64, 200])
@pytest.mark.parametrize("q", [0.0, 1e-300, 1e-12, 1e-3, 0.5, 1 - 1e-6])
@pytest.mark.parametrize("spread", [1, 10, 700])
def test_the_ratios_estimate_one_for_sets_too_large_for_subsets(n, q, spread):
    """sum_s p(s) P(S | s first) = P(S), and the same among what is left after s: an identity for every set."""
    e = torch.exp(-spread * torch.rand(n, generator=torch.Generator().manual_seed(n), dtype=torch.float64))
    p = e / e.sum() * (1 - q)
    first, second = ratios(p, torch.tensor(q, dtype=torch.float64))
    others = (p.expand(n, n) * (1 - torch.eye(n))).sum(-1) + max(q, 1e-290)
    assert float(first.sum()) == pytest.approx(1, rel=1e-10)
    assert torch.allclose(second.sum(-1) / others, torch.ones(n).double(), rtol=0, atol=1e-10)


def test_many_runs_have_the_ratios_of_each():
    p = torch.rand(2, 70, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64) / 3
    q = 1 - p.sum(-1)
    first, second = ratios(p, q)
    for at in ((0, 0), (0, 69), (1, 0), (1, 69)):
        alone = ratios(p[at], q[at])
        assert torch.allclose(first[at], alone[0], rtol=1e-13)
        assert torch.allclose(second[at], alone[1], rtol=1e-13)


def sets(policy, k):
    """Every set of k architectures with its probability, which is the sum over the orders it can be drawn in."""
    h = policy.space.enumerate().to(next(policy.parameters()).dtype)
    p = policy.log_prob(h).exp().detach().double().tolist()
    for members in itertools.combinations(range(len(h)), k):
        total = 0.0
        for order in itertools.permutations(members):
            left, chance = 1.0, 1.0
            for i in order:
                chance *= p[i] / left
                left -= p[i]
            total += chance
        yield list(members), total


def expectation(estimator, policy, f, k):
    h = policy.space.enumerate().double()
    total = [torch.zeros_like(a) for a in policy.parameters()]
    for members, chance in sets(policy, k):
        estimate = estimator.gradient(policy, Batch(h[members]), f(h[members]))
        for t, g in zip(total, estimate.gradient, strict=True):
            t += chance * g
    return total


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize(("baseline", "k"), [("none", 1), ("none", 2), ("leave-one-out", 2), ("leave-one-out", 3)])
def test_is_unbiased(policy, baseline, k):
    policy = policy()
    got = expectation(Unordered(k, baseline), policy, curved, k)
    assert relative_error(got, exact_gradient(policy, curved)) < 1e-9


def test_one_sample_without_baseline_is_reinforce_and_the_whole_space_is_exact():
    policy = POLICIES[0]()
    h = policy.space.enumerate().double()
    (one,) = Unordered(1, "none").gradient(policy, Batch(h[2:3]), curved(h[2:3])).gradient
    (want,) = ScoreFunction(1, "none").gradient(policy, Batch(h[2:3]), curved(h[2:3])).gradient
    assert torch.allclose(one, want, rtol=1e-10)
    for baseline in ("none", "leave-one-out"):
        estimate = Unordered(6, baseline).gradient(policy, Batch(h), curved(h))
        assert relative_error(estimate.gradient, exact_gradient(policy, curved)) < 1e-12
        assert estimate.diagnostics["covered"] == pytest.approx(1)


def test_the_order_of_the_set_says_nothing_and_values_enter_linearly():
    policy, estimator = POLICIES[3](), Unordered(4)
    batch = estimator.propose(policy, torch.Generator().manual_seed(0))
    f, c = curved(batch.h), torch.sin(batch.h.flatten(1) @ torch.linspace(0, 5, 12).double())

    def gradient(values, rows=slice(None)):
        return estimator.gradient(policy, batch.rows(rows), values[rows]).gradient

    for whole, a, b, turned in zip(
        gradient(3 * f - c), gradient(f), gradient(c), gradient(3 * f - c, [2, 0, 3, 1]), strict=True
    ):
        assert torch.allclose(whole, 3 * a - b, atol=1e-12)
        assert torch.allclose(whole, turned, atol=1e-12)


@pytest.mark.parametrize("policy", POLICIES)
def test_the_sampler_draws_every_set_as_often_as_it_should(policy):
    """Chi-square on 20,000 sets of two, fixed seed, false alarm 1e-4; shares off by a tenth all over are seen."""
    from scipy.stats import chi2

    policy, n = policy(), 20_000
    h = without_replacement(replicated(policy, n), 2, torch.Generator().manual_seed(5))
    assert torch.equal(h, policy.space.canonical(h))
    place = {a: i for i, a in enumerate(policy.space.decode(policy.space.enumerate()))}
    drawn = torch.tensor([place[a] for a in policy.space.decode(h.flatten(0, 1))]).reshape(n, 2).sort(-1).values
    chances = {tuple(members): chance for members, chance in sets(policy, 2)}
    assert sum(chances.values()) == pytest.approx(1)
    count = dict.fromkeys(chances, 0)
    for pair in drawn.tolist():
        count[tuple(pair)] += 1
    big = [s for s in chances if chances[s] * n >= 5]
    cells = [(count[s], chances[s] * n) for s in big]
    cells.append((n - sum(o for o, _ in cells), n - sum(e for _, e in cells)))
    statistic = sum((o - e) ** 2 / e for o, e in cells if e > 1e-6)
    assert statistic < chi2.ppf(1 - 1e-4, len(cells) - 1)


def test_what_lies_outside_the_set_is_known_to_full_precision():
    """A policy that holds 1 - 1e-15 in two architectures: 1 minus a sum would leave one digit or none."""
    policy = Factorised(plain_space(2, 3, 2)).double()
    with torch.no_grad():
        policy.alpha[..., 0] = torch.tensor([0.5, 36.0, 37.0]).double()
    h = policy.space.encode([("a", "a", "a"), ("b", "a", "a")]).double()
    got = outside(policy, h, policy.conditionals(h)).detach()
    others = [a for a in policy.space.decode(policy.space.enumerate()) if a[1:] != ("a", "a")]
    want = policy.log_prob(policy.space.encode(others).double()).exp().sum().detach()
    assert float(got) == pytest.approx(float(want), rel=1e-12)
    assert float(got) < 1e-15
    for make in POLICIES:
        policy = make()
        h = policy.space.enumerate().double()
        p = policy.log_prob(h).exp()
        inside = h[[0, 2, 5]]
        rest = outside(policy, inside, policy.conditionals(inside))
        assert torch.allclose(rest, 1 - p[[0, 2, 5]].sum(), atol=1e-14)


def test_a_nearly_decided_policy_is_seen_far_more_sharply():
    """Exact variances at p(mode) = .9, four evaluations each: less than an eighth of leave-one-out's."""
    policy = Factorised(plain_space(2, 3)).double()
    with torch.no_grad():
        policy.alpha[..., 0] = 3.3
    exact = exact_gradient(policy, curved)[0]
    h = policy.space.enumerate().double()
    p = policy.log_prob(h).exp().detach()
    assert 0.85 < float(p.max()) < 0.95
    without = with_replacement = 0.0
    for members, chance in sets(policy, 4):
        (g,) = Unordered(4).gradient(policy, Batch(h[members]), curved(h[members])).gradient
        without += chance * float(((g - exact) ** 2).sum())
    for rows in itertools.product(range(6), repeat=4):
        (g,) = ScoreFunction(4).gradient(policy, Batch(h[list(rows)]), curved(h[list(rows)])).gradient
        with_replacement += float(p[list(rows)].prod() * ((g - exact) ** 2).sum())
    assert without < with_replacement / 8


def test_single_precision_agrees_with_double_late_in_a_search():
    double = Factorised(plain_space(5, 5, 5)).double()
    with torch.no_grad():
        double.alpha.copy_(scrambled(Factorised(plain_space(5, 5, 5))).alpha)
        double.alpha[..., 1] += 12
    single = Factorised(double.space)
    single.alpha.data.copy_(double.alpha)
    estimator = Unordered(16)
    batch = estimator.propose(double, torch.Generator().manual_seed(0))
    (want,) = estimator.gradient(double, batch, curved(batch.h)).gradient
    (got,) = estimator.gradient(single, Batch(batch.h.float()), curved(batch.h).float()).gradient
    assert got.dtype == torch.float32
    assert relative_error([got.double()], [want]) < 1e-4


@pytest.mark.parametrize("make", [Factorised, Autoregressive])
def test_runs_step_together_as_they_do_alone(make):
    space, estimator = conditional_space(), Unordered(5)
    many = scrambled(make(space, runs=(3,)).double())
    batch = estimator.propose(many, torch.Generator().manual_seed(0))
    assert batch.h.shape == (3, 5, 4, 3)
    together = estimator.gradient(many, batch, curved(batch.h)).gradient
    for r in range(3):
        one = make(space).double()
        with torch.no_grad():
            for p, q in zip(one.parameters(), many.parameters(), strict=True):
                p.copy_(q[r])
        assert len(set(space.decode(batch.h[r]))) == 5
        alone = estimator.gradient(one, Batch(batch.h[r]), curved(batch.h[r])).gradient
        for a, b in zip(alone, together, strict=True):
            assert torch.allclose(a, b[r], atol=1e-12)


def test_a_small_space_is_refused_before_f_is_asked():
    with pytest.raises(UsageError, match="has 6; use Exact"):
        Unordered(7).propose(POLICIES[0](), torch.Generator())
    policy = Factorised(plain_space(2, 3)).double()
    with torch.no_grad():
        policy.alpha[1, 1:] = -torch.inf
    with pytest.raises(UsageError, match="positive probability"):
        Unordered(3).propose(policy, torch.Generator())


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"samples": 1}, "at least 2"),
        ({"samples": 0, "baseline": "none"}, "at least 1"),
        ({"baseline": "mean"}, "mean"),
    ],
)
def test_impossible_settings_are_refused(arguments, says):
    with pytest.raises(UsageError, match=says):
        Unordered(**arguments)


def test_the_check_of_bias_sees_a_missing_ratio():
    """Its power: the leave-one-out mean of samples with replacement is off on samples without."""
    policy = POLICIES[0]()

    class Plain(Unordered):
        def gradient(self, policy, batch, values):
            return ScoreFunction(3).gradient(policy, batch, values)

    assert relative_error(expectation(Plain(3), policy, curved, 3), exact_gradient(policy, curved)) > 0.05
