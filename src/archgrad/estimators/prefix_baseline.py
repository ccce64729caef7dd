"""A baseline a decision, fitted to earlier values: what the choices before it say about f."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from archgrad.protocols import Policy


class PrefixBaseline:
    """b_d(h_<d) = c_d + sum_{e < d} w_de . h_e, for every d the ridge regression of f on the choices before d.

    An estimate of E[f | h_<d]. A baseline that reads only the prefix leaves the term of decision d unbiased, as
    E[d log p(h_d | h_<d) | h_<d] = 0, and takes out what earlier decisions did to f: no decision is praised for its
    predecessors. Least squares with forgetting: earlier batches count ``decay`` to the power of their age.

    One Cholesky factor L of the normal equations serves all D regressions, since their equations are the leading
    blocks of the largest: with z = L^-1 x and y = L^-1 m the fit on the first P features is sum_{j <= P} z_j y_j.
    """

    RIDGE = 1.0
    """One observation of weight 0 a choice; the constant has next to none, so shifting f shifts the baseline."""

    def __init__(self, decay: float) -> None:
        self.decay = decay
        self.gram: Tensor | None = None
        self.moment: Tensor | None = None

    @torch.no_grad()
    def __call__(self, h: Tensor) -> Tensor:
        """``[*R, n, D, K] -> [*R, n, D]``, 0 before the first update."""
        if self.gram is None or self.moment is None:
            return h.new_zeros(h.shape[:-1])
        ridge = torch.full_like(self.gram[..., 0], self.RIDGE)
        ridge[..., 0] = 1e-6
        factor = torch.linalg.cholesky(self.gram + torch.diag_embed(ridge))
        z = torch.linalg.solve_triangular(factor, _features(h).transpose(-1, -2), upper=False)
        y = torch.linalg.solve_triangular(factor, self.moment.unsqueeze(-1), upper=False)
        fits: Tensor = (z * y).cumsum(-2)
        return fits[..., : h.shape[-2] * h.shape[-1] : h.shape[-1], :].transpose(-1, -2).to(h)

    @torch.no_grad()
    def update(self, h: Tensor, values: Tensor) -> None:
        """Learn from a batch, after it was used: values ``[*R, n]``."""
        x = _features(h)
        gram = x.transpose(-1, -2) @ x
        moment = (x * values.detach().double().unsqueeze(-1)).sum(-2)
        self.gram = gram if self.gram is None else self.decay * self.gram + gram
        self.moment = moment if self.moment is None else self.decay * self.moment + moment

    def state_dict(self) -> dict[str, Any]:
        return {"gram": self.gram, "moment": self.moment}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.gram, self.moment = state["gram"], state["moment"]


def _features(h: Tensor) -> Tensor:
    """A constant and every choice, ``[*R, n, 1 + D K]``, in double precision."""
    x = h.flatten(-2).double()
    return torch.cat([torch.ones_like(x[..., :1]), x], -1)


def score_by_decision(policy: Policy, h: Tensor, weights: Tensor) -> tuple[Tensor, ...]:
    """d/dalpha sum_i sum_d weights_id log p(h_id | h_i,<d) over active decisions; weights ``[*R, n, D]``. No graph."""
    log_p = policy.conditionals(h)
    chosen = (log_p.masked_fill(log_p == -torch.inf, 0) * h).sum(-1)
    return torch.autograd.grad((weights * policy.space.active(h) * chosen).sum(), list(policy.parameters()))
