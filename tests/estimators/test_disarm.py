"""DisARM: its mean over all pairs there are, by cells of the uniforms behind the coins, is the exact gradient."""

import itertools

import pytest
import torch

from archgrad import Factorised, UsageError
from archgrad.estimators.disarm import DisARM, log_odds, toss, tree
from archgrad.policies.sequence import gumbel
from archgrad.testing import conditional_space, exact_gradient, plain_space, relative_error
from tests.estimators.known_noise import POLICIES, check_runs, curved, estimate, given, one_level_space, recurrent
from tests.policies.test_policies import scrambled


def cells(policy):
    """Every combination of cells between the uniforms where a coin of either sample turns: ``[n, D, K]``, weights.

    Representatives and probabilities. A coin turns at sigmoid(eta), its antithetic one at 1 - sigmoid(eta), eta of any
    prefix that has the coin.
    """
    space = policy.space
    h = space.enumerate().double()
    eta = log_odds(policy.conditionals(h).detach())
    on = (eta.abs() < 1e9) * space.active(h).unsqueeze(-1)
    columns = []
    for d in range(space.D):
        for node in range(space.K - 1):
            p = eta[:, d, node][on[:, d, node] > 0].sigmoid()
            ends = torch.cat([torch.tensor([0.0, 1.0]).double(), p, 1 - p]).sort().values
            ends = ends[torch.cat([torch.tensor([True]), ends.diff() > 1e-12])]
            columns.append(list(zip(((ends[1:] + ends[:-1]) / 2).tolist(), ends.diff().tolist(), strict=True)))
        columns.append([(0.5, 1.0)])  # a uniform that no coin uses
    grid = torch.tensor(list(itertools.product(*columns)), dtype=torch.float64)  # [n, D K, 2]
    return grid[..., 0].reshape(-1, space.D, space.K), grid[..., 1].prod(-1)


def all_pairs(policy):
    """What propose draws, for all pairs: the shared uniforms and, under a dependent policy, the later own ones."""
    u, weights = cells(policy)
    if policy.independent:
        return (u,), weights
    v, own = u.clone(), weights.clone()
    n, m = len(u), len(v)
    return (u.repeat_interleave(m, 0), v.repeat(n, 1, 1)), (weights.unsqueeze(-1) * own).flatten()


SMALL = {
    "factorised": lambda: scrambled(Factorised(plain_space(2, 2, 2)).double()),
    "factorised, ragged": lambda: scrambled(Factorised(plain_space(2, 3)).double()),
    "factorised, five choices": lambda: scrambled(Factorised(plain_space(5, 2)).double()),
    "factorised, conditional": lambda: scrambled(Factorised(conditional_space()).double()),
    "autoregressive": lambda: recurrent(plain_space(2, 2, 2)),
    "autoregressive, ragged": lambda: recurrent(plain_space(2, 3)),
    "autoregressive, conditional": lambda: recurrent(one_level_space()),
}


@pytest.mark.parametrize("make", SMALL.values(), ids=SMALL)
def test_is_unbiased(make):
    policy = make()
    noise, weights = all_pairs(policy)
    assert weights.sum() == pytest.approx(1, rel=1e-12)
    with given(*noise):
        got = estimate(DisARM(2 * len(weights)), policy, curved, weights=weights.repeat_interleave(2) / 2)
    assert relative_error(got, exact_gradient(policy, curved)) < 1e-9


@pytest.mark.parametrize("make", SMALL.values(), ids=SMALL)
def test_either_sample_of_a_pair_has_the_policy_s_law(make):
    policy = make()
    noise, weights = all_pairs(policy)
    with given(*noise):
        h = DisARM(2 * len(weights)).propose(policy, torch.Generator()).h
    every = policy.space.enumerate().double()
    p = policy.log_prob(every).exp().detach()
    for sample in (h[::2], h[1::2]):
        same = (sample.unsqueeze(1) == every).flatten(2).all(-1).double()
        assert torch.allclose(weights @ same, p, atol=1e-12)


@pytest.mark.parametrize(
    ("target", "logit", "gradient", "variance"), [(0.499, 0.0, 5e-4, 0.0), (0.45, 1.0, 1.966119e-2, 3.321e-4)]
)
def test_one_coin_has_the_published_variance(target, logit, gradient, variance):
    """f = (b - t)^2: gradient and variance of one estimate from one uniform and two evaluations."""
    policy = Factorised(plain_space(2)).double()
    with torch.no_grad():
        policy.alpha[0, 1] = logit
    noise, weights = cells(policy)
    one = []
    for u in noise:
        with given(u.unsqueeze(0)):
            one.append(estimate(DisARM(2), policy, lambda h: (h[..., 0, 1] - target) ** 2)[0][0, 1])
    g = torch.stack(one)
    mean = (weights * g).sum()
    assert float(mean) == pytest.approx(gradient, rel=1e-5)
    assert float((weights * g**2).sum() - mean**2) == pytest.approx(variance, rel=1e-3, abs=1e-18)


def test_a_coin_with_one_side_contributes_nothing():
    """The padded choices of a ragged space, and a decision without any choice to make."""
    policy = scrambled(Factorised(plain_space(1, 5)).double())
    (g,) = estimate(DisARM(20), policy, curved)
    assert torch.isfinite(g).all()
    assert (g[0] == 0).all()
    assert (g[1] != 0).all()
    (g,) = estimate(DisARM(4), Factorised(plain_space(1, 1)).double(), curved)
    assert g.tolist() == [[0], [0]]


def test_extreme_uniforms_never_take_a_side_without_choices():
    log_p = torch.tensor([0.0, -torch.inf, -torch.inf, -torch.inf, -torch.inf])
    for choice, u, dtype in itertools.product(range(5), (0.0, 1.0), (torch.float32, torch.float64)):
        h = toss(log_p.roll(choice).to(dtype), gumbel(torch.full((5,), u, dtype=dtype)))
        assert h.tolist() == [float(k == choice) for k in range(5)]


def test_a_tree_has_every_choice_at_its_own_leaf():
    for k in range(1, 9):
        left, right = tree(k)
        assert left.shape == (k - 1, k)
        assert not (left & right).any()
        assert left.any(-1).all()
        assert right.any(-1).all()
        depth = (left | right).sum(0)
        assert depth.max() - depth.min() <= 1  # balanced
        paths = {tuple((left[:, c].long() - right[:, c].long()).tolist()) for c in range(k)}
        assert len(paths) == k


def test_two_pairs_are_the_mean_of_two_estimates():
    policy = POLICIES["autoregressive, conditional"]()
    batch = DisARM(4).propose(policy, torch.Generator().manual_seed(3))
    both = DisARM(4).gradient(policy, batch, curved(batch.h)).gradient
    parts = [batch.rows(slice(0, 2)), batch.rows(slice(2, 4))]
    first, second = (DisARM().gradient(policy, b, curved(b.h)).gradient for b in parts)
    for a, b, c in zip(first, second, both, strict=True):
        assert torch.allclose((a + b) / 2, c, atol=1e-12)


@pytest.mark.parametrize("make", POLICIES.values(), ids=POLICIES)
def test_runs(make):
    check_runs(make, lambda: DisARM(6), curved)


@pytest.mark.parametrize("samples", [0, 1, 3, -2])
def test_an_odd_number_of_samples_is_refused(samples):
    with pytest.raises(UsageError, match="even, as they come in antithetic pairs"):
        DisARM(samples)
