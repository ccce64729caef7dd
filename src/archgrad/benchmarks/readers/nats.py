"""NATS-Bench (Dong et al. 2021), which NAS-Bench-201 became: its trainings, from the pickles that its authors released.

Written after the published code, tested on a miniature, never run on the real files.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from archgrad.benchmarks.readers.pickled import read_pickle
from archgrad.errors import UsageError

ENDING = ".pickle.pbz2"


@dataclass(frozen=True)
class Training:
    """One training of an architecture.

    index: the benchmark's own number. architecture: its published text. recipe: the epochs that the learning rate was
    planned for, as text. parameters in millions, flops in millions. accuracies: in % after the last epoch, by split:
    train and the benchmark's x-valid, x-test, ori-test. cifar10-valid is CIFAR-10 trained on half of its training set.
    """

    index: int
    architecture: str
    recipe: str
    dataset: str
    seed: int
    epochs: int
    parameters: float
    flops: float
    accuracies: Mapping[str, float]


def read_nats(path: Path | str) -> Iterator[Training]:
    """The trainings in a folder of one file an architecture (NATS-tss-...-simple), in one of these, or in one of all.

    One file of all is far larger in memory than on disk; the folder is read a file at a time. Files with trained
    weights are refused, as whatever is no plain value. Never run on the real files. UsageError names the file.
    """
    path = Path(path)
    files = sorted(p for p in path.glob(f"*{ENDING}") if not p.name.startswith("meta")) if path.is_dir() else [path]
    if not files:
        raise UsageError(f"{path} should have files NUMBER{ENDING}, it has none")
    for file in files:
        content = read_pickle(file)
        try:
            whole = content["arch2infos"].values() if "arch2infos" in content else [content]
            for recipes in whole:
                for recipe, results in recipes.items():
                    for (dataset, seed), result in results["all_results"].items():
                        yield training(results, recipe, dataset, seed, result)
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            reason = f"{type(error).__name__}: {error}"[:200]
            raise UsageError(
                f"{file} should be a file of NATS-Bench, but its content is built otherwise: {reason}"
            ) from None


def training(results: Any, recipe: Any, dataset: Any, seed: Any, result: Any) -> Training:
    """One entry of ``all_results``; LookupError, TypeError or ValueError where it is none."""
    epochs = int(result["epochs"])
    accuracies = {"train": float(result["train_acc1es"][epochs - 1])}
    for name in result["eval_names"]:
        accuracies[str(name)] = float(result["eval_acc1es"][f"{name}@{epochs - 1}"])
    return Training(
        index=int(results["arch_index"]),
        architecture=str(results["arch_str"]),
        recipe=str(recipe),
        dataset=str(dataset),
        seed=int(seed),
        epochs=epochs,
        parameters=float(result["params"]),
        flops=float(result["flop"]),
        accuracies=accuracies,
    )
