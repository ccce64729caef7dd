"""The numbers everybody compares: f(b) = (b - t)^2 with b ~ Bernoulli(sigmoid(phi)), exact by enumeration."""

import itertools

import pytest
import torch

from archgrad import Batch, Factorised, ScoreFunction
from archgrad.testing import exact_gradient, plain_space


def bernoulli(t, phi):
    """The problem as one decision of two choices, logits (0, phi): policy and f."""
    policy = Factorised(plain_space(2)).double()
    with torch.no_grad():
        policy.alpha[0, 1] = phi
    return policy, lambda h: (h[..., 0, 1] - t) ** 2


def moments(estimator, policy, f):
    """Mean and variance of one estimate of dJ/dphi, over every batch of independent samples."""
    h = policy.space.enumerate().double()
    p = policy.log_prob(h).exp().detach()
    mean = square = 0.0
    for rows in itertools.product(range(2), repeat=estimator.samples):
        batch = Batch(h[list(rows)])
        g = float(estimator.gradient(policy, batch, f(batch.h)).gradient[0][0, 1])
        chance = float(p[list(rows)].prod())
        mean, square = mean + chance * g, square + chance * g**2
    return mean, square - mean**2


@pytest.mark.parametrize(
    ("t", "phi", "gradient", "reinforce", "leave_one_out"),
    [(0.499, 0.0, 5e-4, 1.5625e-2, 2.5e-7), (0.45, 1.0, 1.966119e-2, 1.034605e-2, 5.965e-4)],
)
def test_reinforce_and_leave_one_out(t, phi, gradient, reinforce, leave_one_out):
    policy, f = bernoulli(t, phi)
    assert float(exact_gradient(policy, f)[0][0, 1]) == pytest.approx(gradient, rel=1e-6)
    for estimator, variance in (
        (ScoreFunction(1, "none"), reinforce),
        (ScoreFunction(2, "leave-one-out"), leave_one_out),
    ):
        got = moments(estimator, policy, f)
        assert got[0] == pytest.approx(gradient, rel=1e-6)
        assert got[1] == pytest.approx(variance, rel=1e-3)
