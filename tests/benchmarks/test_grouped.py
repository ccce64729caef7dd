"""Many networks in one program are the same networks alone: outputs, gradients, and weights after training."""

import pytest
import torch
import torch.nn.functional as F

from archgrad import UsageError
from archgrad.benchmarks.convolutional import KERNELS, POOLS, SKIP, Family
from archgrad.benchmarks.grouped import Grouped

EVERYTHING = (SKIP, *KERNELS, *POOLS)
PLAIN = Family("plain", EVERYTHING, (2, 3), channels=4, residual=False)
RESIDUAL = Family("residual", EVERYTHING, (2, 3), channels=4, residual=True)


def some(family, n):
    choices = torch.randint(0, len(family.options), (n, family.D), generator=torch.Generator().manual_seed(1))
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(6, 4, 1, 14, 14, generator=generator, dtype=torch.float64)
    return choices, x, torch.randint(0, 10, (6, 4), generator=generator)


def alone(networks, i):
    module = networks.family.network(networks.choices[i].tolist()).double()
    module.load_state_dict(networks.weights(i))
    return module


@pytest.mark.parametrize("family", [PLAIN, RESIDUAL], ids=lambda f: f.name)
def test_outputs_are_those_of_ordinary_modules_with_the_same_weights(family):
    choices, x, _ = some(family, 9)
    networks = Grouped(family, choices, list(range(9)), torch.float64)
    with torch.no_grad():
        # away from scale 1 and shift 0, which would hide a norm that reads another network's
        networks.theta += 0.1 * torch.randn(networks.theta.shape, generator=torch.Generator().manual_seed(3)).double()
    logits = networks(x[0])
    for i in range(9):
        assert torch.allclose(logits[i], alone(networks, i)(x[0]), rtol=0, atol=1e-11)


@pytest.mark.parametrize("family", [PLAIN, RESIDUAL], ids=lambda f: f.name)
@pytest.mark.parametrize(
    "make", [lambda p: torch.optim.Adam(p, 1e-2), lambda p: torch.optim.SGD(p, 1e-2, momentum=0.9)], ids=["Adam", "SGD"]
)
def test_trained_together_is_trained_one_at_a_time(family, make):
    """Ordinary modules with an optimizer each, and the grouped program with one: weights agree to 1e-9."""
    choices, x, y = some(family, 7)
    networks = Grouped(family, choices, list(range(7)), torch.float64)
    modules = [alone(networks, i) for i in range(7)]
    optimizer = make([networks.theta])
    for step in range(6):
        loss = F.cross_entropy(networks(x[step]).flatten(0, 1), y[step].repeat(7), reduction="sum") / 4
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    for i, module in enumerate(modules):
        optimizer = make(module.parameters())
        for step in range(6):
            optimizer.zero_grad()
            F.cross_entropy(module(x[step]), y[step]).backward()
            optimizer.step()
        trained = networks.weights(i)
        for name, value in module.state_dict().items():
            assert torch.allclose(trained[name], value, rtol=0, atol=1e-9), (i, name)


def test_first_weights_depend_on_the_seed_alone():
    choices, _, _ = some(PLAIN, 5)
    many = Grouped(PLAIN, choices, [10, 11, 12, 13, 14])
    few = Grouped(PLAIN, choices[[3, 1]], [13, 11])
    for i, j in ((0, 3), (1, 1)):
        for name, value in few.weights(i).items():
            assert torch.equal(value, many.weights(j)[name])
    other = Grouped(PLAIN, choices[[3, 1]], [13, 12]).weights(1)
    assert not torch.equal(other["0.operation.weight"], many.weights(1)["0.operation.weight"])


def test_first_weights_have_the_stated_variance():
    """He (2015): 2 / fan-in. 4,000 numbers: a standard deviation is off by 4% with probability below 1e-3."""
    family = Family("wide", ("conv3x3", "depthwise3x3"), (2,), channels=16)
    networks = Grouped(family, torch.tensor([[0, 1]] * 40), list(range(40)))
    drawn = [networks.weights(i) for i in range(40)]
    for name, fan_in, gain in (("1.operation.weight", 144, 2), ("2.operation.weight", 9, 2), ("4.weight", 64, 1)):
        values = torch.cat([w[name].flatten() for w in drawn])
        assert float(values.std()) == pytest.approx((gain / fan_in) ** 0.5, rel=0.05), name


def test_what_does_not_fit_is_refused():
    with pytest.raises(UsageError, match=r"\[n, 5\] with a seed each, got \(3, 5\) and 2 seeds"):
        Grouped(PLAIN, torch.zeros(3, 5).long(), [1, 2])
