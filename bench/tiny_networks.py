"""How fast tiny networks of different architectures train side by side, beside one at a time.

    python bench/tiny_networks.py [--repeats 5] [--steps 5] [--json]

Steps of training (forward, backward, Adam) a second of CPU time, counted per network; one thread. Both cases take
turns, one at a time before each group, and a ratio is the median over repeats of neighbours. One at a time is an
ordinary ``nn.Module`` with an optimizer of its own; side by side is ``benchmarks.grouped.Grouped``. Architectures are
drawn uniformly, images are noise.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from archgrad.benchmarks.convolutional import Family
from archgrad.benchmarks.grouped import Grouped
from archgrad.benchmarks.made import LARGE, LARGE_TRAINING, SMALL, SMALL_TRAINING

Step = Callable[[], None]
SIDE = 14


def alone(family: Family, choices: Tensor, x: Tensor, y: Tensor) -> list[Step]:
    """A step of each network by itself."""

    def step_of(row: list[int]) -> Step:
        network = family.network(row)
        optimizer = torch.optim.Adam(network.parameters(), 1e-2, fused=True)

        def step() -> None:
            optimizer.zero_grad()
            F.cross_entropy(network(x), y).backward()  # type: ignore[no-untyped-call]
            optimizer.step()

        return step

    return [step_of(row) for row in choices.tolist()]


def together(family: Family, choices: Tensor, x: Tensor, y: Tensor) -> Step:
    """One step of all networks."""
    n = len(choices)
    networks = Grouped(family, choices, list(range(n)))
    optimizer = torch.optim.Adam([networks.theta], 1e-2, fused=True)
    labels = y.repeat(n)

    def step() -> None:
        loss = F.cross_entropy(networks(x).flatten(0, 1), labels, reduction="sum") / len(y)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return step


def seconds(steps: list[Step], times: int) -> float:
    """CPU seconds of every step, ``times`` times."""
    start = time.process_time()
    for _ in range(times):
        for step in steps:
            step()
    return time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--steps", type=int, default=5, help="of a case in a repeat")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for family, batch, sizes in ((SMALL, SMALL_TRAINING.batch, (9, 27, 81)), (LARGE, LARGE_TRAINING.batch, (28, 112))):
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(batch, family.inputs, SIDE, SIDE, generator=generator)
        y = torch.randint(0, family.classes, (batch,), generator=generator)
        for n in sizes:
            choices = family.space.uniform(n, generator).argmax(-1)
            # nine of them stand for all when alone: they take turns anyway
            single, group = alone(family, choices[:9], x, y), [together(family, choices, x, y)]
            pairs = []
            for repeat in range(options.repeats + 1):
                one = 9 * options.steps / seconds(single, options.steps)
                many = n * options.steps / seconds(group, options.steps)
                if repeat:  # the first warms up
                    pairs.append((one, many))
            ratios = [many / one for one, many in pairs]
            rows.append(
                {
                    "family": family.name,
                    "networks": n,
                    "batch": batch,
                    "alone_per_second": statistics.median(one for one, _ in pairs),
                    "together_per_second": statistics.median(many for _, many in pairs),
                    "ratio": statistics.median(ratios),
                    "ratio_range": [min(ratios), max(ratios)],
                }
            )
    if options.json:
        print(json.dumps({"repeats": options.repeats, "steps": options.steps, "rates": rows}))
        return
    print(f"{'':8}{'networks':>9}{'batch':>7}{'alone /s':>10}{'together /s':>13}{'ratio':>7}{'range':>14}")
    for row in rows:
        low, high = row["ratio_range"]  # type: ignore[misc]
        print(
            f"{row['family']:8}{row['networks']:9}{row['batch']:7}{row['alone_per_second']:10,.0f}"
            f"{row['together_per_second']:13,.0f}{row['ratio']:7.1f}{f'{low:.1f} to {high:.1f}':>14}"
        )


if __name__ == "__main__":
    main()
