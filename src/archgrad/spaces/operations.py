"""What the edges of cells are made of: separable and dilated convolutions, poolings, and nothing at all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from archgrad.spaces.choice import Choice, add


class Zero(nn.Module):
    """No connection: a zero of the shape that the edge would give, one number in memory."""

    def __init__(self, stride: int = 1) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        height, width = (-(-size // self.stride) for size in x.shape[2:])
        return x.new_zeros(()).expand(x.shape[0], x.shape[1], height, width)

    def extra_repr(self) -> str:
        return f"stride={self.stride}"


class Edge(Choice):
    """A Choice of one input that does not compute its Zero beside other options: d/dh of it is zero without."""

    def forward(self, x: Tensor) -> Any:
        # Added like the others it would cost as much as a pooling, and lay out in memory what is added to it.
        live = [k for k in self.decided() if not isinstance(self.options[k], Zero)]
        if self.weights is None or not live:
            return super().forward(x)
        return add([self.weights[k] * self.options[k](x) for k in live])

    def nothing(self) -> bool:
        """Whether Zero alone is chosen, and h asks for no derivative."""
        return self.weights is None and isinstance(self.options[self.decided()[0]], Zero)


def nothing(edge: nn.Module) -> bool:
    """Whether an edge gives zero, so that it need not be run."""
    return edge.nothing() if isinstance(edge, Edge) else isinstance(edge, Zero)


def summed(edges: Sequence[nn.Module], inputs: Sequence[Tensor]) -> Tensor:
    """A node: the sum of its edges, each applied to its input, without those that give zero."""
    terms = [edge(x) for edge, x in zip(edges, inputs, strict=True) if not nothing(edge)]
    return add(terms) if terms else edges[0](inputs[0])


def relu_conv_norm(c_in: int, c_out: int, kernel: int = 1, *, stride: int = 1, affine: bool = True) -> nn.Sequential:
    """ReLU, convolution, BatchNorm; the image keeps its size, or is divided by the stride and rounded up."""
    return nn.Sequential(
        nn.ReLU(),
        nn.Conv2d(c_in, c_out, kernel, stride=stride, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(c_out, affine=affine),
    )


class FactorizedReduce(nn.Module):
    """Half the size without losing pixels: two 1x1 convolutions of stride 2, the second one pixel further.

    Half of the ``c_out`` channels each, so it should be even. An image of odd size gets a zero behind its last pixel.
    """

    def __init__(self, c_in: int, c_out: int, *, affine: bool = True) -> None:
        super().__init__()
        self.even = nn.Conv2d(c_in, c_out // 2, 1, stride=2, bias=False)
        self.odd = nn.Conv2d(c_in, c_out // 2, 1, stride=2, bias=False)
        self.norm = nn.BatchNorm2d(c_out, affine=affine)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(x)
        height, width = x.shape[2:]
        further = nn.functional.pad(x, (0, width % 2, 0, height % 2)) if height % 2 or width % 2 else x
        return self.norm(torch.cat([self.even(x), self.odd(further[..., 1:, 1:])], 1))  # type: ignore[no-any-return]


def depthwise(c: int, kernel: int, *, stride: int = 1, dilation: int = 1, affine: bool = True) -> list[nn.Module]:
    """ReLU, depthwise and pointwise convolution, BatchNorm."""
    padding = dilation * (kernel // 2)
    return [
        nn.ReLU(),
        nn.Conv2d(c, c, kernel, stride=stride, padding=padding, dilation=dilation, groups=c, bias=False),
        nn.Conv2d(c, c, 1, bias=False),
        nn.BatchNorm2d(c, affine=affine),
    ]


class DropPath(nn.Module):
    """In training, the path of an example is dropped with a probability, and what stays is scaled up to make up for it.

    Larsson et al. (2017), drawn for each example by itself. Randomness is torch's global one, as of ``nn.Dropout``.
    """

    def __init__(self, probability: float = 0.0) -> None:
        super().__init__()
        self.probability = probability

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.probability == 0:
            return x
        keep = 1 - self.probability
        kept = torch.rand(len(x), *[1] * (x.dim() - 1), dtype=x.dtype, device=x.device) < keep
        return x * kept / keep

    def extra_repr(self) -> str:
        return f"probability={self.probability}"
