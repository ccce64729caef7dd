"""ARSM: its mean over the uniforms, integrated exactly where cells are known, is the exact gradient."""

import itertools

import numpy as np
import pytest
import torch

from archgrad import Factorised, UsageError
from archgrad.estimators.arsm import ARSM
from archgrad.pairing import check_pairing
from archgrad.spaces.decisions import Decision, Decisions
from archgrad.testing import exact_gradient, plain_space, relative_error
from tests.estimators.known_noise import POLICIES, check_runs, curved, estimate, given
from tests.policies.test_policies import scrambled


def gauss(breaks, order):
    """Nodes and weights on [0, 1], ``order`` a cell between breaks."""
    ends = np.unique(np.clip(np.concatenate([[0.0], breaks, [1.0]]), 0, 1))
    x, w = np.polynomial.legendre.leggauss(order)
    width = np.diff(ends)[:, None]
    return (ends[:-1, None] + width * (x + 1) / 2).reshape(-1), (width * w / 2).reshape(-1)


def two_choices(policy):
    """pi ``[n, D, 2]`` and weights: within cells that end where a sample or its swap changes all is linear in pi."""
    p = policy.marginals().detach()[:, 0].numpy()
    nodes = [gauss([q, 1 - q], 2) for q in p]
    pi = [[[x, 1 - x] for x in point] for point in itertools.product(*[x for x, _ in nodes])]
    weights = [np.prod(w) for w in itertools.product(*[w for _, w in nodes])]
    return torch.tensor(np.array(pi)), torch.tensor(np.array(weights))


def three_choices(p):
    """pi ``[n, 3]`` and weights over the triangle, for one decision with probabilities p (some may be 0).

    Samples change on the lines pi_a / pi_c = p_b / p_d. With s = pi_0 + pi_1 and r = pi_0 / s these are breaks of s
    given r, and where two of them meet, breaks of r; the density is 2 s.
    """
    ratios = sorted({a / b for a in p for b in p if a > 0 and b > 0})
    meets = {c / e for c in ratios for e in ratios}
    points, weights = [], []
    for r, wr in zip(*gauss([c / (1 + c) for c in meets], 8), strict=True):
        breaks = [c / (r + c) for c in ratios] + [c / (1 - r + c) for c in ratios]
        for s, ws in zip(*gauss(breaks, 2), strict=True):
            points.append([s * r, s * (1 - r), 1 - s])
            weights.append(2 * s * wr * ws)
    return torch.tensor(points, dtype=torch.float64), torch.tensor(weights, dtype=torch.float64)


def mean(policy, f, pi, weights):
    with given(torch.exp(-pi)):
        return estimate(
            ARSM(len(pi)), policy, f, weights=weights.repeat_interleave(POINTS[policy.space.K]) / POINTS[policy.space.K]
        )


POINTS = {2: 2, 3: 4}


@pytest.mark.parametrize(
    "space",
    [
        plain_space(2, 2, 2),
        plain_space(2, 1),
        Decisions(
            [Decision("kind", ("a", "b")), Decision("x", ("a", "b"), ((0, 1),)), Decision("y", ("a", "b"), ((1, 0),))]
        ),
    ],
    ids=["plain", "ragged", "conditional"],
)
def test_is_unbiased_with_two_choices(space):
    policy = scrambled(Factorised(space).double())
    got = mean(policy, curved, *two_choices(policy))
    assert relative_error(got, exact_gradient(policy, curved)) < 1e-9


def test_is_unbiased_with_three_choices():
    policy = scrambled(Factorised(plain_space(3)).double())
    pi, weights = three_choices(policy.marginals().detach()[0].tolist())
    assert weights.sum() == pytest.approx(1, rel=1e-9)
    got = mean(policy, curved, pi.unsqueeze(-2), weights)
    assert relative_error(got, exact_gradient(policy, curved)) < 1e-7


def test_a_choice_that_does_not_exist_leaves_it_unbiased():
    """Two of three choices; f looks at this decision alone, so the other one's pi may be anything."""
    policy = scrambled(Factorised(plain_space(2, 3)).double())
    pi, weights = three_choices(policy.marginals().detach()[0].tolist())
    other = torch.tensor([0.2, 0.5, 0.3]).double().expand_as(pi)

    def f(h):
        return (h[..., 0, :] @ torch.tensor([3.0, -1.0, 1e6]).double()) ** 2

    (got,) = mean(policy, f, torch.stack([pi, other], -2), weights)
    (want,) = exact_gradient(policy, f)
    assert torch.allclose(got[0], want[0], rtol=1e-7)
    assert want[0].abs().max() > 1


@pytest.mark.parametrize("name", ["factorised, ragged", "factorised, conditional"])
def test_is_unbiased_on_ragged_and_conditional_spaces(name):
    """By 2^16 Sobol points, a fixed number and no statistics; a bias of 2% would show."""
    policy = POLICIES[name]()
    space, n = policy.space, 2**16
    u = torch.quasirandom.SobolEngine(space.D * space.K, scramble=True, seed=0).draw(n).double()
    with given(u.reshape(n, space.D, space.K)):
        got = estimate(ARSM(n), policy, curved)
    assert relative_error(got, exact_gradient(policy, curved)) < 0.01


@pytest.mark.parametrize(
    ("target", "logit", "gradient", "variance"), [(0.499, 0.0, 5e-4, 8.33e-8), (0.45, 1.0, 1.966119e-2, 3.645e-4)]
)
def test_with_two_choices_it_is_arm(target, logit, gradient, variance):
    """f = (b - t)^2: gradient and variance of one estimate from one uniform and two evaluations."""
    policy = Factorised(plain_space(2)).double()
    with torch.no_grad():
        policy.alpha[0, 1] = logit

    def f(h):
        return (h[..., 0, 1] - target) ** 2

    pi, weights = two_choices(policy)
    one = []
    for point in pi:
        with given(torch.exp(-point).unsqueeze(0)):
            one.append(float(estimate(ARSM(1), policy, f)[0][0, 1]))
    g, w = np.array(one), weights.numpy()
    assert w @ g == pytest.approx(gradient, rel=1e-5)
    assert w @ g**2 - (w @ g) ** 2 == pytest.approx(variance, rel=1e-3)


def test_is_the_published_sum():
    """Written out for one sample: three choices each, so that the mean over swaps is no constant."""
    policy = scrambled(Factorised(plain_space(3, 3)).double())
    batch = ARSM(1).propose(policy, torch.Generator().manual_seed(2))
    (got,) = ARSM(1).gradient(policy, batch, curved(batch.h)).gradient
    pi, phi = batch.memo["pi"][0], policy.alpha.detach()

    def f(k, j):
        swapped = pi.clone()
        swapped[:, [k, j]] = pi[:, [j, k]]
        z = (swapped.log() - phi).argmin(-1)
        return curved(torch.nn.functional.one_hot(z, 3).double().unsqueeze(0))[0]

    want = torch.zeros(2, 3).double()
    for d, k, j in itertools.product(range(2), range(3), range(3)):
        mean_f = sum(f(m, j) for m in range(3)) / 3
        want[d, k] += (f(k, j) - mean_f) * (1 / 3 - pi[d, j])
    assert torch.allclose(got, want, atol=1e-12)
    assert len({float(v) for v in curved(batch.h)}) > 2


def test_a_decision_without_a_choice_is_not_moved():
    policy = scrambled(Factorised(plain_space(1, 3)).double())
    (g,) = estimate(ARSM(2), policy, curved)
    assert torch.allclose(g[0], torch.zeros(3).double(), atol=1e-12)
    assert g[1].abs().min() > 1e-3


def test_asks_f_once_as_it_is_and_once_a_swap():
    for k, points in ((2, 2), (3, 4), (5, 11)):
        policy = Factorised(plain_space(k, 2)).double()
        batch = ARSM(3).propose(policy, torch.Generator().manual_seed(0))
        assert len(batch) == 3 * points
        pi = batch.memo["pi"]
        assert torch.equal(pi[::points].repeat_interleave(points, 0), pi)
        assert torch.equal(batch.h, policy.space.canonical(batch.h))
        assert len(policy.space.decode(batch.h.float())) == len(batch)  # every row an architecture


def test_two_samples_are_the_mean_of_two_estimates():
    policy = POLICIES["factorised, ragged"]()
    batch = ARSM(2).propose(policy, torch.Generator().manual_seed(0))
    parts = [batch.rows(slice(0, 4)), batch.rows(slice(4, 8))]
    (both,) = ARSM(2).gradient(policy, batch, curved(batch.h)).gradient
    first, second = (ARSM(1).gradient(policy, b, curved(b.h)).gradient[0] for b in parts)
    assert torch.allclose(both, (first + second) / 2, atol=1e-12)


@pytest.mark.parametrize("name", ["factorised, ragged", "factorised, conditional"])
def test_runs(name):
    check_runs(POLICIES[name], lambda: ARSM(3), curved)


def test_wrong_use_is_refused():
    with pytest.raises(UsageError, match="samples should be at least 1"):
        ARSM(0)
    with pytest.raises(UsageError, match="independent decisions"):
        check_pairing(POLICIES["autoregressive, ragged"](), ARSM(), 0, "this solver")
