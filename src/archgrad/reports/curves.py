"""Curves with quartile bands as a plain SVG file that reads on light and on dark pages."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from markupsafe import Markup, escape

from archgrad.comparison.statistics import Quartiles
from archgrad.reports.figures import OPTIONS

WIDTH, HEIGHT = 760, 420
LEFT, RIGHT, TOP, BOTTOM = 64, 16, 16, 48
LINE = 22  # of the legend


def curves(series: Mapping[str, Mapping[int, Quartiles]], x: str, y: str, title: str) -> Markup:
    """SVG: median lines and bands between the quartiles over a logarithmic x, with labelled axes and a legend.

    series: name to x to (q25, median, q75). Text and lines of the axes are grey, which both kinds of page can show;
    there is no background. Names are escaped.
    """
    places = sorted({n for points in series.values() for n in points})
    heights = [q for points in series.values() for three in points.values() for q in three if q is not None]
    low, high = min(0.0, *heights, 0.0), max(*heights, 1e-9, 1e-9)
    ticks = steps(low, high)
    left, right = math.log(places[0]), math.log(max(places[-1], places[0] + 1))

    def across(n: int) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (math.log(n) - left) / (right - left)

    def up(value: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (high - value) / (high - low)

    total = HEIGHT + LINE * len(series) + 8
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {total}" width="{WIDTH}" height="{total}" '
        'role="img" font-family="system-ui, sans-serif" font-size="13" fill="#808890">',
        f"<title>{escape(title)}</title>",
    ]
    for tick in ticks:
        parts.append(
            f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{up(tick):.1f}" y2="{up(tick):.1f}" stroke="#808890" '
            'stroke-opacity=".25"/>'
            f'<text x="{LEFT - 8}" y="{up(tick) + 4:.1f}" text-anchor="end">{tick:g}</text>'
        )
    for n in (m * 10**e for e in range(len(str(places[-1]))) for m in (1, 2, 5)):
        if places[0] <= n <= places[-1]:
            parts.append(
                f'<line x1="{across(n):.1f}" x2="{across(n):.1f}" y1="{HEIGHT - BOTTOM}" y2="{HEIGHT - BOTTOM + 5}" '
                'stroke="#808890"/>'
                f'<text x="{across(n):.1f}" y="{HEIGHT - BOTTOM + 19}" text-anchor="middle">{n}</text>'
            )
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text x="{middle:.0f}" y="{HEIGHT - 10}" text-anchor="middle">{escape(x)}</text>')
    centre = (TOP + HEIGHT - BOTTOM) / 2
    parts.append(
        f'<text x="14" y="{centre:.0f}" text-anchor="middle" transform="rotate(-90 14 {centre:.0f})">{escape(y)}</text>'
    )
    for i, (name, points) in enumerate(series.items()):
        colour = OPTIONS[i % len(OPTIONS)]
        known = [(across(n), [up(q) for q in three if q is not None]) for n, three in sorted(points.items())]
        known = [(at, heights) for at, heights in known if len(heights) == 3]
        band = [(at, h[0]) for at, h in known] + [(at, h[2]) for at, h in reversed(known)]
        parts.append(f'<polygon points="{path(band)}" fill="{colour}" fill-opacity=".16"/>')
        line = path([(at, h[1]) for at, h in known])
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
        at = HEIGHT + LINE * i + 8
        parts.append(
            f'<line x1="{LEFT}" x2="{LEFT + 24}" y1="{at}" y2="{at}" stroke="{colour}" stroke-width="3"/>'
            f'<text x="{LEFT + 32}" y="{at + 4}">{escape(name)}</text>'
        )
    return Markup("\n".join([*parts, "</svg>", ""]))


def path(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)


def steps(low: float, high: float) -> list[float]:
    """Round numbers from low to high, four to eight of them."""
    size = 10 ** math.floor(math.log10(high - low))
    step = next(s for s in (size / 5, size / 2, size, 2 * size) if (high - low) / s <= 8)
    return [round(i * step, 12) for i in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]
