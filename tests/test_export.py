"""Exporting again, from a space that no name stands for."""

import pytest
import torch
from torch import nn

import archgrad
from archgrad import Choice


def make():
    return nn.Sequential(nn.Linear(3, 8), Choice("a", {"relu": nn.ReLU(), "tanh": nn.Tanh()}), nn.Linear(8, 2))


def test_a_space_from_python_is_given_again(tmp_path):
    x = torch.rand(60, 3, generator=torch.Generator().manual_seed(0))
    space = archgrad.space_of(make)
    settings = {"trials": 2, "epochs": 1, "seeds": 1, "workers": 0}
    archgrad.search((x, (x[:, 0] > x[:, 1]).long()), space, out=tmp_path / "run", **settings)
    with pytest.raises(archgrad.UsageError, match="give it again"):
        archgrad.export(tmp_path / "run", tmp_path / "again")
    handed = archgrad.export(tmp_path / "run", tmp_path / "again", space=space)
    assert "model.pt2" in handed["files"]
    one, two = (torch.export.load(tmp_path / f / "model.pt2").module()(x) for f in ("run", "again"))
    assert torch.equal(one, two)
