"""Long work in blocks, each kept in a file as soon as it is done, so that a killed run loses at most one."""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from archgrad.errors import UsageError, writing

Array = npt.NDArray[Any]
Columns = dict[str, Array]
"""Arrays ``[n, ...]`` of equal length, a row an architecture."""
Make = Callable[[int, Columns], Columns]
"""Block i from the rows of blocks 0 .. i - 1."""


def in_blocks(count: int, make: Make, folder: Path, settings: str) -> Iterator[Columns]:
    """Blocks 0 .. count - 1 in order, each made by ``make`` or, where an earlier run made it, read from ``folder``.

    A block is a file that appears whole or not at all, and is never changed. ``make`` is a function of its arguments;
    then a run that was interrupted anywhere ends as if it had not been. UsageError where ``folder`` holds a damaged
    block, or one made with other ``settings``, a text that says everything that matters to ``make``.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    past: list[Columns] = []
    for i in range(count):
        path = folder / f"{i:04d}.npz"
        if path.exists():
            block = read_block(path, settings)
        else:
            block = make(i, joined(past))
            write_block(path, block, settings)
        past.append(block)
        yield block


def joined(blocks: list[Columns]) -> Columns:
    """Rows of all blocks, in order; no columns where there are no blocks."""
    return {name: np.concatenate([block[name] for block in blocks]) for name in (blocks[0] if blocks else ())}


def write_block(path: Path, block: Columns, settings: str) -> None:
    """Write beside it, then rename: whoever reads finds all of it or nothing."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    with writing(path):
        try:
            with open(beside, "wb") as file:
                np.savez_compressed(file, settings=np.array(settings), **block)  # type: ignore[arg-type]
                file.flush()
                os.fsync(file.fileno())
            os.replace(beside, path)
        finally:
            beside.unlink(missing_ok=True)


def read_block(path: Path, settings: str) -> Columns:
    """What ``write_block`` wrote with the same settings. UsageError for anything else."""
    try:
        # opened here, as numpy leaves a damaged file open
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
            block: Columns = {name: archive[name] for name in archive.files}
        found = str(block.pop("settings"))
    except (
        OSError,
        EOFError,
        KeyError,
        ValueError,
        AttributeError,
        TypeError,
        zipfile.BadZipFile,
        zlib.error,
        NotImplementedError,
    ) as error:
        raise UsageError(
            f"{path} should be a block of an earlier run, reading it failed: {error}; delete it"
        ) from error
    if found != settings:
        raise UsageError(
            f"{path} should have been made with the settings {settings}, got {found}; use another folder, or delete it"
        )
    return block
