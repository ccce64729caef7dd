"""Unrolling: the derivative of a few steps of training, exactly."""

from __future__ import annotations

import torch
from torch import Tensor

from archgrad.errors import UsageError
from archgrad.hypergradients.attach import attach, leaves, pulled, slopes
from archgrad.protocols import TrainingLoss, Update, Weights


class Unrolled:
    """z' after ``steps`` updates from z, and its exact derivative in h: one step is Liu et al. (2019), eq. 7.

    One step costs one gradient of g and one pass back through it. Memory grows with ``steps``: every step's graph is
    kept until the derivative is taken. Can be differentiated twice where g and update can be three times; training-mode
    ``F.batch_norm`` and ``F.layer_norm`` of torch cannot, without a word.

    As ``steps`` grows under plain descent with rate r, from a minimum of g, this tends to the implicit derivative as
    fast as (1 - r lambda)^steps goes to 0 for every eigenvalue lambda of the Hessian.
    """

    differentiable = 2

    def __init__(self, steps: int = 1) -> None:
        if steps < 1:
            raise UsageError(f"steps should be at least 1, got {steps}; FirstOrder makes none")
        self.steps = steps

    def __call__(self, g: TrainingLoss, z: Weights, h: Tensor, update: Update) -> dict[str, Tensor]:
        graph = h.requires_grad and torch.is_grad_enabled()
        with torch.enable_grad():
            trained = leaves(z)
            for k in range(self.steps):
                trained = dict(update(trained, slopes(g, trained, h, k, graph=graph), k))
                if not graph:
                    trained = leaves(trained)
        if not graph:
            return {name: v.detach() for name, v in trained.items()}
        last = list(trained.values())

        def pull(v: Weights) -> Tensor:
            return pulled(last, [h], list(v.values()), graph=torch.is_grad_enabled())[0]

        return attach(trained, h, pull, twice=True, name="Unrolled")
