"""Which parts go together, asked before any work."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from archgrad.errors import UsageError
from archgrad.protocols import Estimator, Policy
from archgrad.records import Batch

VALUES_ONLY = "ScoreFunction, PPO, Unordered, LocalExpectation, Relax or DoublyRobust"
"""Estimators that ask f for values."""


def check_pairing(policy: Policy, estimator: Estimator, differentiable: int, source: str) -> None:
    """UsageError where the estimator asks for more than policy and f can give, naming what would work.

    differentiable: how often f can be differentiated in h. source: what f comes from, for the message.
    """
    name = type(estimator).__name__
    if estimator.differentiates > differentiable:
        wanted = "differentiates f" if estimator.differentiates == 1 else "differentiates f twice"
        if differentiable:
            raise UsageError(
                f"{name} {wanted} with respect to h, but {source} can be differentiated once; keep its temperature "
                f"(learn='scale' or learn='none'), or use {VALUES_ONLY}"
            )
        raise UsageError(f"{name} {wanted} with respect to h, but {source} gives values only; use {VALUES_ONLY}")
    if estimator.independent and not policy.independent:
        raise UsageError(
            f"{name} asks for independent decisions, but {type(policy).__name__} lets later ones depend on earlier "
            f"ones; use Factorised, or an estimator that takes any policy, as ScoreFunction, Relax or Unordered"
        )


def valued(estimator: Estimator, batch: Batch, f: Callable[[Tensor], Tensor]) -> Tensor:
    """f at the batch's points ``[*R, n]``, with a graph to ``batch.h`` where the estimator differentiates f.

    UsageError where f gives another shape: ``[n, 1]`` would broadcast against log p ``[n]`` to a wrong estimate.
    """
    if estimator.differentiates:
        batch.h.requires_grad_()
    values = f(batch.h)
    if values.shape != batch.h.shape[:-2]:
        raise UsageError(
            f"f should give a value a point, {list(batch.h.shape[:-2])} for h {list(batch.h.shape)}, "
            f"got {list(values.shape)}; reduce over the last two dimensions"
        )
    return values
