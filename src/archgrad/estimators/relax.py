"""RELAX: the score function with a learned control variate."""

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
from archgrad.estimators.coupled import Coupled, coupled, per_run
from archgrad.estimators.gumbel import check_temperature, uniforms
from archgrad.estimators.surrogate_network import check_hidden, network, surrogate
from archgrad.protocols import Policy
from archgrad.records import Batch, Estimate


class Relax:
    """(f(b) - c(z~)) dlog p(b) + d[c(z) - c(z~)], averaged over samples. Grathwohl et al. (2018).

    z = log p + Gumbel, b = argmax z, z~ is z drawn anew given b; c = c_phi(softmax(z / t)), a small network whose
    phi and t are trained on the estimate's variance, one step of Adam after each use. Unbiased for every c.

    f is asked for values at vertices only, once a sample: a black box will do, and a supernet runs a single path.
    through_f: c = eta f(softmax(z / t)) + c_phi, as in the paper; f is then differentiated, and asked three times a
    sample (1 + 2 D times under a policy whose decisions depend on each other, see ``Coupled.points``).

    learn: "both" trains everything (with through_f, f is differentiated twice, for t), "scale" everything but t,
    "none" nothing. hidden: width of c_phi. lr: Adam's. seed: of phi's start. baseline: as for ``Rebar``.
    Costs two passes of c_phi and, while it learns, a second derivative of them.
    """

    independent = False
    epochs = 1

    def __init__(
        self,
        samples: int = 10,
        *,
        through_f: bool = False,
        temperature: float = 0.5,
        eta: float = 1.0,
        hidden: int = 64,
        baseline: Baseline = "leave-one-out",
        learn: Learn = "both",
        lr: float = 0.01,
        seed: int = 0,
    ) -> None:
        check_temperature(temperature)
        check_baseline(baseline, samples)
        check_hidden(hidden)
        check_learn(learn)
        check_scale(eta)
        self.samples, self.through_f, self.baseline, self.learn = samples, through_f, baseline, learn
        self.temperature, self.eta, self.hidden, self.seed = temperature, eta, hidden, seed
        self.differentiates = 0 if not through_f else 2 if learn == "both" else 1
        self.learns = learn != "none"
        self.learner = Learner(lr)

    def propose(self, policy: Policy, generator: torch.Generator) -> Batch:
        return self.proposal(policy, *(uniforms(policy, self.samples, generator) for _ in range(2)))

    def proposal(self, policy: Policy, u: Tensor, v: Tensor) -> Batch:
        """The batch of these uniforms ``[*R, n, D, K]``: u for b and z, v for z~."""
        if self.learner.optimizer is None:
            self._start(policy)
        b = policy.sample(u.shape[-3], noise=u)
        if not self.through_f:
            return Batch(b, {"u": u, "v": v})
        with torch.no_grad():
            points = self._points(coupled(policy, b, u, v))
        each = points.shape[-3]
        memo = {"u": u.repeat_interleave(each, -3), "v": v.repeat_interleave(each, -3)}
        return Batch(points.flatten(-4, -3), memo)

    def _start(self, policy: Policy) -> None:
        dtype = next(policy.parameters()).dtype
        start = torch.zeros(policy.runs, dtype=dtype)
        space = policy.space
        sites = 1 if policy.independent else space.D
        generator = torch.Generator().manual_seed(self.seed)
        phi = network(space.D, space.K, sites, self.hidden, policy.runs, generator, dtype)
        self.learner.hold({"log_t": start + math.log(self.temperature), "eta": start + self.eta, **phi})

    def _points(self, couple: Coupled) -> Tensor:
        """Where f is asked: b, s(z), s(z~), ``[*R, n, 1 + 2 S, D, K]``."""
        t = self.learner["log_t"].exp()
        return torch.cat([couple.b.unsqueeze(-3), couple.points(couple.z, t), couple.points(couple.tilde, t)], -3)

    def gradient(self, policy: Policy, batch: Batch, values: Tensor) -> Estimate:
        sites = 1 if policy.independent else policy.space.D
        each = 1 + 2 * sites if self.through_f else 1
        learning = self.learns
        b, u, v = (x.detach()[..., ::each, :, :] for x in (batch.h, batch.memo["u"], batch.memo["v"]))
        couple = coupled(policy, b, u, v)
        points = self._points(couple)
        _, at_z, at_tilde = torch.split(points, [1, sites, sites], -3)
        phi = self.learner.parameters
        # the same c twice: in the score term its graph leads to phi alone, in the pathwise term to alpha as well
        c_score = surrogate(phi, self._without_alpha(couple, at_tilde))
        path = (surrogate(phi, at_z) - surrogate(phi, at_tilde)).sum(-1)
        f = grouped(values, each, -1)[..., :1]
        if self.through_f:
            second = learning and self.learn == "both"
            (slope,) = torch.autograd.grad(values.sum(), batch.h, create_graph=second)
            _, slope_z, slope_tilde = torch.split(grouped(slope, each, -3), [1, sites, sites], -3)
            eta = self.learner["eta"]
            path = path + per_run(eta, path.dim()) * (slope_z * at_z - slope_tilde * at_tilde).sum((-3, -2, -1))
            c_score = c_score + per_run(eta, f.dim()) * grouped(values, each, -1)[..., 1 + sites :]
        total = objective(f - c_score, couple.site_log_prob, path, baseline=self.baseline == "leave-one-out")
        gradient = torch.autograd.grad(total, list(policy.parameters()), create_graph=learning)
        if learning:
            phi_and_eta = [n for n in phi if n != "log_t" and (n != "eta" or self.through_f)]
            if self.learn == "scale":
                self.learner.descend(gradient, phi_and_eta)
            else:
                moved = (batch.h, points.flatten(-4, -3)) if self.through_f else None
                self.learner.descend(gradient, ["log_t", *phi_and_eta], moved)
        diagnostics = {"temperature": float(self.learner["log_t"].detach().exp().mean())}
        return Estimate(tuple(g.detach() for g in gradient), diagnostics)

    def _without_alpha(self, couple: Coupled, at: Tensor) -> Tensor:
        """The points with a graph to t but not to alpha."""
        if not self.learns:
            return at.detach()
        return couple.points(couple.tilde.detach(), self.learner["log_t"].exp())

    def state_dict(self) -> dict[str, Any]:
        return self.learner.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.learner.load_state_dict(state)
