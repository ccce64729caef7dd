"""Complete tables: what is written comes back exactly, and what is no table is refused in one line."""

import json
import os

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import torch as safetensors

from archgrad import Decision, Decisions, UsageError
from archgrad.benchmarks.table import (
    DESCRIPTION,
    KEY,
    Column,
    Meaning,
    Table,
    decimals,
    is_table,
    read_table,
    space_named,
)
from archgrad.spaces.nasbench201 import NasBench201
from archgrad.spaces.nasbenchmacro import macro_space
from archgrad.testing import conditional_space, plain_space

SPACE = plain_space(2, 3)


def column(name="acc", split="test", values=(10.5, 20.25, 30.0, 40.125, 50.5, 60.75), **more):
    return Column(name=name, split=split, values=torch.tensor(values, dtype=torch.float64), **more)


def small():
    return Table(
        "small",
        SPACE,
        (
            column(fidelity=12.0, unit="%", better="higher", seeds=3),
            column("share", "valid", (0.1, 0.2, 0.3, 0.4, 0.5, 1 / 3), unit="fraction", better="higher"),
            column("ms", "cost", (1e-9, 2, 3, 4, 5, 6e200), unit="ms"),
            column("speed", "cost", better="higher"),
            column("error", "test", unit="%"),
        ),
    )


def test_a_loss_is_lower_where_the_architecture_is_better():
    table = small()
    assert table.loss("acc").tolist() == [89.5, 79.75, 70, 59.875, 49.5, 39.25]
    assert table.loss("share")[:2].tolist() == [0.9, 0.8]
    assert torch.equal(table.loss("ms"), table.column("ms").values)
    assert torch.equal(table.loss("speed"), -table.column("speed").values)
    assert torch.equal(table.loss("error"), table.column("error").values)
    assert table.loss("error").dtype == torch.float64
    table.loss("error").zero_()  # a copy
    assert float(table.column("error").values[0]) == 10.5
    with pytest.raises(UsageError, match=r"acc, share, ms, speed, error, got 'sped'; did you mean 'speed'"):
        table.loss("sped")


def test_what_is_written_comes_back(tmp_path):
    table = small()
    table.write(tmp_path / "t")
    again = read_table(tmp_path / "t")
    assert again.name == "small"
    assert again.space.decisions == SPACE.decisions
    assert [c.meaning for c in again.columns] == [c.meaning for c in table.columns]
    for a, b in zip(table.columns, again.columns, strict=True):
        assert torch.equal(a.values, b.values)
    assert [p.name for p in tmp_path.iterdir()] == ["t"]
    first = (tmp_path / "t").read_bytes()
    again.write(tmp_path / "t")
    assert (tmp_path / "t").read_bytes() == first


@given(
    st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=6, max_size=6)
    | st.lists(st.decimals(-100, 100, places=3), min_size=6, max_size=6)
    | st.lists(st.integers(-(10**9), 10**9), min_size=6, max_size=6)
)
def test_every_number_comes_back_exactly(tmp_path_factory, values):
    path = tmp_path_factory.getbasetemp() / "exact"
    values = [float(v) for v in values]
    Table("t", SPACE, (column("x", "cost", values),)).write(path)
    assert read_table(path).column("x").values.tolist() == values


def test_decimals_are_kept_in_half_the_room_where_that_is_enough():
    def digits(*values):
        return decimals(torch.tensor(values, dtype=torch.float64))

    assert digits(1.0, 2**24) == 0
    assert digits(1.0, 2**24 + 1) is None
    assert digits(94.3733, 10.5) == 4
    assert digits(1 / 3) is None
    assert digits(1234.56789) is None  # nine digits are more than float32 has
    assert digits(1e39) is None


def test_a_space_with_a_name_comes_back_as_itself(tmp_path):
    for name, space in (("nasbench201", NasBench201()), ("nasbenchmacro", macro_space())):
        values = torch.arange(space.size, dtype=torch.float64)
        Table("t", space, (Column(name="x", split="cost", values=values),)).write(tmp_path / "t")
        again = read_table(tmp_path / "t").space
        assert type(again) is type(space)
        assert again.decisions == space_named(name)[1].decisions
        assert torch.equal(again.index(again.enumerate()), torch.arange(again.size))
    assert macro_space().size == 6561
    # 6,561 columns of the float's size would need 100 times as much
    assert (tmp_path / "t").stat().st_size < 6561 * 4 + 3000


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Table("t", conditional_space(), (column(),)), ["'depth' with a condition"]),
        (lambda: Table("t", plain_space(*[10] * 7), (column(),)), ["1,000,000", "10,000,000"]),
        (lambda: Table("t", plain_space(*[1] * 1001), (column(),)), ["1,000 decisions", "1,001"]),
        (lambda: Table("t", SPACE, ()), ["at least one column"]),
        (lambda: Table("t", SPACE, (column(), column())), ["'acc' twice"]),
        (lambda: Table("t", plain_space(2, 2), (column(),)), ["'acc'", "each of 4", "got 6"]),
        (lambda: Table("", SPACE, (column(),)), ["a name"]),
        (lambda: column(values=(1.0, float("nan"))), ["'acc' should be finite", "1 are not"]),
        (lambda: Column(name="x", split="test", values=torch.ones(2)), ["float64 [size]", "torch.float32 [2]"]),
        (lambda: column(split="tset"), ["train, valid, test, cost", "tset", "did you mean 'test'"]),
        (lambda: column(better="more"), ["lower, higher", "more"]),
        (lambda: column(fidelity=-1.0), ["above 0", "-1.0"]),
        (lambda: column(fidelity=float("nan")), ["above 0", "nan"]),
        (lambda: column(split="cost", fidelity=12.0), ["a cost", "12.0"]),
        (lambda: column(seeds=0), ["a count", "got 0"]),
        (lambda: column(name=""), ["a name", "''"]),
        (lambda: column(name="__metadata__"), ["a name"]),
        (lambda: column(unit="\x1b[2J"), ["the unit"]),
    ],
)
def test_what_makes_no_table_is_refused(make, words):
    with pytest.raises(UsageError) as refused:
        make()
    assert [w for w in words if w not in str(refused.value)] == []


def test_a_table_is_replaced_as_a_whole(tmp_path):
    small().write(tmp_path / "t")
    content = (tmp_path / "t").read_bytes()
    with open(tmp_path / "t", "rb") as reading:
        Table("other", SPACE, (column(),)).write(tmp_path / "t")
        assert reading.read() == content  # who has it open keeps the old one
    assert read_table(tmp_path / "t").name == "other"


def test_a_place_that_cannot_be_written_to_is_told_and_left_as_it_was(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="a place to write to"):
        small().write(tmp_path / "file" / "t")
    (tmp_path / "folder").mkdir()
    with pytest.raises(UsageError, match="a place to write to"):
        small().write(tmp_path / "folder")
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["file", "folder"]


def test_a_description_that_would_not_be_read_is_not_written(tmp_path):
    space = Decisions([Decision("d", tuple(str(i) for i in range(200_000)))])
    values = torch.zeros(200_000, dtype=torch.float64)
    with pytest.raises(UsageError, match=f"should fit {DESCRIPTION:,} bytes"):
        Table("t", space, (Column(name="x", split="cost", values=values),)).write(tmp_path / "t")
    assert list(tmp_path.iterdir()) == []


# What comes from outside


def refusal(path):
    with pytest.raises(UsageError) as refused:
        read_table(path)
    text = str(refused.value)
    assert "\n" not in text
    assert str(path) in text
    assert len(text) < 500 + len(str(path))
    return text


def test_a_file_that_is_cut_or_longer_is_refused(tmp_path):
    small().write(tmp_path / "t")
    content = (tmp_path / "t").read_bytes()
    for end in range(0, len(content), 7):
        (tmp_path / "t").write_bytes(content[:end])
        refusal(tmp_path / "t")
    (tmp_path / "t").write_bytes(content + b"\0")
    refusal(tmp_path / "t")


def test_changed_bytes_give_a_table_of_the_same_shape_or_a_refusal(tmp_path):
    small().write(tmp_path / "t")
    content = bytearray((tmp_path / "t").read_bytes())
    generator = torch.Generator().manual_seed(0)
    read = 0
    for _ in range(500):
        damaged = bytearray(content)
        for _ in range(1 + int(torch.randint(3, (), generator=generator))):
            at = int(torch.randint(len(content), (), generator=generator))
            damaged[at] = int(torch.randint(256, (), generator=generator))
        (tmp_path / "t").write_bytes(damaged)
        try:
            table = read_table(tmp_path / "t")
        except UsageError:
            continue
        read += 1
        assert all(torch.isfinite(c.values).all() and len(c.values) == table.space.size for c in table.columns)
    assert 0 < read < 500  # numbers and names can change unnoticed, little else


def card():
    columns = [
        {"name": "x", "split": "cost", "fidelity": None, "unit": "", "better": "lower", "seeds": None, "decimals": 0}
    ]
    decisions = [{"name": "d0", "options": ["a", "b"]}, {"name": "d1", "options": ["a", "b", "c"]}]
    return {"format": 1, "name": "t", "decisions": decisions, "columns": columns}


def foreign(path, description, tensors=None):
    text = description if isinstance(description, str) else json.dumps(description)
    path.write_bytes(safetensors.save({"x": torch.ones(6)} if tensors is None else tensors, {KEY: text}))
    return path


def test_the_card_of_the_next_tests_is_read(tmp_path):
    assert read_table(foreign(tmp_path / "t", card())).column("x").values.tolist() == [1.0] * 6


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"format": 2}, ["format should be 1, got 2"]),
        ({"format": True}, ["got True"]),
        ({"format": "1"}, ["got '1'"]),
        ({"name": 3}, ["a name", "got 3"]),
        ({"name": "\x1b[2J"}, ["a name"]),
        ({"name": "\ud800"}, ["a name"]),
        ({"decisions": {}}, ["a list of 1 to 1,000"]),
        ({"decisions": []}, ["a list of 1 to 1,000"]),
        ({"decisions": [{"name": "d", "options": ["a"]}] * 2}, ["'d' twice"]),
        ({"decisions": [{"name": "d", "options": []}]}, ["distinct options"]),
        ({"decisions": [{"name": "d", "options": "ab"}]}, ["name and options should be text"]),
        ({"decisions": [{"name": "d", "options": [1, 2]}]}, ["name and options should be text"]),
        ({"decisions": [{"name": "d", "options": ["a"], "when": [[0, 0]]}]}, ["a condition"]),
        ({"decisions": [{"name": "d", "options": ["a"], "more": 1}]}, ["a name and options"]),
        ({"decisions": [{"name": "d", "options": ["a", "\x1b[2J"]}]}, ["can be printed"]),
        ({"decisions": ["d"]}, ["a name and options", "'d'"]),
        ({"decisions": [{"name": str(d), "options": ["a", "b"]} for d in range(900)]}, ["1,000,000"]),
        ({"decisions": [{"name": str(d), "options": ["a"]} for d in range(2000)]}, ["a list of 1 to 1,000"]),
        ({"decisions": [{"name": "d", "options": ["a", "b"]}]}, ["[2]", "[6]"]),
        ({"columns": {}}, ["a list"]),
        ({"columns": []}, ["0 columns and holds 1"]),
        ({"columns": [3]}, ["described by"]),
        ({"columns": [{"name": "x"}]}, ["described by"]),
    ],
)
def test_a_hostile_description_is_refused(tmp_path, change, words):
    text = refusal(foreign(tmp_path / "t", card() | change))
    assert [w for w in words if w not in text] == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"name": "y"}, ["numbers for column 'y'"]),
        ({"name": ["x"]}, ["described by"]),
        ({"split": []}, ["train, valid"]),
        ({"fidelity": "12"}, ["the epochs"]),
        ({"fidelity": True}, ["the epochs"]),
        ({"split": "test", "fidelity": 10**400}, ["the epochs"]),
        ({"seeds": 1.5}, ["a count"]),
        ({"seeds": 10**4000}, ["a count"]),
        ({"unit": None}, ["the unit"]),
        ({"better": None}, ["lower, higher"]),
        ({"decimals": 400}, ["decimals", "got 400"]),
        ({"decimals": -1}, ["decimals"]),
        ({"decimals": 1.0}, ["decimals"]),
        ({"decimals": None}, ["torch.float64", "torch.float32"]),
        ({"more": 1}, ["described by"]),
    ],
)
def test_a_hostile_column_is_refused(tmp_path, change, words):
    changed = card()
    changed["columns"][0] |= change
    text = refusal(foreign(tmp_path / "t", changed))
    assert [w for w in words if w not in text] == []


@pytest.mark.parametrize(
    ("description", "tensors", "words"),
    [
        ("", None, ["Expecting value"]),
        ("[" * 100_000, None, ["recursion"]),
        ("[]", None, ["format should be 1, got []"]),
        ("{}", None, ["lacks 'format'"]),
        ("NaN", None, ["got nan"]),
        ("9" * 5000, None, ["digits"]),
        (card(), {"x": torch.ones(5)}, ["[6]", "[5]"]),
        (card(), {"x": torch.ones(2, 3)}, ["[6]", "[2, 3]"]),
        (card(), {"x": torch.ones(6).half()}, ["torch.float32", "torch.float16"]),
        (card(), {"x": torch.tensor([1, 2, 3, 4, 5, torch.inf])}, ["finite", "1 are not"]),
        (card(), {"x": torch.ones(6), "y": torch.ones(6)}, ["1 columns and holds 2"]),
        (card(), {"y": torch.ones(6)}, ["numbers for column 'x'"]),
    ],
)
def test_what_does_not_fit_its_description_is_refused(tmp_path, description, tensors, words):
    text = refusal(foreign(tmp_path / "t", description, tensors))
    assert [w for w in words if w not in text] == []


def test_other_files_are_no_tables(tmp_path):
    path = tmp_path / "t"
    assert not is_table(path)
    assert "No such file" in refusal(path)
    assert "Is a directory" in refusal(tmp_path)
    for content in (b"", b"ops,score\n0,1\n", b"\x1f\x8b" + bytes(20), os.urandom(8)[:7], b"\xff" * 8 + b"{"):
        path.write_bytes(content)
        assert not is_table(path)
        assert "it is another file" in refusal(path)
    path.write_bytes(safetensors.save({"weight": torch.ones(2)}))
    assert is_table(path)  # of tensors at least
    assert "lacks 'archgrad.table'" in refusal(path)


def test_a_table_survives_its_file(tmp_path):
    table = Table("t", SPACE, (column("x", "cost", (1 / 3, 2, 3, 4, 5, 6)),))
    table.write(tmp_path / "t")
    read = read_table(tmp_path / "t")
    with open(tmp_path / "t", "r+b") as file:  # in place, as os.replace would not
        file.write(bytes((tmp_path / "t").stat().st_size))
    assert torch.equal(read.column("x").values, table.column("x").values)


def test_a_space_from_json(tmp_path):
    path = tmp_path / "space.json"
    path.write_text(json.dumps({"name": "mine", "decisions": [{"name": "a", "options": ["x", "y"]}]}))
    name, space = space_named(path)
    assert (name, space.decisions) == ("mine", (Decision("a", ("x", "y")),))
    path.write_text(json.dumps({"name": "mine", "decisions": NasBench201().describe()}))  # with empty conditions
    assert isinstance(space_named(path)[1], NasBench201)
    for text, says in (
        ("{", "should be JSON"),
        ("[" * 100_000, "should be JSON"),
        ("[]", '"name"'),
        ('{"name": "a", "decisions": 3}', "decisions should be a list"),
        ('{"name": "a"}', '"decisions"'),
    ):
        path.write_text(text)
        with pytest.raises(UsageError, match=says):
            space_named(path)
    with pytest.raises(UsageError, match="No such file"):
        space_named(tmp_path / "none.json")
    with pytest.raises(UsageError, match=r"did you mean 'nasbench201'\?; or a file SPACE.json"):
        space_named("nasbench210")


def test_a_meaning_is_compared_by_value():
    assert column().meaning == Meaning(name="acc", split="test")
