"""What a search costs beside its evaluations.

    python bench/bookkeeping.py [--budget 2000] [--repeats 5] [--table nasbench201.csv.gz] [--json]

CPU milliseconds an evaluation that ONE run of each recipe adds in memory, on the NK chain (20 decisions of 7): the
whole loop of ``archgrad compare`` with the searcher, the loop without it, and what of the latter is f itself, looked up
once a batch to be seen and once at the end to be judged. The median of some repeats, one thread.

With ``--table`` also evaluations a second of 500 runs of published REINFORCE on NAS-Bench-201, whole loop, beside the
plain loop of ``bench/policies.py`` for one: ratios of neighbours in time.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from policies import plain_factorised, rate
from torch import Tensor

from archgrad.benchmarks.csv_table import read_csv
from archgrad.benchmarks.landscapes import landscapes
from archgrad.benchmarks.table import Meaning
from archgrad.comparison.compare import side_by_side
from archgrad.comparison.measuring import measure
from archgrad.comparison.named import named
from archgrad.comparison.problems import benchmark_named
from archgrad.spaces.nasbench201 import cell_space

RECIPES = (
    "random_search",
    "local_search",
    "regularised_evolution",
    "reinforce:baseline=moving-average,lr=0.04",
    "reinforce:baseline=moving-average,samples=1,lr=0.01",
    "ppo:samples=20,lr=0.1,entropy=0.06",
    "exponentiated_weights",
    "zoph_le",
)
COLUMN = "cifar10_val_12"


class Clock:
    """CPU seconds spent in a function."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def watch(self, f: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def watched(*arguments: Any) -> Tensor:
            began = time.process_time()
            values = f(*arguments)
            self.seconds += time.process_time() - began
            return values

        return watched


def alone(recipe: str, budget: int, seed: int) -> tuple[float, float, float]:
    """CPU milliseconds an evaluation of one run: the searcher, everything else of the loop, and f within that."""
    clock, chain = Clock(), landscapes(20, 7, [seed])
    benchmark = dataclasses.replace(chain, observe=clock.watch(chain.observe), value=clock.watch(chain.value))
    searcher = side_by_side([named(recipe)(benchmark.space, seed)])
    began = time.process_time()
    course = measure(benchmark, searcher, 1, budget, seed)
    total = time.process_time() - began
    found = course.seconds, total - course.seconds, clock.seconds
    return tuple(1000 * s / budget for s in found)  # type: ignore[return-value]


def many(path: str, runs: int, budget: int, seed: int) -> float:
    """Evaluations a second of CPU time, all runs together, whole loop."""
    benchmark = benchmark_named("nasbench201", runs, table=path, search=COLUMN)
    make = named("reinforce:baseline=moving-average,samples=1,lr=0.05")
    searcher = side_by_side([make(benchmark.space, seed + r) for r in range(runs)])
    began = time.process_time()
    measure(benchmark, searcher, runs, budget, seed)
    return runs * budget / (time.process_time() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budget", type=int, default=2000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--table", help="a CSV table of NAS-Bench-201, plain or gzip")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    measured: dict[str, list[tuple[float, float, float]]] = {recipe: [] for recipe in RECIPES}
    for repeat in range(options.repeats + 1):
        for recipe, found in measured.items():
            spent = alone(recipe, options.budget, repeat)
            if repeat:  # the first warms up
                found.append(spent)
    rows: list[dict[str, Any]] = [
        {
            "recipe": recipe,
            "searcher_ms": statistics.median(s for s, _, _ in found),
            "loop_ms": statistics.median(rest for _, rest, _ in found),
            "f_ms": statistics.median(f for _, _, f in found),
        }
        for recipe, found in measured.items()
    ]
    ratios: list[float] = []
    if options.table:
        meaning = Meaning(name=COLUMN, split="valid", better="higher")
        values = -read_csv(options.table, "nasbench201", cell_space(), [meaning], architecture="ops").columns[0].values
        values = ((values - values.mean()) / values.std(correction=0)).float()
        for repeat in range(options.repeats):
            ratios.append(many(options.table, 500, 300, repeat) / rate(plain_factorised(values), 1.0))
    if options.json:
        print(json.dumps({"budget": options.budget, "rows": rows, "ratios": ratios}))
        return
    print(f"{'CPU ms an evaluation':55}{'searcher':>10}{'the rest':>10}{'of it f':>10}")
    for row in rows:
        print(f"{row['recipe']:55}{row['searcher_ms']:10.3f}{row['loop_ms']:10.3f}{row['f_ms']:10.3f}")
    if ratios:
        middle, low, high = statistics.median(ratios), min(ratios), max(ratios)
        print(f"500 runs on NAS-Bench-201 beside a plain loop: {middle:.0f} x ({low:.0f} to {high:.0f})")


if __name__ == "__main__":
    main()
