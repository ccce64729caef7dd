"""Gumbel-softmax: the pathwise derivative exactly, its bias as an integral, its temperature as a schedule."""

import pickle

import pytest
import torch

from archgrad import Batch, Factorised, UsageError
from archgrad.estimators.gumbel_softmax import GumbelSoftmax, annealed
from archgrad.pairing import valued
from archgrad.testing import exact_gradient, plain_space
from tests.estimators.known_noise import (
    POLICIES,
    additive,
    check_derivative,
    check_runs,
    curved,
    estimate,
    given,
    logistic,
)
from tests.policies.test_policies import scrambled


@pytest.mark.parametrize("make", POLICIES.values(), ids=POLICIES)
@pytest.mark.parametrize("temperature", [1.0, 0.4])
def test_is_the_derivative_of_f_at_relaxed_samples(make, temperature):
    check_derivative(GumbelSoftmax(5, temperature), make(), curved)
    check_runs(make, lambda: GumbelSoftmax(5, temperature), curved)


@pytest.mark.parametrize("make", POLICIES.values(), ids=POLICIES)
def test_a_cold_relaxed_sample_is_the_sample(make):
    policy = make()
    batch = GumbelSoftmax(20, 1e-6).propose(policy, torch.Generator().manual_seed(0))
    assert torch.allclose(batch.h, policy.sample(20, noise=batch.memo["noise"]), atol=1e-9)


def expectation(policy, f, temperature):
    """The estimate's mean for one decision of two choices, by quadrature: coordinate 1."""
    noise, weights = logistic(40)
    with given(noise):
        (g,) = estimate(GumbelSoftmax(len(noise), temperature), policy, f, weights=weights)
    return float(g[0, 1])


def affine(h):
    return h[..., 0, 1]


def parabola(h):
    return (h[..., 0, 1] - 0.45) ** 2


def test_is_biased_even_where_f_is_affine():
    """With even odds at t = 1 the relaxed choice is uniform on (0, 1): E[y (1 - y)] = 1/6, and the truth is 1/4."""
    policy = Factorised(plain_space(2)).double()
    assert expectation(policy, affine, 1.0) == pytest.approx(1 / 6, rel=1e-9)
    assert float(exact_gradient(policy, affine)[0][0, 1]) == pytest.approx(1 / 4)


@pytest.mark.parametrize("temperature", [1.0, 0.5, 0.3])
def test_its_mean_is_the_integral_over_the_noise(temperature):
    from scipy.integrate import quad
    from scipy.special import expit, logit

    policy = scrambled(Factorised(plain_space(2)).double())
    odds = float(policy.alpha.detach()[0, 1] - policy.alpha.detach()[0, 0])

    def integrand(q):
        y = expit((odds + logit(q)) / temperature)
        return 2 * (y - 0.45) * y * (1 - y) / temperature

    want, _ = quad(integrand, 0, 1, epsabs=1e-12, limit=500)
    assert expectation(policy, parabola, temperature) == pytest.approx(want, rel=1e-7)


@pytest.mark.parametrize(("f", "order"), [(affine, 2), (parabola, 1)])
def test_the_bias_falls_with_the_temperature_and_faster_where_f_is_affine(f, order):
    policy = Factorised(plain_space(2)).double()
    with torch.no_grad():
        policy.alpha[0, 1] = 0.5
    exact = float(exact_gradient(policy, f)[0][0, 1])
    warm, tepid, cold = (expectation(policy, f, t) - exact for t in (1.0, 0.1, 0.05))
    assert abs(warm) > 0.15 * abs(exact)
    assert tepid / cold == pytest.approx(2**order, rel=0.1)


def test_a_schedule_counts_updates_and_a_batch_keeps_its_temperature():
    policy, schedule = POLICIES["factorised, ragged"](), annealed(1.0, 0.01, 2)
    assert [schedule(t) for t in range(4)] == pytest.approx([1.0, 0.1, 0.01, 0.01])
    estimator = GumbelSoftmax(3, pickle.loads(pickle.dumps(schedule)))
    assert estimator.learns
    early = estimator.propose(policy, torch.Generator().manual_seed(0))
    assert early.memo["temperature"].tolist() == [1, 1, 1]
    values = valued(estimator, early, curved)
    first = estimator.gradient(policy, early, values)
    assert estimator.state_dict() == {"updates": 1}
    again = estimator.gradient(policy, early, valued(estimator, early, curved))  # answered late
    assert torch.equal(first.gradient[0], again.gradient[0])
    assert estimator.propose(policy, torch.Generator()).memo["temperature"].tolist() == pytest.approx([0.01] * 3)

    resumed = GumbelSoftmax(3, schedule)
    resumed.load_state_dict({"updates": 1})
    assert resumed.propose(policy, torch.Generator()).memo["temperature"].tolist() == pytest.approx([0.1] * 3)
    resumed.learns = False
    batch = resumed.propose(policy, torch.Generator())
    resumed.gradient(policy, batch, valued(resumed, batch, curved))
    assert resumed.state_dict() == {"updates": 1}
    assert not GumbelSoftmax(3).learns


def test_batches_of_different_temperatures_join():
    policy = POLICIES["autoregressive, ragged"]()
    parts, alone = [], []
    for t in (1.0, 0.5):
        estimator = GumbelSoftmax(2, t)
        parts.append(estimator.propose(policy, torch.Generator().manual_seed(1)))
        alone.append(estimator.gradient(policy, parts[-1], valued(estimator, parts[-1], additive)).gradient)
    joined = Batch.join([Batch(b.h.detach(), b.memo) for b in parts])
    estimator = GumbelSoftmax(4)
    both = estimator.gradient(policy, joined, valued(estimator, joined, additive)).gradient
    for a, b, c in zip(*alone, both, strict=True):
        assert torch.allclose((a + b) / 2, c, atol=1e-12)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: GumbelSoftmax(0), "samples should be at least 1"),
        (lambda: GumbelSoftmax(temperature=0), "temperature should be positive, got 0"),
        (lambda: GumbelSoftmax(temperature=float("nan")), "temperature should be positive, got nan"),
        (lambda: GumbelSoftmax(temperature=lambda t: -1.0), "temperature should be positive, got -1"),
        (lambda: annealed(1.0, 0.0, 10), "temperature should be positive"),
        (lambda: annealed(0.0, 1.0, 10), "temperature should be positive"),
        (lambda: annealed(1.0, 0.1, 0), "steps should be at least 1"),
    ],
)
def test_impossible_settings_are_refused(make, says):
    with pytest.raises(UsageError, match=says):
        make()
