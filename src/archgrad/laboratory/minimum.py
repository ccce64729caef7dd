"""z* itself: weights at a minimum of a deterministic training loss, as exactly as the number type lets them be."""

from __future__ import annotations

import torch
from torch import Tensor

from archgrad.protocols import TrainingLoss, Weights


def minimum(g: TrainingLoss, z: Weights, h: Tensor, *, steps: int, slope: float) -> dict[str, Tensor]:
    """A minimum of g(., h, 0) near z, by at most ``steps`` of L-BFGS, or until no |dg/dz| is above ``slope``."""
    leaves = {name: v.clone().requires_grad_() for name, v in z.items()}
    optimizer = torch.optim.LBFGS(
        list(leaves.values()),
        max_iter=steps,
        history_size=50,
        tolerance_grad=slope,
        tolerance_change=0,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = g(leaves, h, 0)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    return {name: v.detach() for name, v in leaves.items()}
