"""Trains every network of a small space, or a sample of a large one, and writes the tables that archgrad ships.

    python bench/make_tables.py small|large [--data fashion-mnist] [--partial FOLDER] [--out FOLDER] [--blocks N] [--json]

One thread. Blocks of networks are kept in ``--partial`` as they are done; said again, it goes on where it ended.
``--blocks N`` stops after N blocks. A block is trained side by side, as one program of grouped convolutions.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from archgrad.benchmarks.blocks import Columns, in_blocks, joined
from archgrad.benchmarks.convolutional import Family
from archgrad.benchmarks.making import Images, Training, shrunk, train
from archgrad.tasks import load

VALID, TEST, SHRINK = 3000, 3000, 2
SMALL = Family("small", ("skip", "avgpool3x3", "conv3x3"), (3, 4), channels=8, residual=False)
SMALL_TRAINING, SMALL_SEEDS = Training((80, 320), lr=1e-2), (2, 3)


def digits(count: int) -> Tensor:
    return torch.tensor(list(itertools.product(range(3), repeat=count)))


def small_block(i: int) -> tuple[Tensor, int]:
    """Choices ``[27, 7]`` and seed: 81 blocks a seed, which together hold every network once.

    A block is a coset of a linear code over GF(3), so that every option is chosen nine times at every layer and all
    blocks have equal shapes.
    """
    first, mixing = digits(3), torch.tensor([[1, 1, 0], [0, 1, 1], [1, 0, 1], [1, 1, 1]])
    rest = (first @ mixing.T + digits(4)[i % 81]) % 3
    return torch.cat([first, rest], 1), SMALL_SEEDS[i // 81]


def trained(family: Family, choices: Tensor, seed: int, images: Images, training: Training) -> Columns:
    cpu, wall = time.process_time(), time.perf_counter()
    found = {name: values.numpy().astype(np.float32) for name, values in train(family, choices, seed, images, training).items()}
    n = len(choices)
    return {
        "choices": choices.numpy().astype(np.uint8),
        "seed": np.full(n, seed, np.int16),
        **found,
        "cpu_seconds": np.full(n, (time.process_time() - cpu) / n, np.float32),
        "wall_seconds": np.full(n, (time.perf_counter() - wall) / n, np.float32),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", choices=["small", "large"])
    parser.add_argument("--data", default="fashion-mnist")
    parser.add_argument("--partial", type=Path, default=Path(__file__).parent / "made")
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "src/archgrad/benchmarks/data")
    parser.add_argument("--blocks", type=int)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    data = load(options.data)
    images = shrunk(data, SHRINK, VALID, TEST)
    family, training = SMALL, SMALL_TRAINING
    settings = f"{family} {training} {SHRINK}x{SHRINK} valid {VALID} test {TEST} {data.split_hash}"

    def make(i: int, past: Columns) -> Columns:
        return trained(family, *small_block(i), images, training)

    total = 81 * len(SMALL_SEEDS)
    count = total if options.blocks is None else min(options.blocks, total)
    blocks = []
    for block in in_blocks(count, make, options.partial / options.table, settings):
        blocks.append(block)
        print(f"{len(blocks)}/{total} {block['wall_seconds'].sum():.1f} s", file=sys.stderr, flush=True)
    rows = joined(blocks)
    print(json.dumps({"rows": len(rows["seed"]), "cpu_seconds": float(rows["cpu_seconds"].sum())}))


if __name__ == "__main__":
    main()
