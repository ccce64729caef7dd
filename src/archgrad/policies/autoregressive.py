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
        return self._log_p([cell.state for cell in self._cells(h)]).movedim(-3, -2)

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
        heads, biases, missing = self.head.unbind(-3), self.head_bias.unbind(-3), (~self.mask).unbind(0)

        def step(rows: list[Tensor]) -> Tensor:
            logits = affine(biases[len(rows)], read(rows).state, heads[len(rows)])
            return logits.masked_fill(missing[len(rows)], -torch.inf) if self.space.ragged else logits

        return unroll(self.space, step, perturbation, row)

    def score(self, h: Tensor, weights: Tensor) -> tuple[Tensor, ...]:
        """d/dalpha sum_i weights_i log p(h_i): backpropagation through time, written out as autograd is slower."""
        return self.score_and_entropy(h, weights)[0]

    @torch.no_grad()
    def score_and_entropy(self, h: Tensor, weights: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        """``score`` and ``entropy`` from one pass, without a graph."""
        parts = [part._score(h[rows], weights[rows]) for part, rows in blocks(self, h.shape[-3])]
        gradients = zip(*(gradient for gradient, _ in parts), strict=True)
        return tuple(joined(list(g)) for g in gradients), joined([e for _, e in parts])

    def _score(self, h: Tensor, weights: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        cells = self._cells(h)
        log_p = self._log_p([cell.state for cell in cells])
        weighted = weights.unsqueeze(-2).unsqueeze(-1)
        if self.space.conditional:
            weighted = weighted * self.space.active(h).mT.unsqueeze(-1)
        # "d_x" is the derivative in x; in the logits it is h - p
        choices = h.movedim(-2, -3)
        d_logits = (choices - log_p.exp()) * weighted
        d_states = (d_logits @ self.head.mT).unbind(-3)

        recurrent = self.weight[..., self.hidden :, :].mT.contiguous()
        d_gates: list[Tensor] = []
        d_memory = torch.zeros_like(cells[0].state)
        for d in reversed(range(len(cells))):
            cell, d_state = cells[d], d_states[d]
            i, _, o = cell.ifo.chunk(3, -1)
            if d_gates:
                d_state = affine(d_state, d_gates[-1], recurrent)
                d_memory = d_memory * cells[d + 1].ifo.chunk(3, -1)[1]
            d_memory = d_memory + tanh_backward(d_state * o, cell.bent)
            d_ifo = torch.cat([d_memory * cell.g, d_memory * cell.memory_before, d_state * cell.bent], -1)
            d_gates.append(torch.cat([sigmoid_backward(d_ifo, cell.ifo), tanh_backward(d_memory * i, cell.g)], -1))
        d_gate = torch.stack(d_gates[::-1], -3)

        # the first decision reads ``start``, the others a choice; the last decision's choices are read by none
        inputs = self.weight[..., : self.hidden, :]
        d_table = choices[..., :-1, :, :].mT @ d_gate[..., 1:, :, :]
        d_read = torch.cat([d_gate[..., 0, :, :].sum(-2, keepdim=True), d_table.flatten(-3, -2)], -2)
        read = torch.cat([self.start, self.embedding[..., :-1, :, :].flatten(-3, -2)], -2)
        d_input = d_read @ inputs.mT
        d_embedding = d_input[..., 1:, :].reshape(self.embedding[..., 1:, :, :].shape)
        unread = torch.zeros_like(self.embedding[..., :1, :, :])
        d_gate = d_gate.flatten(-3, -2)
        d_weight = [read.mT @ d_read, torch.cat([cell.state_before for cell in cells], -2).mT @ d_gate]
        gradient = (
            d_input[..., :1, :],
            torch.cat([d_embedding, unread], -3),
            torch.cat(d_weight, -2),
            d_gate.sum(-2, keepdim=True),
            torch.stack([cell.state for cell in cells], -3).mT @ d_logits,
            d_logits.sum(-2, keepdim=True),
        )
        return gradient, entropy(self.space, h, log_p.movedim(-3, -2))

    def _log_p(self, states: list[Tensor]) -> Tensor:
        """Every decision's state ``[*R, n, H]`` to log-probabilities ``[*R, D, n, K]``."""
        logits = torch.stack(states, -3) @ self.head + self.head_bias
        return log_softmax(logits.masked_fill(~self.mask.unsqueeze(-2), -torch.inf) if self.space.ragged else logits)

    def _cells(self, h: Tensor) -> list[Cell]:
        read = self._reader(h.shape[-3])
        rows = list(h.unbind(-2))
        return [read(rows[:d]) for d in range(len(rows))]

    def _reader(self, n: int) -> Callable[[list[Tensor]], Cell]:
        """One decision after the other: the rows made so far to the LSTM's next cell."""
        H = self.hidden
        # tanh x = 2 sigmoid(2 x) - 1: PyTorch's sigmoid is much the faster, and serves all gates at once
        twice = torch.ones(4 * H, dtype=self.bias.dtype, device=self.bias.device)
        twice[3 * H :] = 2
        weight, bias = self.weight * twice, self.bias * twice
        inputs, recurrent = weight[..., :H, :], weight[..., H:, :]
        # what a choice adds to the gates: a product with the few choices, not with every sample's embedding
        table = torch.cat([self.start, self.embedding.flatten(-3, -2)], -2) @ inputs
        first = bias + table[..., :1, :]
        tables = table[..., 1:, :].reshape(*self.runs, self.space.D, self.space.K, 4 * H).unbind(-3)
        state = memory = self.start.new_zeros(*self.runs, n, H)

        def read(rows: list[Tensor]) -> Cell:
            nonlocal state, memory
            state_before, memory_before = state, memory
            x = affine(bias, rows[-1], tables[len(rows) - 1]) if rows else first
            gates = affine(x, state, recurrent).sigmoid()
            ifo, g = gates[..., : 3 * H], gates[..., 3 * H :] * 2 - 1
            i, f, o = ifo.chunk(3, -1)
            memory = torch.addcmul(i * g, f, memory)
            bent = (memory + memory).sigmoid() * 2 - 1
            state = o * bent
            return Cell(state_before, memory_before, ifo, g, bent, state)

        return read


sigmoid_backward = torch.ops.aten.sigmoid_backward
"""(gradient, y) to gradient y (1 - y)."""
tanh_backward = torch.ops.aten.tanh_backward
"""(gradient, y) to gradient (1 - y^2)."""
