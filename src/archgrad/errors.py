"""The one exception that means "the user can mend this"."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class UsageError(ValueError):
    """What should hold, what came, what to do: one line. The command line prints it and exits with 2.

    Anything else that escapes is a bug of archgrad's and keeps its traceback.
    """


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """What the system refuses to write at ``path`` (no room, no permission, no such place) becomes a UsageError."""
    try:
        yield
    except OSError as error:
        if error.errno is None:  # not from the system
            raise
        raise UsageError(
            f"{path} should be a place to write to, with room, got: {error.strerror}; mend that and say it again"
        ) from error
