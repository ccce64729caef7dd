"""NAS-Bench-201 from a table: reading it, refusing what is none, and the fit where the real table is there."""

import gzip
import itertools
from pathlib import Path

import pytest
import torch

from archgrad import UsageError
from archgrad.benchmarks.nasbench201 import cell_space, nasbench201, read_table

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
        assert torch.equal(read_table(tmp_path / name, "score"), (h * torch.arange(5).double()).sum((-2, -1)))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("\n".join(lines()[:-1]), "1 are missing"),
        ("\n".join(lines(lambda digits: "nan")), "15625 are missing"),
        ("a,b\n1,2\n", "column 'ops'"),
        ("ops,other\n000000,1\n", "column 'score'"),
        ("ops,score\n00000,1\n", "line 2: six digits"),
        ("ops,score\n000009,1\n", "line 2: six digits"),
        ("ops,score\n000000,high\n", "line 2: six digits"),
    ],
)
def test_what_is_no_table_is_refused_in_one_line(tmp_path, text, says):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(UsageError, match=says) as refused:
        read_table(tmp_path / "t.csv", "score")
    assert "\n" not in str(refused.value)


def test_the_fit_explains_the_real_table():
    if not TABLE.exists():
        pytest.skip(f"needs the table {TABLE.name} in the folder shared/data beside the repository")
    problem = nasbench201(TABLE)
    truth = read_table(TABLE, "cifar10_val_12")
    values = problem.f(problem.space.enumerate().double())
    r2 = float(torch.corrcoef(torch.stack([values, -truth]))[0, 1] ** 2)
    assert r2 >= 0.985
    assert float(values.mean()) == pytest.approx(0, abs=1e-9)
    assert float(values.std(correction=0)) == pytest.approx(1)
    h = problem.space.enumerate().double()[:100]
    first, again = (nasbench201(TABLE, steps=20).f(h) for _ in range(2))
    assert torch.equal(first, again)
