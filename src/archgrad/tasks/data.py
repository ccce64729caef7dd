"""Data for classification: three splits in memory, what normalises them, and a fingerprint."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from archgrad.errors import UsageError
from archgrad.tasks.arrays import dataset, digits, npz, pair
from archgrad.tasks.folder import folder
from archgrad.tasks.idx import fashion_mnist
from archgrad.tasks.raw import Array, Raw, checked, reason
from archgrad.tasks.splits import cut, enough, thin

BUILT_IN = {"digits": digits, "fashion-mnist": fashion_mnist}


@dataclass(frozen=True, eq=False, repr=False)
class Split:
    """x ``[N, ...]``, uint8 or float32 as the source had it, not normalised; y ``[N]``, int64."""

    x: Tensor
    y: Tensor

    def __len__(self) -> int:
        return len(self.y)

    def __repr__(self) -> str:
        return f"Split(x={str(self.x.dtype).removeprefix('torch.')} {list(self.x.shape)}, y={list(self.y.shape)})"


@dataclass(frozen=True, eq=False)
class Data:
    """A classification task's examples.

    classes: the names of labels 0..C-1. input_shape: (C, H, W) of an image, (F,) of a row of features.
    range: smallest and largest raw value: (0, 255) for uint8, (0, 16) for digits, else what train holds.
    mean, std: of train's raw values, one a channel or feature; std is 1 where train is constant.
    split_hash: SHA-256 of the three splits in order (types, shapes, values); equal for equal splits only.
    """

    name: str
    classes: tuple[str, ...]
    input_shape: tuple[int, ...]
    train: Split
    valid: Split
    test: Split
    range: tuple[float, float]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    split_hash: str


def load(
    source: str | os.PathLike[str] | Dataset[Any] | tuple[Any, Any],
    *,
    seed: int = 0,
    limit: int | None = None,
    valid_fraction: float = 0.2,
    test_fraction: float = 0.2,
    image_size: int | tuple[int, int] | None = None,
) -> Data:
    """Read a source into memory and split it.

    source: one of

    - ``"digits"``: scikit-learn's 8x8 digits;
    - ``"fashion-mnist"``: IDX files, gzipped or not, from Debian's package dataset-fashion-mnist, or from a folder of
      your own with ``"fashion-mnist:FOLDER"``;
    - an ``.npz`` file with x_train, y_train and, optionally, x_valid, y_valid, x_test, y_test and classes (names);
    - a folder of class folders of images, optionally below train/, valid/ and test/; resized to ``image_size``
      ((H, W), or one number), by default the most common size. Write "./digits" for a folder of that name;
    - a map-style ``torch.utils.data.Dataset`` of (x, int) pairs, x a tensor, an array or a PIL image. It is read once,
      so random transforms are frozen;
    - a pair (x, y) of arrays or tensors.

    Arrays x are uint8 or float (kept as float32), ``[N, F]``, ``[N, H, W]``, ``[N, C, H, W]`` or ``[N, H, W, C]``. Of
    the last two it is the one with 1, 3 or 4 channels; where both could be, it is ``[N, C, H, W]``. Labels are integers
    0..C-1.

    Splits that the source has are kept as they are. Missing ones are cut off its train, stratified: they get
    ``valid_fraction`` and ``test_fraction`` of it, and at least one example of every class. No *index* is in two
    splits; equal examples under two indices can be. ``limit`` then keeps that many examples of train and valid
    together, and at most as many of test, stratified, so an example never changes its split with ``limit``. The same
    source and ``seed`` give the same splits.

    Raises UsageError, in one line, for whatever the user can mend.
    """
    if seed < 0:
        raise UsageError(f"seed should be 0 or more, got {seed}; 0 is a usual start")
    raw = checked(_read(source, image_size))
    rng = np.random.default_rng(seed)
    parts = _divide(raw, {"test": test_fraction, "valid": valid_fraction}, rng)
    if limit is not None:
        parts = _limit(raw.name, parts, limit, len(raw.classes), rng)
    x = parts["train"][0]
    mean, std = _moments(x)
    known = raw.range or ((0, 255) if x.dtype == np.uint8 else (x.min(), x.max()))
    return Data(
        name=raw.name,
        classes=raw.classes,
        input_shape=x.shape[1:],
        **{part: Split(*map(torch.from_numpy, parts[part])) for part in ("train", "valid", "test")},
        range=(float(known[0]), float(known[1])),
        mean=mean,
        std=std,
        split_hash=_hash(parts),
    )


def _read(source: Any, image_size: int | tuple[int, int] | None) -> Raw:
    if isinstance(source, str | os.PathLike):
        try:
            return _read_path(source, image_size)
        except OSError as error:  # no permission, for one
            raise UsageError(f"{source} should be readable, got: {reason(error)}; check its permissions") from error
    if image_size is not None:
        raise UsageError(f"image_size is for folders of images, got {image_size}; resize the arrays beforehand")
    if isinstance(source, Dataset):
        return dataset(source)
    if isinstance(source, tuple | list):
        return pair(source)
    raise UsageError(
        f"data should be a name, a path, a Dataset or a pair (x, y), got {type(source).__name__}; "
        "see archgrad.tasks.load"
    )


def _read_path(source: str | os.PathLike[str], image_size: int | tuple[int, int] | None) -> Raw:
    path = Path(source).expanduser()
    if path.is_dir() and source not in BUILT_IN:
        return folder(path, image_size)
    if image_size is not None:
        raise UsageError(f"image_size is for folders of images, got {image_size} for {source}; leave it out")
    if isinstance(source, str):
        if source in BUILT_IN:
            return BUILT_IN[source]()
        name, colon, where = source.partition(":")
        if colon and name == "fashion-mnist":
            return fashion_mnist(Path(where).expanduser())
    if path.suffix == ".npz" and path.is_file():
        return npz(path)
    if path.exists():
        raise UsageError(f"{path} should be a folder or end in .npz, got neither; save the arrays with np.savez")
    if path.suffix or len(path.parts) > 1 or not isinstance(source, str):
        raise UsageError(
            f"data should be an .npz file or a folder of images, got {path}, which does not exist; mind typos"
        )
    near = get_close_matches(source, BUILT_IN, n=1, cutoff=0.5)
    raise UsageError(
        f"data should be {', '.join(BUILT_IN)}, an .npz file or a folder of images, got {source!r}; "
        + (f"did you mean {near[0]}?" if near else "give one of them")
    )


Parts = dict[str, tuple[Array, Array]]


def _divide(raw: Raw, fractions: dict[str, float], rng: np.random.Generator) -> Parts:
    missing = [part for part in fractions if part not in raw.parts]
    for part in missing:
        if not 0 < fractions[part] < 1:
            raise UsageError(f"{part}_fraction should be between 0 and 1, got {fractions[part]}; 0.2 is a usual start")
    if sum(fractions[part] for part in missing) >= 1:
        raise UsageError(f"valid_fraction and test_fraction should leave something to train on, got {fractions}")
    x, y = raw.parts["train"]
    enough(raw.name, y, raw.classes, ["train", *missing])
    pieces = cut(y, [fractions[part] for part in missing], rng)
    return {**raw.parts, **{part: (x[i], y[i]) for part, i in zip([*missing, "train"], pieces, strict=True)}}


def _limit(name: str, parts: Parts, limit: int, classes: int, rng: np.random.Generator) -> Parts:
    if limit < 2 * classes:
        raise UsageError(
            f"{name}: limit should be at least {2 * classes}, for an example of each of {classes} classes in train and "
            f"in valid, got {limit}; raise it"
        )
    train, valid, test = (len(parts[part][1]) for part in ("train", "valid", "test"))
    keep = {"train": train, "valid": valid, "test": min(test, limit)}
    if limit < train + valid:
        share = round(limit * valid / (train + valid))
        keep["valid"] = min(max(share, min(classes, valid)), limit - classes)
        keep["train"] = limit - keep["valid"]
    rows = {part: thin(parts[part][1], n, rng) for part, n in keep.items()}
    return {part: (x[rows[part]], y[rows[part]]) for part, (x, y) in parts.items()}


def _moments(x: Array) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of every channel or feature of ``[N, C, ...]``, a few megabytes at a time."""
    flat = x.reshape(*x.shape[:2], -1)
    first = flat[:1, :, :1].astype(np.float64)  # differences to it: a constant then has a spread of exactly 0
    count = flat.shape[0] * flat.shape[2]
    rows = max(1, 2**22 // (flat.shape[1] * flat.shape[2]))
    chunks = range(0, len(flat), rows)
    shift = sum((flat[i : i + rows] - first).sum((0, 2)) for i in chunks) / count
    square = sum(((flat[i : i + rows] - first - shift[:, None]) ** 2).sum((0, 2)) for i in chunks) / count
    std = np.sqrt(square)
    std[std < np.finfo(np.float32).tiny] = 1
    return tuple((first[0, :, 0] + shift).tolist()), tuple(std.tolist())


def _hash(parts: Parts) -> str:
    digest = hashlib.sha256()
    for part in ("train", "valid", "test"):
        for array in parts[part]:
            digest.update(f"{array.dtype}{array.shape}".encode())
            digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()
