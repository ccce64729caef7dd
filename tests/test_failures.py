"""An evaluation that raises, gives NaN, hangs or takes its process along is a failed trial; the search goes on."""

from __future__ import annotations

import contextlib
import functools
import json
from pathlib import Path

import numpy as np
import pytest
import small
import torch

import archgrad
from archgrad import UsageError
from archgrad.loop import Failing, Streak
from archgrad.recipes import ppo, reinforce
from archgrad.records import Job, Status, Trial

UNIFORM = functools.partial(ppo, samples=5, near_default=None)  # near the default the others are seldom drawn
LIMIT = 6
"""Seconds, of which a training takes hundredths."""
FEW = {"epochs": 1, "proxy_epochs": 1, "finalists": 1, "seeds": 2, "random_mean": 1}


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    y = np.arange(60) % small.CLASSES
    return (rng.normal(size=(60, small.FEATURES)) + y[:, None]).astype(np.float32), y


@pytest.fixture(autouse=True)
def folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)


def model(*deeds, fine=1):
    return functools.partial(small.misbehaving, deeds, fine)


def failures(result):
    """The reasons of failed trials by their options, and how many there are."""
    reasons: dict[str, set[str]] = {}
    for trial in result.trials:
        if trial.error is not None:
            assert trial.metrics == {}
            reasons.setdefault(trial.job.architecture[0], set()).add(trial.error)
    return reasons, sum(t.error is not None for t in result.trials)


def test_one_that_raises_or_gives_nan(data):
    result = archgrad.search(
        data, model("raise", "nan", fine=3), UNIFORM, out="run", workers=0, trials=20, seed=1, **FEW
    )
    assert result.status is Status.FINISHED
    reasons, count = failures(result)
    assert reasons["raise"] == {"ArithmeticError: cannot be computed"}
    assert len(reasons["nan"]) == 1
    assert "nan" in reasons["nan"].pop()
    assert [t.job.index for t in result.trials if t.job.role == "search"] == list(range(1, 21))
    assert result.architecture[0].startswith("fine")
    assert f"{count} of {len(result.trials)} evaluations failed" in " ".join(result.summary["verdict"])
    assert "ArithmeticError: cannot be computed" in Path("run/report.html").read_text()
    assert Path("run/model.safetensors").exists()


def test_the_policy_learns_from_failures(data):
    """A failed trial has the worst value, so its option becomes less likely; to leave it out would not tell."""
    result = archgrad.search(data, model("raise"), out="run", workers=0, trials=60, **FEW)
    with contextlib.closing(archgrad.SQLite("run/run.sqlite", create=False, read_only=True)) as store:
        fine, bad = store.steps()[-1].marginals[0]
    assert bad < 0.3 < fine
    assert result.architecture == ("fine0",)


def test_one_that_hangs_or_dies(data):
    """In workers: a time limit for the one, another worker and another attempt for the other. Each once."""
    result = archgrad.search(
        data, model("hang", "die", fine=4), UNIFORM, out="run", workers=2, trials=5, seed=0, trial_limit=LIMIT, **FEW
    )
    assert result.status is Status.FINISHED
    reasons, _ = failures(result)
    assert reasons == {
        "hang": {f"took longer than {LIMIT} s"},
        "die": {"worker died (SIGKILL, possibly out of memory), as in all of 2 attempts"},
    }
    assert result.architecture[0].startswith("fine")
    assert [t.job.index for t in result.trials] == list(range(len(result.trials)))


def test_a_model_that_cannot_run_at_all_is_refused_before_the_search(data):
    with pytest.raises(UsageError, match=r"should run on inputs \[N, \*\(4,\)\], got: cannot be computed"):
        archgrad.search(data, model("refuse", fine=0), out="run", workers=0, trials=5, **FEW)
    assert not Path("run").exists()


def test_five_in_a_row_stop_the_search(zygote, tmp_path):
    small.table("t.npz")
    arguments = ("--data", "t.npz", "--space", "small:hopeless", "--allow-import", "--workers", 0, "--out", "run")
    ended = zygote.run("search", *arguments, "--trials", 20, "--json", cwd=tmp_path)
    assert ended.code == 1
    assert ended.out.count("\n") == 1
    assert "Traceback" not in ended.err
    summary = json.loads(ended.out)
    assert summary["status"] == "FAILING"
    assert summary["trials"] == 5
    assert summary["best"] is None
    words = " ".join(summary["verdict"])
    assert "five evaluations in a row failed" in words
    assert "The last failure: " in words
    assert "five evaluations in a row failed" in Path("run/report.html").read_text()
    again = zygote.run("resume", "run", "--allow-import", cwd=tmp_path)
    assert again.code == 1
    assert "five evaluations in a row failed" in " ".join(again.out.split())
    assert "Traceback" not in again.err


def pairs(space, seed):
    """REINFORCE of two samples a step: no batch has five."""
    made = reinforce(space, seed, samples=2)
    with torch.no_grad():
        for alpha in made.policy.parameters():
            alpha[..., 1] = 50.0
    return made


def test_five_in_a_row_count_over_batches(data):
    result = archgrad.search(data, model("raise"), recipe=pairs, out="run", workers=0, trials=20, **FEW)
    assert result.status is Status.FAILING
    assert len(result.trials) == 1 + 5
    assert result.summary["best"]["architecture"] == {"only": "fine0"}  # the default's trial
    assert result.summary["best"]["test_accuracy"] is None


def test_failures_that_a_success_interrupts_are_not_in_a_row():
    def trial(error):
        return Trial(Job(0, "search", ("a",), 0, 1.0), {}, 0.1, error)

    streak = Streak()
    for error in ["a", "b", "c", "d", None, "e", "f", "g", "h"]:
        streak.heard(trial(error))
    with pytest.raises(Failing, match="the last"):
        streak.heard(trial("the last"))


def test_finalists_that_cannot_be_trained_are_said_to_be_that(data, monkeypatch):
    """Full trainings alone fail: the sentence is not about five in a row, of which there are not that many."""
    solve = archgrad.FromScratch.solve

    def short_only(self, architecture, seed, fidelity):
        if fidelity > 1:
            raise ArithmeticError("too long")
        return solve(self, architecture, seed, fidelity)

    monkeypatch.setattr(archgrad.FromScratch, "solve", short_only)
    few = FEW | {"epochs": 2, "seeds": 1}
    result = archgrad.search(data, model(fine=2), UNIFORM, out="run", workers=0, trials=5, **few)
    assert result.status is Status.UNTRAINED
    assert "None of the finalists could be trained fully" in result.summary["verdict"][0]
    assert "The last failure: ArithmeticError: too long" in result.summary["verdict"]
