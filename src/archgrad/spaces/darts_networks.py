"""The networks in which a genotype is trained for good: DARTS's for CIFAR and for ImageNet."""

from __future__ import annotations

import functools

from torch import Tensor, nn

from archgrad.errors import UsageError
from archgrad.spaces.darts_cells import Cells, Node, convolutions, operation, reductions, stack
from archgrad.spaces.genotype import Genotype
from archgrad.spaces.operations import DropPath


class AuxiliaryHead(nn.Module):
    """A classifier on an inner state of 8x8 (stride 3) or 7x7 pixels (stride 2): 2x2 after its pooling.

    norm: whether the wide layer is normalised, as for CIFAR; the published ImageNet network leaves it out.
    """

    def __init__(self, channels: int, classes: int, *, stride: int, norm: bool) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.ReLU(),
            nn.AvgPool2d(5, stride=stride, count_include_pad=False),
            nn.Conv2d(channels, 128, 1, bias=False),
            nn.BatchNorm2d(128),
            nn.ReLU(),
            nn.Conv2d(128, 768, 2, bias=False),
            *([nn.BatchNorm2d(768)] if norm else []),
            nn.ReLU(),
        )
        self.head = nn.Linear(768, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x).mean((2, 3)))  # type: ignore[no-any-return]


def nodes(genotype: Genotype, drop_path: float, reduces: bool, channels: int) -> tuple[list[Node], tuple[int, ...]]:
    """The edges a genotype keeps; every one but an identity may be dropped in training."""
    edges = genotype.reduce if reduces else genotype.normal
    found: list[tuple[int, nn.Module]] = []
    for name, i in edges:
        made = operation(name, channels, 2 if reduces and i < 2 else 1, affine=True)
        found.append((i, made if isinstance(made, nn.Identity) else nn.Sequential(made, DropPath(drop_path))))
    output = genotype.reduce_concat if reduces else genotype.normal_concat
    return [found[n : n + 2] for n in range(0, len(found), 2)], tuple(output)


def set_drop_path(network: nn.Module, probability: float) -> None:
    """The probability from here on; the paper raises it linearly over the training, to .2 or .3.

    UsageError outside of [0, 1), and where the network has no path to drop.
    """
    _probability(probability)
    paths = [m for m in network.modules() if isinstance(m, DropPath)]
    if not paths:
        raise UsageError(f"{type(network).__name__} should have paths to drop, it has none; make it of a genotype")
    for path in paths:
        path.probability = probability


def cifar_network(
    genotype: Genotype,
    classes: int = 10,
    *,
    width: int = 36,
    cells: int = 20,
    in_channels: int = 3,
    drop_path: float = 0.0,
    auxiliary: bool = False,
) -> Cells:
    """For images of 32x32 pixels: ``forward(x)`` gives logits, ``with_auxiliary(x)`` those of the second head as well.

    DARTS_V2 has 3,349,342 parameters, DARTS_V1 3,169,414, without the auxiliary head. The head needs cells of 8x8
    pixels, so images of about that size; the network itself takes any.
    """
    _check(width, cells, drop_path)
    make = functools.partial(nodes, genotype, drop_path)
    made = stack(cells, 3 * width, width, make, affine=True)
    stem = convolutions(in_channels, 3 * width, strides=[1])
    place = reductions(cells)[1]
    head = (place, AuxiliaryHead(made[place].channels, classes, stride=3, norm=True)) if auxiliary else None
    return Cells(stem, nn.Identity(), made, classes, head)


def imagenet_network(
    genotype: Genotype,
    classes: int = 1000,
    *,
    width: int = 48,
    cells: int = 14,
    in_channels: int = 3,
    drop_path: float = 0.0,
    auxiliary: bool = False,
) -> Cells:
    """For images of 224x224 pixels, an eighth of which reaches the first cell. DARTS_V2 has 4,718,752 parameters.

    Otherwise as ``cifar_network``.
    """
    _check(width, cells, drop_path)
    make = functools.partial(nodes, genotype, drop_path)
    made = stack(cells, width, width, make, reduced=True, affine=True)
    stem = convolutions(in_channels, width // 2, width, strides=[2, 2])
    second = nn.Sequential(nn.ReLU(), *convolutions(width, width, strides=[2]))
    place = reductions(cells)[1]
    head = (place, AuxiliaryHead(made[place].channels, classes, stride=2, norm=False)) if auxiliary else None
    return Cells(stem, second, made, classes, head)


def _check(width: int, cells: int, drop_path: float) -> None:
    if width < 2 or width % 2:
        raise UsageError(f"the width should be even, as two halves of it are put side by side, got {width}")
    if cells < 1:
        raise UsageError(f"a network should have at least one cell, got {cells}")
    _probability(drop_path)


def _probability(p: float) -> None:
    if not 0 <= p < 1:
        raise UsageError(f"the probability to drop a path should be at least 0 and below 1, got {p}")
