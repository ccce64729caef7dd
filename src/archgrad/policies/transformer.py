"""p_alpha(h) = prod_d p(h_d | h_<d) by a small causal transformer."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from archgrad.errors import UsageError
from archgrad.policies.blocks import blocks, joined
from archgrad.policies.sequence import active_sum, entropy, gumbel, hard, log_softmax, unroll
from archgrad.protocols import Row
from archgrad.spaces.decisions import Decisions

Cache = list[tuple[Tensor, Tensor]]
"""Keys and values of the tokens read so far, a pair a layer, each ``[*R, n, heads, t, H / heads]``."""


class Transformer(nn.Module):
    """Token d is the choice made at decision d - 1; its output, attending to tokens <= d, gives decision d's logits.

    Vaswani et al. (2017) with the norms before attention and feed-forward (Xiong et al. 2020): ``layers`` layers of
    ``heads`` heads and ``hidden`` units, 4 ``hidden`` in between. As in ``Autoregressive``, every decision has its
    own embedding of its choices and its own output head, the latter starting at zero: the policy starts uniform, or
    at ``prior``. A learned position says which decision a token is to answer.

    A batch's conditionals are one pass; samples are D steps of one token, past keys and values being kept.
    runs: leading dimensions R of independent policies with their own weights. A tensor holds a weight of all layers.
    """

    independent = False

    def __init__(
        self,
        space: Decisions,
        *,
        hidden: int = 32,
        layers: int = 1,
        heads: int = 2,
        prior: Tensor | None = None,
        runs: tuple[int, ...] = (),
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if layers < 1:
            raise UsageError(f"layers should be at least 1, got {layers}; 1 is usual")
        if heads < 1 or hidden % heads:
            raise UsageError(f"hidden should be a multiple of heads, got {hidden=} and {heads=}; 32 and 2 are usual")
        self.space, self.runs, self.hidden, self.heads, self.layers = space, runs, hidden, heads, layers
        D, K, H, L = space.D, space.K, hidden, layers

        def uniform(limit: float, *shape: int) -> nn.Parameter:
            return nn.Parameter((torch.rand(*runs, *shape, generator=generator) * 2 - 1) * limit)

        self.position = uniform(0.1, D, H)
        self.embedding = uniform(0.1, D, K, H)
        self.attention = uniform(H**-0.5, L, H, 3 * H)  # queries, keys, values
        self.out = uniform(H**-0.5, L, H, H)
        self.up = uniform(H**-0.5, L, H, 4 * H)
        self.up_bias = nn.Parameter(torch.zeros(*runs, L, 1, 4 * H))
        self.down = uniform((4 * H) ** -0.5, L, 4 * H, H)
        self.down_bias = nn.Parameter(torch.zeros(*runs, L, 1, H))
        self.gain = nn.Parameter(torch.ones(*runs, 2 * L + 1, 1, H))  # before attention, before feed-forward, last
        self.shift = nn.Parameter(torch.zeros(*runs, 2 * L + 1, 1, H))
        self.head = nn.Parameter(torch.zeros(*runs, D, H, K))
        self.head_bias = nn.Parameter(torch.zeros(*runs, D, 1, K))
        if prior is not None:
            self.head_bias.data += prior.unsqueeze(-2)
        self.mask: Tensor
        self.register_buffer("mask", space.mask.clone(), persistent=False)

    def conditionals(self, h: Tensor) -> Tensor:
        """``[*R, n, D, K]``, one pass; a decision attends to the choices before it."""
        return joined([part._conditionals(h[rows]) for part, rows in blocks(self, h.shape[-3])])

    def _conditionals(self, h: Tensor) -> Tensor:
        choices = h.movedim(-2, -3) @ self.embedding  # [*R, D, n, H]; the last choice is read by none
        tokens = torch.cat([torch.zeros_like(choices[..., :1, :, :]), choices[..., :-1, :, :]], -3)
        tokens = (tokens + self.position.unsqueeze(-2)).movedim(-3, -2)
        states = self._read(tokens, [])
        logits = states.movedim(-2, -3) @ self.head + self.head_bias
        return log_softmax(self._masked(logits.movedim(-3, -2), self.mask))

    def log_prob(self, h: Tensor) -> Tensor:
        """``[*R, n, D, K] -> [*R, n]``, over active decisions."""
        return active_sum(self.space, h, self.conditionals(h))

    def entropy(self, h: Tensor) -> Tensor:
        """``[*R, n]``: active conditional entropies along h, summed."""
        return entropy(self.space, h, self.conditionals(h))

    def score(self, h: Tensor, weights: Tensor) -> tuple[Tensor, ...]:
        """d/dalpha sum_i weights_i log p(h_i), by backpropagation."""
        return self.score_and_entropy(h, weights)[0]

    def score_and_entropy(self, h: Tensor, weights: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        """``score`` and ``entropy`` from one pass, without a graph."""
        with torch.enable_grad():
            log_p = self.conditionals(h)
            total = (weights.detach() * active_sum(self.space, h, log_p)).sum()
        gradient = torch.autograd.grad(total, list(self.parameters()))
        return gradient, entropy(self.space, h, log_p.detach())

    @torch.no_grad()
    def sample(self, n: int, generator: torch.Generator | None = None, *, noise: Tensor | None = None) -> Tensor:
        """n vertices ``[*R, n, D, K]`` in D steps; noise: uniforms of that shape."""
        if noise is None:
            noise = torch.rand(*self.runs, n, self.space.D, self.space.K, generator=generator)
        return joined([part.relax(noise[rows], hard) for part, rows in blocks(self, n)])

    @torch.no_grad()
    def mode(self) -> Tensor:
        """Greedy, decision by decision: ``[*R, 1, D, K]``."""
        still = self.position.new_zeros(*self.runs, 1, self.space.D, self.space.K)
        return unroll(self.space, self._step(1), still, hard)

    def relax(self, noise: Tensor, row: Row) -> Tensor:
        """``[*R, n, D, K]``: ``row`` at every decision; later ones attend to the relaxed prefix."""
        return unroll(self.space, self._step(noise.shape[-3]), gumbel(noise.to(self.position)), row)

    def _step(self, n: int) -> Callable[[list[Tensor]], Tensor]:
        """One decision after the other: the rows made so far to the next decision's logits, one token read a call."""
        positions, embeddings = self.position.unsqueeze(-2).unbind(-3), self.embedding.unbind(-3)
        cache: Cache = []

        def step(rows: list[Tensor]) -> Tensor:
            d = len(rows)
            token = positions[d].expand(*self.runs, n, self.hidden)
            if rows:
                token = token + rows[-1] @ embeddings[d - 1]
            state = self._read(token.unsqueeze(-2), cache).squeeze(-2)
            return self._masked(state @ self.head[..., d, :, :] + self.head_bias[..., d, :, :], self.mask[d])

        return step

    def _read(self, tokens: Tensor, cache: Cache) -> Tensor:
        """The outputs of t more tokens ``[*R, n, t, H]``, which attend to those in ``cache`` and are added to it."""
        n, t, H = tokens.shape[-3:]
        shape = (*self.runs, n, t, self.heads, H // self.heads)
        x = tokens.flatten(-3, -2)  # [*R, n t, H]: products with [*R, H, .] are batched over runs only
        for layer in range(self.layers):
            z = self._norm(x, 2 * layer) @ self.attention[..., layer, :, :]
            q, k, v = (part.reshape(shape).transpose(-3, -2) for part in z.chunk(3, -1))  # [*R, n, heads, t, .]
            if layer < len(cache):
                k, v = (torch.cat(pair, -2) for pair in zip(cache[layer], (k, v), strict=True))
                cache[layer] = k, v
            else:
                cache.append((k, v))
            attended = attend(q, k, v).transpose(-3, -2).reshape(*self.runs, n * t, H)
            x = x + attended @ self.out[..., layer, :, :]
            z = self._norm(x, 2 * layer + 1) @ self.up[..., layer, :, :] + self.up_bias[..., layer, :, :]
            x = x + nn.functional.gelu(z) @ self.down[..., layer, :, :] + self.down_bias[..., layer, :, :]
        return self._norm(x, 2 * self.layers).reshape(tokens.shape)

    def _norm(self, x: Tensor, which: int) -> Tensor:
        """Layer norm from primitives: PyTorch's own is silently wrong at the third derivative."""
        x = x - x.mean(-1, keepdim=True)
        x = x * (x.square().mean(-1, keepdim=True) + 1e-5).rsqrt()
        return x * self.gain[..., which, :, :] + self.shift[..., which, :, :]

    def _masked(self, logits: Tensor, mask: Tensor) -> Tensor:
        return logits.masked_fill(~mask, -torch.inf) if self.space.ragged else logits


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Causal attention of the last t of s tokens: ``q [..., t, c]``, ``k, v [..., s, c]`` to ``[..., t, c]``."""
    t, s = q.shape[-2], k.shape[-2]
    weights: Tensor = q @ k.mT * q.shape[-1] ** -0.5
    if t > 1:
        future = torch.ones(t, s, dtype=torch.bool, device=q.device).triu(s - t + 1)
        weights = weights.masked_fill(future, -torch.inf)
    return weights.softmax(-1) @ v
