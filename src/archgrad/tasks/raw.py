"""What a source hands over, before any split, and what has to hold of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from archgrad.errors import UsageError

Array = NDArray[Any]

CHANNELS = (1, 3, 4)
MAX_BYTES = 2 * 1024**3
"""Files are read into memory, and every worker holds a copy."""


@dataclass(frozen=True)
class Raw:
    """One source's arrays.

    parts: (x, y) under "train", and under "valid" and "test" where the source has them; x ``[N, ...]``, y ``[N]``.
    classes: their names; empty where the source has none, the labels then name themselves.
    range: smallest and largest possible value of x, where the source knows it.
    """

    name: str
    parts: Mapping[str, tuple[Array, Array]]
    classes: tuple[str, ...] = ()
    range: tuple[float, float] | None = None


def checked(raw: Raw) -> Raw:
    """The same with x uint8 or float32 ``[N, C, H, W]`` or ``[N, F]``, y int64 ``[N]`` and the classes named.

    UsageError, naming the array, unless every part is non-empty, finite, of one shape and as long as its labels, and
    the labels are integers 0..C-1 (C >= 2) that all occur in train.
    """
    parts = {}
    shape = raw.parts["train"][0].shape[1:]
    for part, (x, y) in raw.parts.items():
        name = f"{raw.name}: x_{part}"
        if x.ndim >= 1 and y.ndim >= 1 and len(x) != len(y):
            raise UsageError(
                f"{name} and y_{part} should be equally long, got {len(x)} and {len(y)}; every example needs a label"
            )
        if part != "train" and x.shape[1:] != shape:
            raise UsageError(
                f"{name} should hold examples shaped like x_train's, {shape}, got {x.shape[1:]}; convert it"
            )
        parts[part] = (_values(_layout(x, name), name), _labels(y, f"{raw.name}: y_{part}"))
        if parts[part][0].dtype != parts["train"][0].dtype:  # 0..255 beside 0..1, as a rule
            raise UsageError(
                f"{name} should have x_train's type, {raw.parts['train'][0].dtype}, got {x.dtype}; convert it"
            )
    return replace(raw, parts=parts, classes=_classes(raw, {part: y for part, (_, y) in parts.items()}))


def _layout(x: Array, name: str) -> Array:
    if x.ndim not in (2, 3, 4):
        raise UsageError(f"{name} should be [N, C, H, W], [N, H, W, C], [N, H, W] or [N, F], got {x.shape}; reshape it")
    if x.size == 0:
        raise UsageError(f"{name} should hold examples, got {x.shape}; add some, or leave out a part that has none")
    if x.ndim == 2:
        return x
    if x.ndim == 3:
        return x[:, None]
    if x.shape[1] in CHANNELS:
        return x
    if x.shape[-1] in CHANNELS:
        return np.moveaxis(x, -1, 1)
    raise UsageError(
        f"{name} should have 1, 3 or 4 channels in its second or last dimension, got {x.shape}; move or drop some"
    )


def _values(x: Array, name: str) -> Array:
    if x.dtype == np.uint8:
        return np.ascontiguousarray(x)
    if x.dtype.kind != "f":
        raise UsageError(f"{name} should be uint8 or float, got {x.dtype}; convert it with x.astype('float32')")
    with np.errstate(over="ignore"):  # too large for float32 becomes infinite, and is reported as that
        x = np.ascontiguousarray(x, dtype=np.float32)
    bad = x.size - int(np.isfinite(x).sum())
    if bad:
        raise UsageError(
            f"{name} should be finite in float32, got {bad} NaN or infinite values of {x.size}; replace or drop them"
        )
    return x


def _labels(y: Array, name: str) -> Array:
    if y.ndim != 1:
        raise UsageError(
            f"{name} should be one label an example, [N], got {y.shape}; use y.argmax(-1) for one-hot rows"
        )
    if y.dtype.kind not in "iu":
        raise UsageError(f"{name} should be integers, got {y.dtype}; number the classes and cast: y.astype('int64')")
    low, high = int(y.min()), int(y.max())
    if low < 0 or high >= 2**31:
        raise UsageError(f"{name} should be 0, 1, 2, ..., got {low if low < 0 else high}; number the classes from 0")
    return y.astype(np.int64)


def _classes(raw: Raw, labels: Mapping[str, Array]) -> tuple[str, ...]:
    y = labels["train"]
    present = np.unique(y)
    top = int(present[-1])
    if raw.classes and top >= len(raw.classes):
        raise UsageError(
            f"{raw.name}: y_train should be below {len(raw.classes)}, the number of class names, got {top}; "
            "name every class"
        )
    count = len(raw.classes) or top + 1
    if count > len(y):
        raise UsageError(
            f"{raw.name}: there should be at least as many examples as classes, got {len(y)} examples for {count} "
            "classes; add examples, or number the classes 0, 1, 2, ... without gaps"
        )
    names = raw.classes or tuple(str(label) for label in range(count))
    missing = np.setdiff1d(np.arange(count), present).tolist()
    if missing:
        shown = ", ".join(names[label] for label in missing[:5]) + (", ..." if len(missing) > 5 else "")
        raise UsageError(
            f"{raw.name}: y_train should hold every class 0..{count - 1}, got {len(missing)} without an example "
            f"({shown}); renumber the classes without gaps"
        )
    if count < 2:
        raise UsageError(f"{raw.name}: there should be at least two classes, got one; nothing is to be learned from it")
    for part, other in labels.items():
        unseen = np.setdiff1d(other, present).tolist()
        if unseen:
            raise UsageError(
                f"{raw.name}: y_{part} should hold labels that y_train has, 0..{count - 1}, got also "
                f"{', '.join(map(str, unseen[:5]))}; add such examples to train, or drop them"
            )
    return names


def reason(error: BaseException) -> str:
    """What an exception says, in one line."""
    return " ".join(str(error).split()) or type(error).__name__
