"""Tables of architectures that were really trained: many networks at once, block by block, resumable."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from archgrad.benchmarks.convolutional import Family
from archgrad.benchmarks.grouped import Grouped
from archgrad.errors import UsageError
from archgrad.tasks.data import Data, Split

TAIL = 4
"""The last t / 4 of t steps are averaged."""


@dataclass(frozen=True)
class Training:
    """How every network is trained: Adam at one rate, each step on ``batch`` examples, no example twice.

    fidelities: numbers of steps after which a network is measured, ascending. What is measured after t steps is the
    mean of its weights over the last quarter of them. That does what decaying the rate does, and does not depend on
    how long training will go on: the measurement after t steps of a long training *is* that of a training of t steps.
    """

    fidelities: tuple[int, ...]
    batch: int = 32
    lr: float = 3e-3

    def __post_init__(self) -> None:
        if not self.fidelities or list(self.fidelities) != sorted(set(self.fidelities)) or self.fidelities[0] < 1:
            raise UsageError(f"fidelities should be ascending numbers of steps, got {self.fidelities}")


@dataclass(frozen=True)
class Images:
    """Normalised images ``[N, C, H, W]`` and labels ``[N]`` of three disjoint splits; test may be empty."""

    train: tuple[Tensor, Tensor]
    valid: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]


def shrunk(data: Data, factor: int, valid: int, test: int) -> Images:
    """Means over ``factor x factor`` pixels, scaled to mean 0 and variance 1 of train.

    The splits are those of ``data``, of validation and test the first ``valid`` and ``test`` examples; the order
    within a split is the source's, and is taken to be random.
    """

    def small(split: Split, limit: int | None) -> tuple[Tensor, Tensor]:
        return F.avg_pool2d(split.x[:limit].float(), factor), split.y[:limit]

    x, y = small(data.train, None)
    mean, std = x.mean(), x.std()
    parts = {"valid": small(data.valid, valid), "test": small(data.test, test)}
    return Images((((x - mean) / std), y), **{name: ((x - mean) / std, y) for name, (x, y) in parts.items()})


def train(
    family: Family, choices: Tensor, seed: int, images: Images, training: Training, dtype: torch.dtype = torch.float32
) -> dict[str, Tensor]:
    """Train the architectures ``choices [n, D]`` side by side and measure them.

    Columns ``[n]``: valid_accuracy_T and valid_loss_T for every fidelity of T steps, test_accuracy_T and test_loss_T
    for the last, if there is a test split; accuracies in percent. ``seed`` decides the examples of every step, the
    same for all architectures; architecture and seed together decide the first weights. So what an architecture gets
    does not depend on what it is trained beside, but for rounding. UsageError where train has too few examples.
    """
    networks = Grouped(family, choices, [weight_seed(row, seed) for row in choices.tolist()], dtype)
    optimizer = torch.optim.Adam([networks.theta], training.lr, fused=True)
    steps = training.fidelities[-1]
    x, y = images.train
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(seed))
    if steps * training.batch > len(order):
        raise UsageError(
            f"train should have {steps * training.batch} examples for {steps} steps of {training.batch}, "
            f"got {len(order)}; take fewer steps"
        )
    sums = {t: torch.zeros_like(networks.theta) for t in training.fidelities}
    found: dict[str, Tensor] = {}
    for step in range(1, steps + 1):
        some = order[(step - 1) * training.batch : step * training.batch]
        logits = networks(x[some].to(dtype))
        # a network's loss is a mean over its examples; the sum over networks leaves each its own gradient
        loss = F.cross_entropy(logits.flatten(0, 1), y[some].repeat(networks.n), reduction="sum") / training.batch
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        for t, total in sums.items():
            if t - tail(t) < step <= t:
                total += networks.theta.detach()
        if step in sums:
            mean = sums[step] / tail(step)
            accuracy, error = measure(networks, mean, *images.valid)
            found[f"valid_accuracy_{step}"], found[f"valid_loss_{step}"] = accuracy, error
            if step == steps and len(images.test[1]):
                accuracy, error = measure(networks, mean, *images.test)
                found[f"test_accuracy_{step}"], found[f"test_loss_{step}"] = accuracy, error
    return found


def measure(networks: Grouped, theta: Tensor, x: Tensor, y: Tensor, batch: int = 50) -> tuple[Tensor, Tensor]:
    """Accuracy in percent and mean cross-entropy of every network with weights ``theta``, ``[n]`` each."""
    right, loss = torch.zeros(networks.n), torch.zeros(networks.n, dtype=torch.float64)
    with torch.no_grad():
        for some in torch.split(torch.arange(len(y)), batch):
            logits = networks(x[some].to(networks.dtype), theta)
            labels = y[some].expand(networks.n, -1)
            right += (logits.argmax(-1) == labels).sum(-1)
            each = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none")
            loss += each.view(networks.n, -1).sum(-1)
    return 100 * right / len(y), loss / len(y)


def latency(family: Family, choices: Tensor, x: Tensor, rounds: int = 9) -> Tensor:
    """CPU milliseconds of a forward pass on the batch x of each network ``[n, D]``, an ordinary eager module: ``[n]``.

    The median over ``rounds`` of all networks in turn, after one that is not counted, so that a busy spell of the
    machine touches all of them. Meant for one thread.
    """
    networks = [family.network(row).eval() for row in choices.tolist()]
    spent = torch.zeros(rounds + 1, len(networks), dtype=torch.float64)
    with torch.inference_mode():
        for r in range(rounds + 1):
            for i, network in enumerate(networks):
                start = time.process_time_ns()
                network(x)
                spent[r, i] = (time.process_time_ns() - start) / 1e6
    return spent[1:].median(0).values


def tail(steps: int) -> int:
    """How many steps at the end of so many are averaged."""
    return max(1, steps // TAIL)


def weight_seed(choices: Sequence[int], seed: int) -> int:
    """Where the weights of an architecture come from: a function of its choices and the seed, below 2 ** 63."""
    digest = hashlib.sha256(f"{list(choices)} {seed}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
