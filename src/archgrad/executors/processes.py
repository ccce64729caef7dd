"""Evaluations in worker processes of this machine, which may crash, hang or eat memory without taking the search along.

A process and a pipe a worker, rather than one pool: when a process dies it is known which job it had and how it ended,
and nobody else notices. Everything is decided in the driver's one thread, in ``Processes.run``.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from itertools import islice
from multiprocessing import connection
from multiprocessing.context import SpawnContext
from types import TracebackType
from typing import Any, Self

from archgrad.errors import UsageError
from archgrad.executors.attempt import attempt, one_line
from archgrad.protocols import Measure
from archgrad.records import Job, Trial

log = logging.getLogger(__name__)

_START = 300.0  # seconds a worker may take to import torch and the measure; generous, it only bounds a hang
_LOOK = 1.0  # seconds between looks at whether workers live, where a forked grandchild holds their pipes open


class Processes:
    """An ``Executor`` of ``workers`` processes with one torch thread each.

    measure: picklable; sent once to each worker, as a copy.
    limit: seconds one evaluation may take, from a ready worker; then its worker is killed and the trial has failed.
    memory: bytes of data a worker may allocate, torch's own (some hundred MB) included; None sets no limit. Linux.
    attempts: how often a job is given to a worker, when the one before died of it (a crash, the kernel's out-of-memory
        killer). An exception is an answer and is not tried again.

    Workers start with the first job and are kept until ``close``. They ignore Ctrl-C (the driver has it), write their
    standard output to standard error, and end when the driver ends, however that happens.

    Raises UsageError for arguments out of range or a measure that cannot be pickled; ``run`` raises it where a worker
    cannot even start. A script that is run as ``__main__`` needs ``if __name__ == "__main__":`` around its work, since
    each worker imports it again.
    """

    def __init__(
        self,
        measure: Measure,
        workers: int = 2,
        *,
        limit: float = 600,
        memory: int | None = None,
        attempts: int = 2,
    ) -> None:
        if workers < 1:
            raise UsageError(f"workers should be at least 1, got {workers}")
        if not limit > 0:
            raise UsageError(f"limit should be a positive number of seconds, got {limit}; inf means none")
        if attempts < 1:
            raise UsageError(f"attempts should be at least 1, got {attempts}")
        if memory is not None and memory < 1:
            raise UsageError(f"memory should be a positive number of bytes, got {memory}; None means no limit")
        if memory is not None and sys.platform == "win32":
            raise UsageError("memory should be None on Windows, which has no such limit")
        self.workers = workers
        self.limit = limit
        self.memory = memory
        self.attempts = attempts
        # Plain pickle and not multiprocessing's: torch teaches the latter to share a tensor's memory between processes.
        try:
            self._measure = pickle.dumps(measure)
        except (pickle.PicklingError, AttributeError, TypeError, RecursionError) as error:
            raise UsageError(
                f"measure should be picklable to reach worker processes, got {one_line(repr(measure))} "
                f"({one_line(str(error))}); define it at the top level of a module, or use one worker"
            ) from error
        self._context = multiprocessing.get_context("spawn")
        self._team: list[_Worker] = []
        self._stillborn = 0

    def run(self, jobs: Iterable[Job]) -> Generator[Trial, None, None]:
        """Yields each trial as it finishes. A job is taken from ``jobs`` when a worker is free to begin it and all
        finished trials have been handed over, so that ``jobs`` may depend on them; one worker is as ``Inline``.

        Stopping early (closing the iterator, Ctrl-C) kills the workers that are busy and drops their jobs.
        """
        if any(worker.job for worker in self._team):
            raise RuntimeError("an executor should run one iterator of jobs at a time; finish or close the one before")
        source = ((job, 1) for job in jobs)
        waiting = deque(islice(source, 1))  # (job, which attempt): the first, and those whose worker died
        if not waiting:
            return
        exhausted = False
        try:
            while len(self._team) < self.workers:
                self._hire()
            while self._team:  # close() ends a run
                for worker in self._team:
                    if worker.idle and not exhausted:
                        waiting.extend(islice(source, 0 if waiting else 1))
                        exhausted = not waiting
                    if worker.idle and waiting:
                        worker.begin(*waiting.popleft())
                if exhausted and not waiting and not any(worker.job for worker in self._team):
                    return
                for worker in self._ready():
                    if worker in self._team:
                        yield from self._hear(worker, waiting)
        finally:
            for worker in [worker for worker in self._team if worker.job]:
                self._dismiss(worker)

    def close(self) -> None:
        """Kill all workers, busy or not; can be called twice."""
        for worker in list(self._team):
            self._dismiss(worker)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _hire(self) -> None:
        self._team.append(_Worker(self._context, self._measure, self.memory))

    def _dismiss(self, worker: _Worker) -> int:
        self._team.remove(worker)
        return worker.kill()

    def _ready(self) -> list[_Worker]:
        """Wait for workers that said something, died, or are late."""
        until = min((worker.since + self._patience(worker) for worker in self._team if not worker.idle), default=0.0)
        events: list[Any] = [event for worker in self._team for event in (worker.pipe, worker.process.sentinel)]
        found = connection.wait(events, max(0.0, min(until - time.monotonic(), _LOOK)))
        return [
            worker
            for worker in self._team
            if worker.pipe in found or worker.process.sentinel in found or self._late(worker) or worker.dead
        ]

    def _patience(self, worker: _Worker) -> float:
        return self.limit if worker.started else _START

    def _late(self, worker: _Worker) -> bool:
        return not worker.idle and time.monotonic() - worker.since > self._patience(worker)

    def _hear(self, worker: _Worker, waiting: deque[tuple[Job, int]]) -> Iterator[Trial]:
        """What became of a worker: a finished trial, a start, a death, or too long a silence."""
        if worker.poll():
            try:
                said = worker.pipe.recv()
            except (EOFError, OSError):
                yield from self._bury(worker, waiting)
                return
            if isinstance(said, Trial):
                worker.job = None
                yield said
            elif said is None:
                worker.started = True
                self._stillborn = 0
            else:
                self._dismiss(worker)
                raise UsageError(f"a worker process should be able to load the measure, got {said}")
        elif worker.dead:
            yield from self._bury(worker, waiting)
        elif self._late(worker):
            job, seconds = worker.job, time.monotonic() - worker.since
            self._dismiss(worker)
            if job is None:
                raise UsageError(
                    f"a worker process should start within {_START:g} s, but it did not; is the machine overloaded, or "
                    'does the script wait for something outside `if __name__ == "__main__":`?'
                )
            self._hire()
            yield Trial(job, {}, seconds, f"took longer than {self.limit:g} s")

    def _bury(self, worker: _Worker, waiting: deque[tuple[Job, int]]) -> Iterator[Trial]:
        """Replace a dead worker; its job waits for another attempt or has failed."""
        job, seconds = worker.job, time.monotonic() - worker.since
        worker.process.join(_LOOK)  # its pipe closes a moment before it has an exit code
        code = self._dismiss(worker)
        cause = _cause(code)
        if not worker.started:
            self._stillborn += 1
            # Only a signal (the out-of-memory killer's) may pass; a script that fails to import fails again.
            if code >= 0 or self._stillborn >= self.attempts:
                raise UsageError(
                    f"a worker process should start, but it ended first ({cause}; its own message is above); put a "
                    'script\'s work under `if __name__ == "__main__":`, since each worker imports the script'
                    + ("" if self.memory is None else f", and give memory more than {self.memory} bytes")
                )
        self._hire()
        if job is None:
            return
        if worker.attempt < self.attempts:
            log.warning(
                "trial %d: its worker died (%s); attempt %d of %d follows",
                job.index,
                cause,
                worker.attempt + 1,
                self.attempts,
            )
            waiting.append((job, worker.attempt + 1))
            return
        times = f", as in all of {self.attempts} attempts" if self.attempts > 1 else ""
        yield Trial(job, {}, seconds, f"worker died ({cause}){times}")


class _Worker:
    """One process as the driver sees it: starting, idle, or busy with ``job`` since ``since`` (monotonic seconds)."""

    def __init__(self, context: SpawnContext, measure: bytes, memory: int | None) -> None:
        self.pipe, theirs = context.Pipe()
        # A daemon: a driver that ends without close(), or was interrupted right here, does not wait for it for ever.
        self.process = context.Process(target=_serve, args=(theirs, measure, memory), daemon=True)
        with theirs, _interrupts_held():
            self.process.start()
        self.started = False
        self.job: Job | None = None
        self.attempt = 0
        self.since = time.monotonic()
        self._code: int | None = None

    @property
    def idle(self) -> bool:
        return self.started and self.job is None

    @property
    def dead(self) -> bool:
        return self._code is not None or not self.process.is_alive()

    def begin(self, job: Job, attempt: int) -> None:
        self.job, self.attempt, self.since = job, attempt, time.monotonic()
        with contextlib.suppress(OSError):  # died while idle: heard of by its sentinel, as any other death
            self.pipe.send(job)

    def poll(self) -> bool:
        """Whether it said something or closed its end; also true of a dead worker whose last words are unread."""
        try:
            return self.pipe.poll()
        except OSError:
            return False

    def kill(self) -> int:
        """End it now and return its exit code, minus the signal where it was one; can be called twice."""
        if self._code is None:
            self.process.kill()
            self.process.join()
            self._code = self.process.exitcode or 0
            self.process.close()
            self.pipe.close()
        return self._code


def _cause(code: int) -> str:
    """How a process ended, for its user."""
    if code >= 0:
        return f"exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return f"{name}, possibly out of memory" if name in ("SIGKILL", "SIGABRT") else name


@contextlib.contextmanager
def _interrupts_held() -> Iterator[None]:
    """Start a child with SIGINT blocked, so that Ctrl-C while it imports torch prints no traceback of its own.

    Nor before it has its orders: an interrupt of this process meanwhile is raised at the end. The mask is a thread's,
    and where another thread (of a linear algebra library, say) is given the signal, Python tells the main thread.
    """
    if sys.platform == "win32":
        yield
        return
    from multiprocessing import resource_tracker

    resource_tracker.ensure_running()  # its own start would unblock the signal
    came: list[int] = []
    handled = threading.current_thread() is threading.main_thread()
    if handled:
        usual = signal.signal(signal.SIGINT, lambda number, frame: came.append(number))
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        if handled:
            signal.signal(signal.SIGINT, usual)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        if came:
            signal.raise_signal(signal.SIGINT)


def _serve(pipe: connection.Connection[Any, Any], measure: bytes, memory: int | None) -> None:
    """A worker's life: None when ready (or a sentence why not), then a Trial for each Job."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform != "win32":
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    multiprocessing.current_process().daemon = False  # which may not have children, and a DataLoader has
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=_follow, args=(parent.sentinel,), daemon=True).start()
    # The command line promises its standard output to one JSON object; libraries print from C as well.
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    if memory is not None and sys.platform != "win32":
        import resource

        resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
    import torch

    torch.set_num_threads(1)
    try:
        function: Measure = pickle.loads(measure)
    except Exception as error:
        pipe.send(one_line(f"{type(error).__name__}: {error}") + "; define it in a module that can be imported")
        return
    pipe.send(None)
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):  # the driver is gone
        while True:
            pipe.send(attempt(function, pipe.recv()))


def _follow(driver: int) -> None:
    """End this process when the driver's ends, in the middle of an evaluation too."""
    connection.wait([driver])
    os._exit(1)
