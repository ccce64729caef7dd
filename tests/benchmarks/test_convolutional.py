"""Families of convolutional networks: closed forms against the networks that are built."""

import pytest
import torch

from archgrad import UsageError
from archgrad.benchmarks.convolutional import KERNELS, POOLS, SKIP, Family
from archgrad.spaces.plain import count

EVERYTHING = (SKIP, *KERNELS, *POOLS)


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("side", [14, 7])
def test_parameters_and_multiplications_are_those_of_the_built_network(residual, side):
    family = Family("all", EVERYTHING, (2, 3, 1), channels=4, residual=residual, places=2, inputs=3, classes=5)
    choices = torch.stack([torch.arange(6), torch.arange(6) + 1, torch.zeros(6).long(), torch.full((6,), 2)])
    params, macs = family.params(choices), family.macs(choices, side)
    for i, row in enumerate(choices.tolist()):
        counted = count(family.network(row), torch.randn(1, 3, side, side))
        assert counted == {"params": float(params[i]), "macs": float(macs[i])}


def test_the_space_names_stage_and_layer():
    space = Family("two", ("skip", "conv3x3"), (1, 2)).space
    assert [d.name for d in space.decisions] == ["1.1", "2.1", "2.2"]
    assert space.size == 8


def test_what_is_no_family_is_refused():
    with pytest.raises(UsageError, match="'conv9x9'"):
        Family("wrong", ("skip", "conv9x9"), (2,))
    with pytest.raises(UsageError, match="one layer a stage"):
        Family("wrong", ("skip",), (2, 0))
