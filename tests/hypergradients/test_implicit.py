"""The implicit derivative against its closed form, by every solver, and what the solvers say."""

import pytest
import torch
from hyper_toys import Network, Quadratic, hypergradient

from archgrad import UsageError
from archgrad.hypergradients import ConjugateGradient, Exact, Implicit, Neumann, Nystrom

RATE, TERMS = 0.4, 139
"""140 terms: |1 - .4 lambda|^140 < 1e-13 for eigenvalues from .5 to 3."""


@pytest.mark.parametrize("shape", [(), (4,), (2, 3)])
@pytest.mark.parametrize(
    "solver", [Exact(), ConjugateGradient(5), Neumann(TERMS, RATE)], ids=lambda s: type(s).__name__
)
def test_the_closed_form(solver, shape):
    toy = Quadratic(shape)
    toy.z = toy.minimum()
    found, z = hypergradient(Implicit(solver), toy, None)
    torch.testing.assert_close(found, toy.implicit(), rtol=0, atol=1e-10)
    for name, v in toy.z.items():
        assert torch.equal(z[name], v)


@pytest.mark.parametrize("solver", [Exact, lambda d: ConjugateGradient(5, damping=d), lambda d: Nystrom(5, d)])
def test_damping_is_added_to_the_curvature(solver):
    toy = Quadratic()
    toy.z = toy.minimum()
    for damping in (1e-4, 0.7):
        found, _ = hypergradient(Implicit(solver(damping)), toy, None)
        torch.testing.assert_close(found, toy.implicit(damping), rtol=0, atol=1e-9)


@pytest.mark.parametrize("rank", [1, 3, 5])
def test_nystrom_is_the_papers_formula(rank):
    """x = b / d - C (W + C'C / d)^-1 C'b / d^2, by Woodbury's identity; C some columns of H, W their rows of them."""
    toy, d = Quadratic(), 0.3
    b, asked = toy.c, []

    def product(x):
        asked.append(x)
        return toy.A @ x

    found = Nystrom(rank, d, seed=2)(product, b).x
    places = torch.stack(asked[:rank]).argmax(-1)
    C = toy.A[:, places]
    inside = torch.linalg.solve(C[places] + C.T @ C / d, C.T @ b)
    torch.testing.assert_close(found, b / d - C @ inside / d**2, rtol=0, atol=1e-11)


def test_part_of_the_columns_is_an_approximation():
    toy = Quadratic()
    toy.z = toy.minimum()
    method = Implicit(Nystrom(3, 0.7))
    found, _ = hypergradient(method, toy, None)
    assert float((found - toy.implicit(0.7)).norm()) > 1e-3
    assert method.report.residual > 1e-3
    assert method.report.products == 4
    again, _ = hypergradient(Implicit(Nystrom(3, 0.7, seed=1)), toy, None)
    assert not torch.equal(found, again)


@pytest.mark.parametrize(
    "approximate",
    [ConjugateGradient(200, damping=1.0), Neumann(3000, 0.15), Nystrom(108, 1.0)],
    ids=lambda s: type(s).__name__,
)
def test_solvers_agree_on_a_network(approximate):
    """g with an L2 term of 1, so that H is positive where the weights are not trained; Neumann has it in g alone."""
    net = Network()
    net.z = {n: 0.1 * v for n, v in net.z.items()}
    plain = net.g
    if isinstance(approximate, Neumann):
        net.g = lambda z, h, k: plain(z, h, k) + sum(v.square().sum() for v in z.values()) / 2
    exact, found = Implicit(Exact(0.0 if isinstance(approximate, Neumann) else 1.0)), Implicit(approximate)
    wanted, _ = hypergradient(exact, net, None)
    torch.testing.assert_close(hypergradient(found, net, None)[0], wanted, rtol=1e-8, atol=1e-10)
    assert exact.report.residual < 1e-12
    assert exact.report.curvature <= found.report.curvature + 1e-9


def indefinite():
    toy = Quadratic(lowest=-0.6)
    toy.z = toy.split(torch.linalg.solve(toy.A, toy.B @ toy.h.flatten()))
    return toy


def test_negative_curvature_ends_conjugate_gradients():
    toy = indefinite()
    method = Implicit(ConjugateGradient(50))
    found, _ = hypergradient(method, toy, None)
    report = method.report
    assert report.ended == "negative curvature"
    assert report.curvature < 0
    assert report.products < 50
    assert not report.minimum
    assert "z is no minimum of g" in str(report)
    # short: no step was made along or after the direction that has none
    assert float((found - toy.s.view_as(toy.h)).norm()) < 10 * float((toy.implicit() - toy.s.view_as(toy.h)).norm())
    # with enough damping there is none
    damped = Implicit(ConjugateGradient(50, damping=1.5))
    torch.testing.assert_close(hypergradient(damped, toy, None)[0], toy.implicit(1.5), rtol=0, atol=1e-8)
    assert damped.report.ended == "tolerance"
    assert damped.report.curvature < 0  # told without the damping


def test_the_first_direction_without_curvature_leaves_first_order():
    toy = Quadratic()
    toy.A = -toy.A
    method = Implicit(ConjugateGradient(5))
    found, _ = hypergradient(method, toy, None)
    assert torch.equal(found, toy.s.view_as(toy.h))
    assert method.report.residual == 1


def test_the_report_tells_how_far_from_a_minimum():
    toy = Quadratic()
    method = Implicit(Exact())
    assert method.report is None
    hypergradient(method, toy, None)
    wanted = (toy.A @ toy.flat(toy.z) - toy.B @ toy.h.flatten()).norm()
    assert method.report.slope == pytest.approx(float(wanted))
    assert method.report.curvature == pytest.approx(0.5)
    assert method.report.products == 5
    toy.z = toy.minimum()
    hypergradient(method, toy, None)
    assert method.report.slope < 1e-12


def test_the_residual_is_that_of_the_answer():
    toy = Quadratic()
    toy.z = toy.minimum()
    b = toy.flat(toy.z) - toy.c
    for solver, damping in ((ConjugateGradient(2, damping=0.1), 0.1), (Nystrom(2, 0.1), 0.1), (Exact(), 0.0)):
        solved = solver(lambda x: toy.A @ x, b)
        residual = (toy.A @ solved.x + damping * solved.x - b).norm() / b.norm()
        assert solved.residual == pytest.approx(float(residual), abs=1e-12)
    before = Neumann(3, 0.2)(lambda x: toy.A @ x, b)
    shorter = Neumann(2, 0.2)(lambda x: toy.A @ x, b).x
    assert before.residual == pytest.approx(float((toy.A @ shorter - b).norm() / b.norm()))


def test_one_gradient_graph_serves_all_products():
    net, calls = Network(), []

    def g(z, h, k):
        calls.append(k)
        return net.g(z, h, k)

    h = net.h.clone().requires_grad_()
    net.f(Implicit(Nystrom(10, 1.0))(g, net.z, h, None), h).backward()
    assert calls == [0]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Neumann(0, 0.1), "steps should be at least 1, got 0"),
        (lambda: Neumann(5, 0.0), "rate should be positive, got 0.0"),
        (lambda: ConjugateGradient(0), "steps should be at least 1, got 0"),
        (lambda: ConjugateGradient(5, tolerance=1.0), r"tolerance should be in \[0, 1\), got 1.0"),
        (lambda: ConjugateGradient(5, damping=-1.0), "damping should be 0 or more, got -1.0"),
        (lambda: Nystrom(0, 0.1), "rank should be at least 1, got 0"),
        (lambda: Nystrom(5, 0.0), "damping should be positive for Nystrom, got 0"),
        (lambda: Exact(float("nan")), "damping should be 0 or more, got nan"),
    ],
)
def test_what_is_refused_at_once(make, message):
    with pytest.raises(UsageError, match=message):
        make()


def test_what_is_refused_before_work():
    def never(z, h, k):
        raise AssertionError("work was done")

    h = torch.zeros(2, 3, requires_grad=True)
    with pytest.raises(UsageError, match="Exact should have at most 5000 weights, got 5001; use ConjugateGradient"):
        Implicit(Exact())(never, {"w": torch.zeros(5001)}, h, None)
    with pytest.raises(UsageError, match="rank should be at most the number of weights, 3, got 4"):
        Implicit(Nystrom(4, 0.1))(never, {"w": torch.zeros(3)}, h, None)


def test_a_singular_hessian():
    toy = Quadratic(lowest=0.0)
    with pytest.raises(UsageError, match=r"H \+ damping should be regular, got an eigenvalue of .*; add damping"):
        hypergradient(Implicit(Exact()), toy, None)
    hypergradient(Implicit(Exact(0.1)), toy, None)


def test_a_series_that_diverges():
    toy = Quadratic()
    with pytest.raises(ArithmeticError, match=r"the Neumann series diverged in 3000 steps with rate 1\.5; lower it"):
        hypergradient(Implicit(Neumann(3000, 1.5)), toy, None)
