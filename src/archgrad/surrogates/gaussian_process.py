"""A Gaussian process over architectures whose kernel integrates in closed form."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from archgrad.errors import UsageError
from archgrad.spaces.decisions import Decisions
from archgrad.surrogates.cholesky import cholesky

FLOOR = 1e-6
"""Least noise variance, in units of the values' variance: keeps the Cholesky factor finite where f is deterministic."""
BLOCK = 8192
START = {"relevance": -0.5, "order": -1.0, "amplitude": 0.0, "place": 0.0, "noise": -4.0}
STRAY = {"relevance": 1.0, "order": 2.0, "amplitude": 1.0, "place": 1.0, "noise": 3.0}
"""Normal priors of the hyper-parameters (logarithms, but for places): mean, where they start, and deviation."""


class GaussianProcess:
    """Posterior mean under k(h, h') = sum_q s_q e_q(z_1 .. z_D) / (D choose q), z_d = w_d h_d' A h'_d.

    e_q is the elementary symmetric polynomial: the sum over all sets of q decisions of the product of their matches
    (Duvenaud, Nickisch & Rasmussen 2011), q = 0 .. ``orders``, so additive effects, pairs, triples ... each have a
    weight s_q of their own. A match is not only "equal" (Hamming): A[k, l] = a_k a_l exp(-|x_k - x_l|^2) gives every
    option a place x in the plane, near those that act alike, and an amplitude a. Decisions with the same options, as
    the edges of a cell, share A, which is what makes a few hundred evaluations enough; w_d says how much decision d
    matters.

    All of these and the noise maximise the marginal likelihood of the standardised values, with normal priors on the
    logarithms (Adam, ``steps`` steps at the first fit, ``refit`` at later ones from where the last ended), on at most
    ``subset`` different architectures; the posterior is then conditioned on all. Repeated evaluations of one
    architecture count as their mean with so much less noise, which is exact.

    k is linear in every row of h, hence so is the mean. Cost: (points)^2 D ``orders`` a step and (points)^3 once.
    """

    def __init__(
        self, space: Decisions, *, orders: int = 4, steps: int = 120, refit: int = 30, subset: int = 300
    ) -> None:
        if orders < 1:
            raise UsageError(f"orders should be at least 1, got {orders}; 4 is usual")
        if steps < 0 or refit < 0:
            raise UsageError(f"steps and refit should not be negative, got {steps} and {refit}; 120 and 30 are usual")
        if subset < 2:
            raise UsageError(f"subset should be at least 2 architectures, got {subset}; 300 is usual")
        self.orders, self.steps, self.refit, self.subset = min(orders, space.D), steps, refit, subset
        options = [d.options for d in space.decisions]
        kinds = list(dict.fromkeys(options))
        self.group = torch.tensor([kinds.index(o) for o in options])
        generator = torch.Generator().manual_seed(0)  # places that are all equal would stay so
        groups = (len(kinds), space.K)
        self.hyper: dict[str, Tensor] = {
            "relevance": torch.full((space.D,), START["relevance"]).double(),
            "order": torch.full((self.orders + 1,), START["order"]).double(),
            "amplitude": torch.full(groups, START["amplitude"]).double(),
            "place": 0.7 * torch.randn(*groups, 2, generator=generator, dtype=torch.float64),
            "noise": torch.tensor(START["noise"]).double(),
        }
        self.support: Tensor | None = None
        """The different architectures of the past, ``[m, D, K]``."""
        self.weights = torch.zeros(0, dtype=torch.float64)
        self.centre, self.scale = 0.0, 1.0

    def fit(self, h: Tensor, y: Tensor) -> None:
        """Hyper-parameters from a subset, posterior from all of ``[n, D, K]``, ``[n]``."""
        y = y.double()
        self.centre = float(y.mean())
        self.scale = float(y.std(correction=0)) or 1.0
        z = (y - self.centre) / self.scale
        choices, place, count = torch.unique(h.argmax(-1), dim=0, return_inverse=True, return_counts=True)
        mean = torch.zeros(len(choices), dtype=torch.float64).index_add_(0, place, z) / count
        within = torch.zeros_like(mean).index_add_(0, place, (z - mean[place]) ** 2)
        steps = self.steps if self.support is None else self.refit
        pick = torch.arange(len(choices))
        if len(choices) > self.subset:
            pick = torch.randperm(len(choices), generator=torch.Generator().manual_seed(0))[: self.subset]
        self._learn(choices[pick], mean[pick], count[pick].double(), float(within[pick].sum()), steps)
        self.support = torch.nn.functional.one_hot(choices, h.shape[-1]).double()
        with torch.no_grad():
            covariance = self.kernel(self.support, self.support) + (self._noise() / count).diag()
            factor = cholesky(covariance)
            self.weights = torch.cholesky_solve(mean.unsqueeze(-1), factor).squeeze(-1)

    def mean(self, h: Tensor) -> Tensor:
        """Posterior mean ``[*R, n, D, K] -> [*R, n]``."""
        if self.support is None:
            return h.new_zeros(h.shape[:-2], dtype=torch.float64)
        rows = h.double().reshape(-1, *h.shape[-2:])
        blocks = [self.kernel(block, self.support) @ self.weights for block in torch.split(rows, BLOCK)]
        return (self.centre + self.scale * torch.cat(blocks)).reshape(h.shape[:-2])

    def kernel(self, a: Tensor, b: Tensor) -> Tensor:
        """k ``[m, D, K], [n, D, K] -> [m, n]``."""
        tables = _tables(self.hyper)[self.group]
        matches = (a[:, d] @ tables[d] @ b[:, d].T for d in range(len(tables)))
        return _symmetric(matches, self.hyper)

    def _noise(self) -> Tensor:
        return self.hyper["noise"].exp() + FLOOR

    def _learn(self, choices: Tensor, y: Tensor, count: Tensor, within: float, steps: int) -> None:
        """``steps`` of Adam on minus the log marginal likelihood and prior, y the means of ``count`` values each.

        The derivative by the covariance is (C^-1 - C^-1 y y' C^-1) / 2; autograd carries it on through the kernel,
        which is computed once for every pair i >= j.
        """
        hyper = {name: value.clone().requires_grad_() for name, value in self.hyper.items()}
        optimizer = torch.optim.Adam(list(hyper.values()), 0.1)
        n, K = len(choices), hyper["amplitude"].shape[-1]
        i, j = torch.tril_indices(n, n)
        pairs = (choices[i] * K + choices[j]).T.contiguous()
        twice = torch.where(i == j, 1.0, 2.0).double()
        for step in range(steps):
            for group in optimizer.param_groups:
                group["lr"] = 0.1 if step < 0.7 * steps else 0.03
            tables = _tables(hyper)
            matches = (tables[g].flatten()[index] for g, index in zip(self.group.tolist(), pairs, strict=True))
            covariance = _symmetric(matches, hyper)
            noise = hyper["noise"].exp() + FLOOR
            with torch.no_grad():
                lower = torch.zeros(n, n, dtype=torch.float64)
                lower[i, j] = covariance
                lower.diagonal().add_(noise / count)
                factor = cholesky(lower)
                inverse = torch.cholesky_inverse(factor)
                solved = inverse @ y
                slope = (inverse - torch.outer(solved, solved)) / 2
            # repeated evaluations spread about their means with the noise alone
            repeats = (float(count.sum()) - n) * noise.log() / 2 + within / (2 * noise)
            prior = torch.stack([((hyper[k] - START[k]) / STRAY[k]).square().sum() / 2 for k in STRAY]).sum()
            loss = (twice * slope[i, j] * covariance).sum() + (slope.diagonal() / count).sum() * noise + repeats + prior
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        self.hyper = {name: value.detach() for name, value in hyper.items()}

    def state_dict(self) -> dict[str, Any]:
        return {
            "hyper": dict(self.hyper),
            "support": self.support,
            "weights": self.weights,
            "centre": self.centre,
            "scale": self.scale,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.hyper = dict(state["hyper"])
        self.support, self.weights = state["support"], state["weights"]
        self.centre, self.scale = state["centre"], state["scale"]


def _tables(hyper: Mapping[str, Tensor]) -> Tensor:
    """A of every group of decisions, ``[groups, K, K]``."""
    place, a = hyper["place"], hyper["amplitude"].exp()
    distance = (place.unsqueeze(-2) - place.unsqueeze(-3)).square().sum(-1)
    return a.unsqueeze(-1) * a.unsqueeze(-2) * torch.exp(-distance)


def _symmetric(matches: Iterable[Tensor], hyper: Mapping[str, Tensor]) -> Tensor:
    """sum_q s_q e_q(w_1 m_1 .. w_D m_D) / (D choose q) from the D matches, each of the result's shape."""
    w, s = hyper["relevance"].exp(), hyper["order"].exp()
    D, Q = len(w), len(s) - 1
    e: list[Tensor] = []  # e_1 .. e_Q of the decisions so far: e_q gains z e_(q-1) with every decision
    for d, match in enumerate(matches):
        z = w[d] * match
        for q in range(min(d, Q - 1), -1, -1):
            term = z * e[q - 1] if q else z
            if q < len(e):
                e[q] = e[q] + term
            else:
                e.append(term)
    total = s[0] + s[1] / D * e[0]
    for q in range(2, Q + 1):
        total = total + s[q] / math.comb(D, q) * e[q - 1]
    return total
