"""Order statistics over runs, first hits and incumbents."""

from __future__ import annotations

import math

import torch
from torch import Tensor

Quartiles = tuple[float | None, float | None, float | None]


def quartiles(values: Tensor) -> Quartiles:
    """The smallest value that a quarter, a half, three quarters of the runs are at or below; None where infinite.

    Values that occurred, without interpolation (type 1 of Hyndman & Fan 1996), so that a quarter of the runs may
    never have got there. values ``[R]``.
    """
    ordered = values.sort().values.tolist()
    q25, q50, q75 = (ordered[math.ceil(q * len(ordered)) - 1] for q in (0.25, 0.5, 0.75))
    return tuple(None if math.isinf(q) else q for q in (q25, q50, q75))  # type: ignore[return-value]


def first_hit(values: Tensor, threshold: Tensor) -> Tensor:
    """Evaluations until one at or below the threshold, ``[R, N]`` and ``[R]`` or ``[1]`` to ``[R]``; inf: never."""
    hit = values <= threshold.unsqueeze(-1)
    first = hit.to(torch.uint8).argmax(-1).double() + 1
    return first.masked_fill(~hit.any(-1), math.inf)


def incumbents(observed: Tensor) -> Tensor:
    """Index of the lowest observed so far, the earlier of equals, ``[R, N]`` long."""
    lowest = observed.cummin(-1).values
    improved = torch.ones_like(observed, dtype=torch.bool)
    improved[:, 1:] = observed[:, 1:] < lowest[:, :-1]
    places = torch.arange(observed.shape[-1]).expand(observed.shape)
    return torch.where(improved, places, 0).cummax(-1).values


def looks(budget: int) -> list[int]:
    """1, 2, 5 times powers of ten from 10 below the budget, and the budget."""
    found = [m * 10**e for e in range(1, len(str(budget)) + 1) for m in (1, 2, 5)]
    return [*(n for n in found if n < budget), budget]


def dense(budget: int) -> list[int]:
    """About 40 places, evenly spread on a logarithmic axis."""
    return sorted({max(1, round(budget ** (i / 40))) for i in range(41)})
