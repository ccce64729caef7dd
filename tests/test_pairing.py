"""Parts that do not go together are refused before any work, with what would."""

import pytest
import torch

from archgrad import Autoregressive, Factorised, Inline, Problem, Recipe, UsageError, ValidLoss
from archgrad.estimators import Rebar, Relax
from archgrad.loop import loop
from archgrad.pairing import check_pairing, valued
from archgrad.problem import Measure
from archgrad.testing import Separable, plain_space

SPACE = plain_space(2, 3)


class Independent:
    differentiates, independent, samples, epochs, learns = 0, True, 2, 1, False


def test_a_relaxation_with_values_only():
    with pytest.raises(UsageError) as caught:
        check_pairing(Factorised(SPACE), Rebar(), 0, "FromScratch")
    assert str(caught.value) == (
        "Rebar differentiates f twice with respect to h, but FromScratch gives values only; "
        "use ScoreFunction, PPO, Unordered, LocalExpectation, Relax or DoublyRobust"
    )


def test_a_learned_temperature_with_one_derivative():
    with pytest.raises(UsageError, match=r"can be differentiated once; keep its temperature \(learn='scale' or"):
        check_pairing(Factorised(SPACE), Rebar(), 1, "the supernet")
    for fits in (Rebar(learn="scale"), Rebar(learn="none"), Relax()):
        check_pairing(Factorised(SPACE), fits, 1, "the supernet")
    check_pairing(Factorised(SPACE), Relax(), 0, "FromScratch")
    check_pairing(Factorised(SPACE), Rebar(), 2, "a table")


def test_independent_decisions_only():
    check_pairing(Factorised(SPACE), Independent(), 0, "f")
    with pytest.raises(UsageError, match=r"Independent asks for independent decisions, but Autoregressive lets .* use"):
        check_pairing(Autoregressive(SPACE), Independent(), 0, "f")


class NeverMeasured(Separable):
    def measure(self, *arguments, **more):
        raise AssertionError("work was done")


def test_the_loop_refuses_before_work():
    problem = Problem(SPACE, NeverMeasured(SPACE, torch.zeros(2, 3)), ValidLoss())
    policy = Factorised(SPACE)
    recipe = Recipe("wrong", policy, Rebar(), torch.optim.Adam(policy.parameters()))
    with pytest.raises(UsageError, match="trains each architecture by NeverMeasured gives values only"):
        loop(problem, recipe, trials=4, executor=Inline(Measure(problem.solver)), store=None)


def test_only_an_estimator_that_differentiates_gets_a_graph():
    policy = Factorised(SPACE)
    for estimator, wanted in ((Relax(3), False), (Rebar(3), True)):
        batch = estimator.propose(policy, torch.Generator())
        values = valued(estimator, batch, lambda h: (h * torch.arange(3)).sum((-2, -1)))
        assert values.requires_grad is wanted


def test_f_gives_a_value_a_point():
    """[n, 1] in place of [n] is what a network's last layer gives, and would broadcast without a word."""
    policy, estimator = Factorised(SPACE), Relax(3)
    batch = estimator.propose(policy, torch.Generator())
    with pytest.raises(UsageError, match=r"a value a point, \[3\] for h \[3, 2, 3\], got \[3, 1\]; reduce"):
        valued(estimator, batch, lambda h: h.sum((-2, -1)).unsqueeze(-1))
