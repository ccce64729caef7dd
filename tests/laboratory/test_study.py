"""A whole study: from Python, from the command line, as JSON and as a page."""

import json
import signal

import pytest
import torch

from archgrad import Factorised, ScoreFunction, UsageError, cli
from archgrad.api import gradients
from archgrad.benchmarks import nk_chain
from archgrad.laboratory import CANDIDATES, Candidate, alphas, study
from archgrad.laboratory.candidates import SWEEP, TEMPERATURES, chosen
from archgrad.reports.gradients import COLUMNS, cells, notes, write_gradients
from archgrad.testing import toy

KEYS = {
    "problem": str,
    "alpha": str,
    "estimator": str,
    "samples": int,
    "evaluations": int,
    "training_evaluations": int,
    "relative_bias": float,
    "relative_bias_interval": list,
    "max_z": float,
    "variance": float,
    "rmse": float,
    "cosine": float,
    "seconds": float,
    "verdict": str,
}


NAMES = ["ScoreFunction-none", "ScoreFunction-leave-one-out", "PPO"]


@pytest.fixture
def run(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    before, threads = signal.getsignal(signal.SIGTERM), torch.get_num_threads()

    def command(*arguments):
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            cli.main(["gradients", *arguments])
        printed = capsys.readouterr()
        return end.value.code, printed.out, printed.err

    yield command
    signal.signal(signal.SIGTERM, before)
    torch.set_num_threads(threads)


def test_json_is_a_list_with_exactly_the_promised_keys(run, tmp_path):
    code, out, err = run("--draws", "2000", "--json", "--estimators", *NAMES, "--samples", "4")
    assert code == 0
    rows = json.loads(out, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert [r["alpha"] for r in rows] == [a for a in ("uniform", "halfway", "late") for _ in NAMES]
    for row in rows:
        assert {k: type(v) for k, v in row.items()} == KEYS
        assert row["problem"] == "toy"
        assert row["samples"] == row["evaluations"] == 4
        low, high = row["relative_bias_interval"]
        assert 0 <= low <= row["relative_bias"] <= high or row["relative_bias"] == 0
        assert row["rmse"] ** 2 == pytest.approx(row["variance"] + row["relative_bias"] ** 2, rel=0.1)
        unbiased = "unbiased as far as 2000 draws can tell (would have seen "
        assert row["verdict"] == "biased" or row["verdict"].startswith(unbiased)
    assert all(line.startswith("archgrad: toy, ") for line in err.splitlines())
    assert list(tmp_path.iterdir()) == []


def test_the_table_says_it_in_words_and_the_page_is_written_where_asked(run, tmp_path):
    code, out, _ = run("--draws", "300", "--estimators", "ScoreFunction-leave-one-out", "--out", "made/here")
    assert code == 0
    assert "toy, Factorised, alpha halfway" in out
    assert "ScoreFunction-leave-one-out" in out
    assert "E f(h) - f(E h) =" in out
    assert "300 estimates a line" in out
    page = (tmp_path / "made/here/gradients.html").read_text()
    assert [p.name for p in (tmp_path / "made/here").iterdir()] == ["gradients.html"]
    assert 'id="figure-2"' in page
    assert "http-equiv" in page
    assert "<script src" not in page
    assert "Is the relaxation&#39;s error bounded" in page or "Is the relaxation's error bounded" in page


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("--problem tyo", ["'tyo'", "did you mean 'toy'?"]),
        ("--problem nasbench201", ["--table FILE", "--column"]),
        ("--problem nasbench201 --table none.csv", ["none.csv", "No such file"]),
        ("--table t.csv", ["toy needs none"]),
        ("--policy lstm", ["factorised, autoregressive", "'lstm'"]),
        ("--problem nk_chain --policy autoregressive", ["Autoregressive", "Factorised"]),
        ("--estimators ScoreFuncton", ["'ScoreFuncton'", "ScoreFunction-none"]),
        ("--estimators PPO --samples 1", ["at least 2", "got 1"]),
        ("--draws 1", ["at least 2", "got 1"]),
        ("--draws many", ["--draws", "whole number"]),
        ("--samples 0", ["at least 1", "got 0"]),
        ("--draw 3", ["did you mean --draws?"]),
        ("--out cli.txt/below --draws 2 --estimators PPO", ["cli.txt", "Not a directory"]),
    ],
)
def test_what_is_wrong_is_said_in_one_line(run, tmp_path, arguments, words):
    (tmp_path / "cli.txt").write_text("")
    code, out, err = run(*arguments.split())
    assert code == 2
    assert out == ""
    line = err.splitlines()[-1]
    assert line.startswith("archgrad: ")
    assert [w for w in words if w not in line] == []


def test_candidates_problems_and_alphas_of_ones_own():
    problem = toy(2, 3)
    mine = Candidate("mine", lambda n, space: ScoreFunction(n))
    policy = Factorised(problem.space).double()
    done = gradients(problem, estimators=[mine, "PPO"], points={"here": policy}, samples=4, draws=400)
    assert [(r.alpha, r.estimator) for r in done.rows] == [("here", "mine"), ("here", "PPO")]
    assert [g.alpha for g in done.gaps] == ["here"]
    assert done.false_alarms == pytest.approx(2e-3)


def test_the_toy_takes_few_pasts_and_no_other_problem_does():
    made = []

    def make(samples, space):
        made.append(ScoreFunction(samples))
        return made[-1]

    many = Candidate("many", make, preparations=20)
    where = {"here": Factorised(toy().space).double()}
    for problem, pasts in (("toy", 4), (toy(), 20)):
        made.clear()
        gradients(problem, estimators=[many], points=where, draws=100)
        assert len(made) == pasts + 2  # two to ask whether it fits: before any work, and at its alpha


def test_who_does_not_fit_is_left_out_with_the_reason():
    problem = toy(2, 3)
    points = {"uniform": Factorised(problem.space).double()}
    done = study(problem, points, chosen(NAMES), samples=1, draws=300)
    assert [r.estimator for r in done.rows] == ["ScoreFunction-none"]
    assert "leave-one-out" in done.skipped["ScoreFunction-leave-one-out"]
    assert any("ScoreFunction-leave-one-out is left out: " in note for note in notes(done))


def test_an_autoregressive_policy_passes_the_same_tests():
    done = gradients(toy(2, 3), policy="autoregressive", estimators=NAMES[:2], draws=1500)
    assert len(done.rows) == 6
    assert not any(r.quality.biased for r in done.rows)
    assert done.gaps == ()


def test_the_sweep_has_every_temperature_and_its_own_picture(tmp_path):
    problem = toy(2, 3)
    points = alphas(problem, Factorised(problem.space).double())
    done = study(problem, points, chosen(["PPO"]), samples=4, draws=100, families=SWEEP[:1])
    names = [f"{SWEEP[0].name}-t{t:g}" for t in TEMPERATURES]
    assert [r.estimator for r in done.sweep] == names
    assert {r.alpha for r in done.sweep} == {"halfway"}
    assert [r["estimator"] for r in done.json()][-len(names) :] == names
    write_gradients(done, tmp_path / "g.html")
    page = (tmp_path / "g.html").read_text()
    start = page.index('id="data">') + len('id="data">')
    figures = json.loads(page[start : page.index("</script>", start)])
    assert figures["figure-3"]["data"][0]["x"] == list(TEMPERATURES)
    assert len(figures) == 4


def test_a_name_cannot_break_the_page(tmp_path):
    evil = Candidate("</script><b>x", lambda n, space: ScoreFunction(n))
    problem = toy(2, 3)
    done = gradients(problem, estimators=[evil], points={"a": Factorised(problem.space).double()}, draws=20)
    write_gradients(done, tmp_path / "g.html")
    assert "</script><b>x" not in (tmp_path / "g.html").read_text()
    assert len(cells(done.rows[0])) == len(COLUMNS)


def test_names_stand_for_one_or_for_a_family():
    assert [c.name for c in chosen(["PPO", "ScoreFunction-none", "PPO"])] == ["PPO", "ScoreFunction-none"]
    assert len({c.name for c in CANDIDATES}) == len(CANDIDATES)
    with pytest.raises(UsageError, match="Scor"):
        chosen(["Scor"])


def test_what_cannot_work_is_told_before_anything_is_measured(tmp_path):
    """One of the named does not fit, a space is too large to enumerate, a folder cannot be written: no work is lost."""
    for arguments, words in (
        ({"samples": 1, "estimators": ["ScoreFunction"]}, "samples should be at least 2"),
        ({"problem": "nk_chain", "estimators": ["ScoreFunction-none", "Exact"]}, "at most 100,000"),
        ({"estimators": ["ScoreFunction-none"], "out": tmp_path / "file"}, "should be a place to write to"),
    ):
        (tmp_path / "file").touch()
        told = []
        with pytest.raises(UsageError, match=words):
            gradients(draws=2, progress=told.append, **arguments)
        assert told == []
    gradients(draws=2, estimators=["Softmax"], out=tmp_path / "new" / "folder")
    assert [f.name for f in (tmp_path / "new" / "folder").iterdir()] == ["gradients.html"]


def test_all_who_fit_are_measured_where_some_do_not():
    some = [c for c in CANDIDATES if c.name in ("ScoreFunction-none", "Exact", "DisARM", "Relax-300")]
    chain = nk_chain()
    done = study(chain, {"uniform": Factorised(chain.space).double()}, some, draws=2, samples=3)
    assert set(done.skipped) == {"Exact", "DisARM"}
    assert {r.estimator for r in done.rows} == {"ScoreFunction-none", "Relax-300"}
