"""The alphas at which estimators are compared: uniform, half-way, nearly decided."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import nn

from archgrad.benchmarks.known import Known
from archgrad.errors import UsageError
from archgrad.protocols import Policy

PASSED = {"halfway": 0.5, "late": 0.95}
"""The mean largest probability that the descent first passes there."""
STEP = 0.3
LIMIT = 50_000


def alphas(problem: Known, policy: Policy) -> dict[str, Policy]:
    """``{"uniform", "halfway", "late"}``: copies of ``policy`` on the path of exact gradient descent on J.

    Independent decisions take plain steps of STEP. Others, whose parameters are a network's, take Adam's (.02): plain
    ones would need thousands. UsageError where the descent does not get there.
    """
    assert isinstance(policy, nn.Module)
    problem.expectation(policy)  # what it does not know it says before anything is enumerated
    found: dict[str, Policy] = {"uniform": copy.deepcopy(policy)}
    walker = copy.deepcopy(policy)
    parameters = list(walker.parameters())
    optimizer: torch.optim.Optimizer
    optimizer = torch.optim.SGD(parameters, STEP) if walker.independent else torch.optim.Adam(parameters, 0.02)
    left: Mapping[str, float] = dict(PASSED)
    for _ in range(LIMIT):
        decided = mean_largest(walker)
        for name in [name for name, level in left.items() if decided > level]:
            found[name] = copy.deepcopy(walker)
        left = {name: level for name, level in left.items() if name not in found}
        if not left:
            return found
        for p, g in zip(parameters, problem.gradient(walker), strict=True):
            p.grad = g
        optimizer.step()
    raise UsageError(
        f"exact descent on {problem.name} should make the policy decided, but after {LIMIT} steps its mean largest "
        f"probability is {decided:.3f}; give alphas of your own from Python"
    )


@torch.no_grad()
def mean_largest(policy: Policy) -> float:
    """Mean over decisions of the largest P(h_d = k); by enumeration where decisions depend on each other."""
    space = policy.space
    like = next(policy.parameters())
    if policy.independent:
        marginals = policy.conditionals(like.new_zeros(1, space.D, space.K))[0].exp()
    else:
        h = space.enumerate().to(like)  # type: ignore[attr-defined]
        marginals = torch.einsum("n,ndk->dk", policy.log_prob(h).exp(), h)
    return float(marginals.amax(-1).mean())
