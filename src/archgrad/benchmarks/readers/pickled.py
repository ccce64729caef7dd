"""Plain values out of a pickle, without unpickling: nothing in the file is imported or called."""

from __future__ import annotations

import bz2
import pickletools
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from archgrad.errors import UsageError

PUSHED = {
    *("BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
}
"""Opcodes whose argument is the value."""
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
EMPTY: dict[str, type] = {"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple, "EMPTY_SET": set}
SHORT = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
NUMBERS = {"b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"}
ORDERED, DTYPE = "collections OrderedDict", "numpy dtype"
SCALARS = ("numpy.core.multiarray scalar", "numpy._core.multiarray scalar")


@dataclass(frozen=True)
class Global:
    """A name that the pickle would import. It is never imported."""

    name: str


@dataclass
class Kind:
    """A NumPy number type."""

    code: str
    order: str = "<"


def read_pickle(path: Path | str) -> Any:
    """The dicts, lists, tuples, sets, numbers, text and bytes of a pickle of protocol 4 or 5, plain or in bzip2.

    Its opcodes are read one by one. Ordered dicts come as dicts and NumPy scalars as Python numbers; every other name,
    object or reference is refused, so no code of the file runs. UsageError for those, and for what is no pickle.
    """
    path = Path(path)
    try:
        with open(path, "rb") as raw:
            packed = raw.read(3) == b"BZh"
            raw.seek(0)
            with bz2.BZ2File(raw) if packed else raw as stream:
                return value(stream)
    except UsageError as error:
        raise UsageError(f"{path} should be a pickle of plain values: {error}") from None
    except OSError as error:
        raise UsageError(f"a pickle should be a file that can be read, got {path}: {error.strerror or error}") from None
    except (EOFError, LookupError, TypeError, ValueError, MemoryError, OverflowError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UsageError(f"{path} should be a whole pickle of plain values: {reason}") from None


def value(stream: IO[bytes]) -> Any:
    """Interpret the opcodes up to STOP."""
    stack: list[Any] = []
    marks: list[int] = []
    memo: list[Any] = []

    def last(count: int) -> list[Any]:
        if not 0 <= count <= len(stack):
            raise ValueError("more values were expected than it has")
        items = stack[len(stack) - count :]
        del stack[len(stack) - count :]
        return items

    argument: Any
    for opcode, argument, _ in pickletools.genops(stream):
        name = opcode.name
        if name in PUSHED:
            stack.append(argument)
        elif name in CONSTANTS:
            stack.append(CONSTANTS[name])
        elif name in EMPTY:
            stack.append(EMPTY[name]())
        elif name == "MARK":
            marks.append(len(stack))
        elif name == "MEMOIZE":
            memo.append(stack[-1])
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        elif name in SHORT or name == "TUPLE":
            stack.append(tuple(last(SHORT[name] if name in SHORT else len(stack) - marks.pop())))
        elif name in ("APPEND", "APPENDS"):
            items = last(1 if name == "APPEND" else len(stack) - marks.pop())
            of(list, stack[-1]).extend(items)
        elif name in ("SETITEM", "SETITEMS"):
            items = last(2 if name == "SETITEM" else len(stack) - marks.pop())
            of(dict, stack[-1]).update(zip(map(key, items[::2]), items[1::2], strict=True))
        elif name == "ADDITEMS":
            items = last(len(stack) - marks.pop())
            of(set, stack[-1]).update(map(key, items))
        elif name == "STACK_GLOBAL":
            wanted = " ".join(of(str, part) for part in last(2))
            if wanted not in (ORDERED, DTYPE, *SCALARS):
                raise UsageError(f"it asks for {wanted[:80]!r}, and nothing is imported from a file")
            stack.append(Global(wanted))
        elif name == "REDUCE":
            function, arguments = last(2)
            stack.append(called(of(Global, function).name, *of(tuple, arguments)))
        elif name == "BUILD":  # the state of a number type: version, byte order, and what only others have
            kind, state = last(2)
            stack.append(Kind(of(Kind, kind).code, of(str, of(tuple, state)[1])))
        elif name == "STOP":
            if len(stack) != 1:
                raise ValueError(f"one value should be left at its end, got {len(stack)}")
            return plain(stack[0])
        elif name not in ("PROTO", "FRAME"):
            raise UsageError(f"its opcode {name} is not followed, only what protocol 4 writes of plain values")
    raise EOFError("it has no end")


def of(kind: type, found: Any) -> Any:
    """ValueError for another type. A message never prints a value of the file: it may be endless."""
    if type(found) is not kind:
        raise ValueError(f"a {kind.__name__} was expected, got a {type(found).__name__}")
    return found


def key(found: Any) -> Any:
    """A dict's key: a number or text, or a flat tuple of them. Hashing what is nested too deeply would end Python."""
    flat = (str, bytes, int, float, bool, type(None))
    if type(found) in flat or (type(found) is tuple and all(type(x) in flat for x in found)):
        return found
    raise ValueError(f"a key should be a number, text, or a tuple of them, got a {type(found).__name__}")


def called(name: str, *arguments: Any) -> Any:
    """What the few known names would return, made here."""
    types = [type(a) for a in arguments]
    if name == ORDERED and not arguments:
        return {}
    if name == DTYPE and types[:1] == [str] and arguments[0] in NUMBERS:
        return Kind(arguments[0])
    if name in SCALARS and types == [Kind, bytes]:
        number = np.dtype(arguments[0].code).newbyteorder(">" if arguments[0].order == ">" else "<")
        if len(arguments[1]) == number.itemsize:
            return np.frombuffer(arguments[1], number)[0].item()
    raise UsageError(f"it calls {name} in a way that is not known, and nothing is called")


def plain(found: Any) -> Any:
    """The value itself. UsageError where a name is somewhere in it."""
    seen: set[int] = set()  # what is shared or contains itself is walked once
    ends = [found]
    while ends:
        end = ends.pop()
        if isinstance(end, Global | Kind):
            raise UsageError("it holds a name where a value was expected")
        if isinstance(end, dict | list | tuple) and id(end) not in seen:
            seen.add(id(end))
            ends.extend(end.values() if isinstance(end, dict) else end)
    return found
