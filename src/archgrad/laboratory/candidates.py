"""What ``archgrad gradients`` measures unless told otherwise: plain data, one line an estimator."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from archgrad.errors import UsageError
from archgrad.estimators import PPO, Lax, Rebar, Relax, ScoreFunction
from archgrad.laboratory.measuring import Candidate
from archgrad.protocols import Estimator
from archgrad.text import nearest

CANDIDATES: tuple[Candidate, ...] = (
    Candidate("ScoreFunction-none", lambda n: ScoreFunction(n, "none")),
    Candidate("ScoreFunction-moving-average", lambda n: ScoreFunction(n, "moving-average"), training=320),
    Candidate("ScoreFunction-leave-one-out", lambda n: ScoreFunction(n, "leave-one-out")),
    Candidate("PPO", lambda n: PPO(n, epochs=1, entropy=0.0)),
    Candidate("Rebar-fixed", lambda n: Rebar(n, learn="none")),
    Candidate("Rebar-960", lambda n: Rebar(n), training=960),
    Candidate("Relax-300", lambda n: Relax(n), training=300),
    Candidate("Relax-1000", lambda n: Relax(n), training=1000),
    Candidate("Relax-16000", lambda n: Relax(n), training=16000),
    Candidate("Relax-through-f-3000", lambda n: Relax(n, through_f=True), training=3000),
    Candidate("Lax-1000", lambda n: Lax(n), training=1000),
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
