"""What the child processes of the stores' tests do."""

from __future__ import annotations

import os
from multiprocessing.connection import Connection
from pathlib import Path

import torch

from archgrad.errors import UsageError
from archgrad.records import Job, Step, Trial
from archgrad.stores import SQLite


def trial(index: int) -> Trial:
    job = Job(index, "search", ("conv", str(index)), index, 2.0, f"weights/{index}.safetensors")
    return Trial(job, {"valid_loss": index / 3, "params": index}, 0.5)


def step(t: int) -> Step:
    return Step(t, [[0.25, 0.75], [t / 7, 1.0]], {"entropy": t / 3})


def write(path: Path, told: Connection) -> None:
    """Trials for ever, and a step after every third, each told once it is kept."""
    with SQLite(path, create=not path.exists()) as store:
        i = len(store.trials())
        while True:
            store.add(trial(i))
            told.send(i)
            if i % 3 == 0:
                store.add_step(step(i), {"t": i, "alpha": torch.full((50, 50), float(i))})
            i += 1


def hold(path: Path, told: Connection) -> None:
    """Open the run for writing, add a trial, and stay."""
    with SQLite(path, create=False) as store:
        store.add(trial(len(store.trials())))
        told.send("open")
        told.recv()


def read(path: Path, told: Connection) -> None:
    """As a user who may not write there: what a reader sees, and what a writer is told."""
    if os.getuid() == 0:
        os.setuid(65534)
    with SQLite(path, create=False, read_only=True) as store:
        told.send([t.job.index for t in store.trials()])
    try:
        SQLite(path, create=False)
    except UsageError as error:
        told.send(str(error))
