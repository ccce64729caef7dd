"""Trains every network of a small space, or a sample of a large one, and writes the tables that archgrad ships.

    python bench/make_tables.py small|large [--data fashion-mnist] [--partial FOLDER] [--blocks N] [--json]

One thread. Blocks of networks are kept in ``--partial`` as they are done; said again, it goes on where it ended.
``--blocks N`` ends after block N. A block is trained side by side, as one program of grouped convolutions.

small: all networks of ``made.SMALL`` with two seeds. large: of ``made.LARGE``, half uniform, half children of the best
so far; then, with another seed, some of both halves again, networks that surrogates of all that hold for best, and
the same once more with what was learned from those.
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
from archgrad.benchmarks.made import (
    LARGE,
    LARGE_SEEDS,
    LARGE_TRAINING,
    SHRINK,
    SMALL,
    SMALL_SEEDS,
    SMALL_TRAINING,
    TEST,
    VALID,
)
from archgrad.benchmarks.making import Images, Training, shrunk, train
from archgrad.surrogates import GaussianProcess, Pairwise
from archgrad.surrogates.surrogate import Surrogate
from archgrad.tasks import load

BLOCK, UNIFORM, CHILDREN = 112, 9, 9
"""Networks a block of the large table, and how many blocks are uniform and how many are children."""
PARENTS = 100


def digits(count: int) -> Tensor:
    return torch.tensor(list(itertools.product(range(3), repeat=count)))


def small_block(i: int, past: Columns) -> tuple[Tensor, int]:
    """Choices ``[27, 7]`` and seed: 81 blocks a seed, which together hold every network once.

    A block is a coset of a linear code over GF(3), so that every option is chosen nine times at every layer and all
    blocks have equal shapes.
    """
    del past
    first, mixing = digits(3), torch.tensor([[1, 1, 0], [0, 1, 1], [1, 0, 1], [1, 1, 1]])
    rest = (first @ mixing.T + digits(4)[i % 81]) % 3
    return torch.cat([first, rest], 1), SMALL_SEEDS[i // 81]


def large_block(i: int, past: Columns) -> tuple[Tensor, int]:
    """Choices ``[112, 20]`` and seed, a function of the block's number and of what was measured before."""
    generator = torch.Generator().manual_seed(i)
    if i < UNIFORM:
        return torch.randint(0, len(LARGE.options), (BLOCK, LARGE.D), generator=generator), LARGE_SEEDS[0]
    choices = torch.from_numpy(past["choices"]).long()
    if i < UNIFORM + CHILDREN:
        order = torch.from_numpy(np.argsort(past[f"valid_loss_{LARGE_TRAINING.fidelities[-1]}"], kind="stable"))
        return children(choices, choices[order[:PARENTS]], generator), LARGE_SEEDS[0]
    if i == UNIFORM + CHILDREN:
        halves = torch.arange(len(choices)).split(UNIFORM * BLOCK)
        again = [half[torch.randperm(len(half), generator=generator)[: BLOCK // 2]] for half in halves]
        return choices[torch.cat(again)], LARGE_SEEDS[1]
    h = torch.nn.functional.one_hot(choices, len(LARGE.options)).double()
    f = torch.from_numpy(100 - past[f"valid_accuracy_{LARGE_TRAINING.fidelities[-1]}"]).double()
    surrogates: list[Surrogate] = [GaussianProcess(LARGE.space), Pairwise()]
    for surrogate in surrogates:
        surrogate.fit(h, f)
    return torch.cat([minima(surrogate, BLOCK // 2, generator) for surrogate in surrogates]), LARGE_SEEDS[1]


def children(known: Tensor, parents: Tensor, generator: torch.Generator) -> Tensor:
    """``[BLOCK, D]`` new networks: a parent with one to three decisions changed."""
    seen = {tuple(row) for row in known.tolist()}
    found: list[Tensor] = []
    while len(found) < BLOCK:
        child = parents[int(torch.randint(len(parents), (), generator=generator))].clone()
        changes = int(torch.randint(1, 4, (), generator=generator))
        for d in torch.randperm(LARGE.D, generator=generator)[:changes].tolist():
            other = int(torch.randint(1, len(LARGE.options), (), generator=generator))
            child[d] = (child[d] + other) % len(LARGE.options)
        if tuple(child.tolist()) not in seen:
            seen.add(tuple(child.tolist()))
            found.append(child)
    return torch.stack(found)


def minima(surrogate: Surrogate, count: int, generator: torch.Generator) -> Tensor:
    """``[count, D]`` different networks that steepest descent on a surrogate from ``count`` random starts ends with.

    The ends come first; where they are fewer than ``count``, the best of what was passed on the way fill them up. A
    surrogate is linear in every row, so its derivative tells the value of every single change.
    """
    K = len(LARGE.options)
    choices = torch.randint(0, K, (count, LARGE.D), generator=generator)
    passed: dict[tuple[int, ...], float] = {}
    while True:
        h = torch.nn.functional.one_hot(choices, K).double().requires_grad_()
        values = surrogate.mean(h)
        passed.update(zip(map(tuple, choices.tolist()), values.tolist(), strict=True))
        (slope,) = torch.autograd.grad(values.sum(), h)
        gain = (slope - (slope * h).sum(-1, keepdim=True)).detach().flatten(1)
        value, change = gain.min(1)
        moving = (value < -1e-9).nonzero().squeeze(1)
        if not len(moving):
            break
        choices[moving, change[moving] // K] = change[moving] % K
    ends = list(dict.fromkeys(map(tuple, choices.tolist())))
    others = sorted(passed.keys() - set(ends), key=passed.__getitem__)
    return torch.tensor((ends + others)[:count])


def trained(family: Family, choices: Tensor, seed: int, images: Images, training: Training) -> Columns:
    cpu, wall, n = time.process_time(), time.perf_counter(), len(choices)
    found = train(family, choices, seed, images, training)
    return {
        "choices": choices.numpy().astype(np.uint8),
        "seed": np.full(n, seed, np.int16),
        **{name: values.numpy().astype(np.float32) for name, values in found.items()},
        "cpu_seconds": np.full(n, (time.process_time() - cpu) / n, np.float32),
        "wall_seconds": np.full(n, (time.perf_counter() - wall) / n, np.float32),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", choices=["small", "large"])
    parser.add_argument("--data", default="fashion-mnist")
    parser.add_argument("--partial", type=Path, default=Path("runs/made"))
    parser.add_argument("--blocks", type=int)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    data = load(options.data)
    small = options.table == "small"
    test = TEST if small else 0
    images = shrunk(data, SHRINK, VALID, test)
    family, training = (SMALL, SMALL_TRAINING) if small else (LARGE, LARGE_TRAINING)
    block = small_block if small else large_block
    total = 81 * len(SMALL_SEEDS) if small else UNIFORM + CHILDREN + 3
    settings = f"{family} {training} {SHRINK}x{SHRINK} valid {VALID} test {test} {data.split_hash}"

    def make(i: int, past: Columns) -> Columns:
        return trained(family, *block(i, past), images, training)

    count = total if options.blocks is None else min(options.blocks, total)
    blocks: list[Columns] = []
    for made in in_blocks(count, make, options.partial / options.table, settings):
        blocks.append(made)
        print(f"{len(blocks)}/{total} {made['wall_seconds'].sum():.1f} s", file=sys.stderr, flush=True)
    rows = joined(blocks)
    done, seconds = len(rows["seed"]), float(rows["cpu_seconds"].sum())
    if options.json:
        print(json.dumps({"rows": done, "cpu_seconds": seconds}))
    else:
        print(f"{done:,} trainings, {seconds:,.0f} s of CPU time, in {options.partial / options.table}")


if __name__ == "__main__":
    main()
