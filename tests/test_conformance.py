"""The suites of archgrad.testing on archgrad's own parts, and on broken ones, which they have to notice."""

import pytest

from archgrad import Inline, Job, Processes, SQLite
from archgrad.records import Trial
from archgrad.testing import check_executor, check_policy, check_store, plain_space

JOBS = [Job(i, "search", ("x", str(i)), i, 1.0) for i in range(5)]


def measure(job):
    if job.index == 3:
        raise ArithmeticError("three is not allowed")
    return {"valid_loss": job.index / 7}


def test_the_sqlite_store(tmp_path):
    with SQLite(tmp_path / "run.sqlite", create=True) as store:
        check_store(store)


def test_executors():
    check_executor(Inline(measure), measure, JOBS)
    with Processes(measure, 2) as executor:
        check_executor(executor, measure, JOBS)


def test_a_store_that_overwrites_and_an_executor_that_swallows_are_noticed(tmp_path):
    class Overwriting(SQLite):
        def add(self, trial):
            if trial.metrics.get("valid_loss") == 9.0:
                trial = Trial(Job(99, "search", (), 0, 1.0), {}, 0.0)
            super().add(trial)

    with pytest.raises(AssertionError, match="by index"):
        check_store(Overwriting(tmp_path / "b.sqlite", create=True))

    class Swallowing(Inline):
        def run(self, jobs):
            yield from (t for t in super().run(jobs) if t.error is None)

    with pytest.raises(AssertionError, match="every job once"):
        check_executor(Swallowing(measure), measure, JOBS)


def test_a_policy_that_samples_something_else_is_noticed():
    from archgrad import Factorised

    class Wrong(Factorised):
        def sample(self, n, generator=None, *, noise=None):
            h = super().sample(n, generator, noise=noise)
            return h.roll(1, -1) if self.space.K == 2 else h

    space = plain_space(2, 2)
    policy = Wrong(space)
    policy.alpha.data[:, 0] = 0.3
    with pytest.raises(AssertionError, match="frequencies differ"):
        check_policy(policy)


def test_no_public_name_is_hidden_by_a_module_of_that_name():
    import pkgutil

    import archgrad

    assert not {m.name for m in pkgutil.iter_modules(archgrad.__path__)} & set(archgrad.__all__)
