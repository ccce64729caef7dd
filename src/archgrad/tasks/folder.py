"""A folder of class folders of images, optionally below train/, valid/ and test/."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image

from archgrad.errors import UsageError
from archgrad.tasks.raw import MAX_BYTES, Array, Raw, reason

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""Rasters only: Pillow hands others to outside programs."""

MAX_PIXELS = 89_478_485
"""Of one image. Pillow's default, here also where Image.MAX_IMAGE_PIXELS was switched off."""


def folder(path: Path, image_size: int | tuple[int, int] | None = None) -> Raw:
    """uint8 images ``[N, C, H, W]``; classes are the class folders' names, sorted.

    C is 1 if every image is grey, else 3; transparency is dropped. Images of another size are resized (bilinear) to
    ``image_size``, (H, W) or one number for a square; by default to the most common size. Hidden files are skipped.
    UsageError naming the file for anything else that is not an image, for a broken or too large image, and for a link
    that leads out of the folder.
    """
    files = _find(path)
    classes = tuple(files["train"])
    every = [file for by_class in files.values() for images in by_class.values() for file in images]
    sizes: Counter[tuple[int, int]] = Counter()
    grey = True
    for file in every:
        with _opened(file) as image:
            sizes[image.height, image.width] += 1
            grey = is_grey(image, str(file)) and grey
    height, width = (
        (image_size, image_size) if isinstance(image_size, int) else image_size or sizes.most_common(1)[0][0]
    )
    if height < 1 or width < 1:
        raise UsageError(f"image_size should be positive, got {image_size}; 32 is a usual start")
    mode = "L" if grey else "RGB"
    size = len(every) * len(mode) * height * width
    if size > MAX_BYTES:
        raise UsageError(
            f"{path} should decode to at most {MAX_BYTES / 1e9:.1f} GB, got {size / 1e9:.1f} GB for "
            f"{len(every)} images of {height} x {width}; set image_size, or use fewer images"
        )
    parts = {}
    for part, by_class in files.items():
        y = np.repeat([classes.index(name) for name in by_class], [len(images) for images in by_class.values()])
        x = np.empty((len(y), len(mode), height, width), dtype=np.uint8)
        for row, file in zip(x, (file for images in by_class.values() for file in images), strict=True):
            with _opened(file) as image:
                row[:] = pixels(image, mode, (height, width))
        parts[part] = (x, y)
    return Raw(path.resolve().name, parts, classes)


def pixels(image: Image.Image, mode: str, size: tuple[int, int] | None = None) -> Array:
    """uint8 ``[C, H, W]`` of an image in mode L or RGB, resized to (H, W)."""
    if image.mode == "P":
        image = image.convert("RGBA")  # Pillow warns of palettes with transparency that skip this step
    image = image.convert(mode)
    if size is not None and (image.height, image.width) != size:
        image = image.resize((size[1], size[0]), Image.Resampling.BILINEAR)
    array = np.asarray(image)
    return array[None] if mode == "L" else np.moveaxis(array, -1, 0)


def is_grey(image: Image.Image, name: str) -> bool:
    """Whether an image has no colour by its mode. UsageError above 8 bits a channel: Pillow would clip, not scale."""
    if image.mode.startswith(("I", "F")):
        raise UsageError(f"{name} should have 8 bits a channel, got mode {image.mode}; convert it")
    return image.mode in ("1", "L", "LA", "La")


@contextmanager
def _opened(file: Path) -> Iterator[Image.Image]:
    """An image, its pixels yet undecoded; whatever goes wrong before it closes becomes a UsageError naming the file."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(file, formats=FORMATS) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise Image.DecompressionBombError(f"{image.width} x {image.height} pixels")
                yield image
    except UsageError:
        raise
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise UsageError(f"{file} should have at most {MAX_PIXELS} pixels, got: {error}; shrink it") from error
    except Exception as error:  # Pillow's decoders let almost any type escape from a broken file
        raise UsageError(
            f"{file} should be an image ({', '.join(FORMATS)}), got: {reason(error)}; mend, remove or hide it"
        ) from error


def _find(path: Path) -> dict[str, dict[str, list[Path]]]:
    """The files of every part and class; a folder without train/ is all train."""
    root = path.resolve()
    given = [part for part in ("train", "valid", "test") if _holds_folders(root / part)]
    if given and "train" not in given:
        raise UsageError(f"{path} should have train/ beside {given[0]}/, got none; add it, or rename {given[0]}/")
    if given:
        for entry in _listing(root, root):
            if entry.name not in given:
                raise UsageError(
                    f"{path} should have only train/, valid/ and test/, with class folders in them, got {entry.name}; "
                    "move it"
                )
    files = {part: _class_folders(root / part, root) for part in given} or {"train": _class_folders(root, root)}
    for part, by_class in files.items():
        for name in by_class:
            if name not in files["train"]:
                raise UsageError(f"{path}/{part} should have classes that train/ has, got also {name!r}; move it")
    return files


def _listing(folder: Path, root: Path) -> list[Path]:
    """What is in a folder, sorted, without hidden entries."""
    entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    for entry in entries:
        if entry.is_symlink() and not entry.exists():
            raise UsageError(f"{entry} should lead to a file, got a broken link; remove it")
        if not entry.resolve().is_relative_to(root):
            raise UsageError(f"{entry} should stay inside {root}, got a link that leads out of it; copy the file")
    return entries


def _holds_folders(folder: Path) -> bool:
    return folder.is_dir() and any(entry.is_dir() for entry in folder.iterdir() if not entry.name.startswith("."))


def _class_folders(folder: Path, root: Path) -> dict[str, list[Path]]:
    """The files of every class, by its name."""
    by_class = {}
    for entry in _listing(folder, root):
        if not entry.is_dir():
            raise UsageError(
                f"{folder} should hold class folders only, got the file {entry.name}; move, remove or hide it"
            )
        files = _listing(entry, root)
        for file in files:
            if not file.is_file():
                raise UsageError(f"{entry} should hold images only, got {file.name}; move it")
        if not files:
            raise UsageError(f"{entry} should hold images of class {entry.name!r}, got none; add some or remove it")
        by_class[entry.name] = files
    if not by_class:
        raise UsageError(f"{folder} should hold one folder a class, got none; put the images into folders by class")
    return by_class
