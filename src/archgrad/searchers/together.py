"""Many recipes of the same kind as one tensor program."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from archgrad.errors import UsageError
from archgrad.policies.replicated import replicated
from archgrad.searchers.recipe import Recipe


def together(recipes: Sequence[Recipe]) -> Recipe:
    """N recipes stacked along a run dimension, each from its own parameters: runs=(N,), stepped at once.

    Given the same batches, each run is the recipe alone. UsageError where ``unlike`` finds a difference.
    """
    reason = unlike(recipes)
    if reason is not None:
        raise UsageError(f"recipes that run together should be new and differ in parameters only, got {reason}")
    first = recipes[0]
    assert isinstance(first.policy, nn.Module)
    policy: Any = replicated(first.policy, len(recipes))
    own: list[list[nn.Parameter]] = [list(r.policy.parameters()) for r in recipes]
    with torch.no_grad():
        for parameter, rows in zip(policy.parameters(), zip(*own, strict=True), strict=True):
            parameter.copy_(torch.stack(rows))
    optimizer: Any = type(first.optimizer)
    known = inspect.signature(optimizer).parameters
    settings = {name: value for name, value in first.optimizer.defaults.items() if name in known}
    return Recipe(first.name, policy, copy.deepcopy(first.estimator), optimizer(policy.parameters(), **settings))


def unlike(recipes: Sequence[Recipe]) -> str | None:
    """Why recipes cannot run together; None where they can."""
    if not recipes:
        return "none"
    first = recipes[0]
    for r in recipes:
        if not isinstance(r.policy, nn.Module) or r.policy.runs:
            return f"a policy of {r.name} that has runs already or is no nn.Module"
        if r.optimizer.state:
            return f"an optimizer of {r.name} that has stepped"
        if len(r.optimizer.param_groups) != 1:
            return f"an optimizer of {r.name} with {len(r.optimizer.param_groups)} groups of parameters"
        for part, mine, theirs in (
            ("policies", r.policy, first.policy),
            ("estimators", r.estimator, first.estimator),
            ("optimizers", r.optimizer, first.optimizer),
        ):
            if type(mine) is not type(theirs):
                return f"{part} of two types, {type(theirs).__name__} and {type(mine).__name__}"
        shapes = [tuple(p.shape) for p in r.policy.parameters()]
        if shapes != [tuple(p.shape) for p in first.policy.parameters()]:
            return f"policies of {r.name} with parameters of different shapes"
        if r.policy.space.decisions != first.policy.space.decisions:  # type: ignore[attr-defined]
            return "two spaces"
        if settings(r.estimator) != settings(first.estimator) or r.optimizer.defaults != first.optimizer.defaults:
            return f"two settings of {r.name}"
    return None


def settings(part: object) -> dict[str, Any]:
    """What an estimator was made with: its plain attributes, and those of its parts."""
    found: dict[str, Any] = {}
    for name, value in vars(part).items():
        if value is None or isinstance(value, bool | int | float | str | tuple):
            found[name] = value
        elif hasattr(value, "__dict__") and type(value).__module__.startswith("archgrad.estimators"):
            found[name] = (type(value).__name__, settings(value))
    return found
