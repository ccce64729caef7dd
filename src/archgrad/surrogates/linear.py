"""A table of effects: every choice adds what it adds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from archgrad.surrogates.evidence import ridge


class Linear:
    """c(h) = centre + sum_d table[d, h_d], by ridge regression with the strength of highest marginal likelihood.

    No settings, 30 numbers for 6 decisions of 5; the first dozens of evaluations are enough for it, and it misses
    every interaction. Cost: (points)^3, once.
    """

    def __init__(self) -> None:
        self.centre = torch.zeros((), dtype=torch.float64)
        self.table: Tensor | None = None
        """``[D, K]``."""

    def fit(self, h: Tensor, y: Tensor) -> None:
        h, y = h.double(), y.double()
        self.centre = y.mean()
        x = h.flatten(1)
        dual, _ = ridge(x @ x.T, y - self.centre)
        self.table = torch.einsum("n,ndk->dk", dual, h)

    def mean(self, h: Tensor) -> Tensor:
        if self.table is None:
            return h.new_zeros(h.shape[:-2], dtype=torch.float64)
        return self.centre + (h.double() * self.table).sum((-2, -1))

    def state_dict(self) -> dict[str, Any]:
        return {"centre": self.centre, "table": self.table}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.centre, self.table = state["centre"], state["table"]
