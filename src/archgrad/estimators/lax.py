"""LAX: the score function of the continuous variable behind a discrete choice, with a learned control variate."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch

from archgrad.estimators.control_variate import (
    Baseline,
    Learner,
    check_baseline,
    objective,
)
from archgrad.estimators.coupled import coupled, log_density
from archgrad.estimators.gumbel import check_temperature, uniforms
from archgrad.estimators.surrogate_network import check_hidden, network, surrogate
from archgrad.protocols import Policy
from archgrad.records import Batch, Estimate


class Lax:
    """(f(b) - c(z)) dlog p(z) + dc(z), averaged over samples. Grathwohl et al. (2018), eq. 7, applied to b = argmax z.

    z = log p + Gumbel has a density, whose score takes the place of b's; c = c_phi(softmax(z / t)) is trained on the
    estimate's variance. Unbiased, and f is asked for values at vertices only, once a sample. But the score of D K
    continuous variables is noisier than that of D choices: here for comparison. ``Relax`` conditions on b and is
    better throughout, most of all when choices are nearly decided. Arguments as for ``Relax``.
    """

    differentiates = 0
    independent = False
    epochs = 1

    def __init__(
        self,
        samples: int = 10,
        *,
        temperature: float = 0.5,
        hidden: int = 64,
        baseline: Baseline = "leave-one-out",
        learn: bool = True,
        lr: float = 0.01,
        seed: int = 0,
    ) -> None:
        check_temperature(temperature)
        check_baseline(baseline, samples)
        check_hidden(hidden)
        self.samples, self.baseline, self.learns = samples, baseline, learn
        self.temperature, self.hidden, self.seed = temperature, hidden, seed
        self.learner = Learner(lr)

    def propose(self, policy: Policy, generator: torch.Generator) -> Batch:
        return self.proposal(policy, uniforms(policy, self.samples, generator))

    def proposal(self, policy: Policy, u: torch.Tensor) -> Batch:
        """The batch of these uniforms ``[*R, n, D, K]``."""
        if self.learner.optimizer is None:
            dtype = next(policy.parameters()).dtype
            space = policy.space
            sites = 1 if policy.independent else space.D
            drawn = torch.Generator().manual_seed(self.seed)
            phi = network(space.D, space.K, sites, self.hidden, policy.runs, drawn, dtype)
            self.learner.hold({"log_t": torch.full(policy.runs, math.log(self.temperature), dtype=dtype), **phi})
        return Batch(policy.sample(u.shape[-3], noise=u), {"u": u})

    def gradient(self, policy: Policy, batch: Batch, values: torch.Tensor) -> Estimate:
        u = batch.memo["u"]
        couple = coupled(policy, batch.h, u, u)  # z alone is used
        phi = self.learner.parameters
        t = phi["log_t"].exp()
        z = couple.z.detach()
        score = log_density(couple.log_p, z)  # log_p has no graph where a decision is switched off
        advantage = values.detach().unsqueeze(-1) - surrogate(phi, couple.points(z, t))
        path = surrogate(phi, couple.points(couple.z, t)).sum(-1)
        total = objective(advantage, score, path, baseline=self.baseline == "leave-one-out")
        gradient = torch.autograd.grad(total, list(policy.parameters()), create_graph=self.learns)
        if self.learns:
            self.learner.descend(gradient, list(phi))
        return Estimate(tuple(g.detach() for g in gradient))

    def state_dict(self) -> dict[str, Any]:
        return self.learner.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.learner.load_state_dict(state)
