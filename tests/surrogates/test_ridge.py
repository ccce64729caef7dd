"""Linear and Pairwise: the marginal likelihood is one, it finds the noise, and no double descent."""

import math

import pytest
import torch

from archgrad.surrogates import Linear, Pairwise
from archgrad.surrogates.evidence import ridge
from archgrad.testing import plain_space

SPACE = plain_space(4, 4, 4, 4, 4)


def draws(n, seed, pairs=0.5, noise=0.0):
    """h, and f with additive and pairwise effects of the deviations 1 and ``pairs``, plus noise."""
    g = torch.Generator().manual_seed(99)
    D, K = SPACE.D, SPACE.K
    table = torch.randn(D, K, generator=g, dtype=torch.float64) / D**0.5
    both = torch.randn(D, D, K, K, generator=g, dtype=torch.float64).triu(0) * pairs / D
    h = SPACE.uniform(n, torch.Generator().manual_seed(seed)).double()
    keep = torch.ones(D, D).triu(1).double()
    y = (h * table).sum((-2, -1)) + torch.einsum("ndk,nel,dekl,de->n", h, h, both, keep)
    return h, y + noise * torch.randn(n, generator=torch.Generator().manual_seed(seed + 1), dtype=torch.float64)


def test_the_likelihood_is_a_gaussian_density_at_its_best_scale():
    """Against torch's multivariate normal; the strength chosen is the best of a finer search by hand."""
    h, y = draws(40, 0, noise=0.5)
    y = y - y.mean()
    x = h.flatten(1)
    gram, n = x @ x.T, len(y)

    def density(s):
        c = gram + s * torch.eye(n, dtype=torch.float64)
        scale = y @ torch.linalg.solve(c, y) / n
        return float(torch.distributions.MultivariateNormal(torch.zeros(n).double(), scale * c).log_prob(y))

    dual, likelihood = ridge(gram, y)
    constant = -n / 2 * (1 + math.log(2 * math.pi))
    best = max(density(s) for s in torch.logspace(-4, 3, 200).tolist())
    assert likelihood + constant == pytest.approx(best, abs=0.02)
    residual = y - gram @ dual  # = strength * dual
    strength = float((residual / dual).median())
    assert density(strength) == pytest.approx(likelihood + constant, abs=1e-6)


def test_finds_the_noise():
    """The strength is noise variance over effect variance: within a factor of two with 400 points."""
    h, y = draws(400, 2, pairs=0.0, noise=0.5)
    y = y - y.mean()
    x = h.flatten(1)
    dual, _ = ridge(x @ x.T, y)
    scale = float(y @ dual) / len(y)
    strength = float(((y - x @ (x.T @ dual)) / dual).median())
    assert 0.25 / 1.3 < strength * scale < 0.25 * 1.3


@pytest.mark.parametrize(("make", "features"), [(Linear, 16), (Pairwise, 106)])
def test_no_double_descent_where_points_are_as_many_as_features(make, features):
    """The error on unseen architectures falls with n; with a tiny fixed strength it explodes at n = features."""
    test_h, test_y = draws(2000, 50)
    total = float(test_y.var())

    def error(n, fixed):
        mean = 0.0
        for seed in range(6):
            h, y = draws(n, 1000 + seed, noise=0.5)
            surrogate = make()
            if fixed:
                d = h.flatten(1) @ h.flatten(1).T
                gram = d if make is Linear else d + d * (d - 1) / 2
                other = test_h.flatten(1) @ h.flatten(1).T
                cross = other if make is Linear else other + other * (other - 1) / 2
                weights = torch.linalg.solve(gram + 1e-9 * torch.eye(n, dtype=torch.float64), y - y.mean())
                got = y.mean() + cross @ weights
            else:
                surrogate.fit(h, y)
                got = surrogate.mean(test_h)
            mean += float((got - test_y).square().mean()) / total / 6
        return mean

    errors = [error(n, False) for n in (features // 2, features, 2 * features, 4 * features)]
    assert max(errors) < 1.15, errors
    assert errors[-1] < 0.75 * errors[0], errors
    assert error(features, True) > 2 * errors[1]


def test_linear_is_exact_on_sums_and_pairwise_on_pairs():
    test_h, test_y = draws(500, 50)
    h, y = draws(500, 3)
    pairwise, linear = Pairwise(), Linear()
    for surrogate in (pairwise, linear):
        surrogate.fit(h, y)
    assert (pairwise.mean(test_h) - test_y).abs().max() < 1e-3
    assert (linear.mean(test_h) - test_y).square().mean() > 0.03 * test_y.var()
    h, y = draws(500, 3, pairs=0.0)
    linear.fit(h, y)
    assert (linear.mean(test_h) - draws(500, 50, pairs=0.0)[1]).abs().max() < 1e-3


def test_pairwise_with_few_points_of_a_sum_is_linear():
    h, y = draws(60, 4, pairs=0.0, noise=0.3)
    pairwise = Pairwise()
    pairwise.fit(h, y)
    test_h, test_y = draws(2000, 50, pairs=0.0)
    linear = Linear()
    linear.fit(h, y)
    errors = [float((s.mean(test_h) - test_y).square().mean()) for s in (pairwise, linear)]
    assert errors[0] < 1.1 * errors[1]
