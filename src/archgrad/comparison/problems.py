"""Benchmarks by name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from archgrad.benchmarks.benchmark import Benchmark
from archgrad.benchmarks.landscapes import landscapes
from archgrad.errors import UsageError
from archgrad.text import nearest

CHAINS = ("nk_chain", "nk_chain_saturating")


def benchmark_named(
    name: str,
    runs: int,
    *,
    table: str | Path | None = None,
    search: str | None = None,
    report: Sequence[str] = (),
    noise: float = 0.0,
    seed: int = 5000,
) -> Benchmark:
    """A chain of 20 decisions of 7, run r on landscape seed + r; or a table."""
    if runs < 1:
        raise UsageError(f"runs should be at least 1, got {runs}")
    if name not in CHAINS:
        raise UsageError(nearest("benchmark", name, CHAINS))
    if table is not None or search is not None or report:
        raise UsageError(f"table, search and report are for tables, {name} has none; leave them out")
    return landscapes(20, 7, range(seed, seed + runs), noise=noise, saturating=name == "nk_chain_saturating")
