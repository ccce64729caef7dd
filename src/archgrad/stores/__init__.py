"""What a run has learned, on disk."""

from archgrad.stores.sqlite import SQLite

__all__ = ["SQLite"]
