"""NAS-Bench-201 from a table: reading it, refusing what is none, and the fit where the real table is there."""

import gzip
import itertools
from pathlib import Path

import pytest
import torch

from archgrad import UsageError
from archgrad.api import import_table
from archgrad.benchmarks import Column, Table
from archgrad.benchmarks.nasbench201 import cell_space, goodness, nasbench201
from archgrad.testing import plain_space

TABLE = Path(__file__).parents[3] / "shared" / "data" / "nasbench201_cifar10.csv.gz"


def lines(value=lambda digits: sum(digits)):
    rows = ["index,ops,score"]
    for i, digits in enumerate(itertools.product(range(5), repeat=6)):
        rows.append(f"{i},{''.join(map(str, digits))},{value(digits)}")
    return rows


def test_a_table_in_any_order_is_read_in_the_order_of_the_space(tmp_path):
    head, *rows = lines()
    (tmp_path / "t.csv").write_text("\n".join([head, *reversed(rows)]))
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress((tmp_path / "t.csv").read_bytes()))
    h = cell_space().enumerate().double()
    for name in ("t.csv", "t.csv.gz"):
        assert torch.equal(goodness(tmp_path / name, "score"), (h * torch.arange(5).double()).sum((-2, -1)))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("\n".join(lines()[:-1]), "1 are missing, the first is avg_pool_3x3, avg"),
        ("\n".join(lines(lambda digits: "nan")), "line 2: a finite number was expected in 'score', got 'nan'"),
        ("a,score\n1,2\n", "column 'ops'"),
        ("ops,other\n000000,1\n", "column 'score'"),
        ("ops,score\n00000,1\n", "line 2: 6 digits"),
        ("ops,score\n000009,1\n", "line 2: digits of options that exist"),
        ("ops,score\n000000,high\n", "line 2: a finite number"),
    ],
)
def test_what_is_no_table_is_refused_in_one_line(tmp_path, text, says):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(UsageError, match=says) as refused:
        goodness(tmp_path / "t.csv", "score")
    assert "\n" not in str(refused.value)


def test_a_table_gives_the_same_problem_as_its_csv_file(tmp_path):
    (tmp_path / "t.csv").write_text("\n".join(lines(lambda digits: sum(d * d for d in digits) / 4)))
    meanings = ["score=valid@12", "score=cost", "score=test:nats,higher"]
    h = cell_space().enumerate().double()[::100]
    expected = nasbench201(tmp_path / "t.csv", "score", steps=5).f(h)
    for meaning in meanings:
        import_table(tmp_path / "t.csv", "nasbench201", [meaning], tmp_path / "t")
        sign = -1 if "cost" in meaning else 1
        assert torch.equal(goodness(tmp_path / "t", "score"), sign * goodness(tmp_path / "t.csv", "score"))
        if sign == 1:
            assert torch.equal(nasbench201(tmp_path / "t", "score", steps=5).f(h), expected)
    with pytest.raises(UsageError, match="should be one of score, got 'scroe'"):
        goodness(tmp_path / "t", "scroe")
    Table("mine", plain_space(2), (Column(name="score", split="cost", values=torch.ones(2).double()),)).write(
        tmp_path / "other"
    )
    with pytest.raises(UsageError, match="it is one of 'mine'"):
        goodness(tmp_path / "other", "score")


def test_the_fit_explains_the_real_table():
    if not TABLE.exists():
        pytest.skip(f"needs the table {TABLE.name} in the folder shared/data beside the repository")
    problem = nasbench201(TABLE)
    truth = goodness(TABLE, "cifar10_val_12")
    values = problem.f(problem.space.enumerate().double())
    r2 = float(torch.corrcoef(torch.stack([values, -truth]))[0, 1] ** 2)
    assert r2 >= 0.985
    assert float(values.mean()) == pytest.approx(0, abs=1e-9)
    assert float(values.std(correction=0)) == pytest.approx(1)
    h = problem.space.enumerate().double()[:100]
    first, again = (nasbench201(TABLE, steps=20).f(h) for _ in range(2))
    assert torch.equal(first, again)
