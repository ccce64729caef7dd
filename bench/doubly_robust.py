"""Variance of doubly robust estimates on NAS-Bench-201, relative to plain leave-one-out at equal evaluations.

    python bench/doubly_robust.py --table nasbench201_cifar10.csv.gz
    python bench/doubly_robust.py --table nasbench201_cifar10.csv.gz --past 300 --pasts 5 --surrogates GaussianProcess

For three alphas (uniform, halfway, late: exact gradient descent with step .3 until the mean largest probability passes
.5 and .95) and every number of past evaluations, a third of them uniform and two thirds from the policy: independent
pasts are drawn, the surrogate is fitted to each, and the estimator is drawn --draws times. Printed is the mean squared
error around the exact gradient (for an unbiased estimator its variance, over pasts and batches), divided by that of
ScoreFunction with a leave-one-out baseline; ± its standard deviation over pasts. "alone" is shrink = 0: the
surrogate's gradient without correction, whose error is bias.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from archgrad import Factorised, ScoreFunction
from archgrad.benchmarks import Known, nasbench201
from archgrad.estimators.doubly_robust import DoublyRobust
from archgrad.estimators.unordered import Unordered
from archgrad.policies.replicated import replicated
from archgrad.protocols import Estimator, Policy
from archgrad.surrogates import GaussianProcess, Linear, Pairwise

SURROGATES: dict[str, Any] = {"Linear": Linear, "Pairwise": Pairwise, "GaussianProcess": GaussianProcess}
REPLICAS = 250


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", type=Path, required=True)
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--past", type=int, nargs="+", default=[300, 1000])
    parser.add_argument("--pasts", type=int, default=20)
    parser.add_argument("--draws", type=int, default=1000, help="estimates a past")
    parser.add_argument("--surrogates", nargs="+", choices=SURROGATES, default=list(SURROGATES))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    known = nasbench201(options.table)
    f = Table(known)
    rows: list[dict[str, Any]] = []
    for name, policy in alphas(known).items():
        (exact,) = known.gradient(policy)
        norm = float(exact.square().sum())
        generator = torch.Generator().manual_seed(options.seed)
        plain = error(ScoreFunction(options.samples), policy, f, exact, options.draws * options.pasts, generator)
        alone = error(Unordered(options.samples), policy, f, exact, options.draws, generator)
        found = [row(name, 0, "none", "without replacement", [alone / plain], 0.0)]
        if not options.json:
            print(f"{name}: |g| = {norm**0.5:.4f}, plain leave-one-out: variance / |g|^2 = {plain / norm:.3f}")
            print(line(found[0]))
        for past in options.past:
            for surrogate in options.surrogates:
                errors, seconds = study(known, policy, f, exact, past, SURROGATES[surrogate], options)
                for inner, e in errors.items():
                    found.append(row(name, past, surrogate, inner, [x / plain for x in e], seconds))
                    if not options.json:
                        print(line(found[-1]), flush=True)
        rows += [{**r, "gradient": norm**0.5, "plain_variance": plain / norm} for r in found]
    if options.json:
        print(json.dumps({"samples": options.samples, "draws": options.draws, "rows": rows}))


def study(
    known: Known, policy: Policy, f: Table, exact: Tensor, past: int, surrogate: Any, options: argparse.Namespace
) -> tuple[dict[str, list[float]], float]:
    """Mean squared errors, one a past, for every way of correcting; and CPU seconds a fit."""
    errors: dict[str, list[float]] = {"alone": [], "leave-one-out": [], "without replacement": []}
    seconds = 0.0
    for seed in range(options.pasts):
        generator = torch.Generator().manual_seed(options.seed + 1 + seed)
        h = evaluations(policy, known, past, generator)
        model = surrogate(known.space) if surrogate is GaussianProcess else surrogate()
        estimator = DoublyRobust(model, ScoreFunction(options.samples))
        estimator.observe(h, f(h))
        estimator.learns = False
        start = time.process_time()
        estimator.fit()
        seconds += (time.process_time() - start) / options.pasts
        errors["leave-one-out"].append(error(estimator, policy, f, exact, options.draws, generator))
        estimator.inner = Unordered(options.samples)
        errors["without replacement"].append(error(estimator, policy, f, exact, options.draws, generator))
        estimator.shrink = 0.0
        errors["alone"].append(error(estimator, policy, f, exact, 1, generator))
    return errors, seconds


def row(alpha: str, past: int, surrogate: str, inner: str, ratios: list[float], seconds: float) -> dict[str, Any]:
    """One line of the table: mean and standard deviation over pasts."""
    spread = statistics.stdev(ratios) if len(ratios) > 1 else None
    return {
        "alpha": alpha,
        "past": past,
        "surrogate": surrogate,
        "inner": inner,
        "pasts": len(ratios),
        "variance": statistics.fmean(ratios),
        "sd": spread,
        "fit_seconds": seconds,
    }


def line(row: dict[str, Any]) -> str:
    spread = "" if row["sd"] is None else f" ± {row['sd']:.3f}"
    return (
        f"| {row['alpha']} | {row['past']} | {row['surrogate']} | {row['inner']} | "
        f"{row['variance']:.3f}{spread} | {row['fit_seconds']:.2f} |"
    )


class Table:
    """f at vertices, looked up: the estimators here ask for values only."""

    def __init__(self, known: Known) -> None:
        space = known.space
        with torch.no_grad():
            self.values = known.f(space.enumerate().double())
        self.place = space.K ** torch.arange(space.D - 1, -1, -1)

    def __call__(self, h: Tensor) -> Tensor:
        return self.values[(h.argmax(-1) * self.place).sum(-1)]


def alphas(known: Known) -> dict[str, Any]:
    """Uniform, and the first policies of exact descent whose mean largest probability exceeds .5 and .95."""
    policy = Factorised(known.space).double()
    found = {"uniform": replicated(policy)}
    for name, level in (("halfway", 0.5), ("late", 0.95)):
        while float(policy.marginals().detach().amax(-1).mean()) <= level:
            policy.alpha.data -= 0.3 * known.gradient(policy)[0]
        found[name] = replicated(policy)
    return found


def evaluations(policy: Policy, known: Known, n: int, generator: torch.Generator) -> Tensor:
    """n vertices, a third uniform and two thirds from the policy."""
    uniform = known.space.uniform(n // 3, generator).double()
    return torch.cat([uniform, policy.sample(n - n // 3, generator).double()])


def error(estimator: Estimator, policy: Any, f: Any, exact: Tensor, draws: int, generator: torch.Generator) -> float:
    """Mean squared error of ``draws`` estimates around the exact gradient, all coordinates summed."""
    total, done = 0.0, 0
    while done < draws:
        many = replicated(policy, min(REPLICAS, draws - done))
        batch = estimator.propose(many, generator)
        (gradient,) = estimator.gradient(many, batch, f(batch.h)).gradient
        total += float((gradient - exact).square().sum())
        done += len(gradient)
    return total / done


if __name__ == "__main__":
    main()
