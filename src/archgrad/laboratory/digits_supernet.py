"""A small real problem whose hypergradient can be computed exactly: a mixed network on digits, trained to a minimum."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from archgrad.errors import UsageError
from archgrad.laboratory.minimum import minimum
from archgrad.protocols import Weights
from archgrad.spaces.choice import Choice
from archgrad.spaces.model import made, space_of
from archgrad.tasks.data import load
from archgrad.text import nearest

ACTIVATIONS: Mapping[str, type[nn.Module]] = {"tanh": nn.Tanh, "gelu": nn.GELU, "relu": nn.ReLU}
WIDTH, LAYERS, EXAMPLES, L2 = 14, 2, 300, 0.01


class DigitsSupernet:
    """g: cross-entropy on 300 training digits, shrunk to 4x4, plus .01 |z|^2 / 2. f: cross-entropy on 300 others.

    Two layers are each a mixture of skip and two kinds of linear layer with an activation, weighted by h ``[2, 3]``, a
    relaxed architecture; 1,228 weights. The batch is always the same. A function of (activation, seed).
    """

    def __init__(self, activation: str = "tanh", seed: int = 0, dtype: torch.dtype = torch.float64) -> None:
        if activation not in ACTIVATIONS:
            raise UsageError(nearest("activation", activation, ACTIVATIONS))
        self.activation, act = activation, ACTIVATIONS[activation]
        data = load("digits", seed=seed)
        (self.x, self.y), (self.x_valid, self.y_valid) = (
            (F.avg_pool2d(split.x[:EXAMPLES].to(dtype), 2).flatten(1) / 8 - 1, split.y[:EXAMPLES])
            for split in (data.train, data.valid)
        )

        def model() -> nn.Module:
            def mixed(i: int) -> Choice:
                inside, outside = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
                options = {
                    "skip": nn.Identity(),
                    "after": nn.Sequential(inside, act()),
                    "before": nn.Sequential(act(), outside),
                }
                return Choice(f"layer{i + 1}", options)

            stem = nn.Sequential(nn.Linear(self.x.shape[1], WIDTH), act())
            return nn.Sequential(stem, *(mixed(i) for i in range(LAYERS)), nn.Linear(WIDTH, len(data.classes)))

        space = space_of(made(model, seed))
        self.network = space.supernet().to(dtype)
        self.z: dict[str, Tensor] = {n: p.detach().clone() for n, p in self.network.named_parameters()}
        generator = torch.Generator().manual_seed(seed)
        self.h = torch.randn(space.D, space.K, generator=generator, dtype=torch.float64).softmax(-1).to(dtype)

    def g(self, z: Weights, h: Tensor, k: int) -> Tensor:
        del k
        decay = sum((v.square().sum() for v in z.values()), start=h.new_zeros(()))
        return F.cross_entropy(self.run(z, self.x, h), self.y) + L2 / 2 * decay

    def f(self, z: Weights, h: Tensor) -> Tensor:
        return F.cross_entropy(self.run(z, self.x_valid, h), self.y_valid)

    def run(self, z: Weights, x: Tensor, h: Tensor) -> Tensor:
        return functional_call(self.network, dict(z), (x, h))  # type: ignore[no-any-return]

    def train(self, steps: int = 3000) -> None:
        """z to a minimum of g, by L-BFGS."""
        self.z = minimum(self.g, self.z, self.h, steps=steps, slope=1e-10)

    def to(self, dtype: torch.dtype) -> DigitsSupernet:
        """The same in another number type."""
        other = object.__new__(DigitsSupernet)
        other.__dict__.update(self.__dict__)
        other.x, other.x_valid, other.h = (t.to(dtype) for t in (self.x, self.x_valid, self.h))
        other.z = {n: v.to(dtype) for n, v in self.z.items()}
        return other
