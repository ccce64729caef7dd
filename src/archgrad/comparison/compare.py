"""Every recipe over all runs of a benchmark."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from archgrad.benchmarks.benchmark import Benchmark
from archgrad.comparison.measuring import measure
from archgrad.comparison.named import named
from archgrad.comparison.row import Row, row_of
from archgrad.errors import UsageError
from archgrad.protocols import Searcher
from archgrad.searchers.each import Each
from archgrad.searchers.recipe import Recipe
from archgrad.searchers.together import together, unlike

LEVELS = (0.7, 0.8, 0.9, 0.95)


@dataclass(frozen=True)
class Comparison:
    """A row a recipe, in the order given."""

    benchmark: str
    runs: int
    budget: int
    levels: tuple[float, ...]
    seed: int
    rows: tuple[Row, ...]

    def json(self) -> list[dict[str, Any]]:
        return [row.json() for row in self.rows]


def compare(
    benchmark: Benchmark,
    recipes: Sequence[str],
    *,
    runs: int,
    budget: int,
    levels: Sequence[float] = LEVELS,
    seed: int = 0,
    progress: Callable[[str], None] = lambda text: None,
) -> Comparison:
    """Spend ``budget`` evaluations in each of ``runs`` runs of every recipe.

    recipes: ``name`` or ``name:setting=value,...``. Runs that descend along a gradient are one tensor program, others
    follow one another in Python. UsageError for settings that cannot be; nothing is run then.
    """
    benchmark.check_runs(runs)
    if budget < 1:
        raise UsageError(f"budget should be at least 1 evaluation, got {budget}")
    if not recipes:
        raise UsageError("there should be a recipe to compare, got none; see archgrad recipes")
    for what, given in (("recipes", recipes), ("levels", levels)):
        twice = next((x for i, x in enumerate(given) if x in given[:i]), None)
        if twice is not None:
            raise UsageError(f"{what} should differ, got {twice} twice; leave one out")
    if not bool((benchmark.mean > benchmark.optimum).all()):
        raise UsageError(f"values of {benchmark.name} should vary, but all are the same; search on another column")
    bad = [level for level in levels if not 0 < level <= 1]
    if bad:
        raise UsageError(f"levels should be above 0 and at most 1 (the optimum), got {bad[0]:g}")
    if not 0 <= seed < 2**31:
        raise UsageError(f"seed should be between 0 and 2**31, got {seed}")
    searchers = []
    for text in recipes:
        make = named(text)
        try:
            searchers.append(side_by_side([make(benchmark.space, seed + r) for r in range(runs)]))
        except UsageError:
            raise
        except ValueError as error:  # an optimiser's own check
            raise UsageError(f"{text} should have settings that can be, got: {error}") from error
    rows = []
    for i, (text, searcher) in enumerate(zip(recipes, searchers, strict=True), start=1):
        progress(f"{text}, {i} of {len(recipes)}")
        rows.append(row_of(text, benchmark, measure(benchmark, searcher, runs, budget, seed), levels))
    return Comparison(benchmark.name, runs, budget, tuple(levels), seed, tuple(rows))


def side_by_side(searchers: Sequence[Searcher]) -> Searcher:
    """Recipes that differ in parameters only as one tensor program, any others one after the other."""
    recipes = [s for s in searchers if isinstance(s, Recipe)]
    if len(recipes) == len(searchers) and unlike(recipes) is None:
        return together(recipes)
    return Each(searchers)
