"""c_phi: a small network from relaxed architectures to a number, RELAX's learned control variate."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from archgrad.errors import UsageError


def network(
    D: int, K: int, sites: int, hidden: int, runs: tuple[int, ...], generator: torch.Generator, dtype: torch.dtype
) -> dict[str, Tensor]:
    """Parameters of c_phi, ``[*R, ...]``: two hidden layers of SiLU (c is differentiated), output 0 at the start.

    sites: 1, or D where c is asked once a decision; every site has its own first bias, so that c knows which. All runs
    start from the same numbers, as each would alone.
    """

    def normal(*shape: int) -> Tensor:
        drawn: Tensor = torch.randn(*shape, generator=generator, dtype=dtype)
        return drawn.div(shape[0] ** 0.5).expand(*runs, *shape)

    def zeros(*shape: int) -> Tensor:
        return torch.zeros(*runs, *shape, dtype=dtype)

    return {
        "w1": normal(D * K, hidden),
        "b1": zeros(sites, hidden),
        "w2": normal(hidden, hidden),
        "b2": zeros(1, hidden),
        "w3": zeros(hidden, 1),
        "b3": zeros(1, 1),
    }


def check_hidden(hidden: int) -> None:
    """UsageError below 1."""
    if hidden < 1:
        raise UsageError(f"hidden should be at least 1, the width of the control variate's network, got {hidden}")


def surrogate(phi: Mapping[str, Tensor], points: Tensor) -> Tensor:
    """c_phi ``[*R, n, S]`` at ``[*R, n, S, D, K]``."""
    x = points.flatten(-2)

    def of(name: str) -> Tensor:
        p = phi[name]
        return p.unsqueeze(-3) if p.dim() > 2 else p  # runs stay in front of n

    silu = torch.nn.functional.silu
    x = silu(x @ of("w1") + of("b1"))
    x = silu(x @ of("w2") + of("b2"))
    found: Tensor = (x @ of("w3") + of("b3")).squeeze(-1)
    return found
