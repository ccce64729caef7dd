"""Measures for the executors' tests, at the top level of a module that spawned workers can import.

A measure reads what to do from its job: ``architecture[0]`` names the deed, ``save`` a file it may leave marks in.
"""

from __future__ import annotations

import fcntl
import os
import signal
import sys
import time
from pathlib import Path

import torch

from archgrad.errors import UsageError
from archgrad.records import Job


def job(index: int, deed: str = "train", save: object = None, seed: int = 0) -> Job:
    return Job(index, "search", (deed,), seed, 1.0, None if save is None else str(save))


def deed(job: Job) -> dict[str, float]:
    return DEEDS[job.architecture[0]](job)


def train(job: Job) -> dict[str, float]:
    """A few steps of a small network: deterministic, and small enough to be so for any number of threads."""
    generator = torch.Generator().manual_seed(job.seed)
    x = torch.randn(16, 4, generator=generator)
    w = torch.zeros(4, 3, requires_grad=True)
    for _ in range(5):
        loss = (x @ w - x[:, :3]).pow(2).mean()
        (g,) = torch.autograd.grad(loss, w)
        w = (w - 0.1 * g).detach().requires_grad_()
    return {"valid_loss": loss.item(), "weight": w.norm().item()}


def _mark(job: Job, text: str = "x") -> int:
    """How often this job was begun, this time included."""
    path = Path(str(job.save))
    with path.open("a") as file:
        file.write(text)
    return len(path.read_text())


def kill_once(job: Job) -> dict[str, float]:
    if _mark(job) == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return train(job)


def kill(job: Job) -> dict[str, float]:
    _mark(job)
    os.kill(os.getpid(), signal.SIGKILL)
    return {}


def leave(job: Job) -> dict[str, float]:
    os._exit(3)


def hang(job: Job) -> dict[str, float]:
    if job.save:
        _mark(job)
    time.sleep(3600)
    return {}


def hold(job: Job) -> dict[str, float]:
    """Hang with a file locked, which tells whether this process lives (a zombie holds no lock)."""
    with open(str(job.save), "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write("x")
        file.flush()
        time.sleep(3600)
    return {}


def wait_pid(job: Job) -> dict[str, float]:
    time.sleep(0.3)
    return {"pid": os.getpid()}


def parent(job: Job) -> dict[str, float]:
    """What a DataLoader with workers does."""
    data = torch.utils.data.DataLoader(torch.arange(6.0), num_workers=1)
    return {"sum": sum(x.item() for x in data)}


def eat(job: Job) -> dict[str, float]:
    return {"sum": float(torch.ones(8 << 30, dtype=torch.uint8)[0])}


def eat_python(job: Job) -> dict[str, float]:
    return {"sum": float(bytearray(8 << 30)[0])}


def nan(job: Job) -> dict[str, float]:
    return {"params": 3, "valid_loss": float("nan")}


def infinite(job: Job) -> dict[str, float]:
    return {"valid_loss": torch.tensor(float("inf"))}  # type: ignore[dict-item]


def fail(job: Job) -> dict[str, float]:
    raise ValueError("the width\n  should be even")


def refuse(job: Job) -> dict[str, float]:
    raise UsageError("data should be there")


def no_dict(job: Job) -> dict[str, float]:
    return 0.5  # type: ignore[return-value]


def text(job: Job) -> dict[str, float]:
    return {"valid_loss": "low"}  # type: ignore[dict-item]


def threads(job: Job) -> dict[str, float]:
    return {"threads": torch.get_num_threads(), "pid": os.getpid()}


def talk(job: Job) -> dict[str, float]:
    print("from Python")
    os.write(1, b"from C\n")
    sys.stdout.flush()
    return {"valid_loss": 1.0}


DEEDS = {
    f.__name__: f
    for f in (
        train,
        kill_once,
        kill,
        leave,
        hang,
        hold,
        parent,
        wait_pid,
        eat,
        eat_python,
        nan,
        infinite,
        fail,
        refuse,
        no_dict,
        text,
        threads,
        talk,
    )
}


class Counted:
    """A measure that counts its calls and holds a tensor: a worker's copy is its own and lives as long as it does."""

    def __init__(self) -> None:
        self.calls = torch.zeros(())

    def __call__(self, job: Job) -> dict[str, float]:
        self.calls += 1
        return {"calls": float(self.calls), "pid": os.getpid()}


class Unloadable:
    """Can be pickled and not unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return _absent, ("the data set is gone",)

    def __call__(self, job: Job) -> dict[str, float]:
        return {}


def _absent(text: str) -> None:
    raise FileNotFoundError(text)
