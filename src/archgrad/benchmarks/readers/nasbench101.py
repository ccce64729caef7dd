"""NAS-Bench-101 (Ying et al. 2019): 423,624 modules, from the TFRecord file that its authors released.

Written after the published format, tested on a miniature, never run on the real file.
"""

from __future__ import annotations

import base64
import binascii
import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from archgrad.benchmarks.readers.tfrecord import records
from archgrad.errors import UsageError

NUMBERS = {1: "epoch", 2: "seconds", 3: "train_accuracy", 4: "valid_accuracy", 5: "test_accuracy"}


@dataclass(frozen=True)
class Evaluation:
    """A trained module at one moment: accuracies are fractions, seconds the training up to there."""

    epoch: float = 0.0
    seconds: float = 0.0
    train_accuracy: float = 0.0
    valid_accuracy: float = 0.0
    test_accuracy: float = 0.0


@dataclass(frozen=True)
class Module:
    """One training of a module; the file has three of each module and number of epochs.

    adjacency: row i has a 1 where the output of vertex i goes. operations: one a vertex, input first, output last.
    evaluations: at the start, halfway and at the end.
    """

    hash: str
    epochs: int
    adjacency: tuple[tuple[int, ...], ...]
    operations: tuple[str, ...]
    parameters: int
    seconds: float
    evaluations: tuple[Evaluation, ...]


def read_nasbench101(path: Path | str) -> Iterator[Module]:
    """The rows of nasbench_full.tfrecord or nasbench_only108.tfrecord, one after the other.

    Never run on the real file. UsageError for what is damaged or no such file, with the byte.
    """
    for offset, content in records(path):
        try:
            yield module(json.loads(content.decode("utf-8")))
        except (ValueError, TypeError, RecursionError, binascii.Error, struct.error) as error:
            reason = " ".join(str(error).split())
            raise UsageError(
                f"{path}, the record at byte {offset} should be a module of NAS-Bench-101: {reason}"
            ) from None


def module(row: Any) -> Module:
    """A row ``[hash, epochs, adjacency, operations, metrics]``; ValueError or TypeError where it is none."""
    if not isinstance(row, list) or len(row) != 5 or type(row[1]) is not int:
        raise ValueError("a list of hash, epochs, adjacency, operations and metrics was expected")
    if not all(isinstance(row[i], str) for i in (0, 2, 3, 4)):
        raise ValueError("hash, adjacency, operations and metrics should be text")
    digits, operations = row[2], tuple(row[3].split(","))
    n = len(operations)
    if len(digits) != n * n or set(digits) - {"0", "1"}:
        raise ValueError(f"{n} operations need {n * n} digits 0 or 1 of adjacency, got {digits[:60]!r}")
    adjacency = tuple(tuple(map(int, digits[i * n : i * n + n])) for i in range(n))
    parameters, seconds, evaluations = metrics(base64.b64decode(row[4], validate=True))
    return Module(row[0], row[1], adjacency, operations, parameters, seconds, evaluations)


def metrics(message: bytes) -> tuple[int, float, tuple[Evaluation, ...]]:
    """The protobuf message ModelMetrics: evaluations (1), trainable parameters (2), seconds in all (3)."""
    parameters, seconds, evaluations = 0, 0.0, []
    for number, value in fields(message):
        if number == 1 and isinstance(value, bytes):
            found = {NUMBERS[k]: v for k, v in fields(value) if k in NUMBERS and isinstance(v, float)}
            evaluations.append(Evaluation(**found))
        elif number == 2 and isinstance(value, int):
            parameters = value
        elif number == 3 and isinstance(value, float):
            seconds = value
    return parameters, seconds, tuple(evaluations)


def fields(message: bytes) -> Iterator[tuple[int, int | float | bytes]]:
    """The fields of a protobuf message: its number, and an integer, a double, or bytes. ValueError where it is none."""
    at = 0
    while at < len(message):
        tag, at = varint(message, at)
        kind = tag & 7
        if kind == 0:
            value, at = varint(message, at)
            yield tag >> 3, value
            continue
        if kind == 2:
            length, at = varint(message, at)
        elif kind in (1, 5):
            length = 8 if kind == 1 else 4
        else:
            raise ValueError(f"a protobuf field should be of kind 0, 1, 2 or 5, got {kind}")
        if at + length > len(message):
            raise ValueError("a protobuf message should be whole, it is cut short")
        part = message[at : at + length]
        at += length
        yield tag >> 3, part if kind == 2 else struct.unpack("<d" if kind == 1 else "<f", part)[0]


def varint(message: bytes, at: int) -> tuple[int, int]:
    """An unsigned integer of seven bits a byte, and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(message):
            raise ValueError("a protobuf message should be whole, it is cut short")
        value |= (message[at] & 0x7F) << shift
        at += 1
        if message[at - 1] < 0x80:
            return value, at
    raise ValueError("a protobuf integer should be at most 10 bytes")
