"""What draws of an estimate say about it: bias, variance, and how small a bias they would have shown."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from scipy.optimize import brentq
from scipy.stats import gamma, norm, t
from torch import Tensor

LEVEL = 1e-3
"""Chance that an unbiased estimator is called biased: over all its coordinates together (Sidak)."""
POWER = 0.95
"""Chance with which the bias that "would have been seen" is seen."""
CONFIDENCE = 0.95
"""Of the interval of the relative bias."""
ENOUGH = 200
"""Effective draws a coordinate needs: (sum x^2)^2 / sum x^4. With fewer its mean is not yet normally distributed."""
LEAST = 30
"""Effective draws the projection on g needs; below ENOUGH it is judged by Student's t of so many, told as a z."""
ROUNDING = 1e-6
"""Standard errors count as at least this part of |g|: below is arithmetic, not chance."""


@dataclass(frozen=True)
class Quality:
    """How good an estimate is. Lengths are relative to |g|, the exact gradient's.

    bias: |E x - g|, with the part that chance alone explains taken off; interval: its confidence interval.
    max_z: the largest |z| of the coordinates tested, of which the projection on g is one; None where none could be.
    threshold: what an unbiased estimator passes with probability LEVEL. left_out: coordinates with too few effective
    draws to be tested.
    detectable: the bias along g that these draws would have shown with probability POWER; None where draws are few.
    variance: of one estimate, summed over coordinates. rmse: sqrt(E|x - g|^2). cosine: mean cosine with g, 0 where
    the estimate is 0.
    """

    draws: int
    bias: float
    interval: tuple[float, float]
    max_z: float | None
    threshold: float
    coordinates: int
    left_out: int
    detectable: float | None
    variance: float
    rmse: float
    cosine: float

    @property
    def biased(self) -> bool:
        return self.max_z is not None and self.max_z > self.threshold

    @property
    def verdict(self) -> str:
        """In words, never more than the draws allow."""
        if self.biased:
            return "biased"
        if self.detectable is None:
            return f"unbiased as far as {self.draws} draws can tell (would have seen nothing: too few of them count)"
        seen = f"{100 * self.detectable:.2g}%" if self.detectable < 0.995 else f"{100 * self.detectable:.0f}%"
        return f"unbiased as far as {self.draws} draws can tell (would have seen {seen})"


class Moments:
    """Sums over draws, from which everything else follows; draws themselves are not kept.

    exact: g ``[P]``. An estimator that measures f in units of its own gives a ``scale`` with every draw x; then it is
    E x = E[scale] g that is asked, and lengths are those of x / E[scale]. group: draws that share a preparation (a
    past, a training); with several the error of the mean is taken from the groups' means.
    """

    def __init__(self, exact: Tensor) -> None:
        self.exact = exact.double()
        P = len(exact)
        zeros = self.exact.new_zeros
        self.n, self.scale, self.cosine = 0, 0.0, 0.0
        self.first, self.square, self.fourth, self.x_square, self.x_fourth = (zeros(P + 1) for _ in range(5))
        self.outer, self.x = zeros(P, P), zeros(P)
        self.x_norm = 0.0
        self.groups: dict[int, tuple[int, Tensor]] = {}

    def add(self, x: Tensor, scale: Tensor | None = None, group: int = 0) -> None:
        """Draws ``[m, P]``, scales ``[m]``."""
        x, g = x.double(), self.exact
        norm_g = g.norm()
        s = x.new_ones(len(x)) if scale is None else scale.double()
        y = x - s.unsqueeze(-1) * g  # what has mean 0 if the estimate is unbiased
        self.n += len(x)
        self.scale += float(s.sum())
        along = torch.cat([y, (y @ g / norm_g).unsqueeze(-1)], -1)
        raw = torch.cat([x, (x @ g / norm_g).unsqueeze(-1)], -1)
        self.first += along.sum(0)
        self.square += along.square().sum(0)
        self.fourth += along.pow(4).sum(0)
        self.x_square += raw.square().sum(0)
        self.x_fourth += raw.pow(4).sum(0)
        self.outer += y.T @ y
        self.x += x.sum(0)
        self.x_norm += float(x.square().sum())
        length = x.norm(dim=-1)
        self.cosine += float(((x @ g) / (length * norm_g))[length > 0].sum())
        n, total = self.groups.get(group, (0, torch.zeros_like(g)))
        self.groups[group] = n + len(x), total + y.sum(0)

    def quality(self) -> Quality:
        """At least two draws."""
        n, g, unit = self.n, self.exact, self.scale / self.n
        norm_g = float(g.norm())
        mean = self.first / n / unit
        spread = ((self.square / n - (self.first / n).square()).clamp(min=0) * n / (n - 1)).sqrt() / abs(unit)
        error = (spread / n**0.5).clamp(min=ROUNDING * norm_g)
        count = torch.minimum(
            effective(self.x_square, self.x_fourth),
            effective(self.square, self.fourth).where(self.square > 0, torch.tensor(float(n))),
        )
        if float(spread[-1]) <= ROUNDING * norm_g and (n >= ENOUGH or float(self.x_square[-1]) > 0):
            count[-1] = torch.inf  # draws that are all alike need no limit theorem; nor do many that are all 0
        tested = count >= ENOUGH
        z = (mean / error).abs()
        few = float(count[-1])
        if LEAST <= few < ENOUGH:
            tested[-1] = True
            z[-1] = float(norm.isf(t.sf(float(z[-1]), few - 1)))
        z = z[tested]
        threshold = sidak(max(1, len(z)))
        limit = threshold if few >= ENOUGH else float(t.isf(norm.sf(threshold), max(few, 2) - 1))
        detectable = (limit + float(norm.ppf(POWER))) * float(error[-1]) / norm_g if tested[-1] else None
        covariance = (self.outer - torch.outer(self.first[:-1], self.first[:-1]) / n) / (n - 1) / unit**2
        bias, interval = debiased(mean[:-1], *self._error_of_mean(covariance, unit))
        x_mean = self.x / n / unit
        square = self.x_norm / n / unit**2
        wanted = (g != 0) | (self.x_square[:-1] > 0)  # the padding of ragged decisions is no coordinate
        return Quality(
            draws=n,
            bias=bias / norm_g,
            interval=(interval[0] / norm_g, interval[1] / norm_g),
            max_z=float(z.max()) if len(z) else None,
            threshold=threshold,
            coordinates=len(z),
            left_out=int((wanted & ~tested[:-1]).sum()) + int(not tested[-1]),
            detectable=detectable,
            variance=max(0.0, square - float(x_mean @ x_mean)) * n / (n - 1) / norm_g**2,
            rmse=max(0.0, square - 2 * float(x_mean @ g) + norm_g**2) ** 0.5 / norm_g,
            cosine=self.cosine / n,
        )

    def _error_of_mean(self, covariance: Tensor, unit: float) -> tuple[Tensor, int]:
        """Covariance of the mean, and the number of independent terms it was estimated from."""
        if len(self.groups) == 1:
            return covariance / self.n, self.n
        means = torch.stack([total / n for n, total in self.groups.values()]) / unit
        return torch.cov(means.T) / len(means), len(means)


def effective(square: Tensor, fourth: Tensor) -> Tensor:
    """(sum x^2)^2 / sum x^4, 0 where x is always 0."""
    return torch.where(fourth > 0, square.square() / fourth.clamp(min=torch.finfo(fourth.dtype).tiny), 0.0)


def sidak(coordinates: int, level: float = LEVEL) -> float:
    """|z| that any of so many standard normal coordinates passes with probability at most ``level``."""
    return float(norm.isf((1 - (1 - level) ** (1 / coordinates)) / 2))


def debiased(mean: Tensor, covariance: Tensor, terms: int) -> tuple[float, tuple[float, float]]:
    """|E x - g| and its confidence interval from the mean of x - g and that mean's covariance.

    |mean|^2 is too long by tr(cov), on average. Its law under a bias b is close to a gamma distribution of mean
    tr V + b^2 and variance 2 tr V^2 + 4 b^2 v, v the variance along the bias; the interval holds every b under which
    what came is not in either 2.5% tail. Its upper end is never below that of an average unbiased draw: a mean that
    came near by luck bounds nothing. Measured coverage of the nominal 95%: 94 to 99% for covariances that are about
    even, 86 to 100% where one coordinate is five times as noisy as the others (``tests/laboratory``).
    """
    total = float(mean.square().sum())
    trace = float(covariance.trace())
    if trace <= 0:
        return total**0.5, (total**0.5, total**0.5)
    # tr V^2 of an estimated V is too large by (tr V)^2 / terms
    squares = float(covariance.square().sum()) - trace**2 / (terms - 1)
    squares = max(squares, trace**2 / len(mean))
    # v, along the direction that came; a bias that noise has hidden came out shorter in a noisy direction
    along = max(float(mean @ covariance @ mean) / total if total > 0 else 0.0, squares / trace)

    def below(b: float, length: float = total) -> float:
        """Probability of a mean whose square is this one, or shorter."""
        expected, variance = trace + b * b, 2 * squares + 4 * b * b * along
        return float(gamma.cdf(length, expected**2 / variance, scale=variance / expected))

    def not_lucky(b: float) -> float:
        """As if the mean had come no shorter than noise alone makes it: luck is no knowledge, and bounds nothing."""
        return below(b, max(total, trace))

    tail = (1 - CONFIDENCE) / 2
    far = total**0.5 + 20 * (trace**0.5 + along**0.5)
    return max(0.0, total - trace) ** 0.5, (root(below, 1 - tail, far), root(not_lucky, tail, far))


def root(below: Callable[[float], float], level: float, far: float) -> float:
    """The b in [0, far] with below(b) = level; 0 where even b = 0 is below it."""
    if below(0.0) <= level:
        return 0.0
    return float(brentq(lambda b: below(b) - level, 0.0, far, xtol=1e-9 * far))
