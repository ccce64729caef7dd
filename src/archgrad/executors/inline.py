"""Evaluations one after another in this process."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from types import TracebackType
from typing import Self

from archgrad.executors.attempt import attempt
from archgrad.protocols import Measure
from archgrad.records import Job, Trial


class Inline:
    """An ``Executor`` that measures each job when its trial is asked for. It has no time or memory limit."""

    def __init__(self, measure: Measure) -> None:
        self.measure = measure

    def run(self, jobs: Iterable[Job]) -> Generator[Trial, None, None]:
        """Yields the trials in the order of the jobs."""
        for job in jobs:
            yield attempt(self.measure, job)

    def close(self) -> None:
        """Nothing to let go of."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
