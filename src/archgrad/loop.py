"""The loop: propose, evaluate, estimate, descend."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor
from torch.optim import Optimizer

from archgrad.errors import UsageError
from archgrad.pairing import check_pairing
from archgrad.policies.factorised import Factorised
from archgrad.problem import Problem
from archgrad.protocols import Executor, Policy, Store
from archgrad.recipes import Recipe
from archgrad.records import Architecture, Estimate, Job, Step, Trial

Watch = Callable[[Trial], None]
"""Told of every trial as it finishes."""

IN_A_ROW = 5
"""So many failures one after the other mean that something is wrong with the set-up, not with an architecture."""


class Failing(Exception):  # noqa: N818 - a state the run ends in, not a programming error
    """IN_A_ROW evaluations in a row failed; the message is the last reason."""


class Untrained(Exception):  # noqa: N818
    """None of the finalists could be trained fully; the message is the last reason."""


class Streak:
    """Failures one after the other, over all that a session evaluates: a batch may be shorter than IN_A_ROW."""

    def __init__(self) -> None:
        self.length = 0

    def heard(self, trial: Trial) -> None:
        """Raises Failing with the last of IN_A_ROW failures."""
        self.length = 0 if trial.error is None else self.length + 1
        if self.length >= IN_A_ROW:
            raise Failing(trial.error)


def loop(
    problem: Problem,
    recipe: Recipe,
    *,
    trials: int,
    executor: Executor,
    store: Store,
    seed: int = 0,
    fidelity: float = 1.0,
    offset: int = 0,
    watch: Watch = lambda trial: None,
    streak: Streak | None = None,
) -> None:
    """Spend ``trials`` evaluations of f on the policy's samples; each, and alpha after every step, goes to the store.

    A step is a function of (alpha, seed, t): the batch's noise comes from ``stream(seed, t)``, a trial's training
    seed from how often its architecture came before. So a run that was killed goes on by calling this again: the
    checkpoint is loaded, the unfinished step proposes the same batch, and its finished trials are found by index
    (``offset`` + place in the run). Raises Failing, and UsageError where the recipe's parts do not go together.
    """
    streak = streak or Streak()
    policy, estimator, optimizer = recipe.policy, recipe.estimator, recipe.optimizer
    # values come back from an executor as numbers, whatever the solver could differentiate
    check_pairing(policy, estimator, 0, f"a search that trains each architecture by {type(problem.solver).__name__}")
    t, spent = 0, 0

    def checkpoint(diagnostics: Mapping[str, float]) -> None:
        state = {
            "policy": policy.state_dict(),
            "estimator": estimator.state_dict(),
            "optimizer": optimizer.state_dict(),
            "t": t,
            "spent": spent,
        }
        store.add_step(Step(t, believed(policy, seed, t), diagnostics), state)

    state = store.checkpoint()
    if state is None:
        checkpoint({})
    else:
        try:
            policy.load_state_dict(state["policy"])
            estimator.load_state_dict(state["estimator"])
            optimizer.load_state_dict(state["optimizer"])
            t, spent = int(state["t"]), int(state["spent"])
        except (KeyError, RuntimeError, TypeError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise UsageError(f"the run's checkpoint should fit its recipe and space, got: {reason}") from error
    kept = {x.job.index: x for x in store.trials() if x.job.role == "search"}
    replicates = Replicates([x for x in kept.values() if x.job.index < offset + spent])
    exact = problem.objective.cost if isinstance(policy, Factorised) else None
    done = [x for x in kept.values() if x.error is None and x.job.index < offset + spent]
    worst = float(problem.values(done, -torch.inf, sampled=exact is not None).max()) if done else -torch.inf

    while spent < trials:
        batch = estimator.propose(policy, stream(seed, "search", t))  # h ~ p_alpha
        if not len(batch):
            raise UsageError(f"{type(estimator).__name__} asks for no evaluations, so a search has none to spend")
        architectures = problem.space.decode(batch.h)[: trials - spent]
        jobs = [
            Job(offset + spent + i, "search", a, replicates.seed(seed, a), fidelity)
            for i, a in enumerate(architectures)
        ]
        finished = evaluate(jobs, kept, executor, store, watch, streak)  # f(z*(h); h)
        spent += len(jobs)
        if len(jobs) < len(batch):
            return  # the budget cuts the last batch short: its trials count as candidates, alpha stays
        values = problem.values(finished, worst, sampled=exact is not None)
        if torch.isfinite(values).all():
            worst = max(worst, float(values.max()))
        else:  # nothing has ever worked, so there is no worst value to give, and no direction to go
            values = torch.zeros_like(values)
        diagnostics: dict[str, float] = {"value": float(values.mean())}
        for _ in range(estimator.epochs):
            estimate = estimator.gradient(policy, batch, values.to(batch.h.dtype))  # ~ d/dalpha E[f]
            if exact is not None and isinstance(policy, Factorised):
                estimate = plus(estimate, torch.autograd.grad(exact.expectation(policy).sum(), [*policy.parameters()]))
            descend(optimizer, policy, estimate)
            diagnostics.update(estimate.diagnostics)
        t += 1
        checkpoint(diagnostics)


def evaluate(
    jobs: Sequence[Job],
    kept: Mapping[int, Trial],
    executor: Executor,
    store: Store,
    watch: Watch,
    streak: Streak,
) -> list[Trial]:
    """The jobs' trials in their order: those already ``kept``, and the rest, stored one by one as they finish.

    Raises Failing with the last of IN_A_ROW failures.
    """
    known = {j.index: kept[j.index] for j in jobs if j.index in kept}
    missing = [j for j in jobs if j.index not in known]
    running = executor.run(missing)
    try:
        for trial in running:
            store.add(trial)
            watch(trial)
            known[trial.job.index] = trial
            streak.heard(trial)
    finally:
        running.close()
    return [known[j.index] for j in jobs]


def descend(optimizer: Optimizer, policy: Policy, estimate: Estimate) -> None:
    """The only place where alpha changes."""
    for parameter, gradient in zip(policy.parameters(), estimate.gradient, strict=True):
        parameter.grad = gradient
    optimizer.step()


def plus(estimate: Estimate, gradient: Sequence[Tensor]) -> Estimate:
    """An estimate with the exact gradient of another part of f added, in the estimate's own scale of f."""

    def scaled(g: Tensor) -> Tensor:
        scale = estimate.scale
        return g if scale is None else g * scale.to(g).reshape(*scale.shape, *[1] * (g.dim() - scale.dim()))

    total = tuple(a + scaled(b) for a, b in zip(estimate.gradient, gradient, strict=True))
    return Estimate(total, estimate.diagnostics, estimate.scale)


class Replicates:
    """The training seed of an architecture: a new one each time it is drawn again, the same ones for all.

    Common seeds make comparisons between architectures less noisy; a fresh one for a repeat makes it worth its cost.
    """

    def __init__(self, trials: Sequence[Trial] = ()) -> None:
        self.seen: dict[Architecture, int] = {}
        for trial in trials:
            self.seen[trial.job.architecture] = self.seen.get(trial.job.architecture, 0) + 1

    def seed(self, run: int, architecture: Architecture) -> int:
        count = self.seen.get(architecture, 0)
        self.seen[architecture] = count + 1
        return training_seed(run, count)


def training_seed(run: int, replicate: int) -> int:
    """The seed of the replicate-th training of any architecture in a run."""
    return mixed(run, "training", replicate)


def stream(seed: int, name: str, t: int) -> torch.Generator:
    """The t-th generator of a named stream: randomness is a function of (seed, name, t), so it needs no checkpoint."""
    return torch.Generator().manual_seed(mixed(seed, name, t))


def mixed(*parts: object) -> int:
    """A 31-bit seed from anything with a repr."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:4], "big") >> 1


def believed(policy: Policy, seed: int, t: int) -> list[list[float]]:
    """How likely each choice of each decision is, ``[D][K]``: exact if factorised, the mean of 64 samples otherwise."""
    if isinstance(policy, Factorised):
        marginals: list[list[float]] = policy.marginals().detach().tolist()
    else:
        marginals = policy.sample(64, stream(seed, "believed", t)).mean(0).tolist()
    return [[round(p, 5) for p in row] for row in marginals]
