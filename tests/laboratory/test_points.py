"""Where estimators are compared: on the path of exact descent."""

import dataclasses

import pytest
import torch

from archgrad import Autoregressive, Factorised, UsageError
from archgrad.laboratory import alphas
from archgrad.laboratory import points as where
from archgrad.laboratory.points import mean_largest
from archgrad.testing import exact_gradient, toy
from tests.policies.test_policies import scrambled


def test_the_path_is_plain_exact_descent_with_step_three_tenths():
    problem = toy()
    found = alphas(problem, Factorised(problem.space).double())
    assert list(found) == ["uniform", "halfway", "late"]
    alpha, passed = torch.zeros(4, 3, dtype=torch.float64), {}
    walker = Factorised(problem.space).double()
    for _ in range(5000):
        level = float(torch.softmax(alpha, -1).amax(-1).mean())
        for name, limit in (("halfway", 0.5), ("late", 0.95)):
            if level > limit and name not in passed:
                passed[name] = alpha.clone()
        if len(passed) == 2:
            break
        walker.alpha.data.copy_(alpha)
        alpha = alpha - 0.3 * exact_gradient(walker, problem.f)[0]
    for name in passed:
        assert torch.allclose(found[name].alpha, passed[name], atol=1e-9)
    assert (found["uniform"].alpha == 0).all()
    values = [float(problem.expectation(p).detach()) for p in found.values()]
    assert values == sorted(values, reverse=True)


def test_an_autoregressive_policy_gets_there_too():
    problem = toy()
    start = Autoregressive(problem.space, hidden=4, generator=torch.Generator().manual_seed(0)).double()
    found = alphas(problem, start)
    levels = [mean_largest(p) for p in found.values()]
    assert levels[0] == pytest.approx(1 / 3)
    assert 0.5 < levels[1] < 0.6
    assert 0.95 < levels[2] < 0.96
    assert mean_largest(start) == pytest.approx(1 / 3)  # the start stays where it was


def test_marginals_by_enumeration_are_those_of_factors():
    policy = scrambled(Factorised(toy().space).double())
    exact = mean_largest(policy)
    policy.independent = False
    assert mean_largest(policy) == pytest.approx(exact)


def test_a_descent_that_arrives_nowhere_is_told(monkeypatch):
    monkeypatch.setattr(where, "LIMIT", 20)
    problem = dataclasses.replace(toy(), expectation=lambda policy: 0 * policy.alpha.sum())
    with pytest.raises(UsageError, match=r"after 20 steps its mean largest probability is 0\.333"):
        alphas(problem, Factorised(problem.space).double())
