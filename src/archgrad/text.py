"""Sentences that several parts say in the same way."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(kind: str, name: str, known: Iterable[str]) -> str:
    """What to say of an unknown name: the names there are, and the one that was probably meant."""
    names = list(known)
    close = difflib.get_close_matches(name, names, 1, 0.5)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    return f"{kind} should be one of {', '.join(names)}, got {name!r}{hint}"
