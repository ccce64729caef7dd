"""Arrays that someone else made: an .npz file, a pair in memory, a map-style dataset, scikit-learn's digits."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset, IterableDataset

from archgrad.errors import UsageError
from archgrad.tasks.folder import is_grey, pixels
from archgrad.tasks.raw import MAX_BYTES, Array, Raw, reason

PARTS = ("train", "valid", "test")


def digits() -> Raw:
    """scikit-learn's 1,797 handwritten digits, x ``[1797, 1, 8, 8]`` in 0..16."""
    from sklearn.datasets import load_digits  # slow to import, and seldom needed

    source = load_digits()
    return Raw("digits", {"train": (source.images[:, None], source.target)}, range=(0, 16))


def npz(path: Path) -> Raw:
    """x_train, y_train and, where they exist, x_valid, y_valid, x_test, y_test and classes (strings). No pickles."""
    arrays = _read_npz(path)
    keys = ", ".join(arrays) or "none"
    for key in ("x_train", "y_train"):
        if key not in arrays:
            raise UsageError(f"{path} should have the keys x_train and y_train, got {keys}; rename its arrays")
    known = [f"{letter}_{part}" for part in PARTS for letter in "xy"]
    for key in arrays:
        # A misspelt x_val would otherwise be left out in silence, and another valid cut off train.
        if key[:2] in ("x_", "y_") and key not in known:
            raise UsageError(f"{path} should name its arrays {', '.join(known)}, got {key}; rename or drop it")
        partner = ("y" if key[0] == "x" else "x") + key[1:]
        if key in known and partner not in arrays:
            raise UsageError(f"{path} should have {partner} beside {key}, got {keys}; add or drop one")
    parts = {part: (arrays[f"x_{part}"], arrays[f"y_{part}"]) for part in PARTS if f"x_{part}" in arrays}
    return Raw(path.stem, parts, _names(arrays["classes"], f"{path}: classes") if "classes" in arrays else ())


def pair(source: tuple[Any, Any] | list[Any]) -> Raw:
    """(x, y), each an array, a tensor or a nested list."""
    if len(source) != 2:
        raise UsageError(
            f"data in memory should be a pair (x, y), got {len(source)} items; load cuts the splits itself"
        )
    return Raw("arrays", {"train": (as_array(source[0], "x"), as_array(source[1], "y"))})


def dataset(source: Dataset[Any]) -> Raw:
    """A map-style dataset of (x, int), read once, in order; x a tensor, an array or a PIL image."""
    name = type(source).__name__
    if isinstance(source, IterableDataset) or not hasattr(source, "__len__"):
        raise UsageError(
            f"{name} should be a map-style dataset, with a length, got none; collect it into a pair (x, y)"
        )
    xs: list[Array] = []
    ys: list[Array] = []
    for i in range(len(source)):
        item = source[i]
        if not isinstance(item, tuple | list) or len(item) != 2:
            raise UsageError(f"{name} should have pairs (x, label), got {type(item).__name__} at {i}; wrap the dataset")
        x, y = as_array(item[0], f"{name}: x at {i}"), as_array(item[1], f"{name}: label at {i}")
        if y.shape != ():
            raise UsageError(f"{name} should have one whole number as label, got shape {y.shape} at {i}")
        if xs and (x.shape != xs[0].shape or x.dtype != xs[0].dtype):
            raise UsageError(
                f"{name} should have examples of one shape and type, {xs[0].shape} {xs[0].dtype}, "
                f"got {x.shape} {x.dtype} at {i}; resize or convert them"
            )
        xs.append(x)
        ys.append(y)
    if not xs:
        raise UsageError(f"{name} should hold examples, got none")
    names = getattr(source, "classes", None)  # as torchvision's datasets call them
    return Raw(name, {"train": (np.stack(xs), np.stack(ys))}, () if names is None else _names(names, f"{name}.classes"))


def as_array(value: Any, name: str) -> Array:
    """Whatever an array can be made of; a PIL image becomes uint8 ``[C, H, W]``. UsageError for Python objects."""
    if isinstance(value, Image.Image):
        return pixels(value, "L" if is_grey(value, name) else "RGB")
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu()
        return np.asarray(value.float() if value.dtype == torch.bfloat16 else value)
    try:
        array = np.asarray(value)
    except ValueError as error:  # rows of different lengths
        raise UsageError(f"{name} should be an array, got ragged rows: {reason(error)}; pad them") from error
    if array.dtype == object:
        raise UsageError(f"{name} should be numbers, got Python objects ({type(value).__name__}); convert them")
    return array


def _names(names: Iterable[Any], name: str) -> tuple[str, ...]:
    array = np.asarray(names)
    if array.ndim != 1 or array.dtype.kind != "U" or len(set(array.tolist())) != len(array):
        raise UsageError(f"{name} should be distinct strings, [C], got {array.dtype} {array.shape}; rename them")
    return tuple(array.tolist())


def _read_npz(path: Path) -> dict[str, Array]:
    key = ""
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(member.file_size for member in archive.infolist())
        if size > MAX_BYTES:
            raise UsageError(
                f"{path} should unpack to at most {MAX_BYTES / 1e9:.1f} GB, got {size / 1e9:.1f} GB; "
                "store uint8 or fewer examples, or pass arrays (x, y)"
            )
        arrays = {}
        with np.load(path, allow_pickle=False) as file:
            for key in file.files:
                arrays[key] = file[key]
                if not isinstance(arrays[key], np.ndarray):  # numpy gives the bytes of a member it does not know
                    raise ValueError("not an array")
        return arrays
    except UsageError:
        raise
    except (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error, RuntimeError, MemoryError) as error:
        if "allow_pickle" in str(error):
            raise UsageError(
                f"{path}: {key} should be numbers or strings, got Python objects, which only unpickling (running the "
                "file's code) would read; save it with a plain dtype"
            ) from error
        where = f"{path}: {key}" if key else f"{path}"
        raise UsageError(
            f"{where} should be readable, as np.savez writes it, got: {reason(error)}; save it again"
        ) from error
