"""What is in a table of a benchmark: ranges, and the best architecture in every column."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from rich.markup import escape
from rich.table import Table as Lines

from archgrad.benchmarks.table import Table
from archgrad.spaces.nasbench201 import NasBench201


def table_summary(table: Table) -> dict[str, Any]:
    """Plain JSON values: name, architectures, decisions, and of each column its meaning, range and best architecture.

    Of several best ones the first in the space's order, and how many there are.
    """
    every = table.space.enumerate()
    columns = []
    for column in table.columns:
        loss = column.loss
        at = int(loss.argmin())
        architecture = table.space.decode(every[at : at + 1])[0]
        best: dict[str, Any] = {"value": float(column.values[at]), "architecture": list(architecture)}
        if isinstance(table.space, NasBench201):
            best["text"] = table.space.text(architecture)
        best["ties"] = int((loss == loss[at]).sum())
        low, high = float(column.values.min()), float(column.values.max())
        meaning = dataclasses.asdict(column.meaning)
        columns.append({**meaning, "min": low, "max": high, "mean": float(column.values.mean()), "best": best})
    decisions = [{"name": d.name, "options": list(d.options)} for d in table.space.decisions]
    return {"name": table.name, "architectures": table.space.size, "decisions": decisions, "columns": columns}


def render_table(summary: Mapping[str, Any]) -> Lines:
    """``table_summary`` for a terminal."""
    decisions = len(summary["decisions"])
    lines = Lines(
        title=escape(f"{summary['name']}: {summary['architectures']:,} architectures of {decisions} decisions"),
        title_justify="left",
    )
    for name in ("column", "split", "epochs", "unit", "better", "seeds", "lowest", "mean", "highest", "best"):
        lines.add_column(name, justify="right" if name in ("epochs", "seeds", "lowest", "mean", "highest") else "left")
    for c in summary["columns"]:
        best = c["best"]
        text = best.get("text") or ", ".join(best["architecture"])
        more = f" and {best['ties'] - 1:,} more" if best["ties"] > 1 else ""
        numbers = [f"{c[n]:.7g}" for n in ("min", "mean", "max")]
        counts = ["" if c[n] is None else f"{c[n]:g}" for n in ("fidelity", "seeds")]
        cells = [c["name"], c["split"], counts[0], c["unit"], c["better"], counts[1], *numbers, text + more]
        lines.add_row(*map(escape, cells))
    return lines
