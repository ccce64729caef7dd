"""The study of hypergradients: its problem, its measures and what it prints."""

import io
import json

import pytest
import torch
from rich.console import Console

from archgrad import UsageError, cli
from archgrad.hypergradients import Exact, FiniteDifference, FirstOrder, Implicit, Report, Unrolled
from archgrad.laboratory import hypergradients as laboratory
from archgrad.laboratory.digits_supernet import DigitsSupernet
from archgrad.laboratory.hypergradients import Difference, HypergradientStudy, Row
from archgrad.laboratory.memory import peak_bytes
from archgrad.reports.hypergradients import COLUMNS, cells, render_hypergradients


def test_the_exact_implicit_derivative_is_that_of_retrained_minima():
    """Trained again at h + e d and h - e d, f changes along d as Implicit(Exact()) says."""
    problem = DigitsSupernet("tanh")
    problem.x, problem.y = problem.x[:60], problem.y[:60]
    problem.train(1500)  # to a slope of 3e-8: from 1e-6, what is left of training is more than the bound below
    exact = laboratory.derivative(problem, Implicit(Exact()), laboratory.nothing)
    direction = torch.randn(2, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    values = []
    start, h = problem.z, problem.h
    for e in (1e-2, -1e-2):
        problem.z, problem.h = start, h + e * direction
        problem.train(1500)
        values.append(float(problem.f(problem.z, problem.h)))
    along = float((exact * direction).sum())
    assert (values[0] - values[1]) / 2e-2 == pytest.approx(along, rel=1e-3)
    problem.z, problem.h = start, h
    first = float((laboratory.derivative(problem, FirstOrder(), laboratory.nothing) * direction).sum())
    assert abs(first - along) > 0.05 * abs(along)


def test_the_problem_is_a_function_of_its_arguments():
    one, two, other = DigitsSupernet("relu", 3), DigitsSupernet("relu", 3), DigitsSupernet("relu", 4)
    assert all(torch.equal(v, two.z[n]) for n, v in one.z.items())
    assert torch.equal(one.h, two.h)
    assert not torch.equal(one.h, other.h)
    assert sum(v.numel() for v in one.z.values()) == 1228
    single = one.to(torch.float32)
    assert single.f(single.z, single.h).dtype == torch.float32
    assert one.f(one.z, one.h).dtype == torch.float64
    with pytest.raises(
        UsageError, match="activation should be one of tanh, gelu, relu, got 'relus'; did you mean 'relu'"
    ):
        DigitsSupernet("relus")


def test_the_largest_curvature():
    problem = DigitsSupernet("tanh")
    problem.g = lambda z, h, k: sum((i + 1) / 2 * v.square().sum() for i, v in enumerate(z.values()))
    assert laboratory.largest_curvature(problem, 200) == pytest.approx(len(problem.z), rel=1e-3)


def test_errors_of_finite_differences_are_relative_to_what_goes_through_the_weights():
    problem = DigitsSupernet("tanh")
    step = laboratory.descent(0.1)
    found = {(d.dtype, d.central, d.epsilon): d.error for d in laboratory.compared(problem, "untrained", 0.1)}
    assert len(found) == 2 * 2 * len(laboratory.EPSILONS)
    assert found["float64", True, 1e-4] < 1e-6 < found["float64", False, 1e-4] < found["float64", False, 1e-1]
    assert found["float32", True, 1e-6] > found["float64", True, 1e-6]  # rounding
    exact = laboratory.derivative(problem, Unrolled(1), step)
    missing = exact - laboratory.direct(problem, step)
    wrong = laboratory.derivative(problem, FiniteDifference(1e-2), step)
    assert found["float64", True, 1e-2] == pytest.approx(float((wrong - exact).norm() / missing.norm()))


def test_peak_memory():
    def two():
        a = torch.zeros(1000)  # 4,000 bytes
        b = a + 1
        del a
        c = b.view(10, 100) * 2  # a view is no memory of its own
        c += 1  # nor is a result in place
        return c

    assert peak_bytes(two) == 8000
    before = torch.zeros(1000)
    assert peak_bytes(lambda: before.add_(1)) == 0

    def graph():
        x = torch.ones(1000, requires_grad=True)
        y = x
        for _ in range(10):
            y = y.sin()  # its input is kept for the way back
        y.sum().backward()

    assert 44_000 <= peak_bytes(graph) <= 60_000


def made_up():
    report = Report(1e-3, -0.5, 0.25, 7, "negative curvature")
    return HypergradientStudy(
        "tanh",
        1228,
        report,
        0.1,
        1e-3,
        0.6,
        (Row("first order", 0.6, 0.963, 0.5, 336_000, None), Row("cg 50", 0.002, 1.0, 50.0, 1_197_000, report)),
        tuple(Difference("relu", "trained", "float32", True, e, 0.5) for e in laboratory.EPSILONS),
    )


def test_what_is_printed():
    study = made_up()
    assert cells(study.rows[0]) == ("first order", "0.6", "0.963", "0.5", "336", "", "", "")
    assert cells(study.rows[1])[-3:] == ("1.0e-03", "-5.0e-01", "negative curvature")
    assert len(cells(study.rows[1])) == len(COLUMNS)
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(render_hypergradients(study))
    text = console.export_text()
    for said in ("cg 50", "z is no minimum of g", "First order misses 60%", "relu", "1e-06"):
        assert said in text


def test_the_command(monkeypatch, capsys):
    given = {}

    def study(**arguments):
        given.update(arguments)
        return made_up()

    monkeypatch.setattr(laboratory, "hypergradient_study", study)
    with pytest.raises(SystemExit) as ended:
        cli.main(["hypergradients", "--json", "--seed", "4", "--activation", "gelu"])
    assert ended.value.code == 0
    assert (given["seed"], given["activation"]) == (4, "gelu")
    rows = json.loads(capsys.readouterr().out)
    assert [r.get("hypergradient") for r in rows[:3]] == ["first order", "cg 50", None]
    assert rows[1]["report"]["ended"] == "negative curvature"
    with pytest.raises(SystemExit):
        cli.main(["hypergradients"])
    assert "A minimum of g (tanh, 1,228 weights" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("option", "message"),
    [("--repeats=0", "repeats should be at least 1"), ("--activation=rely", "did you mean 'relu'")],
)
def test_what_is_refused(option, message, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["hypergradients", option])
    assert ended.value.code == 2
    assert message in capsys.readouterr().err
