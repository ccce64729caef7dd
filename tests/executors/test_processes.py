"""Workers that crash, hang, eat memory or are left alone. Every start of a worker costs an import of torch, so most
tests share one executor, whose workers they may break: it replaces them."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import jobs
import pytest
import torch

from archgrad.errors import UsageError
from archgrad.executors import Inline, Processes
from archgrad.executors.processes import _interrupts_held


@pytest.fixture(scope="module")
def pool():
    with Processes(jobs.deed, workers=2) as executor:
        yield executor


def by_index(trials):
    trials = sorted(trials, key=lambda trial: trial.job.index)
    assert len({trial.job.index for trial in trials}) == len(trials), "a trial came twice"
    return trials


def test_results_and_failures_equal_those_of_inline(pool):
    deeds = ["train"] * 6 + ["nan", "infinite", "fail", "refuse", "no_dict", "text"]
    work = [jobs.job(i, deed, seed=i) for i, deed in enumerate(deeds)]
    there, here = by_index(pool.run(work)), by_index(Inline(jobs.deed).run(work))
    assert [(t.job, t.metrics, t.error) for t in there] == [(t.job, t.metrics, t.error) for t in here]


def test_workers_have_one_torch_thread_and_are_kept(pool):
    first = by_index(pool.run(jobs.job(i, "threads") for i in range(8)))
    again = by_index(pool.run(jobs.job(i, "threads") for i in range(8)))
    assert {t.metrics["threads"] for t in first + again} == {1}
    pids = {t.metrics["pid"] for t in first + again}
    assert os.getpid() not in pids
    assert len(pids) <= 2


def test_a_measure_may_have_processes_of_its_own(pool):
    (trial,) = pool.run([jobs.job(0, "parent")])
    assert trial.metrics == {"sum": 15.0}, trial.error


def test_a_job_is_taken_only_when_a_worker_is_free(pool):
    taken = []

    def source():
        for i in range(10):
            taken.append(i)
            yield jobs.job(i)

    trials = pool.run(source())
    assert taken == []
    for done, _ in enumerate(trials, start=1):
        assert len(taken) <= done + 1  # the one yielded is free again, the other worker has the next
    assert len(taken) == 10


def test_both_workers_work_at_once(pool):
    trials = by_index(pool.run(jobs.job(i, "wait_pid") for i in range(40)))  # outlasts the start of a worker
    assert len({t.metrics["pid"] for t in trials}) == 2


def test_no_jobs_start_no_workers():
    with Processes(jobs.deed) as executor:
        assert list(executor.run([])) == []
        assert executor._team == []


def test_a_killed_workers_job_is_done_by_another_and_appears_once(pool, tmp_path):
    work = [jobs.job(i, seed=i) for i in range(6)]
    work[2] = jobs.job(2, "kill_once", tmp_path / "mark", seed=2)
    trials = by_index(pool.run(work))
    assert [t.state for t in trials] == ["done"] * 6
    assert (tmp_path / "mark").read_text() == "xx"
    assert [t.metrics for t in trials] == [t.metrics for t in Inline(jobs.train).run(work)]


def test_a_job_that_always_kills_its_worker_fails_and_harms_no_other(pool, tmp_path):
    work = [jobs.job(0, "kill", tmp_path / "mark"), *(jobs.job(i) for i in range(1, 6)), jobs.job(6, "leave")]
    trials = by_index(pool.run(work))
    assert [t.state for t in trials] == ["failed", *["done"] * 5, "failed"]
    assert trials[0].error == "worker died (SIGKILL, possibly out of memory), as in all of 2 attempts"
    assert trials[6].error == "worker died (exit code 3), as in all of 2 attempts"
    assert (tmp_path / "mark").read_text() == "xx"


def test_stopping_early_kills_the_busy_and_keeps_the_idle(pool, tmp_path):
    trials = pool.run([jobs.job(0, "hold", tmp_path / "held"), jobs.job(1), jobs.job(2)])
    assert next(trials).job.index == 1
    wait_for_text(tmp_path / "held")
    trials.close()
    assert_released(tmp_path / "held")
    assert [t.state for t in pool.run([jobs.job(0)])] == ["done"]


def test_one_run_at_a_time(pool):
    trials = pool.run([jobs.job(0, "hang"), jobs.job(1)])
    next(trials)
    with pytest.raises(RuntimeError, match="one iterator"):
        next(pool.run([jobs.job(2)]))
    trials.close()


def test_the_workers_copy_of_the_measure_is_its_own_and_lives_as_long():
    measure = jobs.Counted()
    with Processes(measure, workers=1) as executor:
        trials = list(executor.run(jobs.job(i) for i in range(3)))
    assert [t.metrics["calls"] for t in trials] == [1, 2, 3]
    assert measure.calls == torch.zeros(())


def test_a_job_over_the_limit_fails_once_and_a_start_does_not_count(tmp_path):
    # Importing torch takes longer than this limit: were it counted, every job would fail.
    with Processes(jobs.deed, workers=2, limit=0.8) as executor:
        trials = by_index(executor.run([jobs.job(0, "hang", tmp_path / "mark"), *(jobs.job(i) for i in range(1, 4))]))
    assert [t.state for t in trials] == ["failed", "done", "done", "done"]
    assert trials[0].error == "took longer than 0.8 s"
    assert trials[0].seconds >= 0.8
    assert (tmp_path / "mark").read_text() == "x"


@pytest.mark.skipif(sys.platform != "linux", reason="the limit is Linux's")
def test_a_memory_hog_fails_and_its_worker_goes_on():
    with Processes(jobs.deed, workers=1, memory=4 << 30) as executor:
        trials = by_index(executor.run([jobs.job(0, "eat"), jobs.job(1, "eat_python"), jobs.job(2, "threads")]))
        assert trials[0].error.startswith("out of memory")
        assert trials[1].error.startswith("out of memory (MemoryError")
        assert trials[2].state == "done"
        (after,) = executor.run([jobs.job(3, "threads")])
        assert after.metrics["pid"] == trials[2].metrics["pid"]


def test_close_with_busy_workers_comes_back_and_leaves_none(tmp_path):
    executor = Processes(jobs.deed, workers=2)
    trials = executor.run([jobs.job(0, "hold", tmp_path / "held"), jobs.job(1)])
    next(trials)
    wait_for_text(tmp_path / "held")
    executor.close()
    executor.close()
    assert_released(tmp_path / "held")
    assert list(trials) == []


def test_what_cannot_be_pickled_is_refused_at_once():
    with pytest.raises(UsageError, match="picklable"):
        Processes(lambda job: {})


def test_what_cannot_be_loaded_is_a_sentence():
    with Processes(jobs.Unloadable(), workers=1) as executor, pytest.raises(UsageError, match="the data set is gone"):
        list(executor.run([jobs.job(0)]))


@pytest.mark.parametrize(
    "argument", [{"workers": 0}, {"limit": 0}, {"limit": float("nan")}, {"attempts": 0}, {"memory": 0}]
)
def test_arguments_out_of_range(argument):
    with pytest.raises(UsageError, match=next(iter(argument))):
        Processes(jobs.deed, **argument)


@pytest.fixture
def script(tmp_path):
    """Runs a text as a script in a session of its own, all of which ends with the test."""
    drivers = []

    def start(text: str) -> subprocess.Popen[str]:
        path = tmp_path / "script.py"
        path.write_text(f"import sys\nsys.path.insert(0, {str(Path(__file__).parent)!r})\n" + textwrap.dedent(text))
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        drivers.append(subprocess.Popen([sys.executable, str(path)], start_new_session=True, **pipes))
        return drivers[-1]

    yield start
    for driver in drivers:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(driver.pid, signal.SIGKILL)
        driver.communicate()


def test_a_script_without_a_guard_is_told_so(script):
    driver = script(
        """
        import jobs
        from archgrad.executors import Processes
        with Processes(jobs.deed, workers=1) as executor:
            print(len(list(executor.run([jobs.job(0)]))))
        """,
    )
    out, err = driver.communicate(timeout=120)
    assert driver.returncode == 1
    assert out == ""
    assert "UsageError: a worker process should start, but it ended first (exit code 1" in err
    assert '`if __name__ == "__main__":`' in err.strip().splitlines()[-1]


@pytest.mark.parametrize("close", [True, False])
def test_a_driver_interrupted_while_its_workers_start_ends(close, script):
    """With and without close(): multiprocessing waits at exit for processes that wait for us."""
    driver = script(
        f"""
        import jobs
        from archgrad.executors import Processes
        if __name__ == "__main__":
            executor = Processes(jobs.deed, workers=2)
            try:
                print("here", flush=True)
                list(executor.run([jobs.job(0, "hang")]))
            finally:
                if {close}:
                    executor.close()
        """,
    )
    assert driver.stdout.readline() == "here\n"
    time.sleep(0.02)  # into the start of the first worker
    os.killpg(driver.pid, signal.SIGINT)
    _, err = driver.communicate(timeout=60)
    assert driver.returncode == -signal.SIGINT
    assert err.count("Traceback") == 1, err


@pytest.mark.parametrize("interrupt", [True, False])
def test_an_interrupt_waits_until_a_worker_has_its_orders_whichever_thread_is_given_it(interrupt):
    """A mask alone is the main thread's; the other one here would be given the signal."""
    done = threading.Event()
    other = threading.Thread(target=done.wait, daemon=True)
    other.start()
    usual, reached = signal.getsignal(signal.SIGINT), False
    try:
        with pytest.raises(KeyboardInterrupt) if interrupt else contextlib.nullcontext(), _interrupts_held():
            if interrupt:
                os.kill(os.getpid(), signal.SIGINT)
            for _ in range(20):
                time.sleep(0.005)
            reached = True
    finally:
        done.set()
    assert reached
    assert signal.getsignal(signal.SIGINT) is usual
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_workers_end_with_their_driver_and_print_nothing_on_its_standard_output(how, script, tmp_path):
    driver = script(
        f"""
        import jobs
        from archgrad.executors import Processes
        if __name__ == "__main__":
            with Processes(jobs.deed, workers=2) as executor:
                (trial,) = executor.run([jobs.job(0, "talk")])
                print(trial.state, flush=True)
                list(executor.run(jobs.job(i, "hold", {str(tmp_path)!r} + f"/{{i}}") for i in (1, 2)))
        """,
    )
    files = [tmp_path / "1", tmp_path / "2"]
    wait_for_text(*files)
    if how == signal.SIGINT:
        os.killpg(driver.pid, how)  # a terminal's Ctrl-C reaches the workers as well
    else:
        driver.send_signal(how)
    assert_released(*files)
    out, err = driver.communicate(timeout=60)
    assert driver.returncode == -how
    assert out == "done\n"
    assert "from Python" in err
    assert "from C" in err
    assert err.count("Traceback") == (how == signal.SIGINT)


def wait_for_text(*files: Path, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not all(file.exists() and file.read_text() for file in files):
        assert time.monotonic() < end, "the jobs should have begun"
        time.sleep(0.05)


def assert_released(*files: Path, seconds: float = 5) -> None:
    """The processes that held these files are gone."""
    end = time.monotonic() + seconds
    for path in files:
        with path.open() as file:
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    assert time.monotonic() < end, f"a worker still lives {seconds} s later"
                    time.sleep(0.05)
