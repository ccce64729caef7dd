"""Weights whose dependence on h is a function of our own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from archgrad.errors import UsageError
from archgrad.protocols import TrainingLoss, Weights

Pull = Callable[[Weights], Tensor]
"""v = df/dz', a tensor a weight, to (dz'/dh)' v of h's shape."""


def attach(
    z: Weights, h: Tensor, pull: Pull, *, twice: bool, name: str, reads: Sequence[Tensor] = ()
) -> dict[str, Tensor]:
    """z by value, with ``pull`` as its derivative in h.

    twice: whether what ``pull`` returns can be differentiated again; where it cannot, create_graph=True raises
    UsageError, as a wrong zero would come of it in silence. name: of the hypergradient, for the message. reads: what
    ``pull`` will look at, so that a change in place before then is found out.

    A node of its own also spares a pass: ``backward()`` through an ordinary graph would go down to the weights that
    the step began at, whose gradient nobody asked for.
    """
    versions = [tensor._version for tensor in reads]

    def checked(v: Weights) -> Tensor:
        if versions != [tensor._version for tensor in reads]:
            raise RuntimeError(f"z or h was changed in place before f was differentiated through {name}; do so after")
        return pull(v)

    values = _Attached.apply(checked, tuple(z), twice, name, h, *(v.detach() for v in z.values()))  # type: ignore[no-untyped-call]
    return dict(zip(z, values, strict=True))


class _Attached(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, pull: Pull, names: tuple[str, ...], twice: bool, name: str, h: Tensor, *z: Tensor) -> Any:
        ctx.pull, ctx.names, ctx.twice, ctx.name = pull, names, twice, name
        return tuple(v.view_as(v) for v in z)

    @staticmethod
    def backward(ctx: Any, *v: Tensor) -> Any:
        if torch.is_grad_enabled() and not ctx.twice:
            raise UsageError(
                f"{ctx.name} can be differentiated once, got create_graph=True; use Unrolled, which can be "
                "differentiated twice"
            )
        return None, None, None, None, ctx.pull(dict(zip(ctx.names, v, strict=True))), *(None for _ in v)


def leaves(z: Weights) -> dict[str, Tensor]:
    """The same numbers as new leaves: nothing reaches the caller's."""
    return {name: v.detach().requires_grad_() for name, v in z.items()}


def loss_of(g: TrainingLoss, z: Weights, h: Tensor, k: int) -> Tensor:
    """g as a scalar, or UsageError."""
    loss = g(z, h, k)
    if loss.ndim:
        raise UsageError(f"g should give one number, the training loss, got shape {list(loss.shape)}; take the mean")
    return loss


def pulled(outputs: Sequence[Tensor], inputs: Sequence[Tensor], v: Sequence[Tensor], *, graph: bool) -> list[Tensor]:
    """v' d outputs / d inputs, zero where there is no dependence; the graph stays for another time."""
    live = [(o, w) for o, w in zip(outputs, v, strict=True) if o.requires_grad]
    if not live:
        return [torch.zeros_like(i) for i in inputs]
    return list(
        torch.autograd.grad(
            [o for o, _ in live],
            list(inputs),
            [w for _, w in live],
            retain_graph=True,
            create_graph=graph,
            materialize_grads=True,
        )
    )


def slopes(g: TrainingLoss, z: Weights, h: Tensor, k: int, *, graph: bool) -> dict[str, Tensor]:
    """dg/dz at weights that need a gradient, zero where g does not read one."""
    return dict(zip(z, gradients(loss_of(g, z, h, k), list(z.values()), graph=graph), strict=True))


def gradients(loss: Tensor, inputs: Sequence[Tensor], *, graph: bool = False) -> list[Tensor]:
    """d loss / d inputs, zero where there is no dependence."""
    if not loss.requires_grad:
        return [torch.zeros_like(i) for i in inputs]
    return list(torch.autograd.grad(loss, list(inputs), create_graph=graph, materialize_grads=True))
