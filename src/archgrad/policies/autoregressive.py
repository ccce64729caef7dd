"""p_alpha(h) = prod_d p(h_d | h_<d) by an LSTM: the controller of Zoph & Le (2016) and of ENAS."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from archgrad.policies.sequence import active_sum, entropy, gumbel
from archgrad.protocols import Row
from archgrad.spaces.decisions import Decisions


class Autoregressive(nn.Module):
    """An LSTM that reads the choices so far and gives the next decision's logits.

    One layer of ``hidden`` units; every decision has its own embedding of its choices and its own output head, so
    that choices of different decisions share nothing by accident. Embeddings and weights start in U(-.1, .1), heads
    at zero, so the policy starts uniform, or at ``prior`` (logits ``[D, K]``, see ``near``), which the heads' biases
    then hold; the forget gate's bias starts at 1.

    runs: leading dimensions R of independent policies with their own weights, stepped together by batched products.
    Written as products rather than ``nn.LSTM`` for that reason.
    """

    independent = False

    def __init__(
        self,
        space: Decisions,
        *,
        hidden: int = 32,
        prior: Tensor | None = None,
        runs: tuple[int, ...] = (),
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.space, self.runs, self.hidden = space, runs, hidden
        D, K, H = space.D, space.K, hidden

        def uniform(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.rand(*runs, *shape, generator=generator) * 0.2 - 0.1)

        self.start = uniform(1, H)
        self.embedding = uniform(D, K, H)
        self.weight = uniform(2 * H, 4 * H)
        self.bias = nn.Parameter(torch.zeros(*runs, 1, 4 * H))
        with torch.no_grad():
            self.bias[..., H : 2 * H] = 1
        self.head = nn.Parameter(torch.zeros(*runs, D, H, K))
        self.head_bias = nn.Parameter(torch.zeros(*runs, D, 1, K))
        if prior is not None:
            self.head_bias.data += prior.unsqueeze(-2)
        self.mask: Tensor
        self.register_buffer("mask", space.mask.clone(), persistent=False)

    def _start(self, n: int) -> tuple[Tensor, Tensor, Tensor]:
        """Input, hidden state and cell at the first decision, each ``[*R, n, H]``."""
        x = self.start.expand(*self.runs, n, self.hidden)
        return x, torch.zeros_like(x), torch.zeros_like(x)

    def _cell(self, x: Tensor, state: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        gates = torch.cat([x, state], -1) @ self.weight + self.bias
        i, f, o, g = gates.chunk(4, -1)
        memory = f.sigmoid() * memory + i.sigmoid() * g.tanh()
        return o.sigmoid() * memory.tanh(), memory

    def _log_p(self, d: int, state: Tensor) -> Tensor:
        """Decision d's log-probabilities ``[*R, n, K]``."""
        logits = state @ self.head[..., d, :, :] + self.head_bias[..., d, :, :]
        return logits.masked_fill(~self.mask[d], -math.inf).log_softmax(-1)

    def conditionals(self, h: Tensor) -> Tensor:
        """``[*R, n, D, K]``, one pass; a decision reads the choices before it."""
        inputs = torch.einsum("...ndk,...dkh->...ndh", h, self.embedding)
        x, state, memory = self._start(h.shape[-3])
        rows = []
        for d in range(self.space.D):
            state, memory = self._cell(x, state, memory)
            rows.append(self._log_p(d, state))
            x = inputs[..., d, :]
        return torch.stack(rows, -2)

    def log_prob(self, h: Tensor) -> Tensor:
        """``[*R, n, D, K] -> [*R, n]``, over active decisions."""
        return active_sum(self.space, h, self.conditionals(h))

    def score(self, h: Tensor, weights: Tensor) -> tuple[Tensor, ...]:
        """d/dalpha sum_i weights_i log p(h_i), by backpropagation."""
        return torch.autograd.grad((weights.detach() * self.log_prob(h)).sum(), list(self.parameters()))

    def entropy(self, h: Tensor) -> Tensor:
        """``[*R, n]``: active conditional entropies along h, summed."""
        return entropy(self.space, h, self.conditionals(h))

    @torch.no_grad()
    def sample(self, n: int, generator: torch.Generator | None = None, *, noise: Tensor | None = None) -> Tensor:
        """n vertices ``[*R, n, D, K]`` in D steps; noise: uniforms of that shape."""
        if noise is None:
            noise = torch.rand(*self.runs, n, self.space.D, self.space.K, generator=generator)
        return self._unroll(n, gumbel(noise.to(self.start)))

    @torch.no_grad()
    def mode(self) -> Tensor:
        """Greedy, decision by decision: ``[*R, 1, D, K]``."""
        return self._unroll(1, self.start.new_zeros(*self.runs, 1, self.space.D, self.space.K))

    def relax(self, noise: Tensor, row: Row) -> Tensor:
        """``[*R, n, D, K]``: ``row`` at every decision; later ones read the relaxed prefix."""
        perturbation = gumbel(noise.to(self.start))
        x, state, memory = self._start(noise.shape[-3])
        rows: list[Tensor] = []
        for d in range(self.space.D):
            state, memory = self._cell(x, state, memory)
            rows.append(row(self._log_p(d, state), perturbation[..., d, :]))
            if self.space.decisions[d].when:
                rows[d] = self.space.blend_site(rows, d)
            x = torch.einsum("...nk,...kh->...nh", rows[d], self.embedding[..., d, :, :])
        return torch.stack(rows, -2)

    def _unroll(self, n: int, perturbation: Tensor) -> Tensor:
        K = self.space.K
        x, state, memory = self._start(n)
        h = torch.zeros_like(perturbation)
        for d in range(self.space.D):
            state, memory = self._cell(x, state, memory)
            best = (self._log_p(d, state) + perturbation[..., d, :]).argmax(-1)
            h[..., d, :] = nn.functional.one_hot(best, K).to(h.dtype)
            if self.space.decisions[d].when:
                # switched off: the first choice, before later decisions read it, or p(h) would not be what is sampled
                h = self.space.canonical_site(h, d)
            x = torch.einsum("...nk,...kh->...nh", h[..., d, :], self.embedding[..., d, :, :])
        return h
