"""f from what was measured: the validation loss, alone or with costs. Lower is better."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from archgrad.errors import UsageError
from archgrad.objectives.additive import AdditiveCost

Metrics = Mapping[str, float]


class ValidLoss:
    """f = valid_loss, nats an example."""

    differentiable = 0
    cost: AdditiveCost | None = None

    def __call__(self, metrics: Sequence[Metrics]) -> Tensor:
        return column(metrics, "valid_loss")

    sampled = __call__


class LossPlusCost:
    """f = valid_loss + weight * cost(h) / reference: a price a unit of size.

    metric: "params" or "macs". reference: what counts as one unit, the default architecture's own. weight: nats that
    doubling the reference may cost. The cost is a sum over decisions, so with a factorised policy its expectation
    and gradient are exact (``cost.expectation``), and only the loss is estimated from samples.
    """

    differentiable = 0

    def __init__(self, metric: str, reference: float, *, weight: float = 0.1, cost: AdditiveCost | None = None) -> None:
        if not reference > 0:
            raise UsageError(f"the reference {metric} should be positive, got {reference}")
        self.metric, self.reference, self.weight = metric, reference, weight
        self.cost = cost.scaled(weight / reference) if cost is not None else None

    def __call__(self, metrics: Sequence[Metrics]) -> Tensor:
        return column(metrics, "valid_loss") + self.weight / self.reference * column(metrics, self.metric)

    def sampled(self, metrics: Sequence[Metrics]) -> Tensor:
        """The part of f that has no closed form: what the estimator sees when ``cost`` supplies the rest."""
        return column(metrics, "valid_loss")


class WeightedProduct:
    """f = valid_loss * (cost / reference) ** weight: MnasNet's trade (Tan et al. 2019), as a loss."""

    differentiable = 0
    cost: AdditiveCost | None = None

    def __init__(self, metric: str, reference: float, *, weight: float = 0.07) -> None:
        if not reference > 0:
            raise UsageError(f"the reference {metric} should be positive, got {reference}")
        self.metric, self.reference, self.weight = metric, reference, weight

    def __call__(self, metrics: Sequence[Metrics]) -> Tensor:
        return column(metrics, "valid_loss") * (column(metrics, self.metric) / self.reference) ** self.weight

    sampled = __call__


def column(metrics: Sequence[Metrics], name: str) -> Tensor:
    """One metric of n measurements, ``[n]``."""
    return torch.tensor([m[name] for m in metrics], dtype=torch.float64)
