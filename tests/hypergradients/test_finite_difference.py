"""Finite differences against the exact step that they approximate."""

import pytest
import torch
from hyper_toys import Network, Quadratic, hypergradient, sgd

from archgrad import UsageError
from archgrad.hypergradients import FiniteDifference, Unrolled


def error(found, exact):
    return float((found - exact).norm() / exact.norm())


@pytest.mark.parametrize(("momentum", "decay"), [(0.0, 0.0), (0.9, 0.0), (0.9, 0.03)])
def test_a_small_epsilon_gives_the_exact_step(momentum, decay):
    net = Network()
    update = net.update(momentum=momentum, decay=decay)
    exact, after = hypergradient(Unrolled(1), net, update)
    first, _ = hypergradient(Unrolled(1), net, lambda z, grad, k: {n: update(z, grad, k)[n].detach() for n in z})
    assert error(first, exact) > 0.05  # the part that is approximated is there to be seen
    found, z = hypergradient(FiniteDifference(1e-4), net, update)
    assert error(found, exact) < 1e-6
    for name in z:
        assert torch.equal(z[name], after[name])
    found, _ = hypergradient(FiniteDifference(1e-7, central=False), net, update)
    assert error(found, exact) < 1e-6


def test_errors_go_down_as_they_should():
    """Ten times less epsilon: a hundred times less error of central differences, ten times less of forward ones."""
    net = Network()
    exact, _ = hypergradient(Unrolled(1), net, sgd(0.3))
    for central, order in ((True, 2), (False, 1)):
        far, near = (error(hypergradient(FiniteDifference(e, central), net, sgd(0.3))[0], exact) for e in (1e-1, 1e-2))
        assert 0.8 * 10**order < far / near < 1.25 * 10**order


def test_epsilon_is_how_far_the_weights_are_moved():
    net, seen = Network(), []

    def g(z, h, k):
        seen.append(torch.cat([v.detach().flatten() for v in z.values()]))
        return net.g(z, h, k)

    for central in (True, False):
        h = net.h.clone().requires_grad_()
        net.f(FiniteDifference(0.02, central)(g, net.z, h, sgd(0.3)), h).backward()
        here, *moved = seen
        assert [float((m - here).norm()) for m in moved] == pytest.approx([0.02] * (2 if central else 1))
        seen.clear()


def test_a_quadratic_is_exact_at_any_epsilon():
    toy = Quadratic()
    for central in (True, False):
        found, _ = hypergradient(FiniteDifference(10.0, central), toy, sgd(0.3))
        torch.testing.assert_close(found, toy.unrolled(1, 0.3)[1], rtol=0, atol=1e-11)


def test_f_that_does_not_read_the_weights():
    toy = Quadratic()
    toy.f = lambda z, h: toy.s @ h.flatten() + 0 * z["a"].sum()
    for central in (True, False):
        found, _ = hypergradient(FiniteDifference(0.01, central), toy, sgd(0.3))
        assert torch.equal(found, toy.s.view_as(toy.h))


def test_epsilons_that_are_none():
    for bad in (0.0, -0.01, float("nan"), float("inf")):
        with pytest.raises(UsageError, match="epsilon should be positive, got"):
            FiniteDifference(bad)
