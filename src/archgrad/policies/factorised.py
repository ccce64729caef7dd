"""p_alpha(h) = prod_d softmax(alpha_d)[h_d]: independent decisions."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from archgrad.policies.sequence import active_sum, entropy, gumbel, log_softmax, vertex
from archgrad.protocols import Row
from archgrad.spaces.decisions import Decisions


class Factorised(nn.Module):
    """One categorical a decision, alpha = logits ``[*R, D, K]``.

    prior: the logits to start from, ``[D, K]`` (see ``near``); uniform if None. runs: leading dimensions R of
    independent policies that step together.
    """

    independent = True

    def __init__(self, space: Decisions, *, prior: Tensor | None = None, runs: tuple[int, ...] = ()) -> None:
        super().__init__()
        self.space, self.runs = space, runs
        self.alpha = nn.Parameter(torch.zeros(*runs, space.D, space.K))
        if prior is not None:
            self.alpha.data += prior
        self.mask: Tensor
        self.register_buffer("mask", space.mask.clone(), persistent=False)

    def log_probabilities(self) -> Tensor:
        """``[*R, D, K]``, -inf at choices that do not exist."""
        logits = self.alpha.masked_fill(~self.mask, -torch.inf) if self.space.ragged else self.alpha
        return log_softmax(logits)

    def marginals(self) -> Tensor:
        """P(h_d = k given that d is active), ``[*R, D, K]``; differentiable in alpha."""
        return self.log_probabilities().exp()

    def conditionals(self, h: Tensor) -> Tensor:
        """``[*R, n, D, K]``: the same for every prefix."""
        return self.log_probabilities().unsqueeze(-3).expand(h.shape)

    def log_prob(self, h: Tensor) -> Tensor:
        """``[*R, n, D, K] -> [*R, n]``, over active decisions."""
        return active_sum(self.space, h, self.conditionals(h))

    def score(self, h: Tensor, weights: Tensor) -> tuple[Tensor, ...]:
        """sum_i weights_i (h_i - p) over active decisions: the closed form, without autograd's overhead."""
        return self.score_and_entropy(h, weights)[0]

    @torch.no_grad()
    def score_and_entropy(self, h: Tensor, weights: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        """``score`` and ``entropy`` from the same probabilities, without a graph."""
        log_p = self.log_probabilities()
        weighted = weights.unsqueeze(-1).unsqueeze(-1)
        if self.space.conditional:
            weighted = weighted * self.space.active(h).unsqueeze(-1)
        p = log_p.exp().contiguous()
        score = torch.addcmul((weighted * h).sum(-3), weighted.sum(-3), p, value=-1)
        return (score,), self._entropy(h, log_p)

    def entropy(self, h: Tensor) -> Tensor:
        """``[*R, n]``, over active decisions."""
        return self._entropy(h, self.log_probabilities())

    def _entropy(self, h: Tensor, log_p: Tensor) -> Tensor:
        if self.space.conditional:
            return entropy(self.space, h, log_p.unsqueeze(-3).expand(h.shape))
        return entropy(self.space, h, log_p).unsqueeze(-1).expand(h.shape[:-2])  # the same along every h

    @torch.no_grad()
    def sample(self, n: int, generator: torch.Generator | None = None, *, noise: Tensor | None = None) -> Tensor:
        """n vertices ``[*R, n, D, K]``; noise: uniforms of that shape."""
        if noise is None:
            noise = torch.rand(*self.runs, n, self.space.D, self.space.K, generator=generator)
        return self.space.canonical(vertex(self.log_probabilities().unsqueeze(-3) + gumbel(noise.to(self.alpha))))

    def relax(self, noise: Tensor, row: Row) -> Tensor:
        """``[*R, n, D, K]``: ``row`` at every decision."""
        log_p = self.log_probabilities().unsqueeze(-3).expand(noise.shape)
        return self.space.blend(row(log_p, gumbel(noise.to(self.alpha))))

    @torch.no_grad()
    def mode(self) -> Tensor:
        """``[*R, 1, D, K]``."""
        return self.space.canonical(vertex(self.log_probabilities()).unsqueeze(-3))
