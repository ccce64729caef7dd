"""Effects of choices and of pairs of choices."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from archgrad.surrogates.evidence import ridge

RATIOS = (0.0, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
"""Prior variances of a pair's effect tried, in units of a single choice's; 0 is the additive model."""


class Pairwise:
    """c(h) = centre + sum_d u[d, h_d] + sum_{d < e} w[d, e, h_d, h_e], by ridge regression.

    The strength, and how much smaller pairs are than single effects, by marginal likelihood, so that with few points
    it is ``Linear``. All pairs of decisions, without regard to their order. Cost: seven times (points)^3, once.
    """

    def __init__(self) -> None:
        self.centre = torch.zeros((), dtype=torch.float64)
        self.table: Tensor | None = None
        """``[D, K]``."""
        self.pairs: Tensor | None = None
        """``[D, K, D, K]``, 0 unless the first decision comes before the second."""

    def fit(self, h: Tensor, y: Tensor) -> None:
        h, y = h.double(), y.double()
        self.centre = y.mean()
        x = h.flatten(1)
        equal = x @ x.T  # in how many decisions two architectures agree
        both = equal * (equal - 1) / 2
        fits = [(*ridge(equal + ratio * both, y - self.centre), ratio) for ratio in RATIOS]
        dual, _, ratio = max(fits, key=lambda fit: fit[1])
        self.table = torch.einsum("n,ndk->dk", dual, h)
        pairs = torch.einsum("n,ndk,nel->dkel", dual, h, h)
        D = h.shape[-2]
        before = torch.ones(D, D, dtype=torch.float64).triu(1)[:, None, :, None]
        self.pairs = ratio * pairs * before

    def mean(self, h: Tensor) -> Tensor:
        if self.table is None or self.pairs is None:
            return h.new_zeros(h.shape[:-2], dtype=torch.float64)
        x = h.double().flatten(-2)
        weights = self.pairs.reshape(x.shape[-1], x.shape[-1])
        return self.centre + x @ self.table.flatten() + ((x @ weights) * x).sum(-1)

    def state_dict(self) -> dict[str, Any]:
        return {"centre": self.centre, "table": self.table, "pairs": self.pairs}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.centre, self.table, self.pairs = state["centre"], state["table"], state["pairs"]
