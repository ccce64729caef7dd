"""Weights shared by all architectures: forward(x, h), training on uniform paths, df/dh, ranking by shared weights."""

import argparse

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F

import archgrad
from archgrad import Choice

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--steps", type=int, default=400)
options = parser.parse_args()
torch.set_num_threads(1)  # several threads only wait for each other in networks this small

digits = load_digits()
data = archgrad.load((digits.data.astype("float32") / 16, digits.target))


def layer(name: str) -> Choice:
    linear, deep = nn.Linear(32, 32), [nn.Linear(32, 64), nn.Tanh(), nn.Linear(64, 32)]
    return Choice(name, {"skip": nn.Identity(), "relu": nn.Sequential(linear, nn.ReLU()), "deep": nn.Sequential(*deep)})


torch.manual_seed(0)
model = nn.Sequential(nn.Linear(64, 32), layer("first"), layer("second"), nn.Linear(32, 10))
space = archgrad.space_of(model)
supernet = space.supernet()  # its weights are copies of the model's

# A vertex of the simplex runs one path and is the plain network with the same weights.
architecture = ("relu", "deep")
vertex = space.encode([architecture])[0]  # [D, K]
x, y = data.valid.x, data.valid.y
assert torch.equal(supernet(x, vertex), space.build(architecture)(x))

# Single-path training: every step another architecture, drawn uniformly.
optimizer = torch.optim.Adam(supernet.parameters(), lr=3e-3)
generator = torch.Generator().manual_seed(0)
for _ in range(options.steps):
    h = space.uniform(1, generator)[0]
    rows = torch.randint(len(data.train), (64,), generator=generator)
    loss = F.cross_entropy(supernet(data.train.x[rows], h), data.train.y[rows])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()

# df/dh at a vertex: the first-order change of the loss if an option's weight grew. All options run for it.
h = vertex.clone().requires_grad_()
(slope,) = torch.autograd.grad(F.cross_entropy(supernet(x, h), y), [h])
for decision, row in zip(space.decisions, slope.tolist(), strict=True):
    print(f"df/dh {decision.name}:", ", ".join(f"{o} {s:+.3f}" for o, s in zip(decision.options, row, strict=True)))

# All nine architectures under the shared weights: a cheap ranking, and only as good as the sharing.
with torch.no_grad():
    losses = [float(F.cross_entropy(supernet(x, h), y)) for h in space.enumerate()]
for loss, names in sorted(zip(losses, space.decode(space.enumerate()), strict=True)):
    print(f"valid_loss {loss:.4f}  {names}")
