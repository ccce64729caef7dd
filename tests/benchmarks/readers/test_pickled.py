"""Pickles read without unpickling, and NATS-Bench on a miniature; its real files have never been read."""

import bz2
import collections
import contextlib
import os
import pickle
import random
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from archgrad import UsageError
from archgrad.benchmarks.readers import Training, read_nats, read_pickle

TEXT = "|nor_conv_3x3~0|+|none~0|none~1|+|none~0|none~1|skip_connect~2|"

atoms = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=9) | st.binary(max_size=9)
)
values = st.recursive(
    atoms,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(max_size=3) | st.integers() | st.tuples(st.text(max_size=3), st.integers()), inner)
        | st.lists(inner, max_size=5).map(tuple)
        | st.sets(st.integers(), max_size=3)
    ),
    max_leaves=12,
)


def read(path, content):
    path.write_bytes(content)
    return read_pickle(path)


def refusal(path, content):
    with pytest.raises(UsageError) as refused:
        read(path, content)
    assert "\n" not in str(refused.value)
    return str(refused.value)


@given(values, st.sampled_from([4, 5]))
def test_plain_values_come_back(tmp_path_factory, value, protocol):
    path = tmp_path_factory.getbasetemp() / "plain"
    assert read(path, pickle.dumps(value, protocol)) == value


def test_older_protocols_are_refused_and_so_is_no_plain_value_read_as_another(tmp_path):
    for protocol in (0, 1, 2, 3):
        assert "is not followed" in refusal(tmp_path / "t", pickle.dumps({"a": ["b"]}, protocol))


def test_packed_files_ordered_dicts_and_numpy_numbers(tmp_path):
    value = collections.OrderedDict(
        a=np.float64(0.1), b=np.float32(0.5), c=np.int64(-7), d=np.bool_(True), e=np.uint8(255)
    )
    plain = {"a": 0.1, "b": 0.5, "c": -7, "d": True, "e": 255}
    for protocol in (4, 5):
        content = pickle.dumps(value, protocol)
        for packed in (content, bz2.compress(content)):
            found = read(tmp_path / "t", packed)
            assert found == plain
            assert [type(v) for v in found.values()] == [float, float, int, bool, int]
    content = pickle.dumps(np.float64(2.5), 4)
    assert content.count(b"\x8c\x01<") == 1
    turned = content.replace(b"\x8c\x01<", b"\x8c\x01>")
    assert read(tmp_path / "t", turned) == struct.unpack(">d", struct.pack("<d", 2.5))[0]
    older = content.replace(b"\x8c\x16numpy._core.multiarray", b"\x8c\x15numpy.core.multiarray")
    assert older == content or read(tmp_path / "t", b"\x80\x04" + older[11:]) == 2.5  # without its frame, now shorter


def test_shared_values_stay_shared(tmp_path):
    inner = [1]
    found = read(tmp_path / "t", pickle.dumps([inner, inner]))
    assert found[0] is found[1]
    itself = []
    itself.append(itself)
    found = read(tmp_path / "t", pickle.dumps(itself))
    assert found[0] is found


DTYPE = b"\x80\x04\x8c\x05numpy\x8c\x05dtype\x93"
"""The beginning of a pickle that asks for numpy.dtype, which is known."""


class Calls:
    """Pickles as a call of ``function``."""

    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


def test_nothing_is_called(tmp_path, monkeypatch):
    trap = tmp_path / "trap"
    for function, arguments in (
        (os.mkdir, (str(trap),)),
        (os.system, (f"touch {trap}",)),
        (eval, (f"open({str(trap)!r}, 'w')",)),
        (exec, ("1",)),
        (getattr, ({}, "clear")),
        (np.load, (str(trap),)),
        (bytearray, (b"a",)),
        (complex, (1.0, 2.0)),
        (collections.OrderedDict, ([("a", 1)],)),
    ):
        for protocol in (0, 2, 4, 5):
            text = refusal(tmp_path / "t", pickle.dumps([Calls(function, *arguments)], protocol))
            assert "is not followed" in text or ("nothing is" in text and protocol >= 4)
    assert not trap.exists()


@pytest.mark.parametrize(
    "value",
    [
        np.zeros(2),
        np.dtype("f8"),
        np.dtype([("a", "f8")]),
        collections.OrderedDict,
        frozenset([1]),
        {frozenset([1]): 2},
        range(3),
    ],
)
def test_what_is_no_plain_value_is_refused(tmp_path, value):
    refusal(tmp_path / "t", pickle.dumps([value], 4))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "whole pickle"),
        (b"no pickle", "pickle"),
        (b"\x80\x04.", "one value should be left at its end, got 0"),
        (b"\x80\x04NN.", "got 2"),
        (b"\x80\x04Na.", "pickle"),
        (b"\x80\x04N", "pickle"),
        (b"\x80\x04h\x05.", "pickle"),  # a memo that is not there
        (b"\x80\x04u.", "pickle"),  # items without a mark
        (b"\x80\x04N\x87.", "more values"),  # a tuple of three of one
        (b"\x80\x04NN(\x86\x86t.", "more values"),  # a mark above what is left
        (b"\x80\x04}(Nu.", "pickle"),  # a key without a value
        (b"\x80\x04]N]s.", "a dict was expected"),
        (b"\x80\x04}]Ns.", "a key"),
        (b"\x80\x04\x8f(]\x90.", "a key"),
        (b"\x80\x04}(Ne.", "a list was expected"),
        (b"\x80\x04P1\n.", "opcode PERSID"),
        (b"\x80\x04K\x01Q.", "opcode BINPERSID"),
        (b"\x80\x04\x82\x01.", "opcode EXT1"),
        (b"\x80\x04cos\nsystem\n.", "opcode GLOBAL"),
        (b"\x80\x04\x8c\x02os\x8c\x06system\x93.", "'os system'"),
        (b"\x80\x04N)\x81.", "opcode NEWOBJ"),
        (b"\x80\x04]]\x93.", "a str was expected"),
        (b"\x80\x04N)R.", "a Global was expected"),
        (DTYPE + b".", "a name where a value"),
        (DTYPE + b"](\x8c\x01ae.", "got 2"),
        (b"\x80\x04](\x8c\x05numpy\x8c\x05dtype\x93e.", "a name where a value"),
        (b"\x80\x04}K\x01\x8c\x05numpy\x8c\x05dtype\x93s.", "a name where a value"),
        (DTYPE + b"]\x85R.", "calls numpy dtype"),
        (DTYPE + b"\x8c\x03O64\x85R.", "calls numpy dtype"),
        (DTYPE + b"\x8c\x02f8\x85R.", "a name where a value"),
        (DTYPE + b"\x8c\x02f8\x85RNb.", "a tuple was expected"),
        (DTYPE + b"NR.", "a tuple was expected"),
        (b"\x80\x04\x8e" + b"\xff" * 8 + b".", "pickle"),
        (b"\x80\x04\x8e" + (2**62).to_bytes(8, "little") + b".", "pickle"),
        (b"BZh9", "pickle"),
    ],
)
def test_hostile_and_broken_pickles_are_refused(tmp_path, content, says):
    with pytest.raises(UsageError, match=says):
        read(tmp_path / "t", content)


def test_nesting_does_not_end_python(tmp_path):
    deep = 200_000
    found = read(tmp_path / "t", b"\x80\x04" + b"]" * deep + b"a" * (deep - 1) + b".")
    assert type(found) is list
    tuples = b"\x80\x04}" + b")" + b"\x85" * deep + b"Ns."
    assert "a key" in refusal(tmp_path / "t", tuples)  # whose hash would overflow the stack
    assert "calls numpy dtype" in refusal(tmp_path / "t", DTYPE + b")" + b"\x85" * deep + b"R.")
    twice = b"".join(b"\x94](h" + bytes([i]) + b"h" + bytes([i]) + b"e" for i in range(90))
    assert "a Global was" in refusal(tmp_path / "t", b"\x80\x04]" + twice + b")R.")  # printed: 2 ** 90 brackets


def test_damage_gives_values_or_a_refusal(tmp_path):
    content = pickle.dumps(nats()["12"], 4)
    dice = random.Random(0)
    for _ in range(500):
        damaged = bytearray(content)
        for _ in range(dice.randint(1, 3)):
            damaged[dice.randrange(len(damaged))] = dice.randrange(256)
        if dice.random() < 0.3:
            del damaged[dice.randrange(len(damaged)) :]
        with contextlib.suppress(UsageError):
            read(tmp_path / "t", bytes(damaged))


def nats(index=7):
    """What the published code saves of one architecture: two epochs, two data sets, two seeds of the second."""

    def result(name, seed, evaluations):
        return {
            "name": name,
            "net_state_dict": None,
            "train_acc1es": {0: 40.0 + seed, 1: 50.5 + seed},
            "train_losses": {0: 2.0, 1: 1.0},
            "train_times": collections.OrderedDict([(0, 1.5), (1, 1.5)]),
            "arch_config": {"channel": 16, "num_cells": 5, "arch_str": TEXT, "class_num": 10},
            "params": 0.129306,
            "flop": 15.64737,
            "seed": seed,
            "epochs": 2,
            "latency": [0.014],
            "eval_names": evaluations,
            "eval_acc1es": {f"{n}@{e}": np.float64(30 + e + len(n)) for n in evaluations for e in (0, 1)},
            "eval_times": {},
            "eval_losses": {},
        }

    results = {
        ("cifar10-valid", 777): result("cifar10-valid", 777, ["x-valid", "ori-test"]),
        ("cifar100", 777): result("cifar100", 777, ["ori-test"]),
        ("cifar100", 888): result("cifar100", 888, ["ori-test"]),
    }
    seeds = {"cifar10-valid": [777], "cifar100": [777, 888]}
    state = {
        "arch_index": index,
        "arch_str": TEXT,
        "all_results": results,
        "dataset_seed": seeds,
        "clear_net_done": True,
    }
    return collections.OrderedDict([("12", state)])


def test_the_trainings_of_nats_bench(tmp_path):
    folder = tmp_path / "simple"
    folder.mkdir()
    for i in (9, 7):
        (folder / f"{i:06d}.pickle.pbz2").write_bytes(bz2.compress(pickle.dumps(nats(i), 4)))
    (folder / "meta.pickle.pbz2").write_bytes(bz2.compress(pickle.dumps({"meta_archs": [TEXT]}, 4)))
    rows = list(read_nats(folder))
    assert [(r.index, r.dataset, r.seed) for r in rows] == [
        (i, d, s) for i in (7, 9) for d, s in (("cifar10-valid", 777), ("cifar100", 777), ("cifar100", 888))
    ]
    assert rows[0] == Training(
        index=7,
        architecture=TEXT,
        recipe="12",
        dataset="cifar10-valid",
        seed=777,
        epochs=2,
        parameters=0.129306,
        flops=15.64737,
        accuracies={"train": 827.5, "x-valid": 38.0, "ori-test": 39.0},
    )
    whole = {"meta_archs": [TEXT], "arch2infos": {7: nats(7), 9: nats(9)}, "evaluated_indexes": {7, 9}}
    (tmp_path / "all.pickle.pbz2").write_bytes(bz2.compress(pickle.dumps(whole, 4)))
    assert list(read_nats(tmp_path / "all.pickle.pbz2")) == rows


@pytest.mark.parametrize("value", [3, [], {"a": 3}, {"12": {}}, {"12": {"all_results": {"a": 3}}}, {"arch2infos": 3}])
def test_another_pickle_is_told_by_its_file(tmp_path, value):
    (tmp_path / "t").write_bytes(pickle.dumps(value))
    with pytest.raises(UsageError, match="/t should be a file of NATS-Bench"):
        list(read_nats(tmp_path / "t"))


def test_no_files_are_told(tmp_path):
    with pytest.raises(UsageError, match="it has none"):
        list(read_nats(tmp_path))
    with pytest.raises(UsageError, match="No such file"):
        list(read_nats(tmp_path / "none"))
