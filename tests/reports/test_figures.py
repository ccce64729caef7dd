"""Figures say what the trials say; the drawing keeps every node and edge; the terminal shows names as they are."""

from __future__ import annotations

import io
import math
import random
import re
from typing import Any

import pytest
from fake_run import EVIL, decisions, full, network, steps
from rich.console import Console

from archgrad.records import Job, Step, Trial
from archgrad.reports import figures
from archgrad.reports.drawing import HEIGHT, WIDTH, draw
from archgrad.reports.summary import render_summary, rows


def trial(index: int, role: str, loss: float | None, accuracy: float = 0.5, params: float = 100.0) -> Trial:
    job = Job(index, role, (f"a{index}",), 0, 3)
    if loss is None:
        return Trial(job, {}, 1.0, "failed")
    return Trial(job, {"valid_loss": loss, "valid_accuracy": accuracy, "params": params, "macs": 2 * params}, 1.0)


def traces(figure: dict[str, Any] | None) -> dict[str, dict[str, Any]]:
    assert figure is not None
    return {trace["name"]: trace for trace in figure["data"]}


def test_best_so_far_at_equal_evaluations() -> None:
    losses = [0.9, None, 0.5, math.nan, 0.7, None]
    trials = [trial(0, "default", 0.6)]
    trials += [trial(1 + i, "search", loss) for i, loss in enumerate(losses)]
    trials += [trial(10, "random", 0.8), trial(11, "random", 0.4), trial(12, "final", 0.1)]
    shown = traces(figures.progress(trials))
    assert (shown["search, each"]["x"], shown["search, each"]["y"]) == ([1, 3, 5], [0.9, 0.5, 0.7])
    # The failed sixth evaluation was paid for: the line reaches it.
    assert (shown["search, best so far"]["x"], shown["search, best so far"]["y"]) == (
        [1, 3, 5, 6],
        [0.9, 0.5, 0.5, 0.5],
    )
    assert shown["random search, best so far"]["y"] == [0.8, 0.4, 0.4]
    assert shown["default architecture"]["y"] == [0.6, 0.6]
    assert not [name for name in shown if "full" in name]


def test_a_diverged_trial_makes_the_axis_logarithmic() -> None:
    calm = figures.progress([trial(0, "search", 0.5), trial(1, "search", 0.9)])
    wild = figures.progress([trial(0, "search", 0.5), trial(1, "search", 9000.0)])
    assert calm is not None
    assert wild is not None
    assert calm["layout"]["yaxis"]["type"] == "linear"
    assert wild["layout"]["yaxis"]["type"] == "log"


def test_pareto_is_what_no_other_point_beats() -> None:
    rng = random.Random(0)
    points = [(float(rng.randrange(20)), float(rng.randrange(20))) for _ in range(60)]
    beaten = {p for p in points if any(q != p and q[0] <= p[0] and q[1] >= p[1] for q in points)}
    assert figures.pareto(points) == sorted(set(points) - beaten)


def test_size_marks_finalists_and_draws_no_front_through_them() -> None:
    trials = [trial(0, "search", 0.5, 0.6, 100), trial(1, "random", 0.5, 0.5, 50), trial(2, "search", 0.5, 0.55, 200)]
    final = Trial(Job(3, "final", trials[0].job.architecture, 0, 30), {"valid_accuracy": 0.9, "params": 10.0}, 1.0)
    shown = traces(figures.size([*trials, final], "params", "parameters"))
    assert (shown["Pareto front"]["x"], shown["Pareto front"]["y"]) == ([50, 100], [0.5, 0.6])
    assert shown["finalist, as searched"]["x"] == [100]
    assert shown["trained in full"]["y"] == [0.9]
    assert figures.size([trial(0, "search", None)], "params", "parameters") is None


def test_beliefs_and_certainty() -> None:
    space = [{"name": "d", "options": ["a", "b"]}, {"name": EVIL, "options": ["a", "b", "c"]}]
    marginals = [[[0.5, 0.5, 0.0], [0.2, 0.3, 0.5]], [[0.9, 0.1, 0.0], [math.nan, 0.3, 0.7]]]
    logged = [Step(t, m, {}) for t, m in enumerate(marginals)]
    first, second = figures.beliefs(logged, space)
    assert [(t["name"], t["y"]) for t in first["figure"]["data"]] == [("a", [0.5, 0.9]), ("b", [0.5, 0.1])]
    assert second["figure"]["data"][0]["y"] == [0.2, None]
    overview = figures.certainty(logged, space)
    assert overview is not None
    assert overview["data"][0]["z"] == [[0.5, 0.9], [0.5, 0.7]]
    assert "c: 70%" in overview["data"][0]["text"][1][1]
    assert EVIL not in str(overview)


def test_long_runs_are_thinned_to_first_and_last() -> None:
    overview = figures.certainty(steps(1000, 3), decisions(3))
    assert overview is not None
    x = overview["data"][0]["x"]
    assert (len(x), x[0], x[-1]) == (figures.STEPS, 0, 999)


# The drawing


def boxes(svg: str) -> list[tuple[float, float]]:
    found = re.findall(r'<rect x="(-?[\d.]+)" y="(-?[\d.]+)"', svg)
    return [(float(x), float(y)) for x, y in found]


@pytest.mark.parametrize("cells", [1, 7, 24])
def test_boxes_do_not_overlap_and_edges_point_down(cells: int) -> None:
    graph = network(cells)
    svg = draw(graph)
    assert svg is not None
    placed = boxes(svg)
    assert len(placed) == len(graph["nodes"])
    for i, (x, y) in enumerate(placed):
        assert all(abs(x - a) >= WIDTH or abs(y - b) >= HEIGHT for a, b in placed[:i])
    paths = re.findall(r'class="edge[ a-z]*" d="M\S+ (-?\d+) .*? (-?\d+)" marker', svg)
    assert len(paths) == len(graph["edges"])
    assert all(int(start) < int(end) for start, end in paths)
    assert svg.count('class="edge skip"') == 2 * cells


def test_the_drawing_escapes_and_survives_nonsense() -> None:
    nodes = [{"id": "a", "label": EVIL, "detail": f'"{EVIL}'}, {"id": "b", "label": "x" * 99}]
    svg = draw({"nodes": nodes, "edges": [["a", "b"], ["b", "a"], ["a", "a"], ["a", "nowhere"], ["a", "b"]]})
    assert svg is not None
    assert "<script" not in svg
    assert svg.count('class="edge') == 1
    assert draw(None) is None
    assert draw({"nodes": [], "edges": []}) is None


# The terminal


def printed(summary: dict[str, Any], width: int = 100) -> str:
    console = Console(width=width, file=io.StringIO())
    with console.capture() as capture:
        console.print(render_summary(summary))
    return capture.get()


def test_terminal_summary() -> None:
    summary = full().meta("summary")
    summary["verdict"].append("Use [bold]brackets[/bold].")
    text = printed(summary)
    assert "The search found a network" in text
    assert "[bold]brackets[/bold]" in text
    line = next(line for line in text.splitlines() if "Handed over" in line and "|" not in line and "%" in line)
    assert line.split()[2:] == ["0.2312", "93.1%", "±", "0.4%", "48,210", "2,411,000"]
    mean = next(line for line in text.splitlines() if "Mean of random" in line)
    assert mean.split()[-3:] == ["–", "52,100", "2,411,000"]


def test_summary_of_nothing() -> None:
    assert rows(None) == []
    assert rows({"best": None, "default": {}}) == []
    assert printed({}).strip() == ""
