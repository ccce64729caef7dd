"""NAS-Bench-201 (Dong & Yang 2020) as a problem with a derivative: a small network fitted to its table."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from archgrad.benchmarks.csv_table import read_csv
from archgrad.benchmarks.known import Known, enumerated
from archgrad.benchmarks.table import Meaning, is_table, read_table
from archgrad.errors import UsageError
from archgrad.spaces.nasbench201 import EDGES, OPERATIONS, NasBench201, cell_space

__all__ = ["EDGES", "OPERATIONS", "cell_space", "fit", "goodness", "nasbench201", "network"]


def goodness(path: Path | str, column: str) -> Tensor:
    """One column, higher being better, ``[15625]`` float64 in the order of ``cell_space().enumerate()``.

    path: a table that ``archgrad benchmark import`` made, or a CSV file (gzip or plain) whose numbers are better
    higher and whose ``ops`` column has one digit an edge, in the order of EDGES and OPERATIONS. UsageError for another.
    """
    if is_table(path):
        table = read_table(path)
        if not isinstance(table.space, NasBench201):
            raise UsageError(f"{path} should be a table of nasbench201, it is one of {table.name!r}")
        found = table.column(column)
        return found.values if found.better == "higher" else -found.values
    wanted = Meaning(name=column, split="valid", better="higher")
    return read_csv(path, "nasbench201", cell_space(), [wanted], architecture="ops").columns[0].values


def nasbench201(path: Path | str, column: str = "cifar10_val_12", *, hidden: int = 64, steps: int = 1500) -> Known:
    """A differentiable f whose 15,625 vertex values are the truth: error, in standard deviations, mean 0.

    An MLP (two hidden layers of ``hidden``, SiLU, so twice differentiable) is fitted to minus the standardised column
    by ``steps`` steps of Adam and then standardised itself; R2 is about .99. Why not the table's multilinear extension:
    E[f] is f at the mean there, a softmax relaxation would be exact and could show no bias.
    """
    target = goodness(path, column)
    target = -(target - target.mean()) / target.std(correction=0)
    space = cell_space()
    x = space.enumerate().flatten(1)
    fitted = fit(x, target.float(), [x.shape[1], hidden, hidden, 1], steps)
    at_vertices = network(x.double(), fitted)
    mean, deviation = at_vertices.mean(), at_vertices.std(correction=0)

    def f(h: Tensor) -> Tensor:
        return (network(h.flatten(-2), fitted) - mean.to(h)) / deviation.to(h)

    return enumerated("nasbench201", space, f)


def network(x: Tensor, parameters: Sequence[Tensor]) -> Tensor:
    """``[..., in] -> [...]``: three weights, then three biases."""
    for i in range(3):
        x = x @ parameters[i].to(x) + parameters[3 + i].to(x)
        if i < 2:
            x = nn.functional.silu(x)
    return x.squeeze(-1)


def fit(x: Tensor, y: Tensor, sizes: Sequence[int], steps: int, batch: int = 512) -> list[Tensor]:
    """Least squares by Adam on shuffled batches from one fixed seed; the parameters, in double precision."""
    generator = torch.Generator().manual_seed(0)
    weights = [torch.randn(a, b, generator=generator) / a**0.5 for a, b in itertools.pairwise(sizes)]
    parameters = [p.requires_grad_() for p in (*weights, *(torch.zeros(b) for b in sizes[1:]))]
    optimizer = torch.optim.Adam(parameters, 1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=steps)
    whole = len(x) // batch
    order = torch.arange(len(x))
    for step in range(steps):
        if step % whole == 0:
            order = torch.randperm(len(x), generator=generator)
        some = order[step % whole * batch :][:batch]
        loss = (network(x[some], parameters) - y[some]).square().mean()
        for p, gradient in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
            p.grad = gradient
        optimizer.step()
        schedule.step()
    return [p.detach().double() for p in parameters]
