"""Many small networks of different architectures as one program: grouped convolutions."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from archgrad.benchmarks.convolutional import KERNELS, POOLS, SKIP, Family
from archgrad.errors import UsageError


class Grouped:
    """n networks of a family, side by side: activations ``[B, H, W, n * channels]``, theirs ``[n, ...]`` weights.

    At every layer the networks are sorted by what they chose, and those that chose the same are one grouped
    convolution. No network sees another: a network's outputs and gradients are those it has alone (to rounding). All
    weights are views of one vector ``theta``, a leaf, so that an optimizer that works element by element (SGD with
    momentum, Adam) trains them as if alone and takes one step for all.

    choices: ``[n, D]``. seeds: one a network, from which its weights are drawn: normal, variance 2 / fan-in for
    convolutions and 1 / fan-in for the head; norms start at scale 1 and shift 0.
    """

    def __init__(self, family: Family, choices: Tensor, seeds: list[int], dtype: torch.dtype = torch.float32) -> None:
        if choices.dim() != 2 or choices.shape[1] != family.D or len(seeds) != len(choices) or not len(seeds):
            raise UsageError(
                f"choices should be [n, {family.D}] with a seed each, got {tuple(choices.shape)} and {len(seeds)} seeds"
            )
        self.family, self.choices, self.n = family, choices, len(seeds)
        self.dtype = dtype
        self.orders = [torch.argsort(choices[:, d], stable=True) for d in range(family.D)]
        self.members = [
            [(choices[:, d] == o).nonzero().squeeze(1) for o in range(len(family.options))] for d in range(family.D)
        ]
        self.sections = self._sections()
        self.theta = torch.cat([torch.zeros(len(who) * size.numel(), dtype=dtype) for _, who, size in self.sections])
        self._draw(seeds)
        self.theta.requires_grad_()

    def _sections(self) -> list[tuple[str, Tensor, torch.Size]]:
        """What theta consists of: name, which networks have it, and its shape for one of them."""
        C, family = self.family.channels, self.family
        everybody = torch.arange(self.n)
        found: list[tuple[str, Tensor, tuple[int, ...]]] = []

        def unit(name: str, who: Tensor, weights: tuple[int, ...]) -> None:
            if weights:
                found.append((f"{name}.operation.weight", who, weights))
            found.extend([(f"{name}.norm.weight", who, (C,)), (f"{name}.norm.bias", who, (C,))])

        place = 0
        unit("0", everybody, (C, family.inputs, 3, 3))
        for d in range(family.D):
            place += 1
            if family.reduces_before(d):
                unit(f"{place}", everybody, (C, C, 3, 3))
                place += 1
            for option, who in zip(family.options, self.members[d], strict=True):
                if option != SKIP and len(who):
                    unit(f"{place}", who, family.weights(option))
        head = f"{place + 2}"
        found.extend(
            [
                (f"{head}.weight", everybody, (family.classes, family.features)),
                (f"{head}.bias", everybody, (family.classes,)),
            ]
        )
        return [(name, who, torch.Size(shape)) for name, who, shape in found]

    def _draw(self, seeds: list[int]) -> None:
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        for (name, who, shape), part in zip(self.sections, self._parts(self.theta), strict=True):
            if name.endswith("norm.weight"):
                part.fill_(1)
            elif len(shape) > 1:
                gain = 2.0 if len(shape) == 4 else 1.0
                for row, i in enumerate(who.tolist()):
                    # in double, so that a seed means the same weights in any precision
                    drawn = torch.randn(shape, generator=generators[i], dtype=torch.float64)
                    part[row] = drawn * (gain / shape[1:].numel()) ** 0.5

    def _parts(self, theta: Tensor) -> list[Tensor]:
        sizes = [len(who) * shape.numel() for _, who, shape in self.sections]
        return [
            part.view(len(who), *shape)
            for part, (_, who, shape) in zip(torch.split(theta, sizes), self.sections, strict=True)
        ]

    def weights(self, i: int, theta: Tensor | None = None) -> dict[str, Tensor]:
        """Network i's weights, as ``family.network(choices[i]).load_state_dict`` takes them."""
        found = {}
        for (name, who, _), part in zip(
            self.sections, self._parts(self.theta if theta is None else theta), strict=True
        ):
            row = (who == i).nonzero()
            if len(row):
                found[name] = part[int(row)].detach().clone()
        return found

    def __call__(self, x: Tensor, theta: Tensor | None = None) -> Tensor:
        """Logits ``[B, inputs, H, W] -> [n, B, classes]``, of weights ``theta`` (its own by default)."""
        family, n = self.family, self.n
        parts = iter(self._parts(self.theta if theta is None else theta))
        # every network sees the same image, so the stem's is an ordinary convolution
        y = F.conv2d(_last(x), _joined(next(parts)), stride=2, padding=1)
        y = _norm(y, parts, n)
        order = torch.arange(n)
        for d in range(family.D):
            if family.reduces_before(d):
                w = next(parts)[order]
                y = F.conv2d(y, _joined(w), stride=2, padding=1, groups=n)
                y = F.group_norm(y, n, next(parts)[order].flatten(), next(parts)[order].flatten()).relu()
            y = _sorted(y, order, self.orders[d], n)
            order = self.orders[d]
            y = self._layer(y, d, parts)
        features = (family.scale * F.adaptive_avg_pool2d(y, family.places)).reshape(len(x), n, family.features)
        back = torch.argsort(order)
        features = features.index_select(1, back).transpose(0, 1)
        weight, bias = next(parts), next(parts)
        return torch.baddbmm(bias.unsqueeze(1), features, weight.transpose(1, 2))

    def _layer(self, x: Tensor, d: int, parts: Any) -> Tensor:
        """Layer d on networks that are sorted by their choice there."""
        family = self.family
        made = []
        pieces = torch.split(x, [len(who) * family.channels for who in self.members[d]], 1)
        for option, who, piece in zip(family.options, self.members[d], pieces, strict=True):
            if not len(who):
                continue
            if option == SKIP:
                made.append(piece)
                continue
            if option in KERNELS:
                k, w = KERNELS[option], _joined(next(parts))
                y = F.conv2d(piece, w, padding=k // 2, groups=piece.shape[1] // w.shape[1])
            elif option.startswith("max"):
                y = F.max_pool2d(piece, POOLS[option], 1, POOLS[option] // 2)
            else:
                y = F.avg_pool2d(piece, POOLS[option], 1, POOLS[option] // 2)
            y = _norm(y, parts, len(who))
            made.append(piece + y if family.residual else y)
        return _last(torch.cat(made, 1))


def _norm(y: Tensor, parts: Any, n: int) -> Tensor:
    return F.group_norm(y, n, next(parts).flatten(), next(parts).flatten()).relu()


def _joined(weights: Tensor) -> Tensor:
    """``[n, out, in, k, k] -> [n * out, in, k, k]``, as grouped convolutions take them."""
    return weights.flatten(0, 1)


def _last(x: Tensor) -> Tensor:
    """The same with channels last in memory, where grouped and depthwise convolutions are fastest."""
    return x.contiguous(memory_format=torch.channels_last)


def _sorted(x: Tensor, order: Tensor, wanted: Tensor, n: int) -> Tensor:
    """Networks ``[B, n * C, H, W]`` from one order to another."""
    if torch.equal(order, wanted):
        return x
    move = torch.argsort(order)[wanted]
    y: Tensor = _Permuted.apply(_last(x), move, n)  # type: ignore[no-untyped-call]
    return y


class _Permuted(torch.autograd.Function):
    """Networks in another order; the way back is the inverse order, for which autograd would add at indices."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, move: Tensor, n: int) -> Tensor:
        ctx.back, ctx.n = torch.argsort(move), n
        return _moved(x, move, n)

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor, None, None]:
        return _moved(_last(slopes[0]), ctx.back, ctx.n), None, None


def _moved(x: Tensor, move: Tensor, n: int) -> Tensor:
    B, channels, H, W = x.shape
    rows = x.permute(0, 2, 3, 1).view(B * H * W, n, channels // n)
    return rows.index_select(1, move).view(B, H, W, channels).permute(0, 3, 1, 2)
