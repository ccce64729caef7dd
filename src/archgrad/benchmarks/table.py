"""A complete table: what every architecture of a space was measured to be, in one compact file."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors import torch as safetensors
from torch import Tensor

from archgrad.errors import UsageError, writing
from archgrad.spaces.decisions import Decision, Decisions
from archgrad.spaces.nasbench201 import NasBench201
from archgrad.spaces.nasbenchmacro import macro_space
from archgrad.text import nearest

SPACES: Mapping[str, Callable[[], Decisions]] = {"nasbench201": NasBench201, "nasbenchmacro": macro_space}
"""The spaces with names."""
SPLITS = ("train", "valid", "test", "cost")
BETTER = ("lower", "higher")
WHOLE = {"%": 100.0, "fraction": 1.0}
"""The units of an accuracy, and the accuracy of a network that is never wrong."""

FORMAT = 1
KEY = "archgrad.table"
LARGEST = 1_000_000
"""Architectures a table may have, as ``enumerate`` has it."""
MANY = 1000
"""Decisions a table may have: each of two options or more would be 20."""
DESCRIPTION = 1_000_000
"""Bytes that describing a table may take; a file that asks for more is none."""
DIGITS = 10
MOST = 10**9
"""Of epochs, and of seeds."""


@dataclass(frozen=True, kw_only=True)
class Meaning:
    """What a column's numbers are.

    split: the part of the data they were measured on, or cost for what is no quality (parameters, milliseconds).
    fidelity: epochs of training, None where unknown and for a cost. unit: of a split, "%" and "fraction" say that it
    is an accuracy or, if lower is better, an error. better: lower or higher. seeds: trainings averaged, None: unknown.
    """

    name: str
    split: str
    fidelity: float | None = None
    unit: str = ""
    better: str = "lower"
    seeds: int | None = None

    @property
    def quality(self) -> bool:
        """Whether it is a share of examples: an accuracy or an error."""
        return self.split != "cost" and self.unit in WHOLE

    def __post_init__(self) -> None:
        if not printable(self.name) or self.name == "__metadata__":
            raise UsageError(f"a column should have a name that can be printed, got {shortly(self.name)}")
        if self.split not in SPLITS:
            raise UsageError(nearest(f"the split of column {self.name!r}", shortly(self.split), SPLITS))
        if self.better not in BETTER:
            raise UsageError(nearest(f"what is better in column {self.name!r}", shortly(self.better), BETTER))
        if self.unit != "" and not printable(self.unit):
            raise UsageError(f"the unit of column {self.name!r} should be text, got {shortly(self.unit)}")
        epochs = self.fidelity
        if epochs is not None and not (type(epochs) in (int, float) and 0 < epochs <= MOST):
            raise UsageError(f"the epochs of column {self.name!r} should be a number above 0, got {shortly(epochs)}")
        if epochs is not None and self.split == "cost":
            raise UsageError(f"column {self.name!r} is a cost, which has no epochs, got {epochs}; leave them out")
        if self.seeds is not None and not (type(self.seeds) is int and 1 <= self.seeds <= MOST):
            raise UsageError(
                f"the seeds of column {self.name!r} should be a count of trainings, got {shortly(self.seeds)}"
            )


@dataclass(frozen=True, eq=False, kw_only=True)
class Column(Meaning):
    """Numbers with their meaning. values: finite, float64 ``[size]`` in the order of the space's ``enumerate()``."""

    values: Tensor

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.values.dim() != 1 or self.values.dtype != torch.float64 or self.values.requires_grad:
            raise UsageError(
                f"the values of column {self.name!r} should be float64 [size] without a graph, "
                f"got {self.values.dtype} {list(self.values.shape)}"
            )
        wrong = int((~torch.isfinite(self.values)).sum())
        if wrong:
            raise UsageError(f"the values of column {self.name!r} should be finite, {wrong} are not")

    @property
    def meaning(self) -> Meaning:
        """The column without its numbers."""
        return Meaning(**{f.name: getattr(self, f.name) for f in dataclasses.fields(Meaning)})

    @property
    def loss(self) -> Tensor:
        """``[size]``, lower is better: an accuracy becomes the error, what else is better higher changes its sign."""
        if self.better == "lower":
            return self.values.clone()
        return WHOLE[self.unit] - self.values if self.quality else -self.values


@dataclass(frozen=True, eq=False)
class Table:
    """All architectures of a space without conditional decisions, a number each in every column.

    name: of the space, "nasbench201". Raises UsageError where columns share a name or do not fit the space.
    """

    name: str
    space: Decisions
    columns: tuple[Column, ...]

    def __post_init__(self) -> None:
        check_space(self.space)
        if not printable(self.name):
            raise UsageError(f"a table should have a name that can be printed, got {shortly(self.name)}")
        if not self.columns:
            raise UsageError("a table should have at least one column, got none")
        names = [c.name for c in self.columns]
        for i, column in enumerate(self.columns):
            if names.index(column.name) != i:
                raise UsageError(f"column names should differ, got {column.name!r} twice")
            if len(column.values) != self.space.size:
                raise UsageError(
                    f"column {column.name!r} should have a value for each of {self.space.size:,} architectures, "
                    f"got {len(column.values):,}"
                )

    def column(self, name: str) -> Column:
        """UsageError for a name that is not there."""
        for column in self.columns:
            if column.name == name:
                return column
        raise UsageError(nearest("a column", name, [c.name for c in self.columns]))

    def loss(self, name: str) -> Tensor:
        """A column as f, ``[size]`` float64: lower is better. See ``Column.loss``."""
        return self.column(name).loss

    def write(self, path: Path | str) -> None:
        """One safetensors file, whole or not at all; reading it back gives every number exactly.

        A column is float32 where its decimals come back from that, else float64. UsageError where nothing can be
        written.
        """
        path = Path(path)
        tensors: dict[str, Tensor] = {}
        described: list[dict[str, Any]] = []
        for column in self.columns:
            digits = decimals(column.values)
            tensors[column.name] = column.values.contiguous() if digits is None else column.values.float()
            described.append(dataclasses.asdict(column.meaning) | {"decimals": digits})
        space = [{"name": d.name, "options": list(d.options)} for d in self.space.decisions]
        card = {"format": FORMAT, "name": self.name, "decisions": space, "columns": described}
        text = json.dumps(card, allow_nan=False)
        content = safetensors.save(tensors, {KEY: text})
        header = int.from_bytes(content[:8], "little")
        if header > DESCRIPTION:
            raise UsageError(
                f"a table's description should fit {DESCRIPTION:,} bytes, got {header:,}; shorten its names"
            )
        scratch = path.with_name(f".{path.name}.{os.getpid()}.part")
        with writing(path):
            try:
                scratch.write_bytes(content)
                os.replace(scratch, path)
            finally:
                scratch.unlink(missing_ok=True)


def check_space(space: Decisions) -> None:
    """UsageError where a table of the space cannot be: conditional decisions, too many, or too many architectures."""
    if space.conditional:
        conditional = next(d.name for d in space.decisions if d.when)
        raise UsageError(f"a table needs a space without conditional decisions, got {conditional!r} with a condition")
    for d in space.decisions:
        if not all(map(printable, (d.name, *d.options))):
            raise UsageError(f"a decision's name and options should be text that can be printed, got {shortly(d)}")
    if space.D > MANY:
        raise UsageError(f"a table has at most {MANY:,} decisions, the space has {space.D:,}")
    if space.size > LARGEST:
        raise UsageError(f"a table has at most {LARGEST:,} architectures, the space has {space.size:,}")


def space_from(decisions: Any) -> Decisions:
    """The space that a JSON list of ``{"name", "options"}`` describes; one that has a name comes as itself.

    Raises UsageError where it describes none.
    """
    if not isinstance(decisions, list) or not 1 <= len(decisions) <= MANY:
        raise UsageError(f"decisions should be a list of 1 to {MANY:,} objects with a name and options")
    made = []
    for entry in decisions:
        if not isinstance(entry, dict) or not {"name", "options"} <= set(entry) <= {"name", "options", "when"}:
            raise UsageError(f"a decision should be an object with a name and options, got {shortly(entry)}")
        name, options = entry["name"], entry["options"]
        if not isinstance(name, str) or not isinstance(options, list) or not all(isinstance(o, str) for o in options):
            raise UsageError(f"a decision's name and options should be text, got {shortly(entry)}")
        if entry.get("when"):
            raise UsageError(f"a table needs a space without conditional decisions, got {name!r} with a condition")
        made.append(Decision(name, tuple(options)))
    space = Decisions(made)
    check_space(space)
    for known in SPACES.values():
        itself = known()
        if itself.decisions == space.decisions:
            return itself
    return space


def space_named(name: str | Path) -> tuple[str, Decisions]:
    """A space by its name, or from a JSON file ``{"name", "decisions": [{"name", "options"}]}``, and what it is called.

    UsageError where it is neither.
    """
    if str(name) in SPACES:
        return str(name), SPACES[str(name)]()
    path = Path(name)
    if path.suffix != ".json":
        raise UsageError(f"{nearest('a space', str(name), SPACES)}; or a file SPACE.json")
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"a space should be a file that can be read, got {path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} should be JSON, got: {error}") from None
    if not isinstance(value, dict) or set(value) != {"name", "decisions"} or not isinstance(value["name"], str):
        raise UsageError(f'{path} should be an object with "name" (text) and "decisions", got {shortly(value)}')
    try:
        return value["name"], space_from(value["decisions"])
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None


def printable(value: Any) -> bool:
    """Whether it is a name: some text, without what would move a terminal's cursor."""
    return isinstance(value, str) and value != "" and value.isprintable()


def shortly(value: Any) -> str:
    """A value in a message, cut where it is long."""
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def decimals(values: Tensor) -> int | None:
    """How few decimals give every value exactly from its float32, None where nothing does."""
    single = values.float()
    return next((d for d in range(DIGITS) if torch.equal(rounded(single, d), values)), None)


def rounded(single: Tensor, digits: int) -> Tensor:
    """float32 to the float64 nearest to its decimal of so many digits."""
    return (single.double() * 10.0**digits).round() / 10.0**digits


def is_table(path: Path | str) -> bool:
    """Whether a file begins as a table does: a small header of JSON. False where it cannot be read."""
    try:
        with open(path, "rb") as file:
            head = file.read(9)
    except OSError:
        return False
    return head[8:] == b"{" and int.from_bytes(head[:8], "little") <= DESCRIPTION


def read_table(path: Path | str) -> Table:
    """What ``Table.write`` wrote. UsageError, one line, for a file that is missing, foreign or damaged.

    Nothing in the file is executed, and nothing larger than the file is allocated.
    """
    path = Path(path)
    try:
        with open(path, "rb"):
            pass
    except OSError as error:
        raise UsageError(f"a table should be a file that can be read, got {path}: {error.strerror}") from None
    if not is_table(path):
        raise UsageError(f"{path} should be a table that archgrad benchmark import wrote, but it is another file")
    try:
        with safe_open(path, "pt") as file:
            card = json.loads((file.metadata() or {})[KEY])
            # copies: what is left of a mapped file that somebody cuts short must not be read later
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 - no mapping
        return unpacked(card, tensors)
    except KeyError as error:
        raise UsageError(f"{path} should be a table that archgrad benchmark import wrote, it lacks {error}") from None
    except (SafetensorError, OSError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise UsageError(f"{path} should be a whole table: {reason}; import it again") from None


def unpacked(card: Any, tensors: Mapping[str, Tensor]) -> Table:
    """The table of a description and its tensors; KeyError and UsageError where they are none."""
    if not isinstance(card, dict) or type(card["format"]) is not int or card["format"] != FORMAT:
        found = shortly(card["format"] if isinstance(card, dict) else card)
        raise UsageError(f"its format should be {FORMAT}, got {found}")
    if not isinstance(card["columns"], list):
        raise UsageError(f"its columns should be a list, got {shortly(card['columns'])}")
    space = space_from(card["decisions"])
    if len(card["columns"]) != len(tensors):
        raise UsageError(f"it describes {len(card['columns'])} columns and holds {len(tensors)}")
    return Table(card["name"], space, tuple(column(entry, tensors, space.size) for entry in card["columns"]))


def column(entry: Any, tensors: Mapping[str, Tensor], size: int) -> Column:
    """One column of its description and its tensor."""
    fields: Sequence[str] = [f.name for f in dataclasses.fields(Meaning)]
    if not isinstance(entry, dict) or set(entry) != {*fields, "decimals"} or not isinstance(entry["name"], str):
        raise UsageError(f"a column should be described by {', '.join(fields)} and decimals, got {shortly(entry)}")
    meaning = Meaning(**{name: entry[name] for name in fields})
    if meaning.name not in tensors:
        raise UsageError(f"it should hold numbers for column {meaning.name!r}")
    stored, digits = tensors[meaning.name], entry["decimals"]
    if digits is None:
        kind = torch.float64
    elif type(digits) is int and 0 <= digits < DIGITS:
        kind = torch.float32
    else:
        raise UsageError(
            f"column {meaning.name!r} should have 0 to {DIGITS - 1} decimals or null, got {shortly(digits)}"
        )
    if stored.dtype != kind or list(stored.shape) != [size]:
        raise UsageError(f"column {meaning.name!r} should be {kind} [{size}], got {stored.dtype} {list(stored.shape)}")
    values = stored if digits is None else rounded(stored, digits)
    return Column(**vars(meaning), values=values)
