"""What the contract asks of all of them."""

import pytest
import torch
from hyper_toys import Network, sgd

from archgrad import Rebar, Relax, UsageError, ValidLoss
from archgrad.estimators import Softmax
from archgrad.hypergradients import (
    ConjugateGradient,
    Exact,
    FiniteDifference,
    FirstOrder,
    Implicit,
    Neumann,
    Nystrom,
    Unrolled,
)
from archgrad.pairing import check_hypergradient

ALL = {
    "first order": FirstOrder(),
    "unrolled": Unrolled(2),
    "central": FiniteDifference(),
    "forward": FiniteDifference(central=False),
    "neumann": Implicit(Neumann(3, 0.1)),
    "cg": Implicit(ConjugateGradient(3, damping=1.0)),
    "nystrom": Implicit(Nystrom(3, 1.0)),
    "exact": Implicit(Exact(1.0)),
}
ONCE = [name for name, method in ALL.items() if method.differentiable == 1]
every = pytest.mark.parametrize("method", ALL.values(), ids=ALL)


def own(net):
    """The caller's weights as parameters, and a copy of their numbers."""
    z = {n: v.clone().requires_grad_() for n, v in net.z.items()}
    return z, {n: v.detach().clone() for n, v in z.items()}


@every
def test_the_weights_stay_as_they_are(method):
    net = Network()
    z, before = own(net)
    h = net.h.clone().requires_grad_()
    after = method(net.g, z, h, net.update(momentum=0.9, decay=0.1))
    net.f(after, h).backward()
    assert list(after) == list(z)
    for name, v in z.items():
        assert torch.equal(v, before[name])
        assert v.grad is None
        assert after[name].shape == v.shape
    assert h.grad is not None


@every
def test_the_weights_stay_as_they_are_when_g_fails(method):
    """At whichever of its calls g fails."""
    net = Network()
    z, before = own(net)
    for fatal in range(4):
        calls = []

        def g(z, h, k, fatal=fatal, calls=calls):
            calls.append(k)
            if len(calls) > fatal:
                raise ZeroDivisionError
            return net.g(z, h, k)

        h = net.h.clone().requires_grad_()
        try:
            net.f(method(g, z, h, sgd(0.3)), h).backward()
        except ZeroDivisionError:
            assert len(calls) == fatal + 1
        for name, v in z.items():
            assert torch.equal(v, before[name])
            assert v.grad is None


@every
def test_repeated(method):
    """A function: the same twice, and backward may be called again."""
    net = Network()
    found = []
    for _ in range(2):
        h = net.h.clone().requires_grad_()
        value = net.f(method(net.g, net.z, h, sgd(0.3)), h)
        found += [torch.autograd.grad(value, h, retain_graph=True)[0] for _ in range(2)]
    assert all(torch.equal(found[0], other) for other in found[1:])


@pytest.mark.parametrize("name", ONCE)
def test_a_second_derivative_is_refused(name):
    net, method = Network(), ALL[name]
    h = net.h.clone().requires_grad_()
    value = net.f(method(net.g, net.z, h, sgd(0.3)), h)
    kind = type(method).__name__
    with pytest.raises(
        UsageError, match=f"^{kind} can be differentiated once, got create_graph=True; use Unrolled, wh"
    ):
        torch.autograd.grad(value, h, create_graph=True)


def test_orders():
    assert {n: m.differentiable for n, m in ALL.items()} == {n: 1 if n in ONCE else 2 for n in ALL}
    assert ONCE == ["central", "forward", "neumann", "cg", "nystrom", "exact"]


@pytest.mark.parametrize("name", ONCE)
def test_a_change_in_place_too_early(name):
    """These look at z again when f is differentiated: a step of the weights before that is found out."""
    net = Network()
    net.f = lambda z, h: sum(v.sum() for v in z.values())  # keeps no weights of its own that torch would check
    h = net.h.clone().requires_grad_()
    value = net.f(ALL[name](net.g, net.z, h, sgd(0.3)), h)
    net.z["first"] += 1
    with pytest.raises(RuntimeError, match="z or h was changed in place before f was differentiated"):
        value.backward()


@every
def test_weights_and_h_that_g_does_not_read(method):
    net = Network()
    z = {**net.z, "unused": torch.ones(2, dtype=torch.float64)}
    h = net.h.clone().requires_grad_()
    after = method(lambda z, h, k: net.g(z, net.h, k), z, h, sgd(0.3))
    (net.f(after, net.h) + after["unused"].sum() + h.sum()).backward()
    torch.testing.assert_close(h.grad, torch.ones_like(h))


@pytest.mark.parametrize(
    "method", [m for n, m in ALL.items() if n != "first order"], ids=[n for n in ALL if n != "first order"]
)
def test_g_is_one_number(method):
    net = Network()
    h = net.h.clone().requires_grad_()
    with pytest.raises(
        UsageError, match=r"g should give one number, the training loss, got shape \[1\]; take the mean"
    ):
        net.f(method(lambda z, h, k: net.g(z, h, k).unsqueeze(0), net.z, h, sgd(0.3)), h).backward()


def test_pairs():
    for method in ALL.values():
        for fits in (Relax(), Softmax(), Rebar(learn="scale")):
            check_hypergradient(fits, method)
        if method.differentiable == 2:
            check_hypergradient(Rebar(), method)
        else:
            with pytest.raises(
                UsageError, match=r"Rebar .* twice .*, but \w+ can be differentiated once; use Unrolled, .* Relax"
            ):
                check_hypergradient(Rebar(), method)


def test_a_cost_that_has_no_derivative():
    class Once(ValidLoss):
        differentiable = 1

    with pytest.raises(
        UsageError, match="Softmax differentiates f with respect to h, but ValidLoss has no derivative there, cost"
    ):
        check_hypergradient(Softmax(), Unrolled(), ValidLoss())
    with pytest.raises(UsageError, match=r"Rebar differentiates f twice .*, but Once can be differentiated once, cost"):
        check_hypergradient(Rebar(), Unrolled(), Once())
    check_hypergradient(Relax(), Unrolled(), ValidLoss())
    check_hypergradient(Softmax(), FiniteDifference(), Once())
