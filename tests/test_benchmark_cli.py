"""archgrad benchmark: import and show, end to end, and what is wrong said in one line with nothing written."""

import csv
import gzip
import json
import re
import signal
from pathlib import Path

import pytest
from safetensors import safe_open

from archgrad import UsageError, cli
from archgrad.api import import_table
from archgrad.benchmarks import read_table
from archgrad.benchmarks.csv_table import meaning

DATA = Path(__file__).parents[2] / "shared" / "data"
SPACE = {"name": "mine", "decisions": [{"name": "kernel", "options": ["3", "5"]}, {"name": "act", "options": ["relu"]}]}
CSV = "kernel,act,acc,ms\n5,relu,91.5,2\n3,relu,90.25,1\n"


@pytest.fixture
def run(capsys, monkeypatch, tmp_path):
    """A command line in this process, in a folder with a table and the space it is of."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "t.csv").write_text(CSV)
    (tmp_path / "space.json").write_text(json.dumps(SPACE))
    before = signal.getsignal(signal.SIGTERM)

    def command(*arguments):
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            cli.main(["benchmark", *arguments])
        printed = capsys.readouterr()
        return end.value.code, printed.out, printed.err

    yield command
    signal.signal(signal.SIGTERM, before)


def imported(run, *more):
    line = "import t.csv --space space.json --columns acc=valid@12,seeds=3 ms=cost:ms --out t.table"
    return run(*line.split(), *more)


def test_import_and_show_tell_the_same(run, tmp_path):
    code, out, err = imported(run, "--json")
    assert (code, err) == (0, "")
    told = json.loads(out)
    assert out.count("\n") == 1
    assert told["table"] == "t.table"
    assert (told["name"], told["architectures"], told["decisions"]) == ("mine", 2, SPACE["decisions"])
    acc, ms = told["columns"]
    assert acc == {
        "name": "acc",
        "split": "valid",
        "fidelity": 12.0,
        "unit": "%",
        "better": "higher",
        "seeds": 3,
        "min": 90.25,
        "max": 91.5,
        "mean": 90.875,
        "best": {"value": 91.5, "architecture": ["5", "relu"], "ties": 1},
    }
    assert ms["best"] == {"value": 1.0, "architecture": ["3", "relu"], "ties": 1}
    assert json.loads(run("show", "t.table", "--json")[1]) == told
    assert read_table("t.table").loss("acc").tolist() == [9.75, 8.5]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["space.json", "t.csv", "t.table"]


def test_it_is_said_in_words(run):
    for out in (imported(run)[1], run("show", "t.table")[1]):
        assert "mine: 2 architectures of 2 decisions" in out
        (line,) = [x for x in out.splitlines() if " acc " in x]
        assert [w for w in ("valid", "12", "%", "higher", "3", "90.25", "91.5", "5, relu") if w not in line] == []


def test_a_table_may_be_made_again_and_other_files_are_left_alone(run, tmp_path):
    assert imported(run)[0] == 0
    first = Path("t.table").read_bytes()
    assert imported(run)[0] == 0
    assert Path("t.table").read_bytes() == first
    for other in ("t.csv", "space.json", "."):
        code, _, err = run(*f"import t.csv --space space.json --columns acc=valid --out {other}".split())
        assert code == 2
        assert "something else" in err
    assert Path("t.csv").read_text() == CSV


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("", ["action"]),
        ("import", ["file"]),
        ("imprt t.csv", ["import, show", "did you mean 'import'"]),
        ("import t.csv", ["--space", "archgrad benchmark import FILE"]),
        ("import t.csv --space space.json --out t", ["--columns"]),
        ("import t.csv --space space.json --columns acc=valid", ["--out"]),
        ("import t.csv --space nasbench210 --columns acc=valid --out t", ["did you mean 'nasbench201'"]),
        ("import t.csv --space none.json --columns acc=valid --out t", ["none.json", "No such file"]),
        ("import none.csv --space space.json --columns acc=valid --out t", ["none.csv", "No such file"]),
        ("import t.csv --space space.json --columns acc=vaild --out t", ["did you mean 'valid'"]),
        ("import t.csv --space space.json --columns acc=valid acc=test --out t", ["'acc' twice"]),
        ("import t.csv --space space.json --columns top=valid --out t", ["'top'", "kernel, act, acc, ms"]),
        ("import t.csv --space nasbench201 --columns acc=valid --out t", ["0>1", "--architecture"]),
        ("import t.csv --space space.json --columns acc=valid --out none/t", ["none/t", "No such file"]),
        ("import t.csv --space space.json --columns acc=valid --out t --archtecture a", ["mean --architecture"]),
        ("import t.csv --space space.json --columns acc=valid --out t --architecture act", ["line 2", "2 digits"]),
        ("show none", ["none", "No such file"]),
        ("show t.csv", ["another file"]),
        ("show t.csv --out t", ["--out"]),
        ("show t.csv --columns acc=valid", ["--columns"]),
    ],
)
def test_what_is_wrong_is_said_in_one_line(run, tmp_path, arguments, words):
    before = sorted(tmp_path.rglob("*"))
    code, out, err = run(*arguments.split())
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("archgrad: ")
    assert [w for w in words if w not in err] == []
    assert sorted(tmp_path.rglob("*")) == before


def test_a_table_of_ones_own_is_no_table_for_the_laboratory(run):
    assert imported(run)[0] == 0
    from archgrad.api import gradients

    with pytest.raises(UsageError, match="a table of nasbench201, it is one of 'mine'"):
        gradients("nasbench201", table="t.table", column="acc")


REAL = {
    "nasbench201": (
        "nasbench201_cifar10.csv.gz",
        "cifar10_val_12=valid@12 cifar10_test_12=test@12 cifar10_val_200=valid@200 cifar10_test_200=test@200 "
        "cifar10_val_200_oneseed=valid@200,seeds=1 params_cifar10=cost mflops_cifar10=cost:MFLOPs "
        "cifar10_edgegpu_latency=cost:ms cifar10_raspi4_latency=cost:ms cifar10_eyeriss_latency=cost:ms "
        "cifar10_edgegpu_energy=cost:mJ cifar10_eyeriss_energy=cost:mJ",
        {"cifar10_test_200": 94.3733, "cifar10_val_200": 91.6067, "cifar10_val_12": 84.892},
    ),
    "nasbenchmacro": (
        "nasbenchmacro_cifar10.csv.gz",
        "test_mean=test@50,seeds=3 test_s0=test@50,seeds=1 params=cost flops=cost",
        {"test_mean": 93.1267},
    ),
}


@pytest.mark.parametrize("space", REAL)
def test_the_real_tables_come_through_digit_by_digit(space, tmp_path):
    name, columns, best = REAL[space]
    if not (DATA / name).exists():
        pytest.skip(f"needs the table {name} in the folder shared/data beside the repository")
    import_table(DATA / name, space, columns.split(), tmp_path / "t")
    table = read_table(tmp_path / "t")
    with gzip.open(DATA / name, "rt") as file:
        rows = {row["ops"]: row for row in csv.DictReader(file)}
    order = ["".join(map(str, row)) for row in table.space.enumerate().argmax(-1).tolist()]
    assert len(rows) == table.space.size
    for column in table.columns:
        assert column.values.tolist() == [float(rows[ops][column.name]) for ops in order]
    for column, value in best.items():
        assert float(table.loss(column).min()) == pytest.approx(100 - value, abs=1e-9)
    assert (tmp_path / "t").stat().st_size < 1_000_000


PAGE = (Path(__file__).parents[1] / "docs" / "benchmarks.md").read_text()


def test_the_columns_of_the_page_parse():
    found = re.findall(r"`([\w]+=[^` ]+)`", PAGE)
    assert len(found) >= 8
    for text in found:
        if not text.startswith("NAME="):
            assert meaning(text).name == text.split("=")[0]


@pytest.mark.parametrize("space", REAL)
def test_the_commands_of_the_page_import_the_real_tables(space, run, tmp_path):
    name = REAL[space][0]
    if not (DATA / name).exists():
        pytest.skip(f"needs the table {name} in the folder shared/data beside the repository")
    text = PAGE.replace("\\\n", " ")
    (line,) = re.findall(rf"^archgrad benchmark (import {name} .*)$", text, re.MULTILINE)
    (tmp_path / name).symlink_to(DATA / name)
    code, out, err = run(*line.split(), "--json")
    assert (code, err) == (0, "")
    told = json.loads(out)
    assert told["table"] == f"{space}.table"
    assert len(told["columns"]) == line.count("=") - line.count(",seeds=")


def test_the_file_that_the_page_describes_is_the_one_written(run):
    assert imported(run)[0] == 0
    with safe_open("t.table", "pt") as file:
        (key, text), *others = file.metadata().items()
        assert list(file.keys()) == ["acc", "ms"]
    card = json.loads(text)
    assert (key, others, list(card)) == ("archgrad.table", [], ["format", "name", "decisions", "columns"])
    for field in (*card, *card["columns"][0]):
        assert f"`{field}`" in PAGE
