"""NAS-Bench-201 (Dong & Yang 2020) as a problem with a derivative: a small network fitted to its table."""

from __future__ import annotations

import csv
import gzip
import io
import itertools
import zlib
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from archgrad.benchmarks.known import Known, enumerated
from archgrad.errors import UsageError
from archgrad.spaces.decisions import Decision, Decisions

EDGES = ("0>1", "0>2", "1>2", "0>3", "1>3", "2>3")
OPERATIONS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")


def cell_space() -> Decisions:
    """Six edges of a cell of four nodes, one of five operations each: 15,625 architectures."""
    return Decisions([Decision(edge, OPERATIONS) for edge in EDGES])


def read_table(path: Path | str, column: str) -> Tensor:
    """One column of a CSV table (gzip or plain), ``[15625]`` in the order of ``cell_space().enumerate()``.

    The table's ``ops`` column has one digit an edge, in the order of EDGES and OPERATIONS. UsageError for a file that
    is no such table.
    """
    path = Path(path)
    values = torch.full((5**6,), torch.nan, dtype=torch.float64)
    try:
        content = path.read_bytes()
        text = (gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content).decode("utf-8")
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
        raise UsageError(f"{path} should be a CSV table, plain or gzip; reading it failed: {error}") from error
    rows = csv.DictReader(io.StringIO(text))
    names = list(rows.fieldnames or [])
    for name in ("ops", column):
        if name not in names:
            raise UsageError(f"{path} should have a column {name!r}, it has {', '.join(names[:20]) or 'none'}")
    for line, row in enumerate(rows, start=2):
        try:
            values[int(row["ops"], 5) if len(row["ops"]) == len(EDGES) else -(10**6)] = float(row[column])
        except (ValueError, TypeError, IndexError) as error:
            raise UsageError(
                f"{path}, line {line}: six digits 0 to 4 in 'ops' and a number in {column!r} were expected, "
                f"got {row['ops']!r} and {row[column]!r}"
            ) from error
    missing = int((~torch.isfinite(values)).sum())
    if missing:
        raise UsageError(f"{path} should have a finite {column!r} for all 15,625 architectures, {missing} are missing")
    return values


def nasbench201(path: Path | str, column: str = "cifar10_val_12", *, hidden: int = 64, steps: int = 1500) -> Known:
    """A differentiable f whose 15,625 vertex values are the truth: error, in standard deviations, mean 0.

    An MLP (two hidden layers of ``hidden``, SiLU, so twice differentiable) is fitted to minus the standardised column
    by ``steps`` steps of Adam and then standardised itself; R2 is about .99. Why not the table's multilinear extension:
    E[f] is f at the mean there, a softmax relaxation would be exact and could show no bias.
    """
    target = read_table(path, column)
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
