"""Searches beside each other, over many runs, where the truth is known."""

from archgrad.comparison.compare import Comparison, compare
from archgrad.comparison.row import Row

__all__ = ["Comparison", "Row", "compare"]
