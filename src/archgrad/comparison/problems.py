"""Benchmarks by name."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from archgrad.benchmarks.benchmark import Benchmark, from_table
from archgrad.benchmarks.csv_table import read_csv
from archgrad.benchmarks.landscapes import landscapes
from archgrad.benchmarks.made import made_large_benchmark, made_small
from archgrad.benchmarks.table import SPACES, Meaning, Table, is_table, read_table
from archgrad.errors import UsageError
from archgrad.text import nearest

CHAINS = ("nk_chain", "nk_chain_saturating")
MADE = ("made_small", "made_large")
"""What archgrad ships: a table, and a model."""
USUAL: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "nasbench201": ("cifar10_val_12", ("cifar10_test_200",)),
    "nasbenchmacro": ("test_s0", ("test_mean",)),
    "made_small": ("valid_accuracy_320_seed2", ("test_accuracy_320",)),
}
"""Which columns a benchmark with a name is searched on and reported by, if nobody says. NAS-Bench-Macro has but test
accuracies: one training's is searched on, the mean of three reported."""


ACCURACY = re.compile(r"(^|_)(val|valid|test|acc|accuracy)(_|$)")
"""What columns of a CSV file with accuracies are called."""


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
    """A chain of 20 decisions of 7, run r on landscape seed + r; or a table: by its space's name, or by its file.

    made_small and made_large come with archgrad and need no file; the optimum of made_large is the best *known* value.
    A CSV file goes with a name only, and its columns are taken as accuracies in percent. UsageError for what is
    missing or superfluous.
    """
    if runs < 1:
        raise UsageError(f"runs should be at least 1, got {runs}")
    if name in CHAINS or name == "made_large":
        if table is not None or search is not None or report:
            raise UsageError(f"table, search and report are for tables, {name} has none; leave them out")
        if name == "made_large":
            return made_large_benchmark(noise)
        if not 0 <= seed < 2**31:
            raise UsageError(f"seed should be between 0 and 2**31, got {seed}")
        return landscapes(20, 7, range(seed, seed + runs), noise=noise, saturating=name == "nk_chain_saturating")
    if name == "made_small":
        if table is not None:
            raise UsageError(f"{name} comes with archgrad, got --table {table}; leave it out")
        usual, told = USUAL[name]
        search, report, found = search or usual, report or told, made_small()
    elif name in SPACES:
        if table is None:
            raise UsageError(f"{name} needs its table, got none; give --table FILE, see archgrad benchmark import")
        usual, told = USUAL[name]
        search, report = search or usual, report or told
        found = read_table(table) if is_table(table) else from_csv(table, name, [search, *report])
        if found.space.decisions != SPACES[name]().decisions:
            raise UsageError(f"{table} should be a table of {name}, it is one of {found.name!r}")
    else:
        if not Path(name).is_file():
            raise UsageError(f"{nearest('benchmark', name, (*CHAINS, *MADE, *SPACES))}; or the file of a table")
        if table is not None:
            raise UsageError(f"{name} is a table already, got --table {table} as well; leave one out")
        found = read_table(name)
        if search is None:
            raise UsageError("a table needs a column to search on, got none; archgrad benchmark show lists them")
    return from_table(found, search, report, noise)


def from_csv(path: str | Path, name: str, columns: Sequence[str]) -> Table:
    """These columns of a CSV file, as accuracies in percent. UsageError for those that are not called like one."""
    other = next((c for c in columns if not ACCURACY.search(c)), None)
    if other is not None:
        raise UsageError(
            f"columns of a CSV file are taken for accuracies in %, so should say val, test or acc, got "
            f"{other}; make a table with archgrad benchmark import, and give that"
        )
    meanings = [Meaning(name=c, split="test", unit="%", better="higher") for c in dict.fromkeys(columns)]
    return read_csv(path, name, SPACES[name](), meanings, architecture="ops")
