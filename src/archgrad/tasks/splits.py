"""Seeded, stratified, disjoint splits. Indices are ascending; what is not said to be random is not."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from archgrad.errors import UsageError
from archgrad.tasks.raw import Array


def cut(y: Array, fractions: Sequence[float], rng: np.random.Generator) -> list[Array]:
    """Cut one part a fraction off ``y [N]``: their indices, then those of the rest. Every index is in exactly one.

    A part gets ``n_c * fraction`` of a class's n_c examples, rounded up or down such that the part has about
    ``N * fraction`` in all; but every part, and the rest, gets at least one of every class, and where the rest's own
    share is below one, a part gives up more than rounding for it. (scikit-learn's stratified splits round a small
    class away, and a class that is never validated is searched blindly.)
    Every class needs ``n_c > len(fractions)``; see ``enough``.
    """
    counts = np.bincount(y)
    rank = _ranks(y, rng)
    parts = []
    start = np.zeros_like(counts)
    for done, fraction in enumerate(fractions):
        quota = counts * fraction
        left = counts - start - (len(fractions) - done)  # leaves one for each part to come, and for the rest
        high = np.minimum(np.maximum(np.ceil(quota).astype(int), 1), left)
        take = np.clip(np.floor(quota).astype(int), 1, high)
        while take.sum() < round(len(y) * fraction) and (take < high).any():
            take[np.argmax(np.where(take < high, quota - take, -np.inf))] += 1
        parts.append(np.flatnonzero((rank >= start[y]) & (rank < (start + take)[y])))
        start = start + take
    return [*parts, np.flatnonzero(rank >= start[y])]


def thin(y: Array, n: int, rng: np.random.Generator) -> Array:
    """Indices of n of ``y [N]``, classes in proportion and none lost; n lies between the number of classes and N."""
    counts = np.bincount(y)
    quota = counts * n / len(y)
    low = np.minimum(counts, 1)
    take = np.maximum(np.floor(quota).astype(int), low)
    while take.sum() < n:
        take[np.argmax(np.where(take < counts, quota - take, -np.inf))] += 1
    while take.sum() > n:  # small classes were rounded up
        take[np.argmax(np.where(take > low, take - quota, -np.inf))] -= 1
    return np.flatnonzero(_ranks(y, rng) < take[y])


def enough(name: str, y: Array, classes: Sequence[str], parts: Sequence[str]) -> None:
    """UsageError unless every class of ``y [N]`` has an example for each of the parts."""
    counts = np.bincount(y, minlength=len(classes))
    if counts.min() < len(parts):
        raise UsageError(
            f"{name}: class {classes[int(counts.argmin())]!r} should have at least {len(parts)} examples, one each for "
            f"{', '.join(parts)}, got {counts.min()}; add examples or drop the class"
        )


def _ranks(y: Array, rng: np.random.Generator) -> Array:
    """Each example's place, ``[N]``, in a random order of its class."""
    order = rng.permutation(len(y))
    order = order[np.argsort(y[order], kind="stable")]
    counts = np.bincount(y)
    rank = np.empty(len(y), dtype=int)
    rank[order] = np.arange(len(y)) - np.repeat(np.cumsum(counts) - counts, counts)
    return rank
