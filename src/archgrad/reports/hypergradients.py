"""A study of hypergradients as tables for the terminal."""

from __future__ import annotations

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table

from archgrad.laboratory.hypergradients import EPSILONS, HypergradientStudy, Row
from archgrad.reports.gradients import short

COLUMNS = ("hypergradient", "error", "cosine", "cost", "peak kB", "residual", "curvature", "ended by")


def cells(row: Row) -> tuple[str, ...]:
    """One line of the first table, in the order of ``COLUMNS``."""
    said = row.report
    solver = ("", "", "") if said is None else (f"{said.residual:.1e}", f"{said.curvature:.1e}", said.ended)
    return (
        row.hypergradient,
        f"{row.error:.2g}",
        f"{row.cosine:.3f}",
        short(row.cost),
        short(row.bytes / 1000),
        *solver,
    )


def render_hypergradients(study: HypergradientStudy) -> RenderableType:
    """Two tables: against the exact implicit derivative, and finite differences against the exact step."""
    first = Table(
        *COLUMNS,
        box=box.SIMPLE,
        title=f"A minimum of g ({study.activation}, {study.weights:,} weights, float64) against its exact derivative",
        title_justify="left",
    )
    for row in study.rows:
        first.add_row(*cells(row))
    second = Table(
        "network",
        "weights",
        "number type",
        "difference",
        *(f"{e:g}" for e in EPSILONS),
        box=box.SIMPLE,
        title="Finite differences at epsilon, against one exact step: error of the part that goes through the weights",
        title_justify="left",
    )
    lines: dict[tuple[str, str, str, bool], dict[float, float]] = {}
    for d in study.differences:
        lines.setdefault((d.activation, d.weights, d.dtype, d.central), {})[d.epsilon] = d.error
    for (activation, weights, dtype, central), errors in lines.items():
        kind = "central" if central else "forward"
        second.add_row(activation, weights, dtype, kind, *(f"{errors[e]:.1g}" for e in EPSILONS))
    notes = (
        f"Exact: {study.exact}.\n"
        f"First order misses {study.indirect:.0%} of the exact derivative's length. Steps, and Neumann's rate, are "
        f"{study.rate:.3g}, one over the largest curvature.\n"
        f"cost: CPU time in gradients of g in z ({1000 * study.inner:.2f} ms), the gradient of f included. An error of "
        "1 in the second table is what leaving that part out would give."
    )
    return Group(first, second, notes)
