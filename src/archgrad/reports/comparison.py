"""A comparison as a table for the terminal and as a page with its curves."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from archgrad.comparison import Comparison
from archgrad.comparison.row import Row
from archgrad.comparison.statistics import Quartiles
from archgrad.reports.curves import curves
from archgrad.reports.html import _environment

NEVER = "-"


def columns(comparison: Comparison) -> tuple[str, ...]:
    first = comparison.rows[0]
    return (
        "recipe",
        *(f"to {level:g}" for level in comparison.levels),
        f"regret at {comparison.budget:,}",
        *(f"{name} at {comparison.budget:,}" for name in first.reported),
        "µs",
    )


def cells(row: Row) -> tuple[str, ...]:
    """One line of the table, in the order of ``columns``."""
    last = row.regret[row.budget]
    return (
        row.recipe,
        *(three(q) for q in row.samples_to.values()),
        three(last),
        *(spread(of[row.budget]) for of in row.reported.values()),
        f"{1e6 * row.seconds_per_sample:.1f}",
    )


def three(values: Quartiles) -> str:
    """q25 / median / q75."""
    return " / ".join(NEVER if v is None else f"{v:,}" if isinstance(v, int) else f"{v:.3g}" for v in values)


def spread(pair: tuple[float, float | None]) -> str:
    mean, deviation = pair
    return f"{mean:.2f}" if deviation is None else f"{mean:.2f} ± {deviation:.2f}"


def notes(comparison: Comparison) -> list[str]:
    """How to read the table."""
    return [
        f"{comparison.benchmark}, {comparison.runs} runs of {comparison.budget:,} evaluations, seed {comparison.seed}; "
        "lower is better. Three numbers are quartiles over runs, as order statistics.",
        "to x: evaluations until the first evaluated architecture whose noiseless value makes the fraction x of the "
        f"way from the space's mean to its optimum; {NEVER}: that quartile never got there. Regret: the noiseless "
        "value of the architecture with the lowest observed value, less the optimum. Others: of the same architecture, "
        "mean ± standard deviation over runs. µs: CPU time of the searcher, an evaluation.",
    ]


def render_comparison(comparison: Comparison) -> RenderableType:
    """A rich table and its notes."""
    table = Table(box=box.SIMPLE)
    for name in columns(comparison):
        left = name == "recipe"
        table.add_column(name, justify="left" if left else "right", overflow="fold", min_width=12)
    for row in comparison.rows:
        table.add_row(*(Text(cell) for cell in cells(row)))
    return Group(table, *(Text(note) for note in notes(comparison)))


def picture(comparison: Comparison) -> str:
    """Regret over evaluations, as SVG."""
    series = {row.recipe: row.curve for row in comparison.rows}
    title = f"Regret on {comparison.benchmark}: median and quartiles of {comparison.runs} runs"
    return curves(series, "evaluations", "regret of the incumbent", title)


def write_comparison(comparison: Comparison, folder: Path) -> None:
    """comparison.html and regret.svg; each appears whole or not at all."""
    svg = picture(comparison)
    page = (
        _environment()
        .get_template("comparison.html")
        .render(
            title=f"Searches on {comparison.benchmark}",
            picture=svg,
            columns=columns(comparison),
            rows=[cells(row) for row in comparison.rows],
            notes=notes(comparison),
        )
    )
    folder.mkdir(parents=True, exist_ok=True)
    written(folder, (("regret.svg", svg), ("comparison.html", page)))


def written(folder: Path, files: Sequence[tuple[str, str]]) -> None:
    for name, text in files:
        path = folder / name
        scratch = path.with_name(f".{name}.{os.getpid()}.part")
        try:
            scratch.write_text(text, encoding="utf-8")
            os.replace(scratch, path)
        finally:
            scratch.unlink(missing_ok=True)
