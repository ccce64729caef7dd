"""The Nystrom approximation of the Hessian."""

from __future__ import annotations

import torch
from torch import Tensor

from archgrad.errors import UsageError
from archgrad.hypergradients.linear.contract import Product, Solved, check_damping, lengths


class Nystrom:
    """(C W^+ C' + damping)^-1 b, Hataya & Yamada (2023): C ``rank`` columns of H, drawn evenly, W their rows of them.

    One product with H a column, each known before the others are, and one more for the residual. In place of Woodbury's
    identity, whose terms nearly cancel where damping is small, the same inverse from an orthonormal basis of C. H is
    taken to be positive where it was not looked at; what has no column there is divided by ``damping``.
    """

    def __init__(self, rank: int, damping: float, seed: int = 0) -> None:
        if rank < 1:
            raise UsageError(f"rank should be at least 1, got {rank}; 5 to 20 are usual")
        check_damping(damping)
        if not damping:
            raise UsageError("damping should be positive for Nystrom, got 0; what its columns miss is divided by it")
        self.rank, self.damping, self.seed = rank, damping, seed

    def check(self, size: int) -> None:
        if self.rank > size:
            raise UsageError(f"rank should be at most the number of weights, {size}, got {self.rank}")

    def __call__(self, product: Product, b: Tensor) -> Solved:
        generator = torch.Generator().manual_seed(self.seed)
        places = torch.randperm(len(b), generator=generator)[: self.rank].to(b.device)
        columns = []
        for place in places.tolist():
            unit = torch.zeros_like(b)
            unit[place] = 1
            columns.append(product(unit))
        c = torch.stack(columns, -1)  # [P, rank]
        w = c[places]
        w = (w + w.T) / 2
        q, r = torch.linalg.qr(c)
        values, vectors = torch.linalg.eigh(r @ torch.linalg.pinv(w, hermitian=True) @ r.T)
        basis = q @ vectors
        inside = basis.T @ b
        x = basis @ (inside / (values + self.damping)) + (b - basis @ inside) / self.damping
        residual = product(x) + self.damping * x - b
        return Solved(x, lengths(residual, b), float(torch.linalg.eigvalsh(w)[0]), self.rank + 1, "rank")
