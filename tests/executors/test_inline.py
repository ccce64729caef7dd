import jobs
import pytest

from archgrad.executors import Inline


@pytest.mark.parametrize(
    ("deed", "reason"),
    [
        ("nan", "valid_loss is nan"),
        ("infinite", "valid_loss is inf"),
        ("fail", "ValueError: the width should be even"),
        ("refuse", "UsageError: data should be there"),
        ("no_dict", "TypeError: measure should return a dict of metrics, got float"),
        ("text", "ValueError: could not convert string to float: 'low'"),
    ],
)
def test_a_failure_is_a_failed_trial_with_one_line(deed, reason):
    (trial,) = Inline(jobs.deed).run([jobs.job(3, deed)])
    assert (trial.job.index, trial.state, trial.error, trial.metrics) == (3, "failed", reason, {})
    assert trial.seconds >= 0


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("no"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes."),
    ],
)
def test_out_of_memory_is_said_first(error):
    def measure(job):
        raise error

    (trial,) = Inline(measure).run([jobs.job(0)])
    assert trial.error.startswith("out of memory")


def test_a_long_reason_is_cut():
    def measure(job):
        raise ValueError("x" * 10_000)

    (trial,) = Inline(measure).run([jobs.job(0)])
    assert len(trial.error) <= 500
    assert trial.error.endswith("...")


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_what_is_about_the_process_passes(error):
    def measure(job):
        raise error

    with pytest.raises(error):
        list(Inline(measure).run([jobs.job(0)]))


def test_jobs_are_taken_one_by_one_as_their_trials_are_asked_for():
    taken = []

    def source():
        for i in range(3):
            taken.append(i)
            yield jobs.job(i)

    with Inline(jobs.deed) as executor:
        trials = executor.run(source())
        assert taken == []
        next(trials)
        assert taken == [0]
        assert [trial.job.index for trial in trials] == [1, 2]
