"""Running a handed-over winner on a file, without executing anything the file or the folder brings along."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from archgrad.errors import UsageError
from archgrad.program import Program
from archgrad.tasks.folder import FORMATS

CHUNK = 64
IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".pgm", ".ppm")
_MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}


def predict(folder: str | Path, file: str | Path) -> dict[str, Any]:
    """Class and probability of every example in ``file``, by the winner that ``hand_over`` wrote into ``folder``.

    file: ``.npz`` with ``x`` (or ``x_test``) or ``.npy``, ``[N, *input_shape]`` or one example ``[*input_shape]``; an
    image; or a folder of images. Images get the mode and the size of the input, and 0..255 becomes the input range.

    Returns ``{"classes": [names], "predictions": [{"class", "probability"}, ...]}``; predictions of a folder name
    their ``"file"`` as well. Raises UsageError for anything that does not fit. Nothing is unpickled, ``model.pt2`` is
    not opened: see ``program.py``.
    """
    folder, file = Path(folder), Path(file)
    card = read_card(folder)
    classes, shape = [str(name) for name in card["classes"]], tuple(int(n) for n in card["input_shape"])
    program = Program(_json(folder / "program.json"), _weights(folder / "model.safetensors"))
    if not file.exists():
        raise UsageError(f"the file to predict should exist, got {str(file)!r}; check the path")
    names: list[str] | None = None
    if file.is_dir():
        paths = sorted(p for p in file.rglob("*") if p.suffix.lower() in IMAGES and p.is_file())
        if not paths:
            raise UsageError(f"a folder should hold images ({' '.join(IMAGES)}), got none in {str(file)!r}")
        names = [p.relative_to(file).as_posix() for p in paths]
        x = torch.stack([_image(p, shape, card["input_range"]) for p in paths])
    elif file.suffix.lower() in (".npz", ".npy"):
        x = _array(file, shape)
    elif file.suffix.lower() in IMAGES:
        x = _image(file, shape, card["input_range"]).unsqueeze(0)
    else:
        raise UsageError(f"the file should be .npz, .npy, an image or a folder of images, got {file.name!r}")
    predictions: list[dict[str, Any]] = []
    for start in range(0, len(x), CHUNK):
        chunk = x[start : start + CHUNK]
        logits = _logits(program, chunk, len(classes))
        probabilities, best = logits.softmax(-1).max(-1)
        pairs = zip(best.tolist(), probabilities.tolist(), strict=True)
        predictions += [{"class": classes[k], "probability": p} for k, p in pairs]
    if names is not None:
        predictions = [{"file": name, **p} for name, p in zip(names, predictions, strict=True)]
    return {"classes": classes, "predictions": predictions}


def _logits(program: Program, x: Tensor, classes: int) -> Tensor:
    try:
        logits = program(x)
    except Exception as error:  # somebody else's program may fail in any way; none of them is a bug of ours
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UsageError(f"program.json and model.safetensors should fit the input shape, got: {reason}") from error
    if logits.shape != (len(x), classes):
        raise UsageError(f"the program should give logits [{len(x)}, {classes}], got {list(logits.shape)}")
    if not bool(logits.isfinite().all()):
        raise UsageError("the winner's logits should be finite, got NaN or infinity; check the range of the input")
    return logits


def read_card(folder: Path) -> dict[str, Any]:
    card = _json(folder / "architecture.json")
    for name, kind in (("classes", list), ("input_shape", list), ("input_range", list)):
        if not isinstance(card.get(name), kind) or not card[name]:
            raise UsageError(f"architecture.json should hold a list {name!r}, got {card.get(name)!r}; hand over again")
    if not all(isinstance(n, int) and n > 0 for n in card["input_shape"]):
        raise UsageError(f"input_shape should be positive integers, got {card['input_shape']}; hand over again")
    low_high = card["input_range"]
    if len(low_high) != 2 or not all(isinstance(v, int | float) and math.isfinite(v) for v in low_high):
        raise UsageError(f"input_range should be two finite numbers, got {low_high}; hand over again")
    return card


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UsageError(
            f"the folder should hold {path.name}, got none in {str(path.parent)!r}; "
            "give the folder of a finished run, or run model.pt2 or model.onnx elsewhere if you trust them"
        ) from error
    except (OSError, ValueError) as error:
        raise UsageError(f"{path.name} should be readable JSON, got: {error}; hand over again") from error
    if not isinstance(value, Mapping):
        raise UsageError(f"{path.name} should be a JSON object, got {type(value).__name__}; hand over again")
    return dict(value)


def _weights(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except FileNotFoundError as error:
        raise UsageError(f"the folder should hold {path.name}, got none in {str(path.parent)!r}") from error
    except (OSError, SafetensorError) as error:
        raise UsageError(f"{path.name} should be a safetensors file, got: {error}; hand over again") from error


def _array(file: Path, shape: tuple[int, ...]) -> Tensor:
    """``[N, *shape]`` float32 from ``.npz`` or ``.npy``; pickled arrays are refused."""
    try:
        loaded = np.load(file, allow_pickle=False)
        if isinstance(loaded, np.lib.npyio.NpzFile):
            with loaded:
                name = next((n for n in ("x", "x_test") if n in loaded), None)
                if name is None:
                    raise UsageError(f"the .npz file should hold an array 'x' or 'x_test', got {sorted(loaded)}")
                array = loaded[name]
        else:
            array = loaded
    except UsageError:
        raise
    except Exception as error:  # numpy and zipfile raise many types for one thing: not such a file
        raise UsageError(f"{file.name} should be a NumPy file without Python objects, got: {error}") from error
    if array.dtype.kind not in "fiub":
        raise UsageError(f"x should hold numbers, got dtype {array.dtype}; convert it to float32")
    if array.shape == shape:
        array = array[None]
    elif shape[0] == 1 and array.ndim == len(shape) and array.shape[1:] == shape[1:]:
        array = array[:, None]  # one channel is often not written as an axis
    if array.ndim != len(shape) + 1 or array.shape[1:] != shape or len(array) == 0:
        expected = ", ".join(str(n) for n in ("N", *shape))
        raise UsageError(f"x should be [{expected}] with N >= 1, got {list(array.shape)}; reshape or resize it")
    x = torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))
    if not bool(x.isfinite().all()):
        raise UsageError("x should be finite, got NaN or infinity; clean it first")
    return x


def _image(file: Path, shape: tuple[int, ...], bounds: list[float]) -> Tensor:
    """``[*shape]`` float32: mode by channels, bilinear resize, 0..255 to the input range."""
    if len(shape) != 3 or shape[0] not in _MODES:
        raise UsageError(f"images need a network with input [1..4, height, width], got {list(shape)}; use .npz or .npy")
    channels, height, width = shape
    try:
        with Image.open(file, formats=FORMATS) as image:
            pixels = np.asarray(image.convert(_MODES[channels]).resize((width, height), Image.Resampling.BILINEAR))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UsageError(f"{file.name} should be an image, got: {error}; convert it to PNG") from error
    x = torch.from_numpy(pixels.copy()).float().reshape(height, width, channels).permute(2, 0, 1)
    low, high = bounds
    return low + x / 255 * (high - low)
