"""Toy problems with known answers, and suites that anyone can run on a part of their own."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from archgrad.protocols import Estimator, Executor, Policy, Store
from archgrad.records import Architecture, Job, Step, Trial
from archgrad.spaces.decisions import Decision, Decisions

if TYPE_CHECKING:
    from archgrad.benchmarks.known import Known


def plain_space(*choices: int) -> Decisions:
    """Unconditional decisions d0, d1, ... with so many choices each, named a, b, c, ..."""
    return Decisions([Decision(f"d{d}", tuple("abcdefghijklm"[:k])) for d, k in enumerate(choices)])


def conditional_space() -> Decisions:
    """Four decisions; the second matters only under the first's choice b, the third under the second's choice a."""
    return Decisions(
        [
            Decision("kind", ("a", "b")),
            Decision("depth", ("a", "b", "c"), when=((0, 1),)),
            Decision("width", ("a", "b"), when=((1, 0),)),
            Decision("head", ("a", "b", "c")),
        ]
    )


class Separable:
    """A solver without training: valid_loss(h) = sum_d active_d table[d, h_d]; its minimum is the rows' minima.

    table: ``[D, K]``. differentiable: 0.
    """

    differentiable = 0

    def __init__(self, space: Decisions, table: Tensor) -> None:
        self.space, self.table = space, table

    def value(self, h: Tensor) -> Tensor:
        """``[*R, n, D, K] -> [*R, n]``."""
        return ((self.table.to(h) * h).sum(-1) * self.space.active(h)).sum(-1)

    def measure(
        self, architecture: Architecture, seed: int, fidelity: float, save: str | None = None
    ) -> dict[str, float]:
        del seed, fidelity, save
        return {"valid_loss": float(self.value(self.space.encode([architecture])))}


def quadratic(*choices: int, curvature: float = 1.0) -> Known:
    """f(h) = (curvature / 2) sum_d |h_d|^2 + a . h: the relaxation's error is (curvature / 2) sum_d (1 - |p_d|^2)."""
    from archgrad.benchmarks.known import enumerated

    space = plain_space(*choices)
    a = torch.linspace(-1, 1, space.D * space.K, dtype=torch.float64).reshape(space.D, space.K)
    return enumerated(
        "quadratic", space, lambda h: curvature / 2 * h.square().sum((-2, -1)) + (a.to(h) * h).sum((-2, -1))
    )


def toy(*choices: int) -> Known:
    """A wavy f of four decisions with three choices (or as given): interactions, curvature, everything enumerable."""
    from archgrad.benchmarks.known import enumerated

    space = plain_space(*(choices or (3, 3, 3, 3)))
    generator = torch.Generator().manual_seed(3)
    a, b = torch.randn(2, space.D, space.K, generator=generator, dtype=torch.float64)

    def f(h: Tensor) -> Tensor:
        s: Tensor = (a.to(h) * h).sum((-2, -1))
        t: Tensor = (b.to(h) * h).sum((-2, -1))
        return 1 + 0.5 * s + 0.2 * s**2 + 0.7 * torch.sin(t)

    return enumerated("toy", space, f)


class Replay:
    """A policy whose next sample is given: the same p_alpha, at points of the test's choice."""

    def __init__(self, policy: Any, h: Tensor) -> None:
        self.policy, self.h = policy, h

    def sample(self, n: int, generator: Any = None, *, noise: Any = None) -> Tensor:
        del generator, noise
        assert n == self.h.shape[-3]
        return self.h

    def __getattr__(self, name: str) -> Any:
        return getattr(self.policy, name)


def exact_gradient(policy: Policy, f: Callable[[Tensor], Tensor]) -> tuple[Tensor, ...]:
    """d/dalpha sum_h p_alpha(h) f(h), by enumerating the space."""
    h = policy.space.enumerate().to(next(policy.parameters()).dtype)  # type: ignore[attr-defined]
    expectation = (policy.log_prob(h).exp() * f(h)).sum()
    return torch.autograd.grad(expectation, list(policy.parameters()))


def expected_estimate(
    estimator: Callable[[], Estimator], policy: Policy, f: Callable[[Tensor], Tensor]
) -> tuple[Tensor, ...]:
    """The mean of an estimator's estimate over every batch of independent samples there is: no statistics, no noise.

    estimator: makes a fresh one, as each batch should meet the same state. The sum has size ** samples terms.
    """
    h = policy.space.enumerate().to(next(policy.parameters()).dtype)  # type: ignore[attr-defined]
    p = policy.log_prob(h).exp().detach()
    n = estimator().samples
    total = [torch.zeros_like(a) for a in policy.parameters()]
    for rows in itertools.product(range(len(h)), repeat=n):
        fresh = estimator()
        batch = fresh.propose(Replay(policy, h[list(rows)]), torch.Generator())
        estimate = fresh.gradient(policy, batch, f(batch.h))
        weight = p[list(rows)].prod()
        for t, g in zip(total, estimate.gradient, strict=True):
            t += weight * g
    return tuple(total)


def relative_error(got: Sequence[Tensor], want: Sequence[Tensor]) -> float:
    """|got - want| / |want| over all parameters together."""
    a, b = (torch.cat([t.reshape(-1) for t in ts]) for ts in (got, want))
    return float((a - b).norm() / b.norm())


def check_policy(policy: Policy) -> None:
    """A policy is a distribution over its space's vertices and samples what it says. AssertionError otherwise.

    Probabilities sum to 1 over the enumerated space; samples are canonical vertices; their frequencies agree with the
    probabilities (chi-square on 4,000 samples with a fixed seed, false alarm 1e-4); equal generators give equal
    samples; log_prob has a gradient.
    """
    from scipy.stats import chi2

    space: Any = policy.space
    dtype = next(policy.parameters()).dtype
    every = space.enumerate().to(dtype)
    p = policy.log_prob(every).exp().detach().double()
    assert torch.allclose(p.sum(), torch.tensor(1.0, dtype=torch.float64), atol=1e-5), f"sums to {p.sum()}"
    n = 4000
    h = policy.sample(n, torch.Generator().manual_seed(1))
    assert torch.equal(h, policy.sample(n, torch.Generator().manual_seed(1))), "equal generators differ"
    assert torch.equal(h, space.canonical(h)), "samples should be canonical"
    index: Mapping[Any, int] = {a: i for i, a in enumerate(space.decode(every))}
    counts = torch.zeros(len(every), dtype=torch.float64)
    for a in space.decode(h):
        counts[index[a]] += 1
    big = p * n >= 5  # the rest pooled, as the chi-square approximation asks
    expected = torch.cat([p[big] * n, (p[~big].sum() * n).reshape(1)])
    observed = torch.cat([counts[big], counts[~big].sum().reshape(1)])
    keep = expected > 0
    statistic = float((((observed - expected) ** 2) / expected)[keep].sum())
    limit = float(chi2.ppf(1 - 1e-4, max(1, int(keep.sum()) - 1)))
    assert statistic < limit, f"frequencies differ from probabilities: chi-square {statistic:.1f} > {limit:.1f}"
    assert any(g is not None and bool((g != 0).any()) for g in torch.autograd.grad(
        policy.log_prob(every[:1]).sum(), list(policy.parameters()), allow_unused=True
    ))  # fmt: skip


def check_unbiased(
    estimator: Callable[[], Estimator], policy: Policy, f: Callable[[Tensor], Tensor], *, tolerance: float = 1e-9
) -> None:
    """The estimator's expectation is the exact gradient, both by enumeration. Use a policy in double precision."""
    error = relative_error(expected_estimate(estimator, policy, f), exact_gradient(policy, f))
    assert error <= tolerance, f"biased: the expectation is {error:.2e} of the gradient away, more than {tolerance:.0e}"


def check_store(store: Store) -> None:
    """A new store keeps what it is given, once, in order, and gives it back as it was. AssertionError otherwise."""
    assert store.trials() == []
    assert store.steps() == []
    assert store.checkpoint() is None
    assert store.meta("absent") is None
    first = Trial(Job(2, "search", ("a", "b"), 7, 1.5, "finals/2"), {"valid_loss": 0.1 + 0.2, "params": 3.0}, 0.5)
    second = Trial(Job(1, "default", ("a", "a"), 8, 1.0), {}, 0.25, "it broke")
    for trial in (first, second, Trial(first.job, {"valid_loss": 9.0}, 1.0)):
        store.add(trial)
    assert store.trials() == [second, first], "by index, and the first of two with one index"
    tensor = torch.tensor([1.0, -0.0, float("inf")], dtype=torch.float64)
    for t in (0, 1):
        store.add_step(Step(t, [[0.25, 0.75]], {"value": float(t)}), {"t": t, "nested": {"x": [tensor, None, "s"]}})
    assert [s.t for s in store.steps()] == [0, 1]
    assert store.steps()[1] == Step(1, [[0.25, 0.75]], {"value": 1.0})
    state: Any = store.checkpoint()
    assert state["t"] == 1
    assert torch.equal(state["nested"]["x"][0], tensor)
    assert state["nested"]["x"][1:] == [None, "s"]
    for value in ({"a": [1, 2.5, None, "x"]}, "again"):
        store.set_meta("name", value)
        assert store.meta("name") == value


def check_executor(executor: Executor, measure: Callable[[Job], Mapping[str, float]], jobs: Sequence[Job]) -> None:
    """An executor answers every job once with what ``measure`` gives, and a failure by a failed trial.

    jobs: at least one that measure answers, and one that makes it raise.
    """
    trials = list(executor.run(jobs))
    assert sorted(t.job.index for t in trials) == sorted(j.index for j in jobs), "every job once"
    failed = 0
    for trial in trials:
        want, reason = _answer(measure, trial.job)
        if reason is not None:
            failed += 1
            assert trial.error is not None, f"{trial.job} should have failed"
            assert reason in trial.error, f"the reason should be told, got {trial.error!r}"
            assert "\n" not in trial.error, "a reason is one line"
        else:
            assert trial.error is None, trial.error
            assert dict(trial.metrics) == want
            assert trial.seconds >= 0
    assert 0 < failed < len(trials), "the jobs should hold both kinds"
    assert list(executor.run([])) == []


def _answer(measure: Callable[[Job], Mapping[str, float]], job: Job) -> tuple[dict[str, float], str | None]:
    try:
        return dict(measure(job)), None
    except Exception as error:
        return {}, str(error)
