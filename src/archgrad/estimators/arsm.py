"""ARSM: augment, reinforce, swap, merge."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from archgrad.estimators.gumbel import uniforms
from archgrad.estimators.pathwise import check_samples
from archgrad.protocols import Policy
from archgrad.records import Batch, Estimate


class ARSM:
    """dJ/dphi_dk ~ sum_j (f(z^kj) - mean_m f(z^mj)) (1/K - pi_dj), phi the logits.

    Yin, Yue & Zhou (2019). pi_d ~ Dirichlet(1, ..., 1) a decision and z_d = argmin_k log pi_dk - phi_dk, a sample of
    p; z^kj is the z of pi with its k-th and j-th entries swapped, in all decisions together. Unbiased. At K = 2 it is
    ARM, Yin & Zhou (2019).

    f is asked for values only, at 1 + K (K - 1) / 2 architectures a sample, K the space's largest number of choices
    (many of them are equal late in a search, and evaluated again unless f remembers). Independent decisions only. A
    choice that does not exist has phi = -inf: it is never drawn, and its pi still takes part in the swaps. A decision
    that is switched off keeps its part of the sum, as another swap may switch it on.
    """

    differentiates = 0
    independent = True
    epochs = 1
    learns = False

    def __init__(self, samples: int = 1) -> None:
        check_samples(samples)
        self.samples = samples

    def propose(self, policy: Policy, generator: torch.Generator) -> Batch:
        u = uniforms(policy, self.samples, generator)
        exponential = -u.clamp(min=torch.finfo(u.dtype).tiny).log()
        pi = exponential / exponential.sum(-1, keepdim=True)
        K = policy.space.K
        orders = torch.tensor(swaps(K))  # [P, K]
        swapped = pi[..., orders].movedim(-2, -3)  # [*R, n, P, D, K]
        swapped = swapped.flatten(-4, -3)
        with torch.no_grad():
            z = (swapped.log() - policy.conditionals(swapped)).argmin(-1)
        space: Any = policy.space
        h = space.canonical(one_hot(z, K).to(pi))
        return Batch(h, {"pi": pi.repeat_interleave(len(orders), -3)})

    def gradient(self, policy: Policy, batch: Batch, values: Tensor) -> Estimate:
        K = policy.space.K
        each = len(swaps(K))
        pi = batch.memo["pi"][..., ::each, :, :]
        f = values.detach().reshape(*values.shape[:-1], -1, each)[..., table(K)]  # [*R, n, K, K]
        f = f - f.mean(-2, keepdim=True)
        slope = torch.einsum("...kj,...dj->...dk", f, 1 / K - pi).mean(-3)  # dJ/dphi, [*R, D, K]
        phi = policy.conditionals(batch.h[..., :1, :, :]).squeeze(-3)
        phi = phi.masked_fill(phi == -torch.inf, 0)
        parameters = list(policy.parameters())
        return Estimate(torch.autograd.grad((slope * phi).sum(), parameters))

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        del state  # between batches it remembers nothing


def swaps(K: int) -> list[list[int]]:
    """The order as it is, then with k and j exchanged for every k < j."""
    orders = [list(range(K))]
    for k, j in itertools.combinations(range(K), 2):
        order = list(range(K))
        order[k], order[j] = j, k
        orders.append(order)
    return orders


def table(K: int) -> Tensor:
    """Which of ``swaps(K)`` exchanges k and j, ``[K, K]``."""
    which = torch.zeros(K, K, dtype=torch.long)
    for i, (k, j) in enumerate(itertools.combinations(range(K), 2), start=1):
        which[k, j] = which[j, k] = i
    return which
