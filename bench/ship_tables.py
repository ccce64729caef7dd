"""From the blocks that make_tables.py trained to the files that archgrad ships.

python bench/ship_tables.py small|large [--partial FOLDER] [--out FOLDER]
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np
import torch
from make_tables import CHILDREN, UNIFORM
from safetensors.torch import save
from torch import Tensor

from archgrad.benchmarks.blocks import Columns, joined
from archgrad.benchmarks.made import DATA, LARGE, LARGE_TRAINING, SMALL, SMALL_SEEDS, SMALL_TRAINING
from archgrad.benchmarks.making import latency
from archgrad.benchmarks.table import Column, Table
from archgrad.errors import UsageError, writing
from archgrad.surrogates import Pairwise

SIDE, BATCH = 14, 32
"""Of an image, and of the batch on which latency is measured."""
TRAIN = 48_000
"""Examples of train, of which an epoch is made."""
BLOCKS = (UNIFORM, CHILDREN, 1, 1, 1)
"""Blocks of the large table in every group."""


def rows_in(folder: Path) -> list[Columns]:
    """All blocks of a folder, in order; what ``settings`` they share was checked when they were made."""
    blocks: list[Columns] = []
    for path in sorted(folder.glob("[0-9]*.npz")):
        with np.load(path, allow_pickle=False) as file:
            blocks.append({name: file[name] for name in file.files if name != "settings"})
    if not blocks:
        raise UsageError(f"{folder} should hold blocks, got none; say python bench/make_tables.py first")
    return blocks


def tidy(values: Tensor) -> Tensor:
    """Four decimals."""
    return (values.double() * 1e4).round() / 1e4


def small(blocks: list[Columns]) -> Table:
    rows = joined(blocks)
    space = SMALL.space
    place = space.index(torch.nn.functional.one_hot(torch.from_numpy(rows["choices"]).long(), space.K).float())
    columns: list[Column] = []

    def add(
        name: str, split: str, values: Tensor, unit: str, steps: int | None = None, seeds: int | None = None
    ) -> None:
        epochs = None if steps is None else round(steps * SMALL_TRAINING.batch / TRAIN, 6)
        better = "higher" if unit == "%" else "lower"
        columns.append(
            Column(name=name, split=split, fidelity=epochs, unit=unit, better=better, seeds=seeds, values=tidy(values))
        )

    for split, steps in (*(("valid", t) for t in SMALL_TRAINING.fidelities), ("test", SMALL_TRAINING.fidelities[-1])):
        for metric, unit in (("accuracy", "%"), ("loss", "nats")):
            name = f"{split}_{metric}_{steps}"
            both = []
            for seed in SMALL_SEEDS:
                here = np.flatnonzero(rows["seed"] == seed)
                if not torch.equal(place[here].sort().values, torch.arange(space.size)):
                    raise UsageError(f"seed {seed} should have every network once, got {len(here)} rows; train on")
                values = torch.empty(space.size, dtype=torch.float64)
                values[place[here]] = torch.from_numpy(rows[name][here]).double()
                both.append(values)
                add(f"{name}_seed{seed}", split, values, unit, steps, 1)
            if metric == "accuracy" and steps == SMALL_TRAINING.fidelities[-1]:
                add(name, split, torch.stack(both).mean(0), unit, steps, len(both))
    choices = space.enumerate().argmax(-1)
    add("params", "cost", SMALL.params(choices).double(), "")
    add("macs", "cost", SMALL.macs(choices, SIDE).double(), "")
    x = torch.randn(BATCH, SMALL.inputs, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    add("latency_ms", "cost", latency(SMALL, choices, x), "ms")
    return Table("made_small", space, tuple(columns))


def large(blocks: list[Columns]) -> dict[str, Tensor]:
    rows = joined(blocks)
    groups = np.repeat(np.arange(len(BLOCKS)), BLOCKS)
    group = np.concatenate([np.full(len(b["seed"]), g) for b, g in zip(blocks, groups, strict=False)])
    found = {
        "choices": torch.from_numpy(rows["choices"]),
        "seed": torch.from_numpy(rows["seed"].astype(np.uint8)),
        "group": torch.from_numpy(group.astype(np.uint8)),
    }
    for name in ("valid_accuracy", "valid_loss"):
        found[name] = tidy(torch.from_numpy(rows[f"{name}_{LARGE_TRAINING.fidelities[-1]}"])).float()
    return found


def model(rows: dict[str, Tensor]) -> dict[str, Tensor]:
    """The surrogate of everything but the group "best again"."""
    past = rows["group"] < 4
    surrogate = Pairwise()
    h = torch.nn.functional.one_hot(rows["choices"][past].long(), LARGE.space.K)
    surrogate.fit(h.double(), (100 - rows["valid_accuracy"][past]).double())
    return {name: value.contiguous() for name, value in surrogate.state_dict().items()}


def write(path: Path, tensors: dict[str, Tensor]) -> None:
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    with writing(path):
        try:
            beside.write_bytes(save(tensors))
            os.replace(beside, path)
        finally:
            beside.unlink(missing_ok=True)
    print(f"{path.name}: {path.stat().st_size:,} bytes")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", choices=["small", "large"])
    parser.add_argument("--partial", type=Path, default=Path("runs/made"))
    parser.add_argument("--out", type=Path, default=DATA)
    options = parser.parse_args()
    torch.set_num_threads(1)
    blocks = rows_in(options.partial / options.table)
    with writing(options.out):
        options.out.mkdir(parents=True, exist_ok=True)
    if options.table == "small":
        small(blocks).write(options.out / "small.safetensors")
    else:
        rows = large(blocks)
        write(options.out / "large.safetensors", rows)
        write(options.out / "large_model.safetensors", model(rows))


if __name__ == "__main__":
    main()
