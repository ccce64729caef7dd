"""Hypergradients beside the exact one on a small real problem: everything ``archgrad hypergradients`` prints."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from archgrad.errors import UsageError
from archgrad.hypergradients import (
    ConjugateGradient,
    Exact,
    FiniteDifference,
    FirstOrder,
    Implicit,
    Neumann,
    Nystrom,
    Report,
    Unrolled,
)
from archgrad.hypergradients.attach import gradients, leaves
from archgrad.hypergradients.implicit import flat, like
from archgrad.laboratory.digits_supernet import L2, DigitsSupernet
from archgrad.laboratory.memory import peak_bytes
from archgrad.protocols import Hypergradient, Update, Weights

EPSILONS = (1.0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
DEAR = 100
"""Inner gradients; what costs more is timed once."""
Progress = Callable[[str], None]


@dataclass(frozen=True)
class Row:
    """One hypergradient at the minimum. error and cosine: against the exact implicit one.

    cost: CPU time of z', f and the derivative, in gradients of g in z. bytes: peak of the tensors that it makes.
    report: what the linear solver said.
    """

    hypergradient: str
    error: float
    cosine: float
    cost: float
    bytes: int
    report: Report | None


@dataclass(frozen=True)
class Difference:
    """A finite difference beside the exact step it approximates, in the part of the gradient that goes through z.

    error is relative to that part: 1 is what leaving it out would give. weights: untrained or trained.
    """

    activation: str
    weights: str
    dtype: str
    central: bool
    epsilon: float
    error: float


@dataclass(frozen=True)
class HypergradientStudy:
    """exact: what was said of the minimum. rate: of a step, 1 / the largest curvature. inner: CPU seconds of dg/dz.

    indirect: how much of the exact gradient goes through the weights, |it - first order| / |it|.
    """

    activation: str
    weights: int
    exact: Report
    rate: float
    inner: float
    indirect: float
    rows: tuple[Row, ...]
    differences: tuple[Difference, ...]

    def json(self) -> list[dict[str, Any]]:
        """A list of plain values, rows first."""
        return [*(asdict(row) for row in self.rows), *(asdict(d) for d in self.differences)]


def hypergradient_study(
    activation: str = "tanh", *, seed: int = 0, repeats: int = 7, progress: Progress | None = None
) -> HypergradientStudy:
    """Train, differentiate the minimum exactly, and measure the others beside it; float64.

    activation: tanh, gelu or relu. Finite differences are measured with it and with relu.
    """
    if repeats < 1:
        raise UsageError(f"repeats should be at least 1, got {repeats}; 7 are usual")
    tell = progress or (lambda text: None)
    problem = DigitsSupernet(activation, seed)
    tell(f"training the {activation} network")
    problem.train()
    tell("the exact derivative")
    truth = Implicit(Exact())
    exact = derivative(problem, truth, nothing)
    assert truth.report is not None
    rate = 1 / largest_curvature(problem)
    step = descent(rate)
    tell("the others")
    methods = candidates(rate)
    found = {name: derivative(problem, method, step) for name, method in methods.items()}
    costs, inner = timed(problem, methods, step, repeats)
    rows = tuple(
        Row(
            name,
            error(x, exact),
            float((x * exact).sum() / (x.norm() * exact.norm())),
            costs[name],
            peak_bytes(lambda name=name: derivative(problem, methods[name], step)),  # type: ignore[misc]
            report_of(methods[name]),
        )
        for name, x in found.items()
    )
    differences: list[Difference] = []
    for act in dict.fromkeys((activation, "relu")):
        tell(f"finite differences on the {act} network")
        other = problem if act == activation else DigitsSupernet(act, seed)
        if other is not problem:
            other.train(300)
        differences += compared(DigitsSupernet(act, seed), "untrained", rate) + compared(other, "trained", rate)
    return HypergradientStudy(
        activation,
        sum(v.numel() for v in problem.z.values()),
        truth.report,
        rate,
        inner,
        error(found["first order"], exact),
        rows,
        tuple(differences),
    )


def candidates(rate: float) -> dict[str, Hypergradient]:
    """What is measured, by name."""
    return {
        "first order": FirstOrder(),
        **{f"unrolled {steps}": Unrolled(steps) for steps in (1, 10, 100)},
        **{f"finite difference {e:g}": FiniteDifference(e) for e in EPSILONS},
        "finite difference 0.01, forward": FiniteDifference(0.01, central=False),
        **{f"neumann {steps}": Implicit(Neumann(steps, rate)) for steps in (5, 50)},
        **{f"cg {steps}": Implicit(ConjugateGradient(steps)) for steps in (5, 50)},
        **{f"cg {steps}, damping {L2}": Implicit(ConjugateGradient(steps, damping=L2)) for steps in (5, 50)},
        **{f"nystrom {rank}, damping {L2}": Implicit(Nystrom(rank, L2)) for rank in (10, 50, 200)},
        "exact": Implicit(Exact()),
    }


def nothing(z: Weights, grad: Weights, k: int) -> Weights:
    """The update of one that asks for none."""
    return z


def descent(rate: float) -> Update:
    return lambda z, grad, k: {name: v - rate * grad[name] for name, v in z.items()}


def derivative(problem: DigitsSupernet, method: Hypergradient, update: Update) -> Tensor:
    """df/dh, all of it."""
    h = problem.h.clone().requires_grad_()
    return torch.autograd.grad(problem.f(method(problem.g, problem.z, h, update), h), h)[0]


def error(x: Tensor, exact: Tensor) -> float:
    return float((x - exact).norm() / exact.norm())


def report_of(method: Hypergradient) -> Report | None:
    return method.report if isinstance(method, Implicit) else None


def largest_curvature(problem: DigitsSupernet, steps: int = 50) -> float:
    """The largest eigenvalue of d2g/dz2, by the power method."""
    z = leaves(problem.z)
    points = list(z.values())
    slope = gradients(problem.g(z, problem.h, 0), points, graph=True)
    x = torch.ones_like(flat(points).detach())
    for _ in range(steps):
        x = x / x.norm()
        x = flat(list(torch.autograd.grad(slope, points, like(x, points), retain_graph=True)))
    return float(x.norm())


def inner_gradient(problem: DigitsSupernet) -> None:
    z = leaves(problem.z)
    gradients(problem.g(z, problem.h, 0), list(z.values()))


def timed(
    problem: DigitsSupernet, methods: dict[str, Hypergradient], update: Update, repeats: int
) -> tuple[dict[str, float], float]:
    """CPU time of each in inner gradients, the median over repeats of neighbours in time; and an inner gradient's."""
    ratios: dict[str, list[float]] = {name: [] for name in methods}
    unit: list[float] = []
    for _ in range(repeats):
        for name, method in methods.items():
            if ratios[name] and ratios[name][0] > DEAR:
                continue
            began = time.process_time()
            inner_gradient(problem)
            inner_gradient(problem)
            middle = time.process_time()
            derivative(problem, method, update)
            ended = time.process_time()
            unit.append((middle - began) / 2)
            ratios[name].append((ended - middle) / unit[-1])
    return {name: statistics.median(some) for name, some in ratios.items()}, statistics.median(unit)


def compared(problem: DigitsSupernet, weights: str, rate: float) -> list[Difference]:
    """Finite differences at many epsilons beside the exact step, in both number types."""
    step = descent(rate)
    found = []
    exact = derivative(problem, Unrolled(1), step)
    indirect = (exact - direct(problem, step)).norm()
    for dtype in (torch.float64, torch.float32):
        same = problem.to(dtype)
        for central in (True, False):
            for epsilon in EPSILONS:
                x = derivative(same, FiniteDifference(epsilon, central), step)
                kind = str(dtype).removeprefix("torch.")
                off = float((x.to(exact) - exact).norm() / indirect)
                found.append(Difference(problem.activation, weights, kind, central, epsilon, off))
    return found


def direct(problem: DigitsSupernet, update: Update) -> Tensor:
    """df/dh with the weights after the step held."""
    z = Unrolled(1)(problem.g, problem.z, problem.h, update)
    h = problem.h.clone().requires_grad_()
    return torch.autograd.grad(problem.f(z, h), h)[0]
