"""A store in memory and a run in it, large enough to look like one, with names that would be code if trusted."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from typing import Any

from archgrad.records import Job, Step, Trial

EVIL = "<script>alert(1)</script>"
OPTIONS = ["skip", "conv 3×3", "conv 5×5", "separable 3×3", "dilated 3×3", "max pool", f"7 & {EVIL}"]


class Memory:
    """The reading half of ``protocols.Store``, filled by hand."""

    def __init__(self, trials: list[Trial], steps: list[Step], metas: Mapping[str, Any]) -> None:
        self._trials, self._steps, self._metas = trials, steps, dict(metas)

    def trials(self) -> list[Trial]:
        return self._trials

    def steps(self) -> list[Step]:
        return self._steps

    def meta(self, name: str) -> Any:
        return self._metas.get(name)

    def add(self, trial: Trial) -> None:
        raise NotImplementedError

    def add_step(self, step: Step, state: Mapping[str, Any]) -> None:
        raise NotImplementedError

    def checkpoint(self) -> dict[str, Any] | None:
        return None

    def set_meta(self, name: str, value: Any) -> None:
        self._metas[name] = value

    def close(self) -> None:
        pass


def decisions(n: int = 20) -> list[dict[str, Any]]:
    names = [f"cell {d // 4 + 1} edge {d % 4 + 1}" for d in range(n - 1)] + [f"head {EVIL}"]
    return [{"name": name, "options": OPTIONS, "when": []} for name in names]


def full(n: int = 80, seed: int = 0) -> Memory:
    """A finished run of 2n + 4 evaluations; every 13th failed, one has NaN, one infinity."""
    rng = random.Random(seed)
    space = decisions()
    trials = []

    def trial(role: str, skill: float, fidelity: float = 3, error: str | None = None) -> Trial:
        architecture = tuple(rng.choice(OPTIONS) for _ in space)
        size = math.exp(rng.gauss(10.5, 0.7))
        loss = max(0.12, 0.75 - 0.45 * skill - 0.06 * math.log(size / 36000) + rng.gauss(0, 0.07))
        metrics = {
            "valid_loss": loss,
            "valid_accuracy": min(0.99, math.exp(-loss)),
            "train_loss": 0.8 * loss,
            "params": float(round(size)),
            "macs": float(round(size * rng.uniform(40, 60))),
        }
        job = Job(len(trials), role, architecture, len(trials), fidelity)
        return Trial(job, {} if error else metrics, rng.uniform(2, 5), error)

    trials.append(trial("default", 0.4))
    for role in ("search", "random"):
        for i in range(n):
            error = f"RuntimeError: channels should agree, got 16 and {i} in {EVIL}" if i % 13 == 5 else None
            trials.append(trial(role, 0.2 + (0.7 * i / n if role == "search" else 0.0), error=error))
    trials += [trial("final", 1.1, fidelity=30) for _ in range(3)]
    for i, bad in ((7, math.nan), (9, math.inf)):
        trials[i] = Trial(trials[i].job, {**trials[i].metrics, "valid_loss": bad}, 1.0)
    for i in (1, 2, 3):  # finalists are architectures that the search has seen
        job = trials[-i].job
        trials[-i] = Trial(Job(job.index, "final", trials[n - i].job.architecture, 0, 30), trials[-i].metrics, 9.0)
    best = dict(zip((d["name"] for d in space), trials[-1].job.architecture, strict=True))
    numbers = {
        "valid_loss": 0.2312,
        "test_accuracy": 0.931,
        "test_accuracy_std": 0.004,
        "params": 48210,
        "macs": 2411000,
    }
    metas = {
        "run": {
            "name": f"digits {EVIL}",
            "archgrad": "0.1.0",
            "torch": "2.13.0",
            "python": "3.11.7",
            "platform": "Linux",
            "created": "2025-01-02T03:04:05+00:00",
            "seed": 0,
            "recipe": "reinforce",
            "objective": "valid_loss",
            "workers": 2,
        },
        "space": {"name": "cells", "decisions": space, "size": 7**20},
        "data": {
            "name": "digits",
            "classes": ["zero", "one", EVIL],
            "input_shape": [1, 8, 8],
            "range": [0.0, 16.0],
            "split_hash": "3f9a1c",
            "sizes": {"train": 1079, "valid": 359, "test": 359},
        },
        "config": {"trials": n, "epochs": 3, "label": EVIL, "learning_rate": 0.1},
        "status": "FINISHED",
        "summary": {
            "status": "FINISHED",
            "run": "runs/digits",
            "seconds": 754.2,
            "trials": len(trials),
            "seeds": 3,
            "best": {**numbers, "architecture": best},
            "random_search": {**numbers, "valid_loss": 0.2893, "test_accuracy": 0.921, "params": 61022},
            "default": {**numbers, "valid_loss": 0.3321, "test_accuracy": 0.912, "params": 90112},
            "random_mean": {**numbers, "valid_loss": 0.6120, "test_accuracy": None, "params": 52100.4},
            "verdict": [
                "The search found a network that is better than random search at equal cost.",
                f"It beats the default {EVIL} with half the parameters.",
            ],
        },
        "network": network(),
    }
    return Memory(trials, steps(60, len(space)), metas)


def steps(n: int, decisions: int, options: int = 7) -> list[Step]:
    found = []
    for t in range(n):
        rows = []
        for d in range(decisions):
            weights = [math.exp((4 if k == d % options else 0) * t / n * (d % 5) / 3) for k in range(options)]
            rows.append([w / sum(weights) for w in weights])
        found.append(Step(t, rows, {"entropy": 1.0}))
    return found


def network(cells: int = 7) -> dict[str, Any]:
    """Cells of two branches and a skip edge each."""
    nodes, edges, last = [{"id": "x", "label": "input", "detail": "1×8×8"}], [], "x"
    for c in range(cells):
        a, b, d, e = (f"{kind}{c}" for kind in "abde")
        nodes += [
            {"id": a, "label": "conv · batch norm · ReLU", "detail": "3×3, 16→16, 2,352 parameters"},
            {"id": b, "label": "max pool", "detail": "3×3"},
            {
                "id": d,
                "label": EVIL if c == 0 else "conv · batch norm",
                "detail": "5×5, 16→16, depthwise, 416 parameters",
            },
            {"id": e, "label": "add", "detail": "16×8×8"},
        ]
        edges += [[last, a], [last, b], [a, d], [d, e], [b, e], [last, e]]
        last = e
    nodes.append({"id": "output", "label": "output", "detail": "10"})
    return {"nodes": nodes, "edges": [*edges, [last, "output"]]}
