"""What a model of f, fitted to past evaluations, promises."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from torch import Tensor


class Surrogate(Protocol):
    """c(h), multilinear in the rows of h: linear in every h_d while the others stand still.

    For independent decisions E_p[c(h)] is then c at the marginals, exactly: ``mean(p.unsqueeze(-3))``.
    """

    def fit(self, h: Tensor, y: Tensor) -> None:
        """Vertices ``[n, D, K]`` and their values ``[n]``, n >= 1; equal vertices may come with different values."""

    def mean(self, h: Tensor) -> Tensor:
        """``[*R, n, D, K] -> [*R, n]``, at vertices and in between; differentiable in h, in double precision."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...
