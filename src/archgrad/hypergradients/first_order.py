"""First order: the weights as they are."""

from __future__ import annotations

from torch import Tensor

from archgrad.protocols import TrainingLoss, Update, Weights


class FirstOrder:
    """z' = z without a dependence on h: what is left of the gradient is df/dh, Liu et al. (2019) with xi = 0.

    Costs nothing beside f. The part of the gradient that goes through the weights is missing, however small f's
    direct part may be; where h does not enter f at all (a coefficient of the training loss) it is all of it.
    """

    differentiable = 2

    def __call__(self, g: TrainingLoss, z: Weights, h: Tensor, update: Update) -> dict[str, Tensor]:
        del g, h, update
        return {name: v.detach() for name, v in z.items()}
