"""A Gaussian process that learns which decisions act together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from archgrad.errors import UsageError
from archgrad.spaces.decisions import Decisions
from archgrad.surrogates.cholesky import cholesky

JITTER = 2e-4
"""Noise that is always there, in units of the values' variance: float32 products keep the covariance no better."""
BLOCK = 2**22
"""Numbers in a block of products: larger ones leave the cache, and a large space the memory."""
CAP = 10.0
"""Most weight of the constant: more only costs digits."""

Kernel = Callable[[Tensor], Callable[[Tensor], Tensor]]


class Interactions:
    """Posterior under k(h, h') = s_0 + sum_i a_i z_i + sum_{i<j} V_ij z_i z_j + s_3 triples(z) + sum_c s_c k_c(h, h').

    z_i = (K_i h_i' h'_i - 1) / (K_i - 1) is 1 where two architectures agree on decision i, and averages to 0 over its
    choices: so the sums are the additive, the pairwise and the threefold effects of a functional analysis of variance
    (Durrande et al. 2013). *Every pair has a weight V_ij of its own*: where f is a sum of few interactions most of
    them go to zero, and a few hundred values tell hundreds of decisions apart. triples(z) goes over chains i - j - l,
    z_i z_j z_l weighted by U_ij U_jl; U is the adjacency of the sequence with ``neighbours``, otherwise V itself.

    neighbours: half of V's weight starts on decisions that follow each other. Without, nothing is known of which
    belong together. kernels: what else is known of the space, each scaled to k_c(h, h) near 1 (see ``Kernel``).

    All weights and the noise climb the marginal likelihood of the standardised values by minorise-maximise steps for
    variance components (Zhou et al. 2019), s <- s sqrt((s y'C^-1 P C^-1 y + p) / (s tr C^-1 P + p)): no step size, and
    monotone for p = 0 with ``neighbours`` (without, V is also in triples, which its step leaves out); p (``prior``)
    pseudo-observations hold a weight that little speaks for or against where it is. ``steps`` of them whenever the
    values grew by the factor ``grow``; (values)^2 D^2 each.

    Without ``kernels`` the mean is linear in every row of h. A value seen twice counts twice.
    """

    def __init__(
        self,
        space: Decisions,
        *,
        neighbours: bool = True,
        kernels: Sequence[Kernel] = (),
        prior: float = 1.0,
        steps: int = 2,
        grow: float = 1.1,
    ) -> None:
        if not prior >= 0:
            raise UsageError(f"prior should be a number of pseudo-observations, at least 0, got {prior}; 1 is usual")
        if steps < 0 or not grow > 1:
            raise UsageError(
                f"steps should not be negative and grow above 1, got {steps} and {grow}; 2 and 1.1 are usual"
            )
        self.kernels, self.prior, self.steps, self.grow = tuple(kernels), prior, steps, grow
        D = space.D
        self.counts = torch.tensor([float(len(d.options)) for d in space.decisions])
        distance = (torch.arange(D).unsqueeze(0) - torch.arange(D).unsqueeze(1)).abs()
        free = (self.counts > 1).double()  # a decision without a choice has no effect
        both = torch.outer(free, free)
        others, next_to = (distance > 0) * both, (distance == 1) * both
        V = others / others.sum().clamp(min=1)
        self.chain: Tensor | None = None
        if neighbours and bool(next_to.any()):
            V = (V + next_to / next_to.sum()) / 2
            self.chain = next_to
        self.weights: dict[str, Tensor] = {
            "constant": torch.tensor(1.0).double(),
            "single": 0.4 * free / free.sum().clamp(min=1),
            "pair": 0.7 * V,
            "triple": torch.tensor(0.1 if D > 2 else 0.0).double(),
            "kernel": torch.full((len(self.kernels),), 0.4).double(),
            "noise": torch.tensor(1e-2).double(),
        }
        self.h: Tensor | None = None
        """The values' architectures ``[n, D, K]``."""
        self.assumed = torch.zeros(0, D, space.K)
        """The same, and what was assumed since."""
        self.learned = 0
        self.centre, self.scale = 0.0, 1.0
        self.solved = torch.zeros(0, dtype=torch.float64)
        self.inverse = torch.zeros(0, 0)
        """C^-1 = inverse' inverse, of the values and of what was assumed since."""

    def fit(self, h: Tensor, y: Tensor) -> None:
        """Weights where enough is new, posterior from all of ``[n, D, K]``, ``[n]``."""
        if len(h) != len(y) or not len(y) or not bool(torch.isfinite(y).all()):
            raise UsageError(f"a fit needs a finite value an architecture, got {len(h)} and {len(y)} values")
        y = y.double()
        self.centre, self.scale = float(y.mean()), float(y.std(correction=0)) or 1.0
        t = (y - self.centre) / self.scale
        self.h = h.float()
        n = len(t)
        z, extra, i, j = self._pairs(self.h)
        steps = 0
        if n >= self.grow * self.learned:
            steps = 6 * self.steps if not self.learned else self.steps
            self.learned = n
        for _ in range(steps):
            self._climb(z, extra, i, j, t)
        factor = self._condition(self._covariance(z, extra, i, j, n))
        self.solved = torch.cholesky_solve(t.unsqueeze(-1), factor).squeeze(-1)
        self.fitted = self.centre + self.scale * (t - (self.weights["noise"] + JITTER) * self.solved)
        """Posterior mean at the values' own architectures, ``[n]``."""

    def _pairs(self, h: Tensor) -> tuple[Tensor, list[Tensor], Tensor, Tensor]:
        """z and the other kernels of every pair i >= j of architectures."""
        i, j = torch.tril_indices(len(h), len(h))
        choices = h.argmax(-1)
        z = self._agreement((choices[i] == choices[j]).float())
        return z, [k(h)(h)[i, j].double() for k in self.kernels], i, j

    def _agreement(self, match: Tensor) -> Tensor:
        """z ``[..., D]`` from matches; a decision without a choice says nothing."""
        K = self.counts.to(match)
        return torch.where(K > 1, (K * match - 1) / (K - 1).clamp(min=1), torch.zeros_like(match))

    def _graph(self) -> tuple[Tensor, float]:
        """U and what scales triples(1) to 1."""
        V = self.weights["pair"]
        U = self.chain if self.chain is not None else V / V.max().clamp(min=1e-30)
        total = (U.sum(1).square() - U.square().sum(1)).sum() / 2
        return U, 1 / max(float(total), 1e-30)

    def _triples(self, z: Tensor) -> Tensor:
        U, scale = self._graph()
        U = U.to(z)
        return (z * ((z @ U).square() - z.square() @ U.square())).sum(-1) * (scale / 2)

    def _structured(self, z: Tensor) -> Tensor:
        """k without the other kernels, ``[..., D] -> [...]``."""
        w = self.weights
        pairs = ((z @ w["pair"].to(z)) * z).sum(-1) / 2
        return w["constant"].to(z) + z @ w["single"].to(z) + pairs + w["triple"].to(z) * self._triples(z)

    def _covariance(self, z: Tensor, extra: Sequence[Tensor], i: Tensor, j: Tensor, n: int) -> Tensor:
        """Lower triangle and its mirror image, ``[n, n]``, noise included."""
        values = self._structured(z).double()
        for weight, k in zip(self.weights["kernel"], extra, strict=True):
            values = values + weight * k
        covariance = torch.zeros(n, n, dtype=torch.float64)
        covariance[i, j] = values
        covariance[j, i] = values
        covariance.diagonal().add_(self.weights["noise"] + JITTER)
        return covariance

    def _climb(self, z: Tensor, extra: Sequence[Tensor], i: Tensor, j: Tensor, t: Tensor) -> None:
        """One step of every weight."""
        n = len(t)
        factor = cholesky(self._covariance(z, extra, i, j, n))
        inverse = torch.cholesky_inverse(factor)
        solved = inverse @ t
        twice = torch.where(i == j, 1.0, 2.0)
        fitted = (twice * solved[i] * solved[j]).float()
        expected = (twice * inverse[i, j]).float()
        w = self.weights

        def step(s: Tensor, gain: Tensor, cost: Tensor) -> Tensor:
            # what rounding makes of a quadratic form may be below 0; a weight of 0 stays there
            ratio = (s * gain.double()).clamp(min=0) + self.prior, (s * cost.double()).clamp(min=0) + self.prior
            return torch.where(s > 0, s * (ratio[0] / ratio[1].clamp(min=1e-300)).sqrt(), s)

        triples = self._triples(z)
        others = torch.stack([k.float() for k in extra]) if extra else torch.zeros(0, len(i))
        gains, costs = others @ fitted, others @ expected
        self.weights = {
            "constant": step(w["constant"], fitted.sum(), expected.sum()).clamp(max=CAP),
            "single": step(w["single"], fitted @ z, expected @ z),
            "pair": step(w["pair"], (z * fitted.unsqueeze(-1)).T @ z, (z * expected.unsqueeze(-1)).T @ z),
            "triple": step(w["triple"], fitted @ triples, expected @ triples),
            "kernel": step(w["kernel"], gains, costs),
            "noise": step(w["noise"], solved.square().sum(), inverse.diagonal().sum()),
        }

    def _condition(self, covariance: Tensor) -> Tensor:
        """The factor of C; nothing is assumed any more."""
        factor = cholesky(covariance)
        eye = torch.eye(len(covariance), dtype=torch.float64)
        self.inverse = torch.linalg.solve_triangular(factor, eye, upper=False).float()
        assert self.h is not None
        self.assumed = self.h
        return factor

    def assume(self, h: Tensor) -> None:
        """Count ``[1, D, K]`` as evaluated at its mean, as a batch is chosen one by one (Desautels et al. 2014).

        The mean stays as it is, and the deviation shrinks. The next ``fit`` forgets it.
        """
        k = self.against(h)[0]
        row = self.inverse @ k
        own = float(self.prior_variance + self.weights["noise"] + JITTER) - float(row @ row)
        size = max(own, 1e-6) ** 0.5
        n = len(row)
        grown = torch.zeros(n + 1, n + 1)
        grown[:n, :n] = self.inverse
        grown[n, :n] = -(row @ self.inverse) / size
        grown[n, n] = 1 / size
        self.inverse = grown
        self.assumed = torch.cat([self.assumed, h.float()])

    @property
    def prior_variance(self) -> float:
        """k(h, h) without noise, in units of the values' variance."""
        w = self.weights
        triple = float(w["triple"]) if self._graph()[1] < 1e29 else 0.0
        return float(w["constant"] + w["single"].sum() + w["pair"].sum() / 2 + w["kernel"].sum()) + triple

    def against(self, h: Tensor, since: int = 0) -> Tensor:
        """k of ``[m, D, K]`` with all that is known or assumed, ``[m, n]`` float32; without the first ``since``."""
        others = self.assumed[since:]
        rows = max(1, BLOCK // max(1, others.numel()))
        blocks = []
        for block in torch.split(h.float(), rows):
            k = self._structured(self._agreement(torch.einsum("mdk,ndk->mnd", block, others)))
            for weight, kernel in zip(self.weights["kernel"].float(), self.kernels, strict=True):
                k = k + weight * kernel(others)(block).float()
            blocks.append(k)
        return torch.cat(blocks)

    def around(self, h: Tensor, most: int | None = None) -> tuple[Tensor, Tensor]:
        """Changes of one decision, d K + k each, ``[S, m]``, and ``against`` of what comes of them, ``[S, m, n]``.

        h: ``[S, D, K]``. All that exist (always with other kernels), or the ``most`` of the lowest mean: the deviation
        costs (past)^2 each, and differs less. The structured part is linear in every z_i alone, so all of them follow
        from one slope.
        """
        h = h.float()
        match = torch.einsum("sdk,ndk->snd", h, self.assumed)
        z = self._agreement(match)
        U, scale = self._graph()
        U, V = U.float(), self.weights["pair"].float()
        reach = z @ U
        centre = reach.square() - z.square() @ U.square()
        leaves = (z * reach) @ U - z * (z @ U.square())
        slope = self.weights["single"].float() + z @ V + self.weights["triple"].float() * scale * (centre / 2 + leaves)
        K = self.counts
        slope = slope * torch.where(K > 1, K / (K - 1).clamp(min=1), torch.zeros_like(K))
        known = len(self.solved)
        felt = slope[:, :known] * self.solved.float().unsqueeze(-1)
        gain = torch.einsum("snd,ndk->sdk", felt, self.assumed[:known]) - (felt * match[:, :known]).sum(1).unsqueeze(-1)
        gain = gain.masked_fill(torch.arange(h.shape[-1]) >= K.unsqueeze(-1), torch.inf).flatten(1)
        exist = int(K.sum())
        every = most is None or bool(self.kernels)  # what the other kernels add to the mean is not in the slope
        at = gain.topk(exist if every else min(exist, max(1, most or 1)), largest=False).indices
        d = at // h.shape[-1]
        rows = torch.arange(len(h)).unsqueeze(-1)
        own = self.assumed.flatten(1).T[at] - match.transpose(1, 2)[rows, d]
        k = self._structured(z).unsqueeze(1) + own * slope.transpose(1, 2)[rows, d]
        if self.kernels:
            changed = neighbours(h).flatten(1, 2)[rows, at].flatten(0, 1)
            for weight, kernel in zip(self.weights["kernel"].float(), self.kernels, strict=True):
                k = k + weight * kernel(self.assumed)(changed).float().reshape(k.shape)
        return at, k

    def posterior(self, k: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation, in units of the values, from what ``against`` or ``around`` gives."""
        n = len(self.solved)
        mean = k[..., :n] @ self.solved.float()
        variance = self.prior_variance - (k @ self.inverse.T).square().sum(-1)
        return self.centre + self.scale * mean, self.scale * variance.clamp(min=1e-9).sqrt()

    def mean(self, h: Tensor) -> Tensor:
        """Posterior mean ``[*R, n, D, K] -> [*R, n]``; 0 before the first fit."""
        if self.h is None:
            return h.new_zeros(h.shape[:-2], dtype=torch.float64)
        rows = h.double().reshape(-1, *h.shape[-2:])
        z = self._agreement(torch.einsum("mdk,ndk->mnd", rows, self.h.double()))
        k = self._structured(z)
        for weight, kernel in zip(self.weights["kernel"], self.kernels, strict=True):
            k = k + weight * kernel(self.h)(rows.float()).double()
        return (self.centre + self.scale * (k @ self.solved)).reshape(h.shape[:-2])

    def state_dict(self) -> dict[str, Any]:
        state: dict[str, Any] = {
            "neighbours": self.chain is not None,
            "weights": dict(self.weights),
            "learned": self.learned,
            "choices": None,
        }
        if self.h is not None:
            choices = self.h.argmax(-1).to(torch.int16)
            state |= {"choices": choices, "solved": self.solved, "centre": self.centre, "scale": self.scale}
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """ValueError for the state of a model with other ``neighbours``, decisions or number of ``kernels``."""
        same = {name: w.shape for name, w in state["weights"].items()} == {n: w.shape for n, w in self.weights.items()}
        if not same or state["neighbours"] != (self.chain is not None):
            raise ValueError("the state should be of a model with the same decisions, neighbours and kernels")
        self.weights, self.learned = dict(state["weights"]), int(state["learned"])
        if state["choices"] is None:
            self.h, self.solved, self.inverse = None, torch.zeros(0, dtype=torch.float64), torch.zeros(0, 0)
            self.assumed, self.centre, self.scale = self.assumed[:0], 0.0, 1.0
            return
        self.h = torch.nn.functional.one_hot(state["choices"].long(), int(self.counts.max())).float()
        self.solved, self.centre, self.scale = state["solved"], float(state["centre"]), float(state["scale"])
        covariance = self._covariance(*self._pairs(self.h), len(self.h))
        self._condition(covariance)
        own = (self.weights["noise"] + JITTER) * self.solved
        self.fitted = self.centre + self.scale * (covariance @ self.solved - own)


def neighbours(h: Tensor) -> Tensor:
    """Every architecture with one decision changed (or none): ``[S, D, K] -> [S, D, K, D, K]``."""
    S, D, K = h.shape
    eye = torch.eye(K).to(h)
    out = h.reshape(S, 1, 1, D, K).expand(S, D, K, D, K).clone()
    for d in range(D):
        out[:, d, :, d] = eye
    return out
