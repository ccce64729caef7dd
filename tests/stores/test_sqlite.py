from __future__ import annotations

import contextlib
import json
import math
import multiprocessing
import os
import random
import sqlite3
import tempfile
import time
from collections import deque
from pathlib import Path

import pytest
import torch
import writers
from writers import step, trial

from archgrad.errors import UsageError
from archgrad.records import Job, Step, Trial
from archgrad.stores import SQLite
from archgrad.stores.sqlite import APPLICATION, VERSION

CONTEXT = multiprocessing.get_context("forkserver")  # torch is imported once, not by each child
CONTEXT.set_forkserver_preload(["archgrad.stores"])


@pytest.fixture
def path(tmp_path):
    return tmp_path / "a run #1 %20?.db"  # what a URI would trip over


@pytest.fixture
def store(path):
    with SQLite(path, create=True) as store:
        yield store


@contextlib.contextmanager
def child(target, path):
    """A process that runs ``target(path, pipe)``, and our end of the pipe."""
    ours, theirs = CONTEXT.Pipe()
    process = CONTEXT.Process(target=target, args=(path, theirs))
    process.start()
    theirs.close()
    try:
        yield process, ours
    finally:
        process.kill()
        process.join()
        process.close()
        ours.close()


def test_everything_comes_back(path, store):
    trials = [
        Trial(Job(0, "default", ("skip", 'a "quoted" ü'), 7, 0.5), {"valid_loss": 0.1 + 0.2, "params": 12}, 1.25),
        Trial(Job(2, "final", (), 2**40, 10.0, "weights/2"), {}, 0.0, "ValueError: no\tluck"),
    ]
    for one in reversed(trials):
        store.add(one)
    state = {"alpha": torch.randn(2, 3), "t": 4, "betas": (0.9, math.inf)}
    store.add_step(step(3), {"t": 3})
    store.add_step(step(4), state)
    store.set_meta("settings", {"space": ["a", 1, None], "limit": 2.5})
    store.set_meta("settings", {"space": ["b"]})
    for view in [store, SQLite(path, create=False, read_only=True)]:
        assert view.trials() == trials
        assert view.steps() == [step(3), step(4)]
        kept = view.checkpoint()
        assert kept.pop("alpha").equal(state["alpha"])
        assert kept == {"t": 4, "betas": (0.9, math.inf)}
        assert view.meta("settings") == {"space": ["b"]}
        assert view.meta("none") is None
    store.close()
    store.close()
    with SQLite(path, create=False, durable=True) as again:
        assert again.trials() == trials
        again.add(trial(5))
        assert len(again.trials()) == 3


def test_an_empty_run(store):
    assert (store.trials(), store.steps(), store.checkpoint()) == ([], [], None)


def test_an_index_already_kept_is_ignored(store):
    store.add(trial(1))
    store.add(Trial(trial(1).job, {"valid_loss": 9.0}, 9.0))
    assert store.trials() == [trial(1)]


def test_nan_and_infinity_are_kept_as_strict_json(path, store):
    store.add(Trial(trial(0).job, {"a": math.nan, "b": -math.inf, "c": 1.0}, 0.0))
    store.add_step(Step(0, [[math.inf, 0.5]], {"ratio": math.nan}), {})
    (kept,) = store.trials()
    assert math.isnan(kept.metrics["a"])
    assert (kept.metrics["b"], kept.metrics["c"]) == (-math.inf, 1.0)
    assert store.steps()[0].marginals == [[math.inf, 0.5]]
    assert math.isnan(store.steps()[0].diagnostics["ratio"])
    db = sqlite3.connect(path)
    (text,) = db.execute("SELECT metrics FROM trials").fetchone()
    db.close()
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


@pytest.mark.parametrize("value", [math.nan, {"a": object()}, {1, 2}], ids=str)
def test_meta_is_json_only(store, value):
    with pytest.raises(UsageError, match="'m' should be a JSON value"):
        store.set_meta("m", value)


def test_a_step_and_its_checkpoint_are_kept_together_or_not_at_all(store):
    store.add_step(step(0), {"t": 0})
    with pytest.raises(UsageError):
        store.add_step(step(1), {"t": object()})
    store._db.execute("CREATE TRIGGER fail BEFORE INSERT ON checkpoint BEGIN SELECT RAISE(ABORT, 'no'); END")
    with pytest.raises(sqlite3.IntegrityError):
        store.add_step(step(1), {"t": 1})
    assert store.steps() == [step(0)]
    assert store.checkpoint() == {"t": 0}
    store.add(trial(0))  # no transaction is left open


def test_killed_at_random_moments_it_keeps_what_it_reported_and_goes_on(path):
    moment = random.Random(0)
    told: list[int] = []
    for _ in range(25):
        with child(writers.write, path) as (process, pipe):
            told.append(pipe.recv())
            time.sleep(moment.uniform(0, 0.03))
            process.kill()
            with contextlib.suppress(EOFError):
                while True:
                    told.append(pipe.recv())
        with SQLite(path, create=False, read_only=True) as reader:  # the log is there, its writer is not
            seen = reader.trials()
        with SQLite(path, create=False) as store:
            kept, steps, state = store.trials(), store.steps(), store.checkpoint()
        assert kept == seen == [trial(i) for i in range(len(kept))]
        assert told == list(range(len(told))), "each was written once"
        assert len(told) <= len(kept)
        # The next writer begins after what is kept, told or not.
        told = list(range(len(kept)))
        assert steps == [step(s.t) for s in steps]
        assert state is None or (state["t"] == steps[-1].t and bool((state["alpha"] == state["t"]).all()))
        assert (state is None) == (not steps)
    assert len(kept) > 25


def test_one_writer_and_its_lock_goes_when_it_is_killed(path):
    SQLite(path, create=True).close()
    with child(writers.hold, path) as (process, pipe):
        assert pipe.recv() == "open"
        with pytest.raises(UsageError, match=f"one writer, but process {process.pid} is writing to"):
            SQLite(path, create=False)
        with SQLite(path, create=False, read_only=True) as reader:
            assert reader.trials() == [trial(0)]
        process.kill()
        process.join()
        SQLite(path, create=False).close()


def test_one_writer_in_one_process_too(path, store):
    with pytest.raises(UsageError, match=f"process {os.getpid()} is writing"):
        SQLite(path, create=False)


def test_a_reader_sees_what_is_committed_and_nothing_else(path, store):
    with SQLite(path, create=False, read_only=True) as reader:
        store.add(trial(0))
        assert reader.trials() == [trial(0)]
        store._db.execute("BEGIN")
        store.add(trial(1))
        assert reader.trials() == [trial(0)]
        store._db.execute("COMMIT")
        assert reader.trials() == [trial(0), trial(1)]
        store.close()
        with SQLite(path, create=False) as again:  # resumed under its eyes
            again.add(trial(2))
            assert len(reader.trials()) == 3
        assert len(reader.trials()) == 3


def test_beside_a_busy_writer_a_reader_sees_a_whole_run_that_grows(path):
    seen = 0
    with child(writers.write, path) as (process, pipe):
        pipe.recv()
        with SQLite(path, create=False, read_only=True) as reader:
            for _ in range(25):
                trials = reader.trials()
                assert [trial.job.index for trial in trials] == list(range(len(trials)))
                assert len(trials) >= seen
                seen = len(trials)
                while pipe.poll():
                    pipe.recv()
                state = reader.checkpoint()
                assert state is None or bool((state["alpha"] == state["t"]).all())
        assert process.is_alive()
    assert seen > 1


@pytest.mark.parametrize("run", ["closed", "live", "killed", "killed, without its index"])
def test_a_reader_leaves_the_folder_as_it_is(path, run):
    with readable_folder(path.name, run) as copy:
        before = listing(copy)
        with SQLite(copy, create=False, read_only=True) as reader:
            assert reader.trials() == [trial(0)]
            for write in [lambda: reader.add(trial(1)), lambda: reader.set_meta("a", 1)]:
                with pytest.raises(UsageError, match="closed or read_only"):
                    write()
        assert listing(copy) == before


@pytest.mark.parametrize("run", ["closed", "live", "killed", "killed, without its index"])
def test_a_reader_needs_no_permission_to_write(path, run):
    with readable_folder(path.name, run) as copy:
        copy.parent.chmod(0o555)
        with child(writers.read, copy) as (_, pipe):
            assert pipe.recv() == [0]
            assert "\n" not in pipe.recv()
        copy.parent.chmod(0o755)


@contextlib.contextmanager
def readable_folder(name, run):
    """A run with one trial in a folder that other users can read (pytest's own cannot be)."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        path = Path(folder) / name
        SQLite(path, create=True).close()
        with child(writers.hold, path) as (process, pipe):
            assert pipe.recv() == "open"
            if run == "closed":
                pipe.send("close")
                process.join()
            elif run != "live":
                process.kill()
                process.join()
                assert Path(f"{path}-wal").stat().st_size
            if run == "killed, without its index":
                Path(f"{path}-shm").unlink()
            yield path


def listing(path):
    return sorted((file.name, file.stat().st_size) for file in path.parent.iterdir())


def test_create_refuses_what_exists(path):
    path.write_text("a diary")
    with pytest.raises(UsageError, match="exists; resume it or name another"):
        SQLite(path, create=True)
    assert path.read_text() == "a diary"


def test_a_creation_that_was_killed_is_no_obstacle(path):
    Path(f"{path}.new").write_bytes(b"half a file")
    with SQLite(path, create=True) as store:
        store.add(trial(0))
    assert sorted(file.name for file in path.parent.iterdir()) == [path.name, f"{path.name}.lock"]


def foreign(path):
    db = sqlite3.connect(path)
    db.execute("CREATE TABLE trials (x)")
    db.commit()
    db.close()


def newer(path):
    SQLite(path, create=True).close()
    db = sqlite3.connect(path)
    db.execute(f"PRAGMA user_version = {VERSION + 1}")
    db.close()


def full(path):
    with SQLite(path, create=True) as store:
        for i in range(300):
            store.add(trial(i))


def truncated(path):
    full(path)
    os.truncate(path, path.stat().st_size // 2)


def scribbled(path):
    full(path)
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * (path.stat().st_size - 4096))


@pytest.mark.parametrize("read_only", [False, True])
@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda path: None, "no such file exists; check the path"),
        (lambda path: path.mkdir(), "no such file exists; check the path"),
        (lambda path: path.write_text("a diary, and a long one: " * 300), "is no SQLite file"),
        (lambda path: path.write_bytes(b""), "is an empty or"),
        (foreign, "another program's SQLite file"),
        (newer, f"schema version {VERSION} or less, got {VERSION + 1}"),
        (truncated, "is damaged"),
        (scribbled, "is damaged"),
    ],
    ids=["absent", "folder", "text", "empty", "foreign", "newer", "truncated", "scribbled"],
)
def test_what_is_not_our_run_is_refused_in_one_line(path, make, sentence, read_only):
    make(path)
    before = path.read_bytes() if path.is_file() else None
    with pytest.raises(UsageError, match=sentence) as caught:
        SQLite(path, create=False, read_only=read_only)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert before is None or path.read_bytes() == before


def test_our_files_say_so(path, store):
    assert path.read_bytes()[68:72] == APPLICATION.to_bytes(4, "big") == b"arcg"


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(UsageError, match="in a folder that can be written to, got No such file"):
        SQLite(tmp_path / "none" / "run.db", create=True)


def test_read_only_and_create_contradict_each_other(path):
    with pytest.raises(UsageError, match="drop one"):
        SQLite(path, create=True, read_only=True)


def test_a_full_disk_is_a_sentence_and_loses_nothing_kept(path, store):
    """SQLite's own limit stands for the disk's: it gives the same error."""
    store.add(trial(0))
    store.add_step(step(0), {"t": 0})
    store._db.execute("PRAGMA max_page_count = 20")
    with pytest.raises(UsageError, match="disk is full"):
        store.add_step(step(1), {"alpha": torch.zeros(100_000)})
    with pytest.raises(UsageError, match="disk is full") as caught:
        deque(map(store.add, map(trial, range(1, 3000))))
    assert str(path) in str(caught.value)
    assert store.checkpoint() == {"t": 0}
    kept = store.trials()
    store._db.execute("PRAGMA max_page_count = 4000")
    store.add(trial(len(kept)))
    assert store.trials() == [trial(i) for i in range(len(kept) + 1)]


def test_after_close_writing_is_refused_and_reading_goes_on(store):
    store.add(trial(0))
    store.close()
    with pytest.raises(UsageError, match="closed"):
        store.add(trial(1))
    assert store.trials() == [trial(0)]


def test_a_lock_that_is_a_link_is_refused_and_its_target_unharmed(tmp_path):
    """A run folder from somebody else could point it at a file of ours."""
    SQLite(tmp_path / "run.sqlite", create=True).close()
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "run.sqlite.lock").unlink()
    (tmp_path / "run.sqlite.lock").symlink_to(victim)
    with pytest.raises(UsageError):
        SQLite(tmp_path / "run.sqlite", create=False)
    assert victim.read_text() == "precious"
