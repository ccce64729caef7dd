"""What the loop and the store cost: a search of 3,000 trivial trials, less evaluation and policy.

    python bench/store.py [--trials 3000] [--repeats 5] [--json]

Milliseconds a trial of this process's CPU time and of the wall clock, median over repeats, for 20 decisions of 7:
in this process with the store as it is by default, with --durable, and with two worker processes (whose own work
counts as evaluation; what is left is the driver's share and the pipes).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from archgrad import Inline, Processes, SQLite, ValidLoss
from archgrad.loop import loop
from archgrad.problem import Measure, Problem
from archgrad.recipes import RECIPES
from archgrad.testing import Separable, plain_space

SPACE = plain_space(*[7] * 20)


class Stopwatch:
    """CPU and wall time spent inside the functions it wraps."""

    def __init__(self) -> None:
        self.cpu = self.wall = 0.0

    def wrap(self, owner: Any, name: str) -> None:
        inner: Callable[..., Any] = getattr(owner, name)

        def timed(*args: Any, **kwargs: Any) -> Any:
            cpu, wall = time.process_time(), time.perf_counter()
            try:
                return inner(*args, **kwargs)
            finally:
                self.cpu += time.process_time() - cpu
                self.wall += time.perf_counter() - wall

        setattr(owner, name, timed)


def overhead(recipe_name: str, trials: int, *, durable: bool, workers: int) -> tuple[float, float]:
    """Milliseconds a trial (CPU, wall) outside evaluation and policy."""
    import archgrad.loop

    solver = Separable(SPACE, torch.rand(20, 7, generator=torch.Generator().manual_seed(0)))
    recipe = RECIPES[recipe_name](SPACE, 0)
    watch = Stopwatch()
    for owner, name in ((recipe.estimator, "propose"), (recipe.estimator, "gradient"), (recipe.optimizer, "step")):
        watch.wrap(owner, name)
    believed = archgrad.loop.believed
    watch.wrap(archgrad.loop, "believed")
    measure = Measure(solver)
    executor: Inline | Processes
    if workers:
        executor = Processes(measure, workers)
    else:
        watch.wrap(solver, "measure")
        executor = Inline(measure)
    try:
        with tempfile.TemporaryDirectory() as folder, executor:
            store = SQLite(Path(folder) / "run.sqlite", create=True, durable=durable)
            with contextlib.closing(store):
                problem = Problem(SPACE, solver, ValidLoss())
                cpu = wall = 0.0
                if workers:  # a first batch starts the workers, which is not a trial's cost
                    loop(problem, recipe, trials=20, executor=executor, store=store)
                    watch.cpu = watch.wall = 0.0
                cpu, wall = time.process_time(), time.perf_counter()
                loop(problem, recipe, trials=trials, executor=executor, store=store)
                cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    finally:
        archgrad.loop.believed = believed
    return 1e3 * (cpu - watch.cpu) / trials, 1e3 * (wall - watch.wall) / trials


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=3000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    cases = {
        "ppo": {"recipe_name": "ppo", "durable": False, "workers": 0},
        "nasnet (LSTM)": {"recipe_name": "nasnet", "durable": False, "workers": 0},
        "ppo, durable": {"recipe_name": "ppo", "durable": True, "workers": 0},
        "ppo, 2 processes": {"recipe_name": "ppo", "durable": False, "workers": 2},
    }
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in cases}
    for _ in range(options.repeats):  # interleaved, so that a machine that slows down slows all
        for name, case in cases.items():
            found[name].append(overhead(trials=options.trials, **case))  # type: ignore[arg-type]
    table = {
        name: {"cpu_ms": statistics.median(c for c, _ in rows), "wall_ms": statistics.median(w for _, w in rows)}
        for name, rows in found.items()
    }
    if options.json:
        print(json.dumps({"trials": options.trials, "repeats": options.repeats, "overhead": table}))
        return
    print(f"{'':18} {'CPU ms a trial':>15} {'wall ms a trial':>16}")
    for name, row in table.items():
        print(f"{name:18} {row['cpu_ms']:15.3f} {row['wall_ms']:16.3f}")


if __name__ == "__main__":
    main()
