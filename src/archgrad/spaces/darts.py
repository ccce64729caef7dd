"""The convolutional space of DARTS: which of eight operations stands at each of 14 edges of two cells."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from archgrad.errors import UsageError
from archgrad.spaces.darts_cells import Cells, Node, convolutions, operation, stack
from archgrad.spaces.genotype import EDGES, NODES, OPERATIONS
from archgrad.spaces.model import ModelSpace, space_of
from archgrad.spaces.operations import Edge


def edge(name: str, channels: int, stride: int) -> Edge:
    """All eight; here a BatchNorm follows a pooling, so that no operation is louder than the others."""
    options = {}
    for o in OPERATIONS:
        made = operation(o, channels, stride, affine=False)
        options[o] = nn.Sequential(made, nn.BatchNorm2d(channels, affine=False)) if "pool" in o else made
    return Edge(name, options, shared=True)


def nodes(reduces: bool, channels: int) -> tuple[list[Node], range]:
    """Every node reads all before it. A cell that reduces halves what it reads of the two cells before."""
    kind = "reduce" if reduces else "normal"
    found: list[Node] = [
        [(i, edge(f"{kind}.{i}>{j}", channels, 2 if reduces and i < 2 else 1)) for i, to in EDGES if to == j]
        for j in range(2, 2 + NODES)
    ]
    return found, range(2, 2 + NODES)


def darts(input_shape: Sequence[int], classes: int, *, width: int = 16, cells: int = 8) -> ModelSpace:
    """Liu, Simonyan & Yang (2019): D = 28, K = 8, two cells shared over the whole network; 8^28 = 1.9e25.

    input_shape: (C, H, W). Decisions are called "normal.0>2", ..., "reduce.4>5", in the order of
    ``archgrad.spaces.genotype.EDGES``; nodes 0 and 1 are the two cells before, and the options are OPERATIONS there.
    The published space keeps two edges a node, which is a rule of the ending (``genotype.top2``); here every edge
    decides for itself, and one that is not kept is "none".

    width: channels of a node in the first third. cells: at least 3, so that there is a normal one; the ones at one and
    two thirds reduce. With 3 input channels, 10 classes, 16 and 8 it is the published search network, 1,930,618
    parameters: BatchNorm without scale and shift but for the stem's. Networks for the final training are made of a
    genotype (``darts_networks``).

    Default: separable 3x3 convolutions of both inputs at each node, max pooling in the reduction.
    """
    if len(input_shape) != 3:
        raise UsageError(f"space darts takes images of shape (C, H, W), got {tuple(input_shape)}; use --space mlp")
    if cells < 3:
        raise UsageError(f"darts should have at least 3 cells, or all of them reduce, got {cells}")
    if width < 2 or width % 2:
        raise UsageError(f"the width should be even, as two halves of it are put side by side, got {width}")
    stem = convolutions(input_shape[0], 3 * width, strides=[1])
    made = stack(cells, 3 * width, width, nodes, affine=False)
    model = Cells(stem, nn.Identity(), made, classes)
    example = torch.rand(2, *input_shape, generator=torch.Generator().manual_seed(0))
    plain = [(o if i < 2 else "none") for o in ("sep_conv_3x3", "max_pool_3x3") for i, _ in EDGES]
    space = space_of(model, example=example, default=tuple(plain), name="darts")
    space.channels_last = True
    return space
