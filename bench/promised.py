"""Does what searchers find on the model of ``made.LARGE`` keep its promise when it is really trained?

    python bench/promised.py [--data fashion-mnist] [--runs 8] [--budget 300] [--json]

Each recipe searches made_large with the noise of a seed. A run's choice is the lowest value it observed, then trained
as in the table, with seeds that neither the table nor the model has seen. So are networks drawn uniformly, without any
search. Errors in percent on validation; the test split is not touched. One thread.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

import torch
from torch import Tensor

from archgrad.benchmarks.made import LARGE, LARGE_SEEDS, LARGE_TRAINING, SHRINK, VALID, made_large_benchmark
from archgrad.benchmarks.making import shrunk, train
from archgrad.comparison.compare import side_by_side
from archgrad.comparison.measuring import measure
from archgrad.comparison.named import named
from archgrad.tasks import load

RECIPES = ("frugal", "ppo", "regularised_evolution", "random_search")
NOISE = 1.9
"""Standard deviation of a seed among good networks, docs/benchmarks_made.md."""
SEEDS = (4, 5, 6)
UNIFORM = 32
"""Networks drawn uniformly."""


def spread(values: Tensor) -> dict[str, float]:
    return {"mean": float(values.mean()), "sd": float(values.std())}


def table(result: dict[str, Any]) -> str:
    lines = ["| recipe | networks | seen | promised | measured | measured − promised |", "|---|---|---|---|---|---|"]
    for row in result["rows"]:
        cells = [
            f"{row[k]['mean']:.1f} ± {row[k]['sd']:.1f}" if row[k] else "" for k in ("seen", "promised", "measured")
        ]
        difference = f"{row['difference']['mean']:+.1f} ± {row['difference']['sd']:.1f}"
        lines.append(f"| `{row['recipe']}` | {row['networks']} | {' | '.join(cells)} | {difference} |")
    return "\n".join(lines) + (
        f"\n± is the standard deviation over networks (a run finds one); that of a seed "
        f"{result['sd_of_a_seed']:.1f}. "
        f"Of the model, the mean over all networks is {result['model_uniform_mean']:.1f}, "
        f"the best known value {result['model_best_known']:.1f}."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="fashion-mnist")
    parser.add_argument("--runs", type=int, default=8)
    parser.add_argument("--budget", type=int, default=300)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.runs < 2 or options.budget < 1:
        parser.error("there should be at least 2 runs, of at least 1 evaluation")
    assert not {*SEEDS} & {*LARGE_SEEDS}
    torch.set_num_threads(1)
    images = shrunk(load(options.data), SHRINK, VALID, 0)  # before the searches: there may be no such data
    benchmark = made_large_benchmark(NOISE)
    space, runs = benchmark.space, options.runs
    picked: dict[str, Tensor] = {}
    seen: dict[str, Tensor] = {}
    for name in RECIPES:
        print(f"search: {name}", file=sys.stderr, flush=True)
        make = named(name)
        course = measure(benchmark, side_by_side([make(space, r) for r in range(runs)]), runs, options.budget, seed=0)
        seen[name], at = course.observed.min(-1)
        picked[name] = course.choices[torch.arange(runs), at].long()
    picked["uniform"] = torch.randint(space.K, (UNIFORM, space.D), generator=torch.Generator().manual_seed(0))

    every = torch.cat(list(picked.values()))
    column = f"valid_accuracy_{LARGE_TRAINING.fidelities[-1]}"
    errors = []
    for seed in SEEDS:
        print(f"train {len(every)} networks, seed {seed}", file=sys.stderr, flush=True)
        errors.append(100 - train(LARGE, every, seed, images, LARGE_TRAINING)[column].double())
    measured = torch.stack(errors).split([len(c) for c in picked.values()], 1)  # [seeds, n] each

    rows: list[dict[str, Any]] = []
    for (name, choices), error in zip(picked.items(), measured, strict=True):
        promise = benchmark.value(torch.nn.functional.one_hot(choices, space.K).double())
        difference = error.mean(0) - promise
        rows.append(
            {
                "recipe": name,
                "networks": len(choices),
                "seen": spread(seen[name]) if name in seen else None,
                "promised": spread(promise),
                "measured": spread(error.mean(0)),
                "difference": spread(difference) | {"se": float(difference.std() / len(difference) ** 0.5)},
                "by_seed": error.mean(1).tolist(),
            }
        )
    result = {
        "runs": runs,
        "budget": options.budget,
        "noise": NOISE,
        "seeds": SEEDS,
        "model_uniform_mean": float(benchmark.mean),
        "model_best_known": float(benchmark.optimum),
        "sd_of_a_seed": float(torch.cat(measured, 1).var(0).mean().sqrt()),
        "rows": rows,
    }
    if options.json:
        print(json.dumps(result, allow_nan=False))
        return
    print(table(result))


if __name__ == "__main__":
    main()
