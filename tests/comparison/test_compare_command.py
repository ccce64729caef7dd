"""archgrad compare: its JSON, its pages, and what is wrong said in one line before anything runs."""

import json
import signal
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
import torch

from archgrad import UsageError, cli
from archgrad.api import compare
from archgrad.benchmarks.landscapes import landscapes
from archgrad.benchmarks.table import Column, Table
from archgrad.reports.comparison import write_comparison
from archgrad.reports.curves import curves, steps
from archgrad.spaces.nasbenchmacro import macro_space
from archgrad.testing import plain_space

DATA = Path(__file__).parents[3] / "shared" / "data"
FIELDS = {"recipe", "runs", "budget", "samples_to", "regret", "reported", "seconds_per_sample"}


@pytest.fixture
def run(capsys, monkeypatch, tmp_path):
    """A command line in this process, in a folder with a table of 12 architectures."""
    monkeypatch.chdir(tmp_path)
    losses = torch.arange(12).double()
    columns = (Column(name="ms", split="cost", values=losses), Column(name="mj", split="cost", values=2 * losses))
    Table("mine", plain_space(3, 4), columns).write(tmp_path / "t.table")
    before = signal.getsignal(signal.SIGTERM)
    threads = torch.get_num_threads()

    def command(*arguments):
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            cli.main(["compare", *map(str, arguments)])
        printed = capsys.readouterr()
        return end.value.code, printed.out, printed.err

    yield command
    signal.signal(signal.SIGTERM, before)
    torch.set_num_threads(threads)


def test_json_of_a_chain_and_nothing_else(run):
    arguments = "--recipes random_search reinforce:baseline=moving-average,lr=0.04 local_search --runs 2 --budget 40"
    code, out, err = run(*arguments.split(), "--levels", 0.2, 0.99, "--json")
    rows = json.loads(out)
    assert code == 0
    assert [row["recipe"] for row in rows] == arguments.split()[1:4]
    for row in rows:
        assert set(row) == FIELDS
        assert (row["runs"], row["budget"]) == (2, 40)
        assert list(row["samples_to"]) == ["0.2", "0.99"]
        assert list(row["regret"]) == ["10", "20", "40"]
        assert all(len(three) == 3 for three in [*row["regret"].values(), *row["samples_to"].values()])
        assert row["samples_to"]["0.99"] == [None, None, None]
        assert row["reported"] == {}
        assert 0 < row["seconds_per_sample"] < 1
    assert "3 of 3" in err


def test_the_seed_is_that_of_the_first_landscape(run):
    """Run r of seed s is on landscape s + r: regret of an optimum that is known for those."""
    rows = json.loads(
        run(*["--recipes", "random_search", "--runs", "1", "--budget", "10", "--seed", "1003", "--json"])[1]
    )
    own = compare(landscapes(20, 7, [1003]), ["random_search"], runs=1, budget=10, seed=1003)
    assert rows[0]["regret"] == own.json()[0]["regret"]


def test_a_table_by_its_file(run):
    code, out, _ = run(
        *[
            "--benchmark",
            "t.table",
            "--search",
            "ms",
            "--report",
            "mj",
            "--recipes",
            "local_search",
            "--runs",
            "3",
            "--budget",
            "12",
            "--levels",
            "1",
            "--json",
        ]
    )
    (row,) = json.loads(out)
    assert code == 0
    assert row["regret"]["12"] == [0, 0, 0]  # twelve evaluations without a repeat are all there are
    assert row["reported"]["mj"]["12"] == [0, 0]
    assert all(row["samples_to"]["1"])


def test_what_comes_with_archgrad_needs_no_file(run):
    code, out, _ = run("--benchmark", "made_small", "--recipes", "local_search", "--runs", 2, "--budget", 20, "--json")
    (row,) = json.loads(out)
    assert code == 0
    assert list(row["reported"]) == ["test_accuracy_320"]


def test_table_and_pages(run):
    code, out, _ = run(*["--recipes", "random_search", "ppo", "--runs", "2", "--budget", "30", "--out", "pages"])
    assert code == 0
    assert "random_search" in out
    assert sorted(p.name for p in Path("pages").iterdir()) == ["comparison.html", "regret.svg"]
    page = Path("pages/comparison.html").read_text()
    assert "<svg" in page
    assert "regret of the incumbent" in page
    assert "http://www.w3.org" in page
    assert page.count("http:") + page.count("https:") == 1  # the name of SVG; nothing comes from a network
    assert ElementTree.parse("pages/regret.svg").getroot().tag.endswith("svg")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--benchmark nk_chian", "did you mean 'nk_chain'"),
        ("--benchmark nasbench201", "nasbench201 needs its table, got none"),
        ("--table t.table", "table, search and report are for tables"),
        ("--benchmark t.table", "needs a column to search on"),
        ("--benchmark t.table --search m", "a column should be one of ms, mj, got 'm'"),
        ("--benchmark t.table --search ms --report mi", "got 'mi'"),
        ("--benchmark t.table --search ms --table t.table", "is a table already"),
        ("--benchmark nasbenchmacro --table t.table --search ms --report mj", "should be a table of nasbenchmacro"),
        ("--recipes renforce", "did you mean 'reinforce'"),
        ("--recipes ppo:epoch=2", "did you mean 'epochs'"),
        ("--noise -1", "noise should be a standard deviation"),
        ("--runs 0", "runs should be at least 1"),
        ("--budget 0", "budget should be at least 1"),
        ("--levels 2", "levels should be above 0 and at most 1"),
        ("--levles 2", "did you mean --levels"),
        ("--runs many", "many"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(run, arguments, message):
    code, out, err = run(*arguments.split(), "--out", "pages")
    assert (code, out) == (2, "")
    assert err.startswith("archgrad: ")
    assert message in err
    assert err.count("\n") == 1
    assert not Path("pages").exists()


def test_a_benchmark_of_your_own_has_its_own_noise():
    with pytest.raises(UsageError, match="belong to a benchmark by name"):
        compare(landscapes(4, 2, [1]), ["ppo"], runs=1, budget=10, noise=1.0)


def test_names_are_escaped_and_heights_are_where_they_should_be(tmp_path):
    series = {"a<b": {1: (2.0, 4.0, 8.0), 100: (1.0, 2.0, 4.0)}, "gone": {1: (1.0, None, None), 100: (0.0, 0.0, 1.0)}}
    svg = ElementTree.fromstring(curves(series, "x & y", "z", "title"))
    texts = ["".join(e.itertext()) for e in svg.iter() if e.tag.endswith("text")]
    assert {"a<b", "gone", "x & y", "z", "1", "10", "100"} <= set(texts)
    first, second = (e.get("points").split() for e in svg.iter() if e.tag.endswith("polyline"))
    (x1, y1), (x2, y2) = (tuple(map(float, p.split(","))) for p in first)
    assert x1 < x2
    assert y1 < y2
    assert len(second) == 1
    assert steps(0, 7.3) == [0, 1, 2, 3, 4, 5, 6, 7]
    assert steps(0, 0.6) == pytest.approx([0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6])


def test_a_page_appears_whole_or_not_at_all(tmp_path, monkeypatch):
    done = compare(landscapes(4, 2, [1]), ["ppo"], runs=1, budget=10)
    (tmp_path / "comparison.html").write_text("old")

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="No space"):
        write_comparison(done, tmp_path)
    monkeypatch.undo()
    assert (tmp_path / "comparison.html").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["comparison.html"]


def test_real_tables():
    """NAS-Bench-Macro, its published best 93.127: local search finds it in most of 20 runs of 400."""
    path = DATA / "nasbenchmacro_cifar10.csv.gz"
    if not path.exists():
        pytest.skip("the table of NAS-Bench-Macro is not here")
    done = compare(
        "nasbenchmacro",
        ["local_search", "random_search"],
        runs=20,
        budget=400,
        table=path,
        search="test_mean",
        report=["test_mean"],
        levels=[1.0],
        seed=0,
    )
    local, random = done.rows
    assert local.regret[400][1] == 0
    assert local.reported["test_mean"][400][0] == pytest.approx(93.12, abs=0.02)
    assert random.regret[400][1] > 0
    assert local.samples_to[1.0][1] < 400
    assert macro_space().size == 6561
