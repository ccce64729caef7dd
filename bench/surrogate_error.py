"""How well surrogates predict networks of ``made.LARGE`` that they were not fitted to, beside the noise of a seed.

    python bench/surrogate_error.py [--json]

Works on the rows that archgrad ships. Held out are 100 networks of the uniform half, 100 of the children of good ones,
and the whole last generation of children; the surrogates are fitted to the others, to one seed. Then what a searcher
would exploit: what surrogates of all these rows held for best was trained afterwards, with a new seed; and once more.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import Tensor

from archgrad.benchmarks.made import GROUPS, LARGE, made_rows
from archgrad.surrogates import GaussianProcess, Linear, Pairwise
from archgrad.surrogates.surrogate import Surrogate

LAST = 112
"""Networks of a generation."""


def errors(predicted: Tensor, f: Tensor) -> dict[str, float]:
    residual = predicted - f
    return {
        "n": len(f),
        "sd": float(f.std()),
        "R2": float(1 - residual.square().mean() / f.var(correction=0)),
        "spearman": float(spearmanr(predicted, f).statistic),
        "RMSE": float(residual.square().mean().sqrt()),
        "bias": float(residual.mean()),
    }


def noise(first: Tensor, second: Tensor) -> float:
    """Standard deviation of one seed's value, from two seeds of the same networks."""
    return float((first - second).std() / 2**0.5)


def surrogates() -> dict[str, Surrogate]:
    return {"Linear": Linear(), "Pairwise": Pairwise(), "GaussianProcess": GaussianProcess(LARGE.space)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = made_rows()
    h = torch.nn.functional.one_hot(rows["choices"].long(), LARGE.space.K).double()
    f = (100 - rows["valid_accuracy"]).double()
    groups = {name: (rows["group"] == g).nonzero().squeeze(1) for g, name in enumerate(GROUPS)}
    uniform, kids = groups["uniform"], groups["children"]
    generator = torch.Generator().manual_seed(0)
    early = kids[:-LAST]
    held = {
        "uniform": uniform[torch.randperm(len(uniform), generator=generator)[:100]],
        "children": early[torch.randperm(len(early), generator=generator)[:100]],
        "last generation": kids[-LAST:],
    }
    searched = torch.cat([uniform, kids])
    away = torch.from_numpy(np.isin(searched.numpy(), torch.cat(list(held.values())).numpy()))
    rest = searched[~away]
    found: dict[str, Any] = {"held_out": {}, "noise": {}, "exploited": {}}
    for name, surrogate in surrogates().items():
        start = time.process_time()
        surrogate.fit(h[rest], f[rest])
        seconds = time.process_time() - start
        found["held_out"][name] = {where: errors(surrogate.mean(h[i]), f[i]) for where, i in held.items()}
        found["held_out"][name]["fit_seconds"] = seconds
    # every network of the group "again" is one of those before, with another seed
    place = {tuple(row): i for i, row in enumerate(rows["choices"][searched].tolist())}
    again = groups["again"]
    before = torch.tensor([place[tuple(row)] for row in rows["choices"][again].tolist()])
    for name, half in (("uniform", before < len(uniform)), ("children", before >= len(uniform))):
        one, two = f[searched[before[half]]], f[again[half]]
        found["noise"][name] = {
            "n": len(one),
            "sd_of_a_seed": noise(one, two),
            "spearman_between_seeds": float(spearmanr(one, two).statistic),
            "shift": float((two - one).mean()),
        }
    for group, known in (("best", 3), ("best again", 4)):
        fitted, best = rows["group"] < known, groups[group]
        picks = {"GaussianProcess": best[: len(best) // 2], "Pairwise": best[len(best) // 2 :]}
        for name, surrogate in surrogates().items():
            surrogate.fit(h[fitted], f[fitted])
            for whose, i in picks.items():
                predicted = surrogate.mean(h[i])
                found["exploited"][f"{group}, of {whose}: {name}"] = errors(predicted, f[i]) | {
                    "predicted": float(predicted.mean()),
                    "measured": float(f[i].mean()),
                    "lowest_measured": float(f[i].min()),
                }
        distances = (rows["choices"][best][:, None] != rows["choices"][fitted]).sum(-1).amin(1)
        found["exploited"][f"{group}: decisions to the nearest trained"] = statistics.median(distances.tolist())
    found["observed"] = {
        "uniform, mean": float(f[uniform].mean()),
        "children, mean": float(f[kids].mean()),
        "last generation, mean": float(f[held["last generation"]].mean()),
        "lowest of both halves": float(f[searched].min()),
    }
    if options.json:
        print(json.dumps(found))
        return
    print(f"{'surrogate':18}{'held out':18}{'n':>5}{'sd':>7}{'R2':>7}{'rank':>7}{'RMSE':>7}{'bias':>7}")
    for name, parts in found["held_out"].items():
        for where in held:
            e = parts[where]
            print(
                f"{name:18}{where:18}{e['n']:5}{e['sd']:7.2f}{e['R2']:7.2f}{e['spearman']:7.2f}{e['RMSE']:7.2f}"
                f"{e['bias']:7.2f}"
            )
        print(f"{name:18}fitted in {parts['fit_seconds']:.2f} s of CPU time")
    for name, n in found["noise"].items():
        print(
            f"noise, {name}: sd of a seed {n['sd_of_a_seed']:.2f}, rank correlation of two seeds "
            f"{n['spearman_between_seeds']:.2f}, mean shift {n['shift']:+.2f} (n = {n['n']})"
        )
    for name, e in found["exploited"].items():
        if isinstance(e, dict):
            print(f"{name} predicted {e['predicted']:.2f}, measured {e['measured']:.2f}")
        else:
            print(f"{name} {e:.0f}")
    for name, value in found["observed"].items():
        print(f"{name}: {value:.2f}")


if __name__ == "__main__":
    main()
