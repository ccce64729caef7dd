"""What each hypergradient of a small network costs, and how far it is from the exact one.

    python bench/hypergradient.py [--repeats 40] [--json]

A network 64-128-10 (9,610 weights) on scikit-learn's digits, batches of 128, float32; h is an L2 coefficient a weight
(9,610). Costs are in *inner gradients*, one of g in z: CPU time, one thread, all cases in this process, in a new order
every time, each right after an inner gradient and a gradient of f; medians over repeats. *Whole* is z', f at it and
the derivative in h; *beyond f* is that less the gradient of f in z, which is needed with any of them.

Errors are |x - exact| / |exact|: against one step, differentiated exactly in float64, for what stands for one; and in
float64 against the exact derivative of the minimum, by conjugate gradients to 1e-12. Weights are trained first, by
L-BFGS in float64, to that minimum.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import statistics
import time
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from archgrad.hypergradients import (
    ConjugateGradient,
    FiniteDifference,
    Implicit,
    Neumann,
    Nystrom,
    Unrolled,
)
from archgrad.laboratory.minimum import minimum
from archgrad.protocols import Hypergradient, Weights
from archgrad.tasks import load

RATE, L2, DAMPING, BATCH, WARM = 0.1, 0.01, 0.01, 128, 3


class Problem:
    """g and f on batches of digits, z trained for h = ``L2`` everywhere; ``to`` gives it in another number type."""

    def __init__(self, batch: int, dtype: torch.dtype = torch.float64) -> None:
        data = load("digits", seed=0)
        self.x, self.y = (data.train.x.flatten(1).to(dtype) / 16, data.train.y)
        self.valid = data.valid.x.flatten(1).to(dtype)[:batch] / 16, data.valid.y[:batch]
        self.batch = batch
        generator = torch.Generator().manual_seed(0)
        shapes = {"w1": (64, 128), "b1": (128,), "w2": (128, 10), "b2": (10,)}
        self.z = {
            n: (torch.randn(s, generator=generator, dtype=torch.float64) / s[0] ** 0.5) for n, s in shapes.items()
        }
        size = sum(v.numel() for v in self.z.values())
        self.h = torch.full((size,), L2, dtype=dtype)

    def loss(self, z: Weights, x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(torch.tanh(x @ z["w1"] + z["b1"]) @ z["w2"] + z["b2"], y)

    def g(self, z: Weights, h: Tensor, k: int) -> Tensor:
        start = k * self.batch % (len(self.y) - self.batch + 1)
        rows = slice(start, start + self.batch)
        weights = torch.cat([v.reshape(-1) for v in z.values()])
        return self.loss(z, self.x[rows], self.y[rows]) + h.dot(weights.square()) / 2

    def f(self, z: Weights, h: Tensor) -> Tensor:
        del h  # enters through the weights alone
        return self.loss(z, *self.valid)

    def train(self) -> None:
        self.z = minimum(self.g, self.z, self.h, steps=2000, slope=1e-9)

    def to(self, dtype: torch.dtype) -> Problem:
        other = Problem(self.batch, dtype)
        other.z = {n: v.to(dtype) for n, v in self.z.items()}
        return other


def update(z: Weights, grad: Weights, k: int) -> Weights:
    return {n: v - RATE * grad[n] for n, v in z.items()}


def inner(problem: Problem) -> None:
    z = {n: v.detach().requires_grad_() for n, v in problem.z.items()}
    torch.autograd.grad(problem.g(z, problem.h, 0), list(z.values()))


def outer(problem: Problem) -> None:
    z = {n: v.detach().requires_grad_() for n, v in problem.z.items()}
    torch.autograd.grad(problem.f(z, problem.h), list(z.values()))


def whole(problem: Problem, method: Hypergradient) -> Tensor:
    h = problem.h.clone().requires_grad_()
    problem.f(method(problem.g, problem.z, h, update), h).backward()  # type: ignore[no-untyped-call]
    assert h.grad is not None
    return h.grad


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=40)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    double = Problem(BATCH)
    double.train()
    single = double.to(torch.float32)
    methods: dict[str, Hypergradient] = {
        **{f"unrolled {steps}": Unrolled(steps) for steps in (1, 5, 20)},
        **{f"finite difference {e:g}": FiniteDifference(e) for e in (1.0, 0.01)},
        "finite difference 0.01, forward": FiniteDifference(0.01, central=False),
        **{f"neumann {steps}": Implicit(Neumann(steps, RATE)) for steps in (5, 20)},
        **{f"cg {steps}": Implicit(ConjugateGradient(steps)) for steps in (5, 20, 100)},
        f"cg 20, damping {DAMPING}": Implicit(ConjugateGradient(20, damping=DAMPING)),
        **{f"nystrom {rank}, damping {DAMPING}": Implicit(Nystrom(rank, DAMPING)) for rank in (5, 20)},
    }
    minimum = Implicit(ConjugateGradient(5000, 1e-12))
    step, implicit = whole(double, Unrolled(1)), whole(double, minimum)

    def off(method: Hypergradient, problem: Problem, exact: Tensor) -> float:
        return float((whole(problem, method) - exact).norm() / exact.norm())

    unit: list[float] = []
    spent: dict[str, list[tuple[float, float]]] = {name: [] for name in methods}
    for repeat in range(options.repeats + WARM):
        order = list(methods.items())
        random.Random(repeat).shuffle(order)  # what ran before leaves memory behind that makes the next one faster
        for name, method in order:
            times = [time.process_time()]
            for run in (lambda: inner(single), lambda: outer(single), lambda m=method: whole(single, m)):  # type: ignore[misc]
                run()
                times.append(time.process_time())
            inner_time, outer_time, time_of_it = (b - a for a, b in itertools.pairwise(times))
            if repeat >= WARM:
                unit.append(inner_time)
                spent[name].append((time_of_it / inner_time, (time_of_it - outer_time) / inner_time))
    ms = 1000 * statistics.median(unit)
    rows: list[dict[str, Any]] = [
        {
            "hypergradient": name,
            "whole": statistics.median(w for w, _ in spent[name]),
            "beyond_f": statistics.median(b for _, b in spent[name]),
            "error_step_float64": off(method, double, step) if of_a_step(name) else None,
            "error_step_float32": off(method, single, step) if of_a_step(name) else None,
            "error_minimum": off(method, double, implicit),
            "products": method.report.products if isinstance(method, Implicit) and method.report else None,
        }
        for name, method in methods.items()
    ]
    if options.json:
        print(json.dumps({"inner_gradient_ms": ms, "minimum": str(minimum.report), "rows": rows}))
        return
    print(f"inner gradient: {ms:.2f} ms of CPU time; the minimum: {minimum.report}")
    print(f"{'':34}{'whole':>8}{'beyond f':>10}{'ms':>8}{'one step, f64':>15}{'f32':>10}{'minimum':>10}")
    for row in rows:
        errors = [
            "" if row[k] is None else f"{row[k]:.1e}"
            for k in ("error_step_float64", "error_step_float32", "error_minimum")
        ]
        print(
            f"{row['hypergradient']:34}{row['whole']:8.2f}{row['beyond_f']:10.2f}{ms * row['whole']:8.2f}"
            f"{errors[0]:>15}{errors[1]:>10}{errors[2]:>10}"
        )


def of_a_step(name: str) -> bool:
    """Whether it is an answer for one step, exact or not."""
    return name == "unrolled 1" or name.startswith("finite")


if __name__ == "__main__":
    main()
