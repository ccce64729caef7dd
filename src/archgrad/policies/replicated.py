"""The same policy many times over, along a run dimension."""

from __future__ import annotations

import copy
from typing import TypeVar

from torch import nn

P = TypeVar("P", bound=nn.Module)


def replicated(policy: P, *runs: int) -> P:
    """A copy of ``policy`` with leading run dimensions: equal parameters, to be stepped or measured independently.

    Every parameter ``[...]`` becomes ``[*runs, ...]``; it asks of a policy that its operations broadcast over them.
    """
    many = copy.deepcopy(policy)
    for name, parameter in policy.named_parameters():
        owner, _, leaf = name.rpartition(".")
        value = parameter.detach().expand(*runs, *parameter.shape).clone()
        setattr(many.get_submodule(owner), leaf, nn.Parameter(value))
    many.runs = (*runs, *policy.runs)  # type: ignore[assignment, misc]
    return many
