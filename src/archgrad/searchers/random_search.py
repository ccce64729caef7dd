"""Random search: what every other method has to beat."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from archgrad.errors import UsageError
from archgrad.records import Batch
from archgrad.searchers.choices import Choices
from archgrad.spaces.decisions import Decisions

if TYPE_CHECKING:
    from archgrad.objectives.additive import AdditiveCost


class RandomSearch:
    """Architectures with every choice of every decision equally likely, ``samples`` a proposal.

    distinct: never the same network twice (by ``space.key``) until the space is used up. Raises UsageError for
    samples below 1.
    """

    name = "random_search"
    integrates = False

    def __init__(self, space: Decisions, samples: int = 10, *, distinct: bool = True) -> None:
        if samples < 1:
            raise UsageError(f"samples should be at least 1, got {samples}; 10 is usual")
        self.space, self.samples, self.distinct = space, samples, distinct
        self.choices = Choices(space)
        self.seen: dict[tuple[int, ...], None] = {}
        self._keys: set[Hashable] = set()

    def propose(self, generator: torch.Generator) -> Batch:
        if self.distinct:
            return self.choices.batch(self.choices.fresh(self.samples, self._keys, generator))
        return self.choices.batch(self.choices.draw(self.samples, generator))

    def observe(self, batch: Batch, values: Tensor, cost: AdditiveCost | None = None) -> Mapping[str, float]:
        if self.distinct:
            for x in self.choices.read(batch.h):
                self.seen[x] = None
                self._keys.add(self.choices.key(x))
        return {}

    def marginals(self, generator: torch.Generator) -> Tensor:
        """Uniform ``[D, K]``, whatever was found."""
        return self.choices.frequencies([])

    def state_dict(self) -> dict[str, Any]:
        return {"seen": [list(x) for x in self.seen]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.seen = dict.fromkeys(tuple(int(k) for k in x) for x in state["seen"])
        self._keys = {self.choices.key(x) for x in self.seen}
