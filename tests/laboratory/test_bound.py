"""E f(h) - f(E h): the bound holds, is attained, and knows which curvatures matter."""

import pytest
import torch

from archgrad import Autoregressive, Factorised
from archgrad.benchmarks import enumerated, nk_chain
from archgrad.benchmarks.known import means
from archgrad.laboratory import gap
from archgrad.testing import conditional_space, plain_space, quadratic, toy
from tests.policies.test_policies import scrambled


def policy_of(problem, seed):
    return scrambled(Factorised(problem.space).double(), seed=seed, scale=1.5)


@pytest.mark.parametrize("curvature", [2.5, -1.0])
def test_a_quadratic_attains_it(curvature):
    problem = quadratic(2, 4, 3, curvature=curvature)
    policy = policy_of(problem, 0)
    found = gap(problem, policy, points=50)
    wanted = curvature / 2 * float((1 - means(policy).detach().square().sum(-1)).sum())
    assert found.gap == pytest.approx(wanted)
    assert found.low == pytest.approx(wanted)
    assert found.high == pytest.approx(wanted)
    assert found.bound == pytest.approx(abs(wanted))
    assert abs(found.M - abs(curvature)) < 1e-9


@pytest.mark.parametrize("seed", range(8))
def test_it_holds_for_wavy_functions(seed):
    problem = toy()
    found = gap(problem, policy_of(problem, seed))
    assert found.low <= found.gap <= found.high
    assert abs(found.gap) <= found.bound
    assert max(abs(found.low), abs(found.high)) <= found.bound + 1e-12
    assert abs(found.gap) > 1e-4  # there is something to bound


def test_the_gap_is_the_mean_of_curvatures_along_single_decisions():
    """The identity behind the bound, by quadrature over s and enumeration over h, in float64."""
    problem = toy(2, 3, 2)
    policy = policy_of(problem, 1)
    p = means(policy).detach()
    h = problem.space.enumerate().double()
    weight = policy.log_prob(h).exp().detach()
    total, steps = 0.0, 200
    for d in range(3):
        for i in range(steps):
            s = (i + 0.5) / steps
            at = torch.cat([h[:, :d], p.expand(len(h), -1, -1)[:, d:]], 1)
            v = torch.zeros_like(at)
            v[:, d] = h[:, d] - p[d]
            at = (at + s * v).requires_grad_()
            (slope,) = torch.autograd.grad(problem.f(at).sum(), at, create_graph=True)
            (second,) = torch.autograd.grad((slope * v).sum(), at)
            total += float((weight * (1 - s) * (second * v).sum((-2, -1))).sum()) / steps
    assert total == pytest.approx(gap(problem, policy).gap, rel=1e-4)


def test_interactions_between_decisions_do_not_count():
    """A multilinear f has the largest mixed derivatives and no gap at all."""
    problem = nk_chain(5, 3)
    found = gap(problem, policy_of(problem, 2))
    assert found.gap == pytest.approx(0, abs=1e-12)
    assert found.bound == 0
    strong = enumerated("product", plain_space(2, 2), lambda h: 100 * h[..., 0, 0] * h[..., 1, 1])
    assert gap(strong, policy_of(strong, 0)).bound == 0


def test_functions_concave_along_decisions_are_overestimated_by_the_relaxation():
    problem = enumerated("concave", plain_space(3, 3), lambda h: -((h * torch.arange(3).to(h)).sum((-2, -1)) ** 2))
    found = gap(problem, policy_of(problem, 3))
    assert found.low <= found.gap < 0
    assert found.high <= 0


def test_it_is_silent_where_the_question_does_not_arise():
    problem = toy(2, 3)
    assert gap(problem, Autoregressive(problem.space, hidden=2).double()) is None
    conditional = enumerated("c", conditional_space(), lambda h: h[..., 0, 0])
    assert gap(conditional, Factorised(conditional.space).double()) is None
