"""Your own network as a space: a choice of layer, a choice inside a choice, and a choice of which tensors to read."""

import argparse

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

import archgrad
from archgrad import Choice, InputChoice


def conv(channels: int, kernel: int, activation: nn.Module) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(channels, channels, kernel, padding=kernel // 2, bias=False), nn.BatchNorm2d(channels), activation
    )


class Net(nn.Module):
    """Options of a Choice take the same input and return the same shape; the rest is an ordinary module."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, width, 3, padding=1)
        self.first = Choice("first", {"conv3x3": conv(width, 3, nn.ReLU()), "conv5x5": conv(width, 5, nn.ReLU())})
        # the inner decision matters only where the outer one chose "conv3x3"
        activation = Choice("second.activation", {"relu": nn.ReLU(), "gelu": nn.GELU(), "tanh": nn.Tanh()})
        self.second = Choice("second", {"conv3x3": conv(width, 3, activation), "skip": nn.Identity()})
        # two of the three tensors, summed: options "stem+first", "stem+second", "first+second"
        self.read = InputChoice("read", ["stem", "first", "second"], choose=2)
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        stem = self.stem(x)
        first = self.first(stem)
        second = self.second(first)
        return self.head(self.read([stem, first, second]).mean((2, 3)))


if __name__ == "__main__":  # worker processes import this file again
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--epochs", type=float, default=10)
    parser.add_argument("--out", default="runs/own-model")
    options = parser.parse_args()

    digits = load_digits()
    x, y = digits.images[:, None].astype("float32"), digits.target  # [1797, 1, 8, 8] in 0..16
    space = archgrad.space_of(Net, example=torch.from_numpy(x[:2]))
    print(f"{space.size} architectures, by default {space.default}")
    for decision in space.describe():
        print(decision)

    result = archgrad.search((x, y), space, trials=options.trials, epochs=options.epochs, out=options.out)
    print("\n".join(result.summary["verdict"]))
    network = space.build(result.architecture, seed=0)  # plain modules with fresh weights: no Choice is left
    print(network)
