"""Families of small convolutional networks that differ in what each of their layers does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from archgrad.errors import UsageError
from archgrad.spaces.decisions import Decision, Decisions

SKIP = "skip"
KERNELS = {"conv1x1": 1, "conv3x3": 3, "depthwise3x3": 3, "depthwise5x5": 5}
POOLS = {"maxpool3x3": 3, "avgpool3x3": 3}


@dataclass(frozen=True)
class Family:
    """Networks of one stem, layers in stages of equal size, and one head; a decision a layer.

    x ``[B, inputs, H, W]`` -> stem: 3x3 convolution of stride 2, norm, relu -> stages of ``stages[s]`` layers, between
    which a 3x3 convolution of stride 2, norm, relu -> means over ``places x places`` parts of the image, times
    ``scale`` -> linear, ``[B, classes]``. Every layer keeps its ``channels``. Its option o makes relu(norm(o(x))),
    plus x where ``residual``; ``skip`` makes x. norm is over all channels and places of one example (GroupNorm with
    one group): no network needs statistics of a data set, and every example is computed by itself.

    UsageError for an option that is not among ``skip``, convolutions and pools.
    """

    name: str
    options: tuple[str, ...]
    stages: tuple[int, ...]
    channels: int = 16
    residual: bool = True
    places: int = 2
    inputs: int = 1
    classes: int = 10

    def __post_init__(self) -> None:
        known = (SKIP, *KERNELS, *POOLS)
        for option in self.options:
            if option not in known:
                raise UsageError(f"an option should be one of {', '.join(known)}, got {option!r}; leave it out")
        if min(self.stages, default=0) < 1 or self.channels < 1:
            raise UsageError(
                f"a family should have at least one layer a stage and one channel, got {self.stages} and "
                f"{self.channels}; say stages=(4, 3), for one"
            )

    @cached_property
    def space(self) -> Decisions:
        """One decision a layer, named by stage and layer: "1.2" is the second layer of the first stage."""
        names = [f"{s}.{i}" for s, layers in enumerate(self.stages, 1) for i in range(1, layers + 1)]
        return Decisions([Decision(name, self.options) for name in names])

    @property
    def D(self) -> int:
        """Number of layers."""
        return sum(self.stages)

    @property
    def features(self) -> int:
        """Numbers that the head reads."""
        return self.channels * self.places**2

    @property
    def scale(self) -> float:
        """What the head's inputs are multiplied by: they differ little from image to image and are learned slowly.

        Not so where layers are added up.
        """
        return 1.0 if self.residual else 4.0

    def reduces_before(self, d: int) -> bool:
        """Whether layer d is the first of a later stage."""
        return d > 0 and d in [sum(self.stages[:s]) for s in range(1, len(self.stages))]

    def weights(self, option: str) -> tuple[int, ...]:
        """Shape of an option's convolution, empty where it has none."""
        if option not in KERNELS:
            return ()
        k = KERNELS[option]
        return (self.channels, 1 if option.startswith("depthwise") else self.channels, k, k)

    def params(self, choices: Tensor) -> Tensor:
        """Numbers that are trained, ``[n, D] -> [n]``: weights, and scale and shift a channel of every norm."""
        C = self.channels
        fixed = (
            9 * C * self.inputs
            + 2 * C
            + (len(self.stages) - 1) * (9 * C * C + 2 * C)
            + (self.features + 1) * self.classes
        )
        each = [0 if o == SKIP else 2 * C + _product(self.weights(o)) for o in self.options]
        return fixed + torch.tensor(each)[choices].sum(-1)

    def macs(self, choices: Tensor, side: int) -> Tensor:
        """Multiply-accumulates of convolutions and the head for one image ``[side, side]``, ``[n, D] -> [n]``."""
        C = self.channels
        side = (side + 1) // 2
        total = torch.full(choices.shape[:-1], 9 * C * self.inputs * side**2 + self.features * self.classes)
        each = torch.tensor([_product(self.weights(o)) for o in self.options])
        for d in range(self.D):
            if self.reduces_before(d):
                side = (side + 1) // 2
                total = total + 9 * C * C * side**2
            total = total + each[choices[..., d]] * side**2
        return total

    def network(self, choices: Sequence[int]) -> nn.Sequential:
        """One of them as an ordinary module."""
        C = self.channels
        modules: list[nn.Module] = [_Unit(nn.Conv2d(self.inputs, C, 3, 2, 1, bias=False), C)]
        for d, choice in enumerate(choices):
            if self.reduces_before(d):
                modules.append(_Unit(nn.Conv2d(C, C, 3, 2, 1, bias=False), C))
            option = self.options[choice]
            modules.append(nn.Identity() if option == SKIP else _Unit(_operation(option, C), C, self.residual))
        return nn.Sequential(*modules, _Means(self.places, self.scale), nn.Linear(self.features, self.classes))


class _Unit(nn.Module):
    """relu(norm(operation(x))), plus x where that is wished."""

    def __init__(self, operation: nn.Module, channels: int, residual: bool = False) -> None:
        super().__init__()
        self.operation, self.norm, self.residual = operation, nn.GroupNorm(1, channels), residual

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(self.operation(x)).relu()
        return x + y if self.residual else y


class _Means(nn.Module):
    """Means over parts of the image, as one vector."""

    def __init__(self, places: int, scale: float) -> None:
        super().__init__()
        self.places, self.scale = places, scale

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * F.adaptive_avg_pool2d(x, self.places).flatten(1)


def _operation(option: str, channels: int) -> nn.Module:
    if option in KERNELS:
        k = KERNELS[option]
        groups = channels if option.startswith("depthwise") else 1
        return nn.Conv2d(channels, channels, k, padding=k // 2, groups=groups, bias=False)
    k = POOLS[option]
    return nn.MaxPool2d(k, 1, k // 2) if option.startswith("max") else nn.AvgPool2d(k, 1, k // 2)


def _product(shape: tuple[int, ...]) -> int:
    return torch.Size(shape).numel() if shape else 0
