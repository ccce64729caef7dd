"""Any searchers side by side, one after the other in Python."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from archgrad.errors import UsageError
from archgrad.protocols import Searcher
from archgrad.records import Batch

if TYPE_CHECKING:
    from archgrad.objectives.additive import AdditiveCost


class Each:
    """N searchers of one run each as one of N: batches ``[N, n, D, K]``, values ``[N, n]``.

    All draw from the one generator, in turn. Raises UsageError for none, and where they ask for unequally many.
    """

    integrates = False

    def __init__(self, searchers: Sequence[Searcher]) -> None:
        if not searchers:
            raise UsageError("side by side there should be at least one searcher, got none")
        self.searchers = tuple(searchers)

    @property
    def name(self) -> str:
        return self.searchers[0].name

    @property
    def samples(self) -> int:
        return self.searchers[0].samples

    def propose(self, generator: torch.Generator) -> Batch:
        batches = [s.propose(generator) for s in self.searchers]
        lengths = sorted({len(b) for b in batches})
        if len(lengths) > 1:
            raise UsageError(f"searchers side by side should ask for equally many architectures, got {lengths}")
        memo = {name: torch.stack([b.memo[name] for b in batches]) for name in batches[0].memo}
        return Batch(torch.stack([b.h for b in batches]), memo)

    def observe(self, batch: Batch, values: Tensor, cost: AdditiveCost | None = None) -> Mapping[str, float]:
        memos = {name: tensor.unbind() for name, tensor in batch.memo.items()}
        for r, (searcher, h, v) in enumerate(zip(self.searchers, batch.h.unbind(), values.unbind(), strict=True)):
            searcher.observe(Batch(h, {name: rows[r] for name, rows in memos.items()}), v)
        return {}

    def marginals(self, generator: torch.Generator) -> Tensor:
        return torch.stack([s.marginals(generator) for s in self.searchers])

    def state_dict(self) -> dict[str, Any]:
        return {"searchers": [s.state_dict() for s in self.searchers]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for searcher, own in zip(self.searchers, state["searchers"], strict=True):
            searcher.load_state_dict(own)
