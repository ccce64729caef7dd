"""What ``archgrad gradients`` measures unless told otherwise: plain data, one line an estimator."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from archgrad.errors import UsageError
from archgrad.estimators import (
    ARSM,
    PPO,
    DisARM,
    Exact,
    GumbelSoftmax,
    Lax,
    LocalExpectation,
    Rebar,
    ReinMax,
    Relax,
    Reuse,
    ScoreFunction,
    Softmax,
    StraightThrough,
    Unordered,
)
from archgrad.laboratory.measuring import Candidate
from archgrad.protocols import Estimator
from archgrad.text import nearest

CANDIDATES: tuple[Candidate, ...] = (
    Candidate("ScoreFunction-none", lambda n: ScoreFunction(n, "none")),
    Candidate("ScoreFunction-moving-average", lambda n: ScoreFunction(n, "moving-average"), training=320),
    Candidate("ScoreFunction-leave-one-out", lambda n: ScoreFunction(n, "leave-one-out")),
    Candidate("ScoreFunction-learned", lambda n: ScoreFunction(n, "learned"), training=1600),
    Candidate("PPO", lambda n: PPO(n, epochs=1, entropy=0.0)),
    Candidate("Unordered", Unordered),
    Candidate("LocalExpectation-1", lambda n: LocalExpectation(1)),
    Candidate("LocalExpectation", LocalExpectation),
    Candidate("Reuse", Reuse, training=320, preparations=20),
    Candidate("ARSM", ARSM),
    Candidate("DisARM", DisARM),
    Candidate("Softmax", lambda n: Softmax(), most=4),
    Candidate("GumbelSoftmax-t2", lambda n: GumbelSoftmax(n, temperature=2.0)),
    Candidate("GumbelSoftmax-t1", lambda n: GumbelSoftmax(n, temperature=1.0)),
    Candidate("GumbelSoftmax-t0.5", lambda n: GumbelSoftmax(n, temperature=0.5)),
    Candidate("GumbelSoftmax-t0.1", lambda n: GumbelSoftmax(n, temperature=0.1)),
    Candidate("StraightThrough-gumbel", lambda n: StraightThrough(n, temperature=1.0, gumbel=True)),
    Candidate("StraightThrough-softmax", lambda n: StraightThrough(n, temperature=1.0, gumbel=False)),
    Candidate("ReinMax", ReinMax),
    Candidate("Rebar-fixed", lambda n: Rebar(n, learn="none")),
    Candidate("Rebar-960", lambda n: Rebar(n), training=960),
    Candidate("Relax-300", lambda n: Relax(n), training=300),
    Candidate("Relax-1000", lambda n: Relax(n), training=1000),
    Candidate("Relax-8000", lambda n: Relax(n), training=8000),
    Candidate("Relax-through-f-3000", lambda n: Relax(n, through_f=True), training=3000),
    Candidate("Lax-1000", lambda n: Lax(n), training=1000),
    Candidate("Exact", lambda n: Exact(), most=4),
)
"""A number at the end of a name: evaluations of f spent on training first."""


@dataclass(frozen=True)
class Family:
    """An estimator at every temperature. make: from samples and temperature; training as a candidate's."""

    name: str
    make: Callable[[int, float], Estimator]
    training: int = 0

    def at(self, temperature: float) -> Candidate:
        return Candidate(f"{self.name}-t{temperature:g}", lambda n: self.make(n, temperature), self.training)


TEMPERATURES = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
SWEEP: tuple[Family, ...] = (
    Family("GumbelSoftmax", lambda n, t: GumbelSoftmax(n, temperature=t)),
    Family("Rebar", lambda n, t: Rebar(n, temperature=t, learn="none")),
    Family("Relax", lambda n, t: Relax(n, temperature=t, learn="scale"), training=1000),
)


def chosen(names: Sequence[str], among: Sequence[Candidate] = CANDIDATES) -> list[Candidate]:
    """The candidates of these names; ``ScoreFunction`` stands for every ScoreFunction-... UsageError for others."""
    found: list[Candidate] = []
    for name in names:
        some = [c for c in among if c.name == name or c.name.startswith(f"{name}-")]
        if not some:
            raise UsageError(nearest("an estimator", name, [c.name for c in among]))
        found += [c for c in some if c not in found]
    return found
