"""From the blocks that make_tables.py trained to the files that archgrad ships.

python bench/ship_tables.py small|large [--partial FOLDER] [--out FOLDER]
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor

from archgrad.benchmarks.blocks import Columns, joined
from archgrad.benchmarks.made import DATA, LARGE, LARGE_TRAINING, SMALL, SMALL_SEEDS, SMALL_TRAINING, place
from archgrad.benchmarks.making import latency
from archgrad.errors import UsageError, writing
from archgrad.surrogates import Pairwise

SIDE, BATCH = 14, 32


def rows_in(folder: Path) -> list[Columns]:
    """All blocks of a folder, in order; what ``settings`` they share was checked when they were made."""
    blocks: list[Columns] = []
    for path in sorted(folder.glob("[0-9]*.npz")):
        with np.load(path, allow_pickle=False) as file:
            blocks.append({name: file[name] for name in file.files if name != "settings"})
    if not blocks:
        raise UsageError(f"{folder} should hold blocks, got none; say python bench/make_tables.py first")
    return blocks


def tidy(values: np.ndarray) -> Tensor:
    """Four decimals, as float32."""
    return torch.from_numpy(np.round(values.astype(np.float64), 4).astype(np.float32))


def small(blocks: list[Columns]) -> dict[str, Tensor]:
    rows = joined(blocks)
    index, seeds = place(torch.from_numpy(rows["choices"])), torch.from_numpy(rows["seed"])
    found: dict[str, Tensor] = {}
    for seed in SMALL_SEEDS:
        here = (seeds == seed).nonzero().squeeze(1)
        if not torch.equal(index[here].sort().values, torch.arange(SMALL.space.size)):
            raise UsageError(f"seed {seed} should have every network once, got {len(here)} rows; go on training")
        for name in rows:
            if name.endswith(tuple(f"_{t}" for t in SMALL_TRAINING.fidelities)):
                column = torch.empty(SMALL.space.size)
                column[index[here]] = tidy(rows[name])[here]
                found[f"{name}_seed{seed}"] = column
    choices = SMALL.space.enumerate().argmax(-1)
    found["params"], found["macs"] = SMALL.params(choices).float(), SMALL.macs(choices, SIDE).float()
    x = torch.randn(BATCH, SMALL.inputs, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    found["latency_ms"] = tidy(latency(SMALL, choices, x).numpy())
    return found


def large(blocks: list[Columns]) -> dict[str, Tensor]:
    rows = joined(blocks)
    group = np.concatenate(
        [np.full(len(b["seed"]), g) for b, g in zip(blocks, [0] * 9 + [1] * 9 + [2, 3], strict=False)]
    )
    found = {
        "choices": torch.from_numpy(rows["choices"]),
        "seed": torch.from_numpy(rows["seed"].astype(np.uint8)),
        "group": torch.from_numpy(group.astype(np.uint8)),
    }
    for name in ("valid_accuracy", "valid_loss"):
        found[name] = tidy(rows[f"{name}_{LARGE_TRAINING.fidelities[-1]}"])
    return found


def model(rows: dict[str, Tensor]) -> dict[str, Tensor]:
    """The surrogate of everything but the group "best", its pairs in float32."""
    past = rows["group"] < 3
    surrogate = Pairwise()
    h = torch.nn.functional.one_hot(rows["choices"][past].long(), LARGE.space.K)
    surrogate.fit(h.double(), (100 - rows["valid_accuracy"][past]).double())
    return {name: value.contiguous() for name, value in surrogate.state_dict().items()}


def write(path: Path, tensors: dict[str, Tensor]) -> None:
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            beside.write_bytes(save(tensors))
            os.replace(beside, path)
        finally:
            beside.unlink(missing_ok=True)
    print(f"{path.name}: {path.stat().st_size:,} bytes")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", choices=["small", "large"])
    parser.add_argument("--partial", type=Path, default=Path(__file__).parent / "made")
    parser.add_argument("--out", type=Path, default=DATA)
    options = parser.parse_args()
    torch.set_num_threads(1)
    blocks = rows_in(options.partial / options.table)
    if options.table == "small":
        write(options.out / "small.safetensors", small(blocks))
    else:
        rows = large(blocks)
        write(options.out / "large.safetensors", rows)
        write(options.out / "large_model.safetensors", model(rows))


if __name__ == "__main__":
    main()
