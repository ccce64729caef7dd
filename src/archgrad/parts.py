"""From settings to the parts of a run: data, space, objective, recipe."""

from __future__ import annotations

import copy
import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from archgrad.errors import UsageError
from archgrad.objectives import LossPlusCost, ValidLoss, WeightedProduct, additive_cost
from archgrad.pairing import check_pairing
from archgrad.problem import Problem
from archgrad.protocols import Objective, Searcher
from archgrad.recipes import RECIPES
from archgrad.recipes import recipe as named_recipe
from archgrad.searchers.recipe import Recipe
from archgrad.settings import Settings
from archgrad.solvers.from_scratch import FromScratch
from archgrad.spaces import chain, mlp
from archgrad.spaces.model import ModelSpace, space_of
from archgrad.tasks.data import Data, load
from archgrad.text import nearest

SPACES: Mapping[str, Callable[..., ModelSpace]] = {"chain": chain, "mlp": mlp}
"""The spaces of the command line: functions of an input shape and a number of classes."""


@dataclass(frozen=True)
class Parts:
    """What a run is made of."""

    settings: Settings
    data: Data
    space: ModelSpace
    solver: FromScratch
    problem: Problem
    recipe: Searcher


def parts_of(
    settings: Settings,
    *,
    data: Any = None,
    space: ModelSpace | nn.Module | Callable[[], nn.Module] | None = None,
    recipe: Callable[..., Searcher] | None = None,
    allow_import: bool = False,
) -> Parts:
    """The parts that the settings name, or those given in their place.

    allow_import: let ``space`` and ``recipe`` settings of the form module:function import code. Never by default: a
    configuration may come from somebody else.
    """
    if recipe is None and ":" not in settings.recipe and settings.recipe not in RECIPES:
        raise UsageError(nearest("recipe", settings.recipe, RECIPES))  # before the data, which may take a while
    if space is None and ":" not in settings.space and settings.space not in ("auto", *SPACES):
        raise UsageError(nearest("space", settings.space, ["auto", *SPACES]))
    loaded = (
        data
        if isinstance(data, Data)
        else load(settings.data if data is None else data, seed=settings.seed, limit=settings.limit)
    )
    made_space = _space(settings, loaded, space, allow_import)
    if recipe is None and settings.recipe in RECIPES:
        made_recipe = named_recipe(settings.recipe, made_space, settings.seed, trials=settings.trials)
    else:
        made_recipe = (recipe or imported(settings.recipe, allow_import, "recipe"))(made_space, settings.seed)
    if not isinstance(made_recipe, Searcher):
        raise UsageError(
            f"a recipe function should return a Recipe, or another Searcher, got {type(made_recipe).__name__}"
        )
    solver = FromScratch(made_space, loaded)
    objective = _objective(settings.objective, made_space)
    if isinstance(made_recipe, Recipe):
        source = "a search that trains each architecture by FromScratch"
        check_pairing(made_recipe.policy, made_recipe.estimator, 0, source)
    problem = Problem(made_space, solver, objective)
    return Parts(settings, loaded, made_space, solver, problem, made_recipe)


def space_named(name: str, input_shape: tuple[int, ...], classes: int, allow_import: bool = False) -> ModelSpace:
    """The space that a setting names, for inputs ``[N, *input_shape]``."""
    if name == "auto":
        name = "chain" if len(input_shape) == 3 else "mlp"
    make = SPACES.get(name) or imported(name, allow_import, "space")
    made = make(input_shape, classes)
    if isinstance(made, ModelSpace):
        return made
    if not callable(made):  # a module is, and a function that makes one
        raise UsageError(f"a space function should return a space or a model, got {type(made).__name__}")
    return space_of(made)


def _space(settings: Settings, data: Data, given: Any, allow_import: bool) -> ModelSpace:
    if given is None:
        space = space_named(settings.space, data.input_shape, len(data.classes), allow_import)
    else:
        space = given if isinstance(given, ModelSpace) else space_of(given)
    if space.example is None:
        space = copy.copy(space)  # the caller's own stays as it is
        space.example = data.train.x[:2].float()
    if tuple(space.example.shape[1:]) != tuple(data.input_shape):
        raise UsageError(
            f"the space's example should be shaped like the data, {tuple(data.input_shape)}, "
            f"got {tuple(space.example.shape[1:])}"
        )
    try:
        space.build(space.default, seed=0, prune=False)  # can it be made fresh?
        logits = space.build(space.default)(space.example)
    except Exception as error:  # whatever a user's own model raises
        reason = " ".join(str(error).split())
        raise UsageError(
            f"the default architecture should run on inputs [N, *{data.input_shape}], got: {reason}"
        ) from error
    if not isinstance(logits, Tensor) or logits.shape != (len(space.example), len(data.classes)):
        got = list(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise UsageError(f"a network should give logits [N, {len(data.classes)}], one a class, got {got}")
    return space


def _objective(name: str, space: ModelSpace) -> Objective:
    if name == "loss":
        return ValidLoss()
    kind, metric = name[4], name[5:]
    reference = space.sizes(space.default)[metric]
    if kind == "*":
        return WeightedProduct(metric, reference)
    return LossPlusCost(metric, reference, cost=additive_cost(space, metric))


def imported(path: str, allow_import: bool, kind: str) -> Callable[..., Any]:
    """The function that ``module:function`` names. UsageError without ``allow_import``: importing runs code."""
    if not allow_import:
        raise UsageError(f"{kind} {path!r} would import code; say --allow-import if you trust it and who wrote it")
    module, _, name = path.partition(":")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UsageError(f"{kind} {path!r} should name a function as module:function, got: {error}") from None
    if not callable(found):
        raise UsageError(f"{kind} {path!r} should name a function, got a {type(found).__name__}")
    return found  # type: ignore[no-any-return]
