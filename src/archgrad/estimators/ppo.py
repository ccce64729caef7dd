"""PPO: several clipped steps from one batch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from archgrad.errors import UsageError
from archgrad.estimators.score_function import entropy_term, leave_one_out, spread
from archgrad.protocols import Policy
from archgrad.records import Batch, Estimate


class PPO:
    """Gradient of mean_i max(r_i A_i, clip(r_i, 1 - clip, 1 + clip) A_i) - entropy H, r_i = p_alpha(h_i) / p_old(h_i).

    Schulman et al. (2017), in our sign: A_i is a loss, so the pessimistic bound is the maximum. A_i is f_i minus the
    leave-one-out mean, divided by the batch's standard deviation. In the first epoch r = 1 and this is ScoreFunction
    with ``standardise``; later epochs re-use the batch off-policy, biased and cheap: ``samples`` evaluations of f
    for ``epochs`` steps. The ratio is the whole architecture's.
    """

    differentiates = 0
    independent = False
    learns = False

    def __init__(self, samples: int = 20, *, clip: float = 0.2, epochs: int = 4, entropy: float = 0.03) -> None:
        if samples < 2:
            raise UsageError(f"samples should be at least 2 for a leave-one-out baseline, got {samples}; 20 is usual")
        if not 0 < clip < 1:
            raise UsageError(f"clip should be between 0 and 1, got {clip}; 0.2 is usual")
        if epochs < 1:
            raise UsageError(f"epochs should be at least 1, got {epochs}; 4 is usual")
        self.samples, self.clip, self.epochs, self.entropy = samples, clip, epochs, entropy

    def propose(self, policy: Policy, generator: torch.Generator) -> Batch:
        h = policy.sample(self.samples, generator)
        with torch.no_grad():
            return Batch(h, {"log_prob": policy.log_prob(h)})

    def gradient(self, policy: Policy, batch: Batch, values: Tensor) -> Estimate:
        values = values.detach()
        advantage = leave_one_out(values) / spread(values)
        log_prob, entropy = policy.log_prob(batch.h), policy.entropy(batch.h)
        ratio = (log_prob - batch.memo["log_prob"]).exp()
        clipped = ratio.clamp(1 - self.clip, 1 + self.clip)
        objective = torch.maximum(ratio * advantage, clipped * advantage).mean(-1)
        objective = objective - self.entropy * entropy_term(entropy, log_prob)
        gradient = torch.autograd.grad(objective.sum(), list(policy.parameters()))
        outside = ((ratio - 1).abs() > self.clip).float().mean()
        diagnostics = {"entropy": float(entropy.detach().mean()), "clipped": float(outside)}
        return Estimate(gradient, diagnostics, 1 / spread(values).squeeze(-1))

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        del state  # between batches PPO remembers nothing
