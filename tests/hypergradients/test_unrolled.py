"""First order and unrolling against closed forms, and what they leave alone."""

import pytest
import torch
from hyper_toys import Network, Quadratic, hypergradient, sgd
from torch.autograd import gradcheck, gradgradcheck

from archgrad import UsageError
from archgrad.hypergradients import FirstOrder, Unrolled


@pytest.mark.parametrize(("xi", "fixed_point"), [(0.0, 2.0), (0.25, 4 / 3), (0.5, 1.0)])
def test_the_toy_of_the_darts_paper(xi, fixed_point):
    """L_val = alpha w - 2 alpha + 1, L_train = (w - alpha)^2, descended jointly: alpha* = 2 / (1 + 2 xi)."""
    method = Unrolled(1) if xi else FirstOrder()
    alpha, w = torch.tensor(2.5, dtype=torch.float64), {"w": torch.tensor(-2.0, dtype=torch.float64)}

    def g(z, h, k):
        return z["w"] ** 2 - 2 * h * z["w"] + h**2

    for _ in range(600):
        h = alpha.clone().requires_grad_()
        z = method(g, w, h, sgd(xi))
        (h * z["w"] - 2 * h + 1).backward()
        alpha = alpha - 0.1 * h.grad
        w = {"w": w["w"] - 0.1 * (2 * w["w"] - 2 * alpha)}
    assert float(alpha) == pytest.approx(fixed_point, abs=1e-6)
    assert float(w["w"]) == pytest.approx(fixed_point, abs=1e-6)


@pytest.mark.parametrize("shape", [(), (4,), (2, 3), (1, 2, 2)])
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_some_steps_of_a_quadratic(steps, shape):
    toy = Quadratic(shape)
    found, z = hypergradient(Unrolled(steps), toy, sgd(0.3))
    trained, wanted = toy.unrolled(steps, 0.3)
    torch.testing.assert_close(toy.flat(z), trained, rtol=0, atol=1e-12)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)


def test_many_steps_reach_the_implicit_derivative():
    toy, rate, steps = Quadratic(), 0.4, 140
    assert float((1 - rate * toy.eigenvalues).abs().max()) ** steps < 1e-11
    found, z = hypergradient(Unrolled(steps), toy, sgd(rate))
    torch.testing.assert_close(toy.flat(z), toy.flat(toy.minimum()), rtol=0, atol=1e-10)
    torch.testing.assert_close(found, toy.implicit(), rtol=0, atol=1e-10)


def test_first_order_is_the_direct_part():
    toy = Quadratic()
    found, z = hypergradient(FirstOrder(), toy, sgd(0.3))
    assert torch.equal(found, toy.s.view_as(toy.h))
    assert not z["a"].requires_grad


@pytest.mark.parametrize("steps", [1, 3])
def test_derivatives_once_and_twice(steps):
    net = Network()
    update = net.update(momentum=0.9, decay=0.01)

    def value(h):
        return net.f(Unrolled(steps)(net.g, net.z, h, update), h)

    h = net.h.clone().requires_grad_()
    assert gradcheck(value, h)
    assert gradgradcheck(value, h)


def test_the_derivative_goes_on_to_what_h_was_made_of():
    net = Network()
    logits = torch.zeros(2, 3, dtype=torch.float64, requires_grad=True)

    def value(logits):
        h = logits.softmax(-1)
        return net.f(Unrolled(2)(net.g, net.z, h, sgd(0.3)), h)

    assert gradcheck(value, logits)
    assert gradgradcheck(value, logits)


def test_every_step_reads_its_own_batch():
    net, seen = Network(), []

    def g(z, h, k):
        seen.append(k)
        return net.g(z, h, k)

    Unrolled(3)(g, net.z, net.h.clone().requires_grad_(), sgd(0.1))
    assert seen == [0, 1, 2]


def test_no_pass_goes_down_to_the_weights():
    """backward() asks for h alone: what a plain graph would add is as dear as the pass itself."""
    net, counted = Network(), []

    class Counting(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, grad):
            return Counted.apply(grad)

    class Counted(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            counted.append("first")
            return x.clone()

        @staticmethod
        def backward(ctx, grad):
            counted.append("second")
            return grad

    def g(z, h, k):
        return net.g({n: Counting.apply(w) for n, w in z.items()}, h, k)

    h = net.h.clone().requires_grad_()
    trained = Unrolled(1)(g, net.z, h, sgd(0.3))
    before = len(counted)
    assert before == len(net.z)
    net.f(trained, h).backward()
    assert "first" not in counted[before:]


def test_without_a_derivative_to_take():
    net = Network()
    plain = Unrolled(2)(net.g, net.z, net.h, sgd(0.3))
    assert not any(v.requires_grad for v in plain.values())
    h = net.h.clone().requires_grad_()
    with torch.no_grad():
        quiet = Unrolled(2)(net.g, net.z, h, sgd(0.3))
    graph = Unrolled(2)(net.g, net.z, h, sgd(0.3))
    for name in net.z:
        assert torch.equal(plain[name], quiet[name])
        assert torch.equal(plain[name], graph[name])


def test_steps_that_are_none():
    with pytest.raises(UsageError, match="steps should be at least 1, got 0; FirstOrder makes none"):
        Unrolled(0)
