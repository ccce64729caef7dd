"""p_alpha(h) = prod_d p(h_d | h_<d) by an LSTM: the controller of Zoph & Le (2016) and of ENAS."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from archgrad.policies.blocks import blocks, joined
from archgrad.policies.sequence import active_sum, affine, entropy, gumbel, hard, log_softmax, unroll
from archgrad.protocols import Row
from archgrad.spaces.decisions import Decisions


class Cell(NamedTuple):
    """The LSTM at one decision, ``[*R, n, ...]``: what it carried, its gates, and what came of them."""

    state_before: Tensor
    memory_before: Tensor
    ifo: Tensor
    """Input, forget and output gate, ``[*R, n, 3H]``."""
    g: Tensor
    """What is to be remembered."""
    bent: Tensor
    """tanh of the memory."""
    state: Tensor
    logits: Tensor
    """The decision's, -inf at choices that do not exist."""


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
        self.weight = uniform(2 * H, 4 * H)  # of the input, then of the state; gates in the order i, f, o, g
        self.bias = nn.Parameter(torch.zeros(*runs, 1, 4 * H))
        with torch.no_grad():
            self.bias[..., H : 2 * H] = 1
        self.head = nn.Parameter(torch.zeros(*runs, D, H, K))
        self.head_bias = nn.Parameter(torch.zeros(*runs, D, 1, K))
        if prior is not None:
            self.head_bias.data += prior.unsqueeze(-2)
        self.mask: Tensor
        self.register_buffer("mask", space.mask.clone(), persistent=False)

    def conditionals(self, h: Tensor) -> Tensor:
        """``[*R, n, D, K]``, one pass; a decision reads the choices before it."""
        return joined([part._conditionals(h[rows]) for part, rows in blocks(self, h.shape[-3])])

    def _conditionals(self, h: Tensor) -> Tensor:
        return log_softmax(torch.stack([cell.logits for cell in self._cells(h)], -2))

    def log_prob(self, h: Tensor) -> Tensor:
        """``[*R, n, D, K] -> [*R, n]``, over active decisions."""
        return active_sum(self.space, h, self.conditionals(h))

    def entropy(self, h: Tensor) -> Tensor:
        """``[*R, n]``: active conditional entropies along h, summed."""
        return entropy(self.space, h, self.conditionals(h))

    @torch.no_grad()
    def sample(self, n: int, generator: torch.Generator | None = None, *, noise: Tensor | None = None) -> Tensor:
        """n vertices ``[*R, n, D, K]`` in D steps; noise: uniforms of that shape."""
        if noise is None:
            noise = torch.rand(*self.runs, n, self.space.D, self.space.K, generator=generator)
        return joined([part.relax(noise[rows], hard) for part, rows in blocks(self, n)])

    @torch.no_grad()
    def mode(self) -> Tensor:
        """Greedy, decision by decision: ``[*R, 1, D, K]``."""
        still = self.start.new_zeros(*self.runs, 1, self.space.D, self.space.K)
        return self._unroll(still, hard)

    def relax(self, noise: Tensor, row: Row) -> Tensor:
        """``[*R, n, D, K]``: ``row`` at every decision; later ones read the relaxed prefix."""
        return self._unroll(gumbel(noise.to(self.start)), row)

    def _unroll(self, perturbation: Tensor, row: Row) -> Tensor:
        read = self._reader(perturbation.shape[-3])
        return unroll(self.space, lambda previous: read(previous).logits, perturbation, row)

    @torch.no_grad()
    def score(self, h: Tensor, weights: Tensor) -> tuple[Tensor, ...]:
        """d/dalpha sum_i weights_i log p(h_i): backpropagation through time written out, 3x as fast as autograd's."""
        parts = [part._score(h[rows], weights[rows]) for part, rows in blocks(self, h.shape[-3])]
        return tuple(joined(list(gradients)) for gradients in zip(*parts, strict=True))

    def _score(self, h: Tensor, weights: Tensor) -> tuple[Tensor, ...]:
        cells = self._cells(h)
        weighted = weights.unsqueeze(-1).unsqueeze(-1)
        if self.space.conditional:
            weighted = weighted * self.space.active(h).unsqueeze(-1)
        # "d_x" is the derivative in x; in the logits it is h - p
        p = log_softmax(torch.stack([cell.logits for cell in cells], -2)).exp()
        d_logits = ((h - p) * weighted).unbind(-2)

        heads, recurrent = self.head.mT.unbind(-3), self.weight[..., self.hidden :, :].mT
        d_gates: list[Tensor] = []
        d_memory = torch.zeros_like(cells[0].state)
        for d in reversed(range(len(cells))):
            cell = cells[d]
            i, _, o = cell.ifo.chunk(3, -1)
            d_state = d_logits[d] @ heads[d]
            if d_gates:
                d_state = affine(d_state, d_gates[-1], recurrent)
                d_memory = d_memory * cells[d + 1].ifo.chunk(3, -1)[1]
            d_memory = d_memory + tanh_backward(d_state * o, cell.bent)
            d_ifo = torch.cat([d_memory * cell.g, d_memory * cell.memory_before, d_state * cell.bent], -1)
            d_gates.append(torch.cat([sigmoid_backward(d_ifo, cell.ifo), tanh_backward(d_memory * i, cell.g)], -1))
        d_gates.reverse()

        # the first decision reads ``start``, the others a choice; the last decision's choices are read by none
        inputs = self.weight[..., : self.hidden, :]
        d_first = d_gates[0].sum(-2, keepdim=True)
        d_table = [row.mT @ d_gate for row, d_gate in zip(h.unbind(-2)[:-1], d_gates[1:], strict=True)]
        d_read = torch.cat([d_first, *d_table], -2)
        read = torch.cat([self.start, self.embedding[..., :-1, :, :].flatten(-3, -2)], -2)
        d_start, d_embedding = (d_read @ inputs.mT).split([1, d_read.shape[-2] - 1], -2)
        unread = torch.zeros_like(self.embedding[..., :1, :, :])
        d_gate = torch.cat(d_gates, -2)
        d_weight = [read.mT @ d_read, torch.cat([cell.state_before for cell in cells], -2).mT @ d_gate]
        return (
            d_start,
            torch.cat([d_embedding.unflatten(-2, (-1, h.shape[-1])), unread], -3),
            torch.cat(d_weight, -2),
            d_gate.sum(-2, keepdim=True),
            torch.stack([cell.state.mT @ d for cell, d in zip(cells, d_logits, strict=True)], -3),
            torch.stack([d.sum(-2, keepdim=True) for d in d_logits], -3),
        )

    def _cells(self, h: Tensor) -> list[Cell]:
        read = self._reader(h.shape[-3])
        rows = list(h.unbind(-2))
        return [read(rows[:d]) for d in range(len(rows))]

    def _reader(self, n: int) -> Callable[[list[Tensor]], Cell]:
        """One decision after the other: the rows made so far to the LSTM's next cell."""
        H = self.hidden
        inputs, recurrent = self.weight[..., :H, :], self.weight[..., H:, :]
        # what a choice adds to the gates: a product with the few choices, not with every sample's embedding
        table = (self.embedding.flatten(-3, -2) @ inputs).unflatten(-2, self.embedding.shape[-3:-1]).unbind(-3)
        heads, biases, missing = self.head.unbind(-3), self.head_bias.unbind(-3), (~self.mask).unbind(0)
        state = memory = self.start.new_zeros(*self.runs, n, H)

        def read(rows: list[Tensor]) -> Cell:
            nonlocal state, memory
            d, state_before, memory_before = len(rows), state, memory
            x = affine(self.bias, rows[-1], table[d - 1]) if rows else affine(self.bias, self.start, inputs)
            gates = affine(x, state, recurrent)
            ifo, g = gates[..., : 3 * H].sigmoid(), tanh(gates[..., 3 * H :])
            i, f, o = ifo.chunk(3, -1)
            memory = torch.addcmul(i * g, f, memory)
            bent = tanh(memory)
            state = o * bent
            logits = affine(biases[d], state, heads[d])
            if self.space.ragged:
                logits = logits.masked_fill(missing[d], -torch.inf)
            return Cell(state_before, memory_before, ifo, g, bent, state, logits)

        return read


sigmoid_backward = torch.ops.aten.sigmoid_backward
"""(gradient, y) to gradient y (1 - y)."""
tanh_backward = torch.ops.aten.tanh_backward
"""(gradient, y) to gradient (1 - y^2)."""


def tanh(x: Tensor) -> Tensor:
    """tanh x; where there is much of it as 2 sigmoid(2 x) - 1, which PyTorch computes in half the time."""
    return x.tanh() if x.numel() < 2048 else (x + x).sigmoid().mul(2).sub(1)
