"""The natural gradient: its expectation times the Fisher information is the gradient; a step multiplies weights."""

import pytest
import torch

from archgrad import Autoregressive, Batch, Factorised, ScoreFunction, UsageError
from archgrad.estimators.natural_gradient import NaturalGradient
from archgrad.pairing import check_pairing
from archgrad.testing import conditional_space, exact_gradient, expected_estimate, plain_space, relative_error
from tests.estimators.test_score_function import POLICIES, curved
from tests.policies.test_policies import scrambled

FACTORISED = POLICIES[:2]


def fisher(policy):
    """sum_h p(h) d log p d log p^T, by enumeration."""
    h = policy.space.enumerate().double()
    total = 0.0
    for row in h:
        log_p = policy.log_prob(row.unsqueeze(0)).sum()
        (g,) = torch.autograd.grad(log_p, [policy.alpha])
        total = total + log_p.exp().detach() * torch.outer(g.flatten(), g.flatten())
    return total


def along_fisher(policy, natural):
    return [(fisher(policy) @ natural[0].flatten()).reshape(policy.alpha.shape)]


@pytest.mark.parametrize("policy", FACTORISED)
def test_its_expectation_times_the_fisher_information_is_the_gradient(policy):
    policy = policy()
    expected = expected_estimate(lambda: NaturalGradient(2), policy, curved)
    assert relative_error(along_fisher(policy, expected), exact_gradient(policy, curved)) < 1e-9
    p = policy.marginals().detach()
    assert torch.allclose((p * expected[0]).sum(-1), torch.zeros(policy.space.D).double(), atol=1e-12)
    assert (expected[0][~policy.space.mask] == 0).all()


def test_it_is_the_derivative_in_the_probabilities():
    policy = FACTORISED[0]()
    (expected,) = expected_estimate(lambda: NaturalGradient(2), policy, curved)
    p = policy.marginals().detach().requires_grad_()
    h = policy.space.enumerate().double()
    (slope,) = torch.autograd.grad(((h * p).sum(-1).prod(-1) * curved(h)).sum(), p)
    slope = (slope - (p * slope).sum(-1, keepdim=True)).masked_fill(~policy.space.mask, 0)
    assert torch.allclose(expected, slope, atol=1e-12)


@pytest.mark.parametrize("policy", FACTORISED)
def test_each_estimate_is_the_score_functions_through_the_inverse(policy):
    policy = policy()
    batch = NaturalGradient(20).propose(policy, torch.Generator().manual_seed(1))
    values = curved(batch.h)
    assert values.std() > 0.1
    (natural,) = NaturalGradient(20).gradient(policy, batch, values).gradient
    (plain,) = ScoreFunction(20).gradient(policy, batch, values).gradient
    assert torch.allclose(along_fisher(policy, [natural])[0], plain, atol=1e-12)
    a = NaturalGradient(20, standardise=True).gradient(policy, batch, values)
    b = NaturalGradient(20, standardise=True).gradient(policy, batch, 7 + 100 * values)
    assert torch.allclose(a.gradient[0], b.gradient[0])
    assert float(b.scale) == pytest.approx(1 / float((100 * values).std()))


def test_a_step_of_sgd_multiplies_the_probabilities():
    """p <- p exp(-lr estimate) / Z, decision by decision: exponentiated weights."""
    policy = FACTORISED[1]()
    batch = NaturalGradient(6).propose(policy, torch.Generator().manual_seed(2))
    estimate = NaturalGradient(6).gradient(policy, batch, curved(batch.h)).gradient
    before = policy.marginals().detach()
    optimizer = torch.optim.SGD(policy.parameters(), 0.3)
    policy.alpha.grad = estimate[0]
    optimizer.step()
    want = before * torch.exp(-0.3 * estimate[0])
    assert torch.allclose(policy.marginals(), want / want.sum(-1, keepdim=True), atol=1e-12)


@pytest.mark.parametrize("policy", FACTORISED)
def test_the_entropy_bonus_is_the_natural_gradient_of_the_entropy(policy):
    policy = policy()
    h = policy.space.enumerate().double()
    p = policy.log_prob(h).exp()
    want = torch.autograd.grad((p * p.log()).sum(), list(policy.parameters()))
    got = expected_estimate(lambda: NaturalGradient(2, entropy=1.0), policy, lambda h: torch.zeros(len(h)).double())
    assert relative_error(along_fisher(policy, got), want) < 1e-9


def test_damping_bounds_what_a_rare_choice_can_do_and_shrinks_it_as_said():
    policy = Factorised(plain_space(2)).double()
    with torch.no_grad():
        policy.alpha[0, 1] = -12
    h = policy.space.encode([("a",), ("b",)]).double()
    values = torch.tensor([0.0, 1.0]).double()
    rare = float(policy.marginals()[0, 1].detach())

    def at_b(damping):
        (g,) = NaturalGradient(2, damping=damping).gradient(policy, Batch(h), values).gradient
        return float(g[0, 1] - g[0, 0])

    assert at_b(0.0) == pytest.approx(0.5 / rare + 0.5 / (1 - rare))
    assert at_b(0.05) == pytest.approx(0.5 / (rare + 0.05) + 0.5 / (1 - rare + 0.05))
    assert at_b(0.05) < 11


def test_a_choice_whose_probability_has_vanished_gives_no_nan():
    policy = Factorised(plain_space(2, 3))
    with torch.no_grad():
        policy.alpha[:, 0] = 500
    batch = NaturalGradient(4).propose(policy, torch.Generator().manual_seed(0))
    for entropy in (0.0, 0.1):
        (g,) = NaturalGradient(4, entropy=entropy).gradient(policy, batch, torch.arange(4.0)).gradient
        assert torch.isfinite(g).all()


def test_runs_step_together_as_they_do_alone():
    space, estimator = conditional_space(), NaturalGradient(4, standardise=True, entropy=0.1, damping=0.01)
    many = scrambled(Factorised(space, runs=(3,)).double())
    batch = estimator.propose(many, torch.Generator().manual_seed(0))
    (together,) = estimator.gradient(many, batch, curved(batch.h)).gradient
    for r in range(3):
        one = Factorised(space).double()
        one.alpha.data.copy_(many.alpha[r])
        (alone,) = estimator.gradient(one, Batch(batch.h[r]), curved(batch.h[r])).gradient
        assert torch.allclose(alone, together[r], atol=1e-12)


def test_only_logits_of_independent_decisions_will_do():
    policy = Autoregressive(plain_space(2, 3), hidden=4)
    with pytest.raises(UsageError, match="independent decisions"):
        check_pairing(policy, NaturalGradient(), 0, "f")
    with pytest.raises(UsageError, match="use Factorised"):
        NaturalGradient().propose(policy, torch.Generator())


@pytest.mark.parametrize(("arguments", "says"), [({"samples": 1}, "at least 2"), ({"damping": -0.1}, "0 or more")])
def test_impossible_settings_are_refused(arguments, says):
    with pytest.raises(UsageError, match=says):
        NaturalGradient(**arguments)
