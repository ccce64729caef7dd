"""Work in blocks: interrupted anywhere it ends as if it had not been; nothing foreign or damaged is taken."""

import numpy as np
import pytest

from archgrad import UsageError
from archgrad.benchmarks.blocks import in_blocks, joined, read_block, write_block


class Killed(BaseException):
    pass


def maker(die_at=None, made=None):
    """Block i depends on what was before it, as children of the best so far do."""

    def make(i, past):
        if i == die_at:
            raise Killed
        if made is not None:
            made.append(i)
        last = past["value"].sum() if past else 1.0
        return {"value": np.array([last / 3, last / 7]), "i": np.full(2, i, np.uint8)}

    return make


def test_resumed_anywhere_it_is_the_uninterrupted_run(tmp_path):
    whole = joined(list(in_blocks(4, maker(), tmp_path / "whole", "s")))
    for dies in range(4):
        folder = tmp_path / f"{dies}"
        with pytest.raises(Killed):
            list(in_blocks(4, maker(dies), folder, "s"))
        assert sorted(p.name for p in folder.iterdir()) == [f"{i:04d}.npz" for i in range(dies)]
        made = []
        rows = joined(list(in_blocks(4, maker(made=made), folder, "s")))
        assert made == list(range(dies, 4)), "what was done is not done again"
        assert rows.keys() == whole.keys()
        for name in whole:
            assert rows[name].dtype == whole[name].dtype
            assert np.array_equal(rows[name], whole[name])


def test_a_block_is_made_from_all_before_it(tmp_path):
    """1/3 and 1/7 first; a third and a seventh of the sum of all before, then."""
    rows = joined(list(in_blocks(3, maker(), tmp_path, "s")))
    sums = rows["value"].reshape(3, 2).sum(1)
    assert np.allclose(sums, [10 / 21, (10 / 21) ** 2, 10 / 21 * (10 / 21 + (10 / 21) ** 2)])


def test_a_block_appears_whole_or_not_at_all(tmp_path, monkeypatch):
    def torn(file, **arrays):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez_compressed", torn)
    with pytest.raises(UsageError, match="No space left on device"):
        write_block(tmp_path / "0000.npz", {"a": np.zeros(2)}, "s")
    assert list(tmp_path.iterdir()) == []


def test_other_settings_and_damaged_blocks_are_refused(tmp_path):
    list(in_blocks(2, maker(), tmp_path, "lr 1"))
    with pytest.raises(UsageError, match="settings lr 2, got lr 1"):
        list(in_blocks(2, maker(), tmp_path, "lr 2"))
    path = tmp_path / "0001.npz"
    content = path.read_bytes()
    for damaged in (b"", b"PK", content[:40], content[:-30], b"\x93NUMPY" + content):
        path.write_bytes(damaged)
        with pytest.raises(UsageError, match="delete it"):
            read_block(path, "lr 1")
    np.savez(path, value=np.array([{}], dtype=object), settings=np.array("lr 1"))
    with pytest.raises(UsageError, match="delete it"):
        read_block(path, "lr 1")
    path.write_bytes(content)
    assert set(read_block(path, "lr 1")) == {"value", "i"}


def test_no_blocks_have_no_columns():
    assert joined([]) == {}
