"""What REBAR, RELAX and LAX share: a score term, a pathwise term, and training on the estimate's own variance."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from archgrad.errors import UsageError


def objective(advantage: Tensor, site_log_prob: Tensor, path: Tensor, *, baseline: bool) -> Tensor:
    """A scalar whose gradient in alpha is the estimate, summed over runs.

    advantage: f(b) - c(z~) ``[*R, n, S]``, without a graph to alpha. site_log_prob: ``[*R, n, D]``. path: a term
    ``[*R, n]`` whose gradient is the pathwise one. baseline: subtract the mean advantage of the *other* samples, which
    knows nothing of this one.
    """
    n = advantage.shape[-2]
    if baseline:
        advantage = (advantage - advantage.mean(-2, keepdim=True)) * n / (n - 1)
    return ((advantage * site_log_prob).sum(-1) + path).mean(-1).sum()


def squared(gradient: Sequence[Tensor]) -> Tensor:
    """sum g^2: as E[g] does not depend on the control variate, its gradient there is the variance's."""
    return torch.stack([g.square().sum() for g in gradient]).sum()


Baseline = Literal["none", "leave-one-out"]


def check_baseline(baseline: str, samples: int) -> None:
    """UsageError unless none, or leave-one-out with two samples."""
    if baseline not in ("none", "leave-one-out"):
        raise UsageError(f"baseline should be none or leave-one-out, got {baseline!r}")
    if samples < 1 or (samples < 2 and baseline == "leave-one-out"):
        raise UsageError(
            f"samples should be at least {2 if baseline == 'leave-one-out' else 1} with {baseline=}, got {samples}; "
            "a leave-one-out baseline needs a second sample"
        )


Learn = Literal["both", "scale", "none"]


def check_learn(learn: str) -> None:
    """UsageError unless both, scale or none."""
    if learn not in ("both", "scale", "none"):
        raise UsageError(f"learn should be both, scale or none, got {learn!r}")


def check_scale(eta: float) -> None:
    """UsageError unless finite."""
    if not math.isfinite(eta):
        raise UsageError(f"eta should be a finite number, got {eta}; 1 is usual")


class Learner:
    """The trained numbers of a control variate and the Adam that moves them; made at first use, when R is known.

    Tensors ``[*R, ...]``: every run trains its own. One trained without runs serves a policy with runs as well.
    """

    def __init__(self, lr: float) -> None:
        if not lr > 0:
            raise UsageError(f"lr should be positive, got {lr}; 0.01 is usual, and learn says what is trained")
        self.lr = lr
        self.parameters: dict[str, Tensor] = {}
        self.optimizer: torch.optim.Adam | None = None

    def hold(self, parameters: Mapping[str, Tensor]) -> None:
        """Begin with these."""
        self.parameters = {name: p.detach().clone().requires_grad_() for name, p in parameters.items()}
        self.optimizer = torch.optim.Adam(list(self.parameters.values()), self.lr)

    def __getitem__(self, name: str) -> Tensor:
        return self.parameters[name]

    def descend(
        self, gradient: Sequence[Tensor], wanted: Sequence[str], moved: tuple[Tensor, Tensor] | None = None
    ) -> None:
        """A step down the estimate's variance for the parameters ``wanted``; ``gradient`` carries their graph.

        moved: the leaf at whose points f was asked, and the same points as a function of log t. f knows the leaf
        only, so the loss reaches t along both.
        """
        assert self.optimizer is not None
        at = [self.parameters[name] for name in wanted] + ([] if moved is None else [moved[0]])
        found = torch.autograd.grad(squared(gradient), at, retain_graph=moved is not None)
        slopes: dict[str, Tensor] = dict(zip(wanted, found, strict=False))
        if moved is not None:
            slopes["log_t"] = slopes["log_t"] + torch.autograd.grad(moved[1], self.parameters["log_t"], found[-1])[0]
        for name, p in self.parameters.items():
            p.grad = slopes.get(name)
        self.optimizer.step()

    def state_dict(self) -> dict[str, Any]:
        if self.optimizer is None:
            return {}
        values = {name: p.detach().clone() for name, p in self.parameters.items()}
        return {"parameters": values, "optimizer": copy.deepcopy(self.optimizer.state_dict())}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        if not state:
            self.parameters, self.optimizer = {}, None
            return
        self.hold(state["parameters"])
        assert self.optimizer is not None
        self.optimizer.load_state_dict(state["optimizer"])


def grouped(x: Tensor, each: int, dim: int) -> Tensor:
    """``[..., n * each, ...] -> [..., n, each, ...]``: the points of a sample stand next to each other. dim < 0."""
    shape = x.shape
    return x.reshape(*shape[:dim], shape[dim] // each, each, *shape[len(shape) + dim + 1 :])
