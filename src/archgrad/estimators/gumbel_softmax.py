"""Gumbel-softmax: f at relaxed samples."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from archgrad.errors import UsageError
from archgrad.estimators.gumbel import check_temperature, relaxed, uniforms
from archgrad.estimators.pathwise import chained, check_samples
from archgrad.protocols import Policy, Row
from archgrad.records import Batch, Estimate


class GumbelSoftmax:
    """mean_i d/dalpha f(softmax((log p_alpha + g_i) / t)), g_i Gumbel noise.

    Jang et al. (2017), Maddison et al. (2017); SNAS, Xie et al. (2019), is this on a supernet. ``samples`` evaluations
    of f and their slopes, inside the simplex. Any policy; an autoregressive one reads the relaxed prefix.

    The exact gradient of E[f(relaxed sample)], which is not E[f(sample)]: biased for every t > 0, for an affine f
    too, as the relaxed sample's mean is not p. The bias goes to 0 as t does (as t^2 where f is affine) and the
    variance to infinity.

    temperature: t, or a schedule, a function of the number of updates so far (``annealed``). A schedule counts calls
    of ``gradient``, and stands still while ``learns`` is False. A batch is answered at the temperature it was drawn
    with.
    """

    differentiates = 1
    independent = False
    epochs = 1

    def __init__(self, samples: int = 16, temperature: float | Callable[[int], float] = 1.0) -> None:
        check_samples(samples)
        self.samples, self.temperature = samples, temperature
        self.learns = callable(temperature)
        self.updates = 0
        self._now()  # a schedule that starts wrong is refused here

    def _now(self) -> float:
        t = self.temperature(self.updates) if callable(self.temperature) else self.temperature
        check_temperature(t)
        return t

    def propose(self, policy: Policy, generator: torch.Generator) -> Batch:
        noise = uniforms(policy, self.samples, generator)
        temperature = noise.new_full(noise.shape[:-2], self._now())
        with torch.no_grad():
            h = policy.relax(noise, tempered(temperature))
        return Batch(h, {"noise": noise, "temperature": temperature})

    def gradient(self, policy: Policy, batch: Batch, values: Tensor) -> Estimate:
        temperature = batch.memo["temperature"]
        points = policy.relax(batch.memo["noise"], tempered(temperature))
        gradient = chained(policy, batch, values, points)
        if self.learns:
            self.updates += 1
        return Estimate(gradient, {"temperature": float(temperature.mean())})

    def state_dict(self) -> dict[str, Any]:
        return {"updates": self.updates}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.updates = state["updates"]


def tempered(temperature: Tensor) -> Row:
    """softmax((log p + g) / t) with a temperature a sample, ``[*R, n]``."""

    def row(log_p: Tensor, g: Tensor) -> Tensor:
        t = temperature.reshape(*temperature.shape, *[1] * (log_p.dim() - temperature.dim()))
        return relaxed(log_p + g, t)

    return row


def annealed(start: float, end: float, steps: int) -> Callable[[int], float]:
    """A temperature that goes from ``start`` to ``end`` by equal factors in so many updates, and stays there."""
    check_temperature(start)
    check_temperature(end)
    if steps < 1:
        raise UsageError(f"steps should be at least 1, got {steps}; the number of updates of the search is usual")
    return partial(_exponential, start, end, steps)


def _exponential(start: float, end: float, steps: int, updates: int) -> float:
    return float(start * (end / start) ** min(updates / steps, 1))
