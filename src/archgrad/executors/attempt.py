"""One evaluation, whatever happens in it: a finished trial or a failed one, the same in every executor."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any

from archgrad.protocols import Measure
from archgrad.records import Job, Trial

_LONGEST = 500  # characters of a reason; torch's own can run to pages


def attempt(measure: Measure, job: Job) -> Trial:
    """Measure once. An exception, or a metric that is no finite number, makes a failed trial.

    KeyboardInterrupt and SystemExit pass: they are about this process, not about the job.
    """
    start = time.perf_counter()
    try:
        metrics = _numbers(measure(job))
        error = next((f"{name} is {value}" for name, value in metrics.items() if not math.isfinite(value)), None)
    except Exception as exception:
        metrics, error = {}, _reason(exception)
    seconds = time.perf_counter() - start
    return Trial(job, metrics if error is None else {}, seconds, error)


def one_line(text: str) -> str:
    """Without line breaks, and of a length to print."""
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."


def _numbers(metrics: Any) -> dict[str, float]:
    """Plain numbers, which travel and are stored; a 0-d tensor or a NumPy scalar becomes one."""
    if not isinstance(metrics, Mapping):
        raise TypeError(f"measure should return a dict of metrics, got {type(metrics).__name__}")
    return {str(name): value if type(value) in (int, float) else float(value) for name, value in metrics.items()}


def _reason(exception: Exception) -> str:
    kind, message = type(exception).__name__, str(exception)
    # torch has a type of its own for a full GPU only; on the CPU it is a RuntimeError, known by its words.
    full = isinstance(exception, MemoryError) or kind == "OutOfMemoryError" or "can't allocate memory" in message
    return one_line(f"out of memory ({kind}: {message})" if full else f"{kind}: {message}")
