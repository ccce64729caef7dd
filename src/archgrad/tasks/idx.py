"""IDX, the format of MNIST and its relatives: two zero bytes, a type, the dimensions (big-endian), the values."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np

from archgrad.errors import UsageError
from archgrad.tasks.raw import MAX_BYTES, Array, Raw, reason

FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")
CLASSES = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)


def read_idx(path: Path) -> Array:
    """The uint8 array in an IDX file, gzipped if it ends in .gz. UsageError unless header and length agree."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as file:
            header = file.read(4)
            if len(header) < 4 or header[:2] != b"\0\0" or header[2] != 0x08 or not 1 <= header[3] <= 4:
                raise UsageError(
                    f"{path} should start like an IDX file of unsigned bytes, 00 00 08 and 1 to 4 dimensions, "
                    f"got {header.hex(' ') or 'nothing'}; fetch it again"
                )
            dimensions = file.read(4 * header[3])
            if len(dimensions) < 4 * header[3]:
                raise EOFError("the header ends early")
            shape = struct.unpack(f">{header[3]}I", dimensions)
            size = math.prod(shape)
            if size > MAX_BYTES:
                raise UsageError(
                    f"{path} should hold at most {MAX_BYTES / 1e9:.1f} GB, got {size / 1e9:.1f} GB announced"
                )
            values = file.read(size + 1)  # one more than announced, to notice what follows
    except (OSError, EOFError, zlib.error) as error:
        raise UsageError(f"{path} should be a readable IDX file, got: {reason(error)}; fetch it again") from error
    if len(values) != size:
        got = "more" if len(values) > size else f"{len(values)}"
        raise UsageError(f"{path} should hold {size} values for its shape {shape}, got {got}; fetch it again")
    return np.frombuffer(values, dtype=np.uint8).reshape(shape).copy()


def fashion_mnist(folder: Path = FASHION_MNIST) -> Raw:
    """Fashion-MNIST (Xiao et al. 2017) as published, x ``[N, 1, 28, 28]``: train 60,000 and test 10,000, no valid."""
    if not folder.is_dir():
        raise UsageError(
            f"fashion-mnist should be in the folder {folder}, got no such folder; "
            "apt-get install dataset-fashion-mnist, or say fashion-mnist:FOLDER"
        )
    parts = {}
    for part, stem in (("train", "train"), ("test", "t10k")):
        x, y = (_read(folder, f"{stem}-{kind}-ubyte", dims) for kind, dims in (("images-idx3", 3), ("labels-idx1", 1)))
        parts[part] = (x[:, None], y)
    return Raw("fashion-mnist", parts, CLASSES)


def _read(folder: Path, name: str, dims: int) -> Array:
    paths = [path for path in (folder / name, folder / f"{name}.gz") if path.is_file()]
    if not paths:
        raise UsageError(f"fashion-mnist should have {name} or {name}.gz in {folder}, got neither; copy it there")
    values = read_idx(paths[0])
    if values.ndim != dims:
        raise UsageError(f"{paths[0]} should have {dims} dimensions, got {values.ndim}; it may be misnamed")
    return values
