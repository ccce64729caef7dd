"""REBAR: the score function with the relaxed f as control variate."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from archgrad.estimators.control_variate import (
    Baseline,
    Learn,
    Learner,
    check_baseline,
    check_learn,
    check_scale,
    grouped,
    objective,
)
from archgrad.estimators.coupled import coupled, per_run
from archgrad.estimators.gumbel import check_temperature, uniforms
from archgrad.protocols import Policy
from archgrad.records import Batch, Estimate


class Rebar:
    """(f(b) - eta f(s(z~))) dlog p(b) + eta d[f(s(z)) - f(s(z~))], averaged over samples; s(z) = softmax(z / t).

    Tucker et al. (2017), for sequences of categoricals. z = log p + Gumbel, b = argmax z, z~ is z drawn anew given b.
    Unbiased for every temperature t and scale eta, with f differentiable and, for a learned temperature, twice.

    Three evaluations of f a sample; 1 + 2 D under a policy whose decisions depend on each other (why: see
    ``Coupled.points``). So at equal evaluations plain leave-one-out with more samples may well be better.

    learn: "both" trains log t and eta on the estimate's variance after each use (Adam, ``lr``), "scale" eta alone
    (f is then differentiated once), "none" keeps them. baseline: "leave-one-out" subtracts the other samples'
    f(b) - eta f(s(z~)); "none" is the published form. One sample takes "none".
    """

    independent = False
    epochs = 1

    def __init__(
        self,
        samples: int = 10,
        *,
        temperature: float = 0.5,
        eta: float = 1.0,
        baseline: Baseline = "leave-one-out",
        learn: Learn = "both",
        lr: float = 0.01,
    ) -> None:
        check_temperature(temperature)
        check_baseline(baseline, samples)
        check_learn(learn)
        check_scale(eta)
        self.samples, self.baseline, self.learn = samples, baseline, learn
        self.temperature, self.eta = temperature, eta
        self.differentiates = 2 if learn == "both" else 1
        self.learns = learn != "none"
        self.learner = Learner(lr)

    def propose(self, policy: Policy, generator: torch.Generator) -> Batch:
        return self.proposal(policy, *(uniforms(policy, self.samples, generator) for _ in range(2)))

    def proposal(self, policy: Policy, u: Tensor, v: Tensor) -> Batch:
        """The batch of these uniforms ``[*R, n, D, K]``: u for b and z, v for z~."""
        if self.learner.optimizer is None:
            start = torch.zeros(policy.runs, dtype=u.dtype)
            self.learner.hold({"log_t": start + math.log(self.temperature), "eta": start + self.eta})
        with torch.no_grad():
            b = policy.sample(u.shape[-3], noise=u)
            couple = coupled(policy, b, u, v)
            t = self.learner["log_t"].exp()
            points = torch.cat([b.unsqueeze(-3), couple.points(couple.z, t), couple.points(couple.tilde, t)], -3)
        each = points.shape[-3]
        memo = {"u": u.repeat_interleave(each, -3), "v": v.repeat_interleave(each, -3)}
        return Batch(points.flatten(-4, -3), memo)

    def gradient(self, policy: Policy, batch: Batch, values: Tensor) -> Estimate:
        sites = 1 if policy.independent else policy.space.D
        each = 1 + 2 * sites
        learning = self.learns
        b, u, v = (x.detach()[..., ::each, :, :] for x in (batch.h, batch.memo["u"], batch.memo["v"]))
        log_t, eta = self.learner["log_t"], self.learner["eta"]
        (slope,) = torch.autograd.grad(values.sum(), batch.h, create_graph=learning and self.learn == "both")
        couple = coupled(policy, b, u, v)
        at = [couple.points(z, log_t.exp()) for z in (couple.z, couple.tilde)]
        f, _, f_tilde = torch.split(grouped(values, each, -1), [1, sites, sites], -1)
        _, slope_z, slope_tilde = torch.split(grouped(slope, each, -3), [1, sites, sites], -3)
        if not learning:
            f, f_tilde, eta = f.detach(), f_tilde.detach(), eta.detach()
        scale = per_run(eta, f.dim())
        path = per_run(eta, f.dim() - 1) * (
            (slope_z * at[0]).sum((-3, -2, -1)) - (slope_tilde * at[1]).sum((-3, -2, -1))
        )
        total = objective(f - scale * f_tilde, couple.site_log_prob, path, baseline=self.baseline == "leave-one-out")
        gradient = torch.autograd.grad(total, list(policy.parameters()), create_graph=learning, retain_graph=learning)
        if learning and self.learn == "both":
            points = torch.cat([b.unsqueeze(-3), *at], -3).flatten(-4, -3)
            self.learner.descend(gradient, ["log_t", "eta"], (batch.h, points))
        elif learning:
            self.learner.descend(gradient, ["eta"])
        diagnostics = {"temperature": float(log_t.detach().exp().mean()), "eta": float(eta.detach().mean())}
        return Estimate(tuple(g.detach() for g in gradient), diagnostics)

    def state_dict(self) -> dict[str, Any]:
        return self.learner.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.learner.load_state_dict(state)
