"""Killed at any moment, a run goes on: no finished trial is lost or made twice, and it ends as if never killed."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import random
import shutil
import signal
import time
from pathlib import Path

import pytest
import small
from zygote import Zygote

from archgrad.errors import UsageError
from archgrad.stores import SQLite
from archgrad.stores.state import pack

OPTIONS = "--trials 25 --epochs 2 --proxy-epochs 1 --finalists 2 --seeds 2 --random-mean 2 --seed 5"
SEARCH = ["search", "--data", "t.npz", "--space", "small:tiny", "--allow-import", *OPTIONS.split(), "--json"]
ALONE = [*SEARCH, "--workers", "0"]
RECIPES = ("ppo", "zoph_le")  # independent decisions; an LSTM, and a baseline that is a part of the state


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("resume")
    small.table(folder / "t.npz")
    return folder


class Uninterrupted:
    """What a recipe's search of one go left behind."""

    def __init__(self, zygote: Zygote, place: Path, recipe: str) -> None:
        log = place / "whole.log"
        log.write_text("")
        ended = zygote.run(*ALONE, "--recipe", recipe, "--out", f"{recipe}-whole", cwd=place, log=str(log))
        self.ending = time.time() - log.stat().st_mtime  # seconds since the last evaluation began
        assert ended.code == 0, ended
        self.recipe, self.folder = recipe, place / f"{recipe}-whole"
        self.summary = json.loads(ended.out)
        self.trials, self.steps = kept(self.folder)

    def same(self, folder: Path, summary: dict) -> None:
        trials, steps = kept(folder)
        assert list(trials.items()) == list(self.trials.items())
        assert steps == self.steps
        assert pack(checkpoint(folder)) == pack(checkpoint(self.folder))
        for name in self.summary.keys() - {"run", "seconds"}:
            assert summary[name] == self.summary[name], name
        assert (folder / "model.safetensors").read_bytes() == (self.folder / "model.safetensors").read_bytes()
        left = {p.name for p in folder.iterdir() if not p.name.startswith(".report.html.")}
        assert left == {p.name for p in self.folder.iterdir()}


@pytest.fixture(scope="module")
def uninterrupted(zygote, place):
    """By recipe; each is made once."""
    return functools.cache(lambda recipe: Uninterrupted(zygote, place, recipe))


@pytest.fixture
def whole(uninterrupted):
    return uninterrupted("ppo")


def kept(folder):
    """The trials by index, without their times, and the steps."""
    try:
        store = SQLite(folder / "run.sqlite", create=False, read_only=True)
    except UsageError:  # killed before it began
        return {}, []
    with contextlib.closing(store):
        trials = {
            t.job.index: (t.job.role, t.job.architecture, t.job.seed, t.job.fidelity, dict(t.metrics), t.error)
            for t in store.trials()
        }
        return trials, store.steps()


def checkpoint(folder):
    with contextlib.closing(SQLite(folder / "run.sqlite", create=False, read_only=True)) as store:
        return store.checkpoint()


def begun(folder):
    """Whether a run knows what it is; else there is nothing to resume, and nothing to lose."""
    try:
        with contextlib.closing(SQLite(folder / "run.sqlite", create=False, read_only=True)) as store:
            return store.meta("config") is not None
    except UsageError:
        return False


class Sessions:
    """A run in pieces. After each it is checked that what was kept stays, and was not made again."""

    def __init__(self, zygote: Zygote, place: Path, name: str, *options: str) -> None:
        self.zygote, self.place, self.folder, self.options = zygote, place, place / name, options
        self.log = place / f"{name}.log"
        self.trials: dict = {}
        self.kills = 0

    def begin(self, **options):
        self.log.write_text("")
        if begun(self.folder):
            arguments = ["resume", self.folder.name, "--allow-import", "--json"]
        else:  # killed before there was anything to go on with
            assert not self.trials
            for file in self.folder.glob("*"):
                file.unlink()
            if self.folder.exists():
                self.folder.rmdir()
            arguments = [*SEARCH, *self.options, "--out", self.folder.name]
        return self.zygote.launch(*arguments, cwd=self.place, log=str(self.log), **options)

    def end(self, child):
        ended = child.wait()
        assert ended.code in (0, -signal.SIGKILL, 130), ended
        self.kills += ended.code == -signal.SIGKILL
        begun = self.begun()
        assert len(begun) == len(set(begun))
        assert not set(begun) & set(self.trials), "made again"
        trials, _ = kept(self.folder)
        assert trials.items() >= self.trials.items(), "lost"
        self.trials = trials
        return ended

    def begun(self):
        """The evaluations of this session, by index; the last may not have been kept."""
        return [int(line) for line in self.log.read_text().split()]

    def finish(self):
        ended = self.end(self.begin())
        assert ended.code == 0, ended
        return json.loads(ended.out)


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_uninterrupted_run_repeats_architectures(uninterrupted, recipe):
    """Else the test below would not see a training seed that depends on the session."""
    whole = uninterrupted(recipe)
    searched = [t for t in whole.trials.values() if t[0] == "search"]
    assert len({t[1] for t in searched}) < len(searched)
    assert len({t[2] for t in searched}) > 2
    assert len(whole.steps) == 3  # the start, two batches, and half a batch, which makes no step


@pytest.mark.parametrize("recipe", RECIPES)
def test_killed_at_random_moments(zygote, place, uninterrupted, recipe):
    """Some of the moments lie anywhere in the trials, which are counted, the rest anywhere in the ending."""
    whole = uninterrupted(recipe)
    rng = random.Random(recipe)
    kills, again = 0, 0
    run = Sessions(zygote, place, f"{recipe}-killed", "--workers", "0", "--recipe", recipe)
    while kills + run.kills < 14:
        child = run.begin()
        left = len(whole.trials) - len(run.trials)
        if left:
            more = min(left, rng.randint(1, 12))
            until(lambda: len(run.begun()) >= more)  # noqa: B023
            time.sleep(rng.uniform(0, 0.05))
        else:
            time.sleep(rng.uniform(0, whole.ending))
        child.kill()
        ended = run.end(child)
        if ended.code == 0:  # it was too late to kill: this one is whole, and another takes the kills that are left
            whole.same(run.folder, json.loads(ended.out))
            kills, again = kills + run.kills, again + 1
            assert again < 10, "hardly ever in time to kill"
            run = Sessions(zygote, place, f"{recipe}-killed-{again}", "--workers", "0", "--recipe", recipe)
    whole.same(run.folder, run.finish())


@pytest.mark.parametrize("event", ["open", "os.rename", "os.remove", "os.mkdir"])
def test_killed_where_it_reaches_for_the_disk(zygote, place, whole, event):
    """The kill comes before the n-th open, rename or removal of a session: as it begins, then all over the ending."""
    run = Sessions(zygote, place, event, "--workers", "0", "--recipe", whole.recipe)
    for n in (1, 2, 3):
        run.end(run.begin(die_at=(event, n)))
    if len(run.trials) < len(whole.trials):
        child = run.begin()
        until(lambda: list(run.folder.glob(".handover-*")))
        child.kill()
        run.end(child)
    n = step = 8 if event == "open" else 1
    while run.end(run.begin(die_at=(event, n))).code != 0:
        n += step
    assert run.kills, "never reached"
    whole.same(run.folder, run.finish())


def test_a_finished_run_is_only_reported_again(zygote, place, whole):
    run = Sessions(zygote, place, whole.folder.name)
    run.trials = whole.trials
    assert run.finish() == whole.summary
    assert run.log.read_text() == ""


@pytest.mark.parametrize(("number", "moment"), [(signal.SIGINT, "trials"), (signal.SIGTERM, "handover")])
def test_interrupted(zygote, place, whole, number, moment):
    for attempt in range(10):  # on a busy machine a run may end before the signal comes
        run = Sessions(zygote, place, f"{moment}-{attempt}", "--workers", "0", "--recipe", whole.recipe)
        child = run.begin()
        if moment == "trials":
            until(lambda: len(kept(run.folder)[0]) > 5)  # noqa: B023 - called at once
        else:
            until(lambda: list(run.folder.glob(".handover-*")))  # noqa: B023
        child.kill(number)
        ended = run.end(child)
        if ended.code != 0:
            break
    assert ended.code == 130
    assert ended.out.count("\n") == 1
    summary = json.loads(ended.out)
    assert summary["status"] == "INTERRUPTED"
    assert summary["best"]["test_accuracy"] is None
    assert "interrupted" in (run.folder / "report.html").read_text()
    assert "Traceback" not in ended.err
    whole.same(run.folder, run.finish())


def test_weights_that_cannot_be_kept_are_trained_again(zygote, place, whole):
    """The second half of the full trainings finds no room for its weights, the first half's are lost."""
    run = Sessions(zygote, place, "lost", "--workers", "0", "--recipe", whole.recipe)
    child = run.begin()
    until(lambda: len(list(run.folder.glob("finals/*.safetensors"))) > 2)
    child.kill()
    run.end(child)
    shutil.rmtree(run.folder / "finals")
    (run.folder / "finals").touch()
    summary = run.finish()
    (run.folder / "finals").unlink()
    whole.same(run.folder, summary)


def until(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.002)


def test_killed_with_workers(zygote, place, whole):
    """The driver while its workers start, a worker, the driver while they work; then to the end."""
    run = Sessions(zygote, place, "workers", "--workers", "2", "--recipe", whole.recipe)

    child = run.begin()
    until(lambda: workers(child))
    child.kill()
    run.end(child)
    until(lambda: not child.session(), 30)

    child = run.begin()
    until(lambda: len(kept(run.folder)[0]) > 3)
    os.kill(workers(child)[0], signal.SIGKILL)  # its job is made again by another, which is no second trial
    before = len(kept(run.folder)[0])
    until(lambda: len(kept(run.folder)[0]) > before)
    child.kill()
    run.end(child)
    until(lambda: not child.session(), 30)
    assert 4 < len(run.trials) < len(whole.trials)

    child = run.begin()
    ended = run.end(child)
    assert ended.code == 0, ended
    until(lambda: not child.session(), 30)
    summary = json.loads(ended.out)
    assert summary["status"] == "FINISHED"
    assert summary["trials"] == len(run.trials)
    # workers compute what one process does: a batch is proposed from the same alpha, and a trial has its seed
    assert run.trials == whole.trials
    assert summary["best"] == whole.summary["best"]


def workers(child):
    """Its worker processes, by their command line."""
    found = []
    for pid in child.session():
        with contextlib.suppress(OSError):
            if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.append(pid)
    return found


def test_a_second_process_is_refused(zygote, place, whole):
    run = Sessions(zygote, place, "twice", "--workers", "0", "--recipe", whole.recipe)
    child = run.begin()
    until(lambda: len(kept(run.folder)[0]) > 1)
    ended = zygote.run("resume", "twice", "--allow-import", cwd=place)
    assert ended.code == 2
    assert ended.err.count("\n") == 1
    assert str(child.pid) in ended.err
    summary = json.loads(run.end(child).out)
    whole.same(run.folder, summary)
