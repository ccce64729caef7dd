"""Toy problems with known answers, and suites that anyone can run on a part of their own."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from archgrad.pairing import valued
from archgrad.policies.replicated import replicated
from archgrad.protocols import Estimator, Executor, Policy, Store
from archgrad.records import Architecture, Batch, Job, Step, Trial
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


def check_estimator(
    make: Callable[[], Estimator],
    policy: Policy,
    f: Callable[[Tensor], Tensor],
    *,
    unbiased: bool = False,
    draws: int = 4000,
    tolerance: float = 1e-9,
) -> None:
    """An estimator keeps the protocol. AssertionError otherwise, which says what should hold.

    make: a fresh estimator at every call, always the same. policy: without runs, in double precision, away from
    uniform. f: ``[*R, n, D, K] -> [*R, n]``, as often differentiable as the estimator asks. Its randomness is all in
    ``propose``; batches have no graph and can be split and joined again; ``gradient`` gives a finite tensor a
    parameter, without a graph, and leaves alpha as it is; three runs at once are three single ones; what it remembers
    goes through ``state_dict``. unbiased: as far as ``draws`` estimates can tell, at a false-alarm rate of 1e-3.
    """
    _check_batch(make, policy)
    _check_gradient(make, policy, f)
    _check_memory(make, policy, f)
    _check_runs(make, policy, f, tolerance)
    if unbiased:
        from archgrad.benchmarks.known import Known
        from archgrad.laboratory.measuring import Candidate, measure

        def expectation(policy: Policy) -> Tensor:
            h = policy.space.enumerate().to(next(policy.parameters()))  # type: ignore[attr-defined]
            return (policy.log_prob(h).exp() * f(h)).sum()

        problem: Known = Known("f", policy.space, f, expectation)  # type: ignore[arg-type]
        estimator = make()
        trained = 20 * len(estimator.propose(policy, _generator(0))) if estimator.learns else 0
        candidate = Candidate(type(estimator).__name__, lambda samples, space: make(), trained)
        quality = measure(problem, policy, candidate, samples=estimator.samples, draws=draws).quality
        assert not quality.biased, f"should be unbiased, but {quality}"
        assert quality.detectable is not None, f"more draws are needed to tell, {quality}"


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _answered(estimator: Estimator, policy: Policy, batch: Batch, f: Callable[[Tensor], Tensor]) -> tuple[Tensor, ...]:
    """The gradient from a copy of the batch: a leaf of its own, whatever the first was used for."""
    copied = Batch(batch.h.detach().clone(), batch.memo)
    return estimator.gradient(policy, copied, valued(estimator, copied, f)).gradient


def _check_batch(make: Callable[[], Estimator], policy: Policy) -> None:
    space = policy.space
    for attribute in ("differentiates", "independent", "samples", "epochs", "learns"):
        assert hasattr(make(), attribute), f"an estimator should say its {attribute}"
    batch, again = (make().propose(policy, _generator(1)) for _ in range(2))
    assert batch.h.shape[-2:] == (space.D, space.K), f"h should be [n, {space.D}, {space.K}], got {batch.h.shape}"
    assert batch.h.dim() == 3, "a policy without runs should get a batch without"
    assert not batch.h.requires_grad, "proposed points should have no graph"
    assert bool((batch.h >= 0).all()), "rows should lie on the simplex"
    assert torch.allclose(batch.h.sum(-1), torch.ones_like(batch.h[..., 0])), "rows should lie on the simplex"
    assert not bool((batch.h * ~space.mask).any()), "choices that do not exist should have no weight"
    assert torch.equal(batch.h, again.h), "equal generators should give equal batches"
    for name, tensor in batch.memo.items():
        assert torch.equal(tensor, again.memo[name]), f"equal generators should give equal {name!r}"


def _check_gradient(make: Callable[[], Estimator], policy: Policy, f: Callable[[Tensor], Tensor]) -> None:
    estimator = make()
    batch = estimator.propose(policy, _generator(2))
    state = copy.deepcopy(estimator.state_dict())
    parameters = list(policy.parameters())
    alpha = [p.detach().clone() for p in parameters]
    got = _answered(estimator, policy, batch, f)
    for p, before in zip(parameters, alpha, strict=True):
        assert torch.equal(p, before), "alpha should stay as it is"
        assert p.grad is None, "estimates should be returned, not left in .grad"
    assert len(got) == len(parameters), f"a tensor a parameter: {len(parameters)}, got {len(got)}"
    for g, p in zip(got, parameters, strict=True):
        assert g.shape == p.shape, f"a parameter's shape {tuple(p.shape)}, got {tuple(g.shape)}"
        assert g.dtype == p.dtype, f"a parameter's precision {p.dtype}, got {g.dtype}"
        assert bool(torch.isfinite(g).all()), "estimates should be finite"
        assert not g.requires_grad, "estimates should have no graph"
    assert any(bool((g != 0).any()) for g in got), "an estimate of nothing but zeros says nothing"
    halves = [batch.rows(slice(0, len(batch) // 2)), batch.rows(slice(len(batch) // 2, None))]
    late = make()
    late.load_state_dict(state)
    for a, b in zip(got, _answered(late, policy, Batch.join(halves), f), strict=True):
        assert torch.equal(a, b), "a batch split, joined and answered late should give the same estimate"


def _check_memory(make: Callable[[], Estimator], policy: Policy, f: Callable[[Tensor], Tensor]) -> None:
    estimator, generator = make(), _generator(3)
    for _ in range(3):
        _answered(estimator, policy, estimator.propose(policy, generator), f)
    state = copy.deepcopy(estimator.state_dict())
    _check_plain(state)
    restored = make()
    restored.load_state_dict(state)
    for seed in (4, 5):
        first, second = (_answered(e, policy, e.propose(policy, _generator(seed)), f) for e in (estimator, restored))
        for a, b in zip(first, second, strict=True):
            assert torch.equal(a, b), "restored from state_dict, an estimator should go on as if nothing had happened"
    if estimator.learns:
        frozen = make()
        frozen.load_state_dict(state)
        frozen.learns = False
        batch = frozen.propose(policy, _generator(6))  # may still fit what was known before
        before = copy.deepcopy(frozen.state_dict())
        _answered(frozen, policy, batch, f)
        assert _same(frozen.state_dict(), before), "with learns = False an estimator should stay as it is"


def _check_plain(state: Any) -> None:
    """Nested dicts and lists of numbers, strings, None and tensors."""
    if isinstance(state, Mapping):
        for value in state.values():
            _check_plain(value)
    elif isinstance(state, list | tuple):
        for value in state:
            _check_plain(value)
    elif isinstance(state, Tensor):
        assert not state.requires_grad, "a state should have no graph"
    else:
        plain = state is None or isinstance(state, bool | int | float | str)
        assert plain, f"a state should be plain values and tensors, got {type(state).__name__}"


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, Mapping):
        return isinstance(b, Mapping) and a.keys() == b.keys() and all(_same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(_same(x, y) for x, y in zip(a, b, strict=True))
    return torch.equal(a, b) if isinstance(a, Tensor) else bool(a == b)


def _check_runs(make: Callable[[], Estimator], policy: Policy, f: Callable[[Tensor], Tensor], tolerance: float) -> None:
    """What was learned without runs serves three, whose estimates are those of three single policies."""
    learner, generator = make(), _generator(7)
    _answered(learner, policy, learner.propose(policy, generator), f)
    state = copy.deepcopy(learner.state_dict())

    def frozen() -> Estimator:
        estimator = make()
        estimator.load_state_dict(copy.deepcopy(state))
        estimator.learns = False
        return estimator

    many: Any = replicated(policy, 3)  # type: ignore[type-var]
    with torch.no_grad():
        for p in many.parameters():
            p += 0.3 * torch.randn(p.shape, generator=generator, dtype=p.dtype)
    batch = frozen().propose(many, generator)
    assert batch.h.dim() == 4, f"three runs should propose [3, n, D, K], got {tuple(batch.h.shape)}"
    assert len(batch.h) == 3, f"three runs should propose [3, n, D, K], got {tuple(batch.h.shape)}"
    together = _answered(frozen(), many, batch, f)
    # beside the longest of the three: samples that are all one architecture give an estimate that is 0 but for rounding
    length = max(torch.cat([t[r].flatten() for t in together]).norm() for r in range(3))
    for r in range(3):
        one: Any = copy.deepcopy(policy)
        with torch.no_grad():
            for p, q in zip(one.parameters(), many.parameters(), strict=True):
                p.copy_(q[r])
        alone = _answered(frozen(), one, Batch(batch.h[r], {k: v[r] for k, v in batch.memo.items()}), f)
        error = torch.cat([(t[r] - a).flatten() for t, a in zip(together, alone, strict=True)]).norm() / length
        assert error <= tolerance, f"run {r} of three differs from the same run alone by {error:.1e} of its length"


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
