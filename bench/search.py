"""What a search finds, over many search seeds, beside random architectures, random search and the plain default.

    python bench/search.py --data digits --trials 30 --seeds 10 --folder runs/study-digits
    python bench/search.py --data fashion-mnist --limit 1000 --trials 20 --seeds 10 --folder runs/study-fashion

A seed makes its own splits, samples and trainings. Runs that the folder holds are not made again, so seeds can be
spread over processes (--only 0 2 4) and an interrupted study goes on. Differences are paired by seed, with Student's
95% interval over seeds.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import statistics
from pathlib import Path

from scipy.stats import t as student

import archgrad

OTHERS = ("random_mean", "random_search", "default")
MEASURES = ("test_accuracy", "test_loss", "valid_loss")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="digits")
    parser.add_argument("--limit", type=int)
    parser.add_argument("--trials", type=int, default=30)
    parser.add_argument("--recipe", default="ppo")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--only", type=int, nargs="*", help="run these seeds and print nothing")
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    for seed in range(options.seeds) if options.only is None else options.only:
        run = options.folder / str(seed)
        if not run.exists():
            archgrad.search(
                options.data,
                recipe=options.recipe,
                out=run,
                trials=options.trials,
                limit=options.limit,
                seed=seed,
                workers=0,
            )
        elif summary(run) is None:
            archgrad.resume(run)
    if options.only is not None:
        return
    rows = [s for seed in range(options.seeds) if (s := summary(options.folder / str(seed))) is not None]
    found = table(rows)
    if options.json:
        print(json.dumps(found))
        return
    print(f"{options.data}, {options.trials} trials, {found['seeds']} seeds; means ± standard deviation over seeds")
    for name, values in found["means"].items():
        cells = ", ".join(f"{m} {v[0]:.4f} ± {v[1]:.4f}" for m, v in values.items())
        print(f"  {name:14} {cells}")
    print("found less other, with 95% intervals")
    for name, values in found["differences"].items():
        cells = ", ".join(f"{m} {v[0]:+.4f} ± {v[1]:.4f}" for m, v in values.items())
        print(f"  {name:14} {cells}")
    print(f"handed over: {found['handed_over']}; seconds a search: {found['seconds']:.0f}")


def summary(run: Path) -> dict | None:
    """The summary of a finished run, None for any other."""
    if not (run / "run.sqlite").is_file():
        return None
    with contextlib.closing(archgrad.SQLite(run / "run.sqlite", create=False, read_only=True)) as store:
        return store.meta("summary") if store.meta("status") == "FINISHED" else None


def table(rows: list[dict]) -> dict:
    """Means over seeds, and paired differences of the search's own best from the others."""
    means, differences = {}, {}
    for name in ("found", "best", *OTHERS):
        means[name] = {m: spread([r[name][m] for r in rows]) for m in (*MEASURES, "params", "macs")}
    for ours in ("found", "best"):
        for name in OTHERS:
            pairs = {m: [r[ours][m] - r[name][m] for r in rows] for m in MEASURES}
            differences[f"{ours} - {name}"] = {m: interval(d) for m, d in pairs.items()}
    handed = [
        next(n for n in ("found", "random_search", "default") if r[n]["architecture"] == r["best"]["architecture"])
        for r in rows
    ]
    return {
        "seeds": len(rows),
        "means": means,
        "differences": differences,
        "handed_over": {n: handed.count(n) for n in ("found", "random_search", "default")},
        "seconds": statistics.fmean(r["seconds"] for r in rows),
    }


def spread(values: list[float]) -> tuple[float, float]:
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else math.nan


def interval(differences: list[float]) -> tuple[float, float]:
    n = len(differences)
    half = student.ppf(0.975, n - 1) * statistics.stdev(differences) / math.sqrt(n) if n > 1 else math.nan
    return statistics.fmean(differences), float(half)


if __name__ == "__main__":
    main()
