"""A complete table from a CSV file: a row an architecture, in any order."""

from __future__ import annotations

import csv
import gzip
import io
import math
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

import numpy as np
import torch

from archgrad.benchmarks.table import BETTER, SPLITS, WHOLE, Column, Meaning, Table, check_space
from archgrad.errors import UsageError
from archgrad.spaces.decisions import Decisions
from archgrad.spaces.nasbench201 import OPERATIONS, NasBench201
from archgrad.text import nearest

USUAL = ("ops", "arch", "architecture", "arch_str")
"""What the column of the architecture is often called."""
GRAMMAR = "NAME=SPLIT[@EPOCHS][:UNIT][,higher|lower][,seeds=N]"

Row = Sequence[str]


def meaning(text: str) -> Meaning:
    """``NAME=SPLIT[@EPOCHS][:UNIT][,higher|lower][,seeds=N]``: ``val_12=valid@12``, ``latency=cost:ms``.

    A split (train, valid, test) is an accuracy in % unless a unit says otherwise, a cost has no unit unless one is
    given. A split in % or fraction is better higher, everything else lower, unless it is said. UsageError for what
    does not parse.
    """
    name, mark, rest = text.partition("=")
    what, *more = rest.split(",")
    parts = re.fullmatch(r"(\w+)(?:@([^:]+))?(?::(.+))?", what)
    if not name or not mark or parts is None:
        raise UsageError(f"a column should be {GRAMMAR}, got {text!r}; as in val_12=valid@12 or latency=cost:ms")
    split, epochs, unit = parts[1], parts[2], parts[3]
    if split not in SPLITS:
        raise UsageError(nearest(f"the split in {text!r}", split, SPLITS))
    if unit is None:
        unit = "" if split == "cost" else "%"
    better, seeds = "higher" if split != "cost" and unit in WHOLE else "lower", None
    for word in more:
        if word in BETTER:
            better = word
        elif re.fullmatch(r"seeds=[0-9]{1,6}", word):
            seeds = int(word.removeprefix("seeds="))
        else:
            raise UsageError(f"a column should be {GRAMMAR}, got {word!r} in {text!r}")
    fidelity = None if epochs is None else number(epochs)
    if epochs is not None and fidelity is None:
        raise UsageError(f"the epochs in {text!r} should be a number, got {epochs!r}")
    return Meaning(name=name, split=split, fidelity=fidelity, unit=unit, better=better, seeds=seeds)


def number(text: str) -> float | None:
    """A finite number, None where it is none. Python's own float() would take 1_000 as well."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) and "_" not in text else None


def read_csv(
    path: Path | str, name: str, space: Decisions, columns: Sequence[Meaning], architecture: str | None = None
) -> Table:
    """The table in a CSV file, plain or gzip, with a header line and one row for every architecture of the space.

    columns: which of the file's columns, and what they mean. architecture: the column that names it, as a digit a
    decision (the option's place) or, for NAS-Bench-201, in its published form; if None, one column a decision where
    the header has all their names (an option's name, or its place where no option looks like one), else one of USUAL.
    UsageError for a row that is missing, repeated, unknown or not finite, with its line.
    """
    path = Path(path)
    check_space(space)
    if not columns:
        raise UsageError(f"a table should have at least one column, got none; name them as {GRAMMAR}")
    values = np.full((len(columns), space.size), np.nan)
    lines = np.zeros(space.size, dtype=np.int64)
    with opened(path) as file:
        rows = csv.reader(file)
        header = next(rows, [])
        places = [where(path, header, c.name) for c in columns]
        place_of = architecture_reader(path, header, space, architecture)
        for row in rows:
            line = rows.line_num
            if not row:
                continue
            if len(row) != len(header):
                raise UsageError(f"{path}, line {line}: {len(header)} values were expected, got {len(row)}")
            try:
                i = place_of(row)
            except UsageError as error:
                raise UsageError(f"{path}, line {line}: {error}") from None
            if lines[i]:
                raise UsageError(f"{path}, line {line}: the architecture of line {lines[i]} comes again; keep one")
            lines[i] = line
            for c, place in enumerate(places):
                value = number(row[place])
                if value is None:
                    raise UsageError(
                        f"{path}, line {line}: a finite number was expected in {columns[c].name!r}, got {row[place]!r}"
                    )
                values[c, i] = value
    missing = np.flatnonzero(lines == 0)
    if len(missing):
        raise UsageError(
            f"{path} should have all {space.size:,} architectures, {len(missing):,} are missing, "
            f"the first is {', '.join(choices(space, int(missing[0])))}"
        )
    for wanted, found in zip(columns, values, strict=True):
        check_unit(path, wanted, found, lines)
    made = [Column(**vars(w), values=torch.from_numpy(v)) for w, v in zip(columns, values, strict=True)]
    return Table(name, space, tuple(made))


def check_unit(path: Path, column: Meaning, values: np.ndarray, lines: np.ndarray) -> None:
    """UsageError where an accuracy cannot be in its unit."""
    if not column.quality:
        return
    whole = WHOLE[column.unit]
    wrong = np.flatnonzero((values < 0) | (values > whole))
    if len(wrong):
        raise UsageError(
            f"{path}, line {lines[wrong[0]]}: 0 to {whole:g} ({column.unit}) was expected in {column.name!r}, "
            f"got {values[wrong[0]]:g}; give the column its unit, as in {column.name}={column.split}:nats"
        )
    if column.unit == "%" and column.better == "higher" and values.max() <= 1:
        raise UsageError(
            f"{path}: no accuracy in {column.name!r} is above 1%, so they look like fractions; "
            f"say {column.name}={column.split}:fraction"
        )


@contextmanager
def opened(path: Path) -> Iterator[TextIO]:
    """The text of a file, gzip or plain; what cannot be read is a UsageError."""
    try:
        with open(path, "rb") as raw:
            packed = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            content = gzip.GzipFile(fileobj=raw) if packed else raw
            with io.TextIOWrapper(content, encoding="utf-8-sig", newline="") as text:
                yield text
    except UsageError:
        raise
    except OSError as error:
        reason = error.strerror or error
        raise UsageError(f"{path} should be a CSV table, plain or gzip; reading it failed: {reason}") from None
    except (EOFError, UnicodeDecodeError, zlib.error, csv.Error) as error:
        raise UsageError(f"{path} should be a CSV table, plain or gzip; reading it failed: {error}") from None


def where(path: Path, header: Row, name: str) -> int:
    """The place of a column. UsageError where it is not there, or twice."""
    if header.count(name) != 1:
        found = ", ".join(header[:20]) or "none"
        raise UsageError(f"{path} should have one column {name!r}, it has {header.count(name)}; there are {found}")
    return header.index(name)


def architecture_reader(path: Path, header: Row, space: Decisions, architecture: str | None) -> Callable[[Row], int]:
    """A function from a row to the architecture's place; it raises UsageError for one that does not exist."""
    names = [d.name for d in space.decisions]
    if architecture is None and set(names) <= set(header):
        return by_decision([where(path, header, n) for n in names], space)
    if architecture is None:
        architecture = next((u for u in USUAL if u in header), None)
    if architecture is None:
        raise UsageError(
            f"{path} should have a column for each decision ({', '.join(names[:8])}) or one for the architecture, "
            f"there are {', '.join(header[:20]) or 'none'}; name it: --architecture COLUMN"
        )
    at = where(path, header, architecture)
    places = [{str(k): k for k in range(len(d.options))} for d in space.decisions]
    parse = space.parse if isinstance(space, NasBench201) else None

    def place(row: Row) -> int:
        cell = row[at].strip()
        if parse is not None and "|" in cell:
            return joined(space, [OPERATIONS.index(o) for o in parse(cell)])
        if len(cell) != space.D or space.K > 10:
            form = f"{space.D} digits" if space.K <= 10 else "a column for each decision, a digit being too few,"
            raise UsageError(f"{form} were expected in {architecture!r}, got {cell!r}; leading zeros matter")
        try:
            return joined(space, [p[digit] for p, digit in zip(places, cell, strict=True)])
        except KeyError as error:
            raise UsageError(
                f"digits of options that exist were expected in {architecture!r}, got {error} in {cell!r}"
            ) from None

    return place


def by_decision(at: Sequence[int], space: Decisions) -> Callable[[Row], int]:
    """Rows with a column a decision: the option's name, or its place if no option of the decision is a number."""
    known = []
    for d in space.decisions:
        options = {option: k for k, option in enumerate(d.options)}
        if not any(number(option) is not None for option in d.options):
            options |= {str(k): k for k in range(len(d.options))}
        known.append(options)

    def place(row: Row) -> int:
        chosen = []
        for i, options, decision in zip(at, known, space.decisions, strict=True):
            cell = row[i].strip()
            if cell not in options:
                raise UsageError(f"{decision.name!r} has the options {', '.join(decision.options)}, got {cell!r}")
            chosen.append(options[cell])
        return joined(space, chosen)

    return place


def joined(space: Decisions, chosen: Sequence[int]) -> int:
    """The place of an architecture in ``enumerate()``'s order, from a number a decision."""
    place = 0
    for d, k in zip(space.decisions, chosen, strict=True):
        place = place * len(d.options) + k
    return place


def choices(space: Decisions, place: int) -> tuple[str, ...]:
    """``joined`` backwards, as names."""
    found = []
    for d in reversed(space.decisions):
        place, k = divmod(place, len(d.options))
        found.append(d.options[k])
    return tuple(reversed(found))
