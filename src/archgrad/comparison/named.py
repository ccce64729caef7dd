"""Recipes from text: ``reinforce:lr=0.04,samples=10,baseline=moving-average``."""

from __future__ import annotations

import functools
import inspect
import types
import typing
from collections.abc import Callable
from typing import Any

from archgrad.errors import UsageError
from archgrad.protocols import Searcher
from archgrad.recipes import RECIPES
from archgrad.text import nearest


def named(text: str) -> Callable[..., Searcher]:
    """A function of a space and a seed from a recipe's name and its settings; it starts away from any default.

    UsageError for an unknown name or setting, with the nearest one, and for a value of the wrong kind.
    """
    name, _, rest = text.partition(":")
    if name not in RECIPES:
        raise UsageError(nearest("recipe", name, RECIPES))
    make = RECIPES[name]
    known = list(inspect.signature(make).parameters)[2:]  # after space and seed
    kinds = typing.get_type_hints(make)
    settings: dict[str, Any] = {}
    if "near_default" in known:
        known.remove("near_default")
        settings["near_default"] = None  # a comparison is on spaces, not on a default somebody chose
    for part in filter(None, rest.split(",")):
        key, equals, value = part.partition("=")
        if key not in known:
            raise UsageError(nearest(f"a setting of {name}", key, known))
        if not equals:
            raise UsageError(f"settings should be name=value, got {part!r} in {text!r}")
        settings[key] = converted(f"{name}:{key}", value, kinds[key])
    return functools.partial(make, **settings)


def converted(name: str, value: str, kind: Any) -> Any:
    """Text as the kind that a signature asks for: int, float, bool, text, one of some words, or None."""
    origin = typing.get_origin(kind)
    if origin is typing.Literal:
        words = typing.get_args(kind)
        if value in words:
            return value
        raise UsageError(nearest(name, value, words))
    if origin in (types.UnionType, typing.Union):
        if value.lower() == "none":
            return None
        return converted(name, value, next(k for k in typing.get_args(kind) if k is not type(None)))
    try:
        if kind is bool:
            return {"true": True, "false": False}[value.lower()]
        return kind(value)
    except (ValueError, KeyError):
        kinds = {bool: "true or false", int: "a whole number", float: "a number"}
        raise UsageError(f"{name} should be {kinds.get(kind, kind.__name__)}, got {value!r}") from None
