"""CSV files to complete tables: every way to name an architecture, and every row that is wrong told with its line."""

import gzip
import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from archgrad import Decision, Decisions, UsageError
from archgrad.benchmarks.csv_table import choices, joined, meaning, number, read_csv
from archgrad.benchmarks.table import Meaning
from archgrad.spaces.nasbench201 import NasBench201
from archgrad.testing import conditional_space, plain_space

SPACE = plain_space(2, 3)
ROWS = ["00,1.5", "01,2.5", "02,3.5", "10,4.5", "11,5.5", "12,6.5"]
SCORE = [Meaning(name="score", split="valid", better="higher")]


@pytest.fixture
def read(tmp_path):
    def of(text, space=SPACE, columns=SCORE, architecture=None):
        (tmp_path / "t.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
        return read_csv(tmp_path / "t.csv", "t", space, columns, architecture)

    return of


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a=valid@12", Meaning(name="a", split="valid", fidelity=12.0, unit="%", better="higher")),
        ("a=test", Meaning(name="a", split="test", unit="%", better="higher")),
        ("a=train@0.5:fraction", Meaning(name="a", split="train", fidelity=0.5, unit="fraction", better="higher")),
        ("a=valid@200:nats,seeds=3", Meaning(name="a", split="valid", fidelity=200.0, unit="nats", seeds=3)),
        ("a=test:%,lower", Meaning(name="a", split="test", unit="%")),
        ("params=cost", Meaning(name="params", split="cost")),
        ("a=cost:ms", Meaning(name="a", split="cost", unit="ms")),
        ("std=cost:%", Meaning(name="std", split="cost", unit="%")),
        ("fps=cost:images/s,higher", Meaning(name="fps", split="cost", unit="images/s", better="higher")),
        ("odd name@3:x=cost", Meaning(name="odd name@3:x", split="cost")),
    ],
)
def test_a_column_on_the_command_line(text, expected):
    assert meaning(text) == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a", ["NAME=SPLIT", "'a'"]),
        ("=valid", ["NAME=SPLIT", "'=valid'"]),
        ("a=", ["NAME=SPLIT"]),
        ("a=vaild@12", ["train, valid, test, cost", "did you mean 'valid'"]),
        ("a=valid@", ["NAME=SPLIT"]),
        ("a=valid@twelve", ["the epochs", "'twelve'"]),
        ("a=valid@1_2", ["the epochs", "'1_2'"]),
        ("a=valid@-3", ["above 0", "-3"]),
        ("a=valid@inf", ["the epochs", "'inf'"]),
        ("a=cost@12", ["a cost", "leave them out"]),
        ("a=valid,seed=3", ["'seed=3'"]),
        ("a=valid,seeds=0", ["a count of trainings"]),
        ("a=valid,best", ["'best'", "higher|lower"]),
    ],
)
def test_a_column_that_does_not_parse_is_told(text, words):
    with pytest.raises(UsageError) as refused:
        meaning(text)
    assert [w for w in words if w not in str(refused.value)] == []


def test_rows_come_in_any_order_plain_or_packed(read):
    for rows in (ROWS, ROWS[::-1], [ROWS[i] for i in (3, 1, 5, 0, 2, 4)]):
        text = "\n".join(["ops,score", *rows])
        for content in (text, text + "\n\n", text.replace("\n", "\r\n"), "\ufeff" + text, gzip.compress(text.encode())):
            assert read(content).column("score").values.tolist() == [1.5, 2.5, 3.5, 4.5, 5.5, 6.5]


def test_several_columns_in_the_order_asked_for(read):
    text = "\n".join(["x,ops,y", *(f"{i},{r[:2]},{-i}" for i, r in enumerate(ROWS))])
    table = read(text, columns=[Meaning(name="y", split="cost"), Meaning(name="x", split="cost", seeds=2)])
    assert [c.name for c in table.columns] == ["y", "x"]
    assert table.column("y").values.tolist() == [-i for i in range(6)]
    assert table.column("x").seeds == 2
    assert table.space is SPACE


def test_a_column_a_decision_by_name_or_by_place(read):
    by_name = ["d1,score,d0", *(f"{b},{i},{a}" for i, (a, b) in enumerate(itertools.product("ab", "abc")))]
    by_place = ["d1,score,d0", *(f"{b},{i},{a}" for i, (a, b) in enumerate(itertools.product("01", "012")))]
    for rows in (by_name, by_place):
        assert read("\n".join(rows)).column("score").values.tolist() == [0, 1, 2, 3, 4, 5]


def test_a_number_that_is_an_options_name_is_no_place(read):
    kernels = Decisions([Decision("kernel", ("3", "1", "5"))])
    assert read("kernel,score\n1,10\n3,30\n5,50\n", kernels).column("score").values.tolist() == [30, 10, 50]
    with pytest.raises(UsageError, match=r"line 2: 'kernel' has the options 3, 1, 5, got '0'"):
        read("kernel,score\n0,1\n", kernels)


@pytest.mark.parametrize("options", [("1.0", "0.0"), ("0.5", "1"), ("-1", "0")])
def test_of_options_that_are_numbers_of_any_kind_no_place_is_taken(read, options):
    with pytest.raises(UsageError, match="line 2: 'width' has the options"):
        read(f"width,score\n{'1' if '1' not in options else '2'},1\n", Decisions([Decision("width", options)]))


def test_the_published_form_of_nasbench201(read):
    space = NasBench201()
    architectures = space.decode(space.enumerate())
    rows = [f"{i},{space.text(a)}" for i, a in enumerate(architectures)]
    table = read("\n".join(["score,arch", *rows[::-1]]), space)
    assert torch.equal(table.column("score").values, torch.arange(15625).double())
    with pytest.raises(UsageError, match=r"line 2: edge 0>2 should be OPERATION~0 .* got 'conv~0'"):
        read("score,arch\n1,|none~0|+|conv~0|none~1|+|none~0|none~1|none~2|\n", space)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (["ops,score", *ROWS[:-1]], ["all 6", "1 are missing", "b, c"]),
        (["ops,score"], ["6 are missing", "a, a"]),
        ([""], ["one column 'score'", "none"]),
        (["ops,score", *ROWS, "01,9"], ["line 8", "line 3"]),
        (["ops,score", "00,nan"], ["line 2", "'score'", "'nan'"]),
        (["ops,score", "00,inf"], ["line 2", "'inf'"]),
        (["ops,score", "00,1e999"], ["line 2", "'1e999'"]),
        (["ops,score", "00,1_0"], ["line 2", "'1_0'"]),
        (["ops,score", "00,"], ["line 2", "''"]),
        (["ops,score", "00,1", "1,2"], ["line 3", "2 digits", "'1'", "leading zeros"]),
        (["ops,score", "00,1", "20,2"], ["line 3", "options that exist", "'2'", "'20'"]),
        (["ops,score", "00,1", "0x,2"], ["line 3", "'0x'"]),
        (["ops,score", "00,1", "0²,2"], ["line 3", "'0²'"]),
        (["ops,score", "00,1,2"], ["line 2", "2 values", "got 3"]),
        (["ops,score", "00"], ["line 2", "got 1"]),
        (['ops,score,"a\nb"', "00,1,2", "0,2,3"], ["line 4", "'0'"]),
        (["ops,value", "00,1"], ["'score'", "ops, value"]),
        (["ops,score,score", "00,1,1"], ["one column 'score'", "it has 2"]),
        (["net,score", "00,1"], ["d0, d1", "--architecture"]),
        (["d0,d1,score", "a,z,1"], ["line 2", "'d1'", "a, b, c", "'z'"]),
        (["d0,d1,score", "a,3,1"], ["line 2", "'d1'", "'3'"]),
    ],
)
def test_what_is_wrong_is_told_with_its_line(read, rows, words):
    with pytest.raises(UsageError) as refused:
        read("\n".join(rows))
    text = str(refused.value)
    assert [w for w in words if w not in text] == []
    assert "t.csv" in text


def test_the_architectures_column_can_be_named(read):
    text = "\n".join(["net,ops,score", *(f"{r[:2]},?,{r[3:]}" for r in ROWS)])
    assert read(text, architecture="net").column("score").values[5] == 6.5
    with pytest.raises(UsageError, match="one column 'code', it has 0"):
        read(text, architecture="code")


@pytest.mark.parametrize(
    ("column", "row", "words"),
    [
        ("score=test", "00,101", ["line 2", "0 to 100", "101", "score=test:nats"]),
        ("score=test", "00,-1", ["line 2", "0 to 100"]),
        ("score=test:fraction", "00,1.5", ["0 to 1 (fraction)"]),
        ("score=test:%,lower", "00,101", ["0 to 100"]),
    ],
)
def test_an_accuracy_is_in_its_unit(read, column, row, words):
    rows = [row, *(r[:3] + "0.5" for r in ROWS[1:])]
    with pytest.raises(UsageError) as refused:
        read("\n".join(["ops,score", *rows]), columns=[meaning(column)])
    assert [w for w in words if w not in str(refused.value)] == []


def test_fractions_that_are_called_per_cent_are_noticed_and_costs_are_free(read):
    text = "\n".join(["ops,score", *(r[:3] + "0.9" for r in ROWS)])
    with pytest.raises(UsageError, match="say score=test:fraction"):
        read(text, columns=[meaning("score=test")])
    for fine in ("score=test:fraction", "score=cost:%", "score=test:%,lower", "score=test:nats"):
        assert read(text, columns=[meaning(fine)]).column("score").values[0] == 0.9


def test_files_that_cannot_be_read_are_told(read, tmp_path):
    packed = gzip.compress("\n".join(["ops,score", *ROWS]).encode())
    for content in (packed[:-9], packed[:12], b"\x1f\x8b" + bytes(30), b"ops,score\n\xff\xfe,1\n", b"\x1f\x8b"):
        with pytest.raises(UsageError, match="plain or gzip"):
            read(content)
    with pytest.raises(UsageError, match="No such file"):
        read_csv(tmp_path / "none", "t", SPACE, SCORE)
    with pytest.raises(UsageError, match="Is a directory"):
        read_csv(tmp_path, "t", SPACE, SCORE)
    with pytest.raises(UsageError, match="field larger"):
        read(f"ops,score\n{'0' * 200_000},1\n")
    with pytest.raises(UsageError, match="'depth' with a condition"):
        read("ops,score\n", conditional_space())
    with pytest.raises(UsageError, match="at least one column"):
        read("ops,score\n", columns=[])


def test_many_options_need_a_column_a_decision(read):
    space = Decisions([Decision("n", tuple("abcdefghijk"))])
    with pytest.raises(UsageError, match="a column for each decision"):
        read("ops,score\n0,1\n", space)
    assert read("\n".join(["n,score", *(f"{i},{i}" for i in range(11))]), space).column("score").values[10] == 10


@given(st.lists(st.integers(1, 4), min_size=1, max_size=5))
def test_places_are_the_spaces_own(sizes):
    space = plain_space(*sizes)
    h = space.enumerate()
    assert [joined(space, row) for row in h.argmax(-1).tolist()] == list(range(space.size))
    assert [choices(space, i) for i in range(space.size)] == space.decode(h)


def test_a_number_is_finite_and_plain():
    assert [number(t) for t in ("1", " 2.5 ", "-3e2")] == [1.0, 2.5, -300.0]
    assert [number(t) for t in ("", "x", "nan", "inf", "1_0", "0x1")] == [None] * 6
