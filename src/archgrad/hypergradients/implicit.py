"""The implicit function theorem: the derivative of the minimum itself."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from archgrad.hypergradients.attach import attach, leaves, pulled, slopes
from archgrad.hypergradients.linear import LinearSolver
from archgrad.protocols import TrainingLoss, Update, Weights


@dataclass(frozen=True)
class Report:
    """How the last system (H + damping) x = df/dz was solved, H = d2g/dz2.

    residual: |(H + damping) x - df/dz| / |df/dz|. curvature: the least that was seen along a direction of the solver's,
    without damping; an upper bound of H's least eigenvalue, and that itself of Exact. slope: |dg/dz|, 0 at a minimum.
    products: of H with a vector. ended: why the solver stopped.
    """

    residual: float
    curvature: float
    slope: float
    products: int
    ended: str

    @property
    def minimum(self) -> bool:
        """False where negative curvature was seen: z is no minimum of g, and the theorem does not hold."""
        return not self.curvature < 0

    def __str__(self) -> str:
        said = (
            f"{self.products} Hessian products, residual {self.residual:.2g}, least curvature seen "
            f"{self.curvature:.2g}, |dg/dz| {self.slope:.2g}, ended by {self.ended}"
        )
        return said if self.minimum else said + "; z is no minimum of g, where the theorem does not hold"


class Implicit:
    """z' = z in value, with dz*/dh = -(H + damping)^-1 d2g/dz dh, H = d2g/dz2: Pedregosa (2016).

    Exact only where dg/dz = 0 and H is positive definite. Weights that are still being trained are not there: the
    answer is then that of another problem, and near a direction without curvature it may be any number of times
    too long. So solvers take damping, stop at negative curvature, and ``report`` says what was seen.

    Of g only batch 0 is read. All Hessian products differentiate one graph of dg/dz, made when f is differentiated.
    ``update`` is not read: a minimum does not depend on how it was reached.
    """

    differentiable = 1

    def __init__(self, solver: LinearSolver) -> None:
        self.solver = solver
        self.report: Report | None = None

    def __call__(self, g: TrainingLoss, z: Weights, h: Tensor, update: Update) -> dict[str, Tensor]:
        del update
        fixed = {name: v.detach() for name, v in z.items()}
        size = sum(v.numel() for v in fixed.values())
        self.solver.check(size)
        if not (h.requires_grad and torch.is_grad_enabled()):
            return fixed

        def pull(v: Weights) -> Tensor:
            here = h.detach().requires_grad_()
            with torch.enable_grad():
                start = leaves(fixed)
                points = list(start.values())
                slope = list(slopes(g, start, here, 0, graph=True).values())

            def product(x: Tensor) -> Tensor:
                return flat(pulled(slope, points, like(x, points), graph=False))

            solved = self.solver(product, flat(list(v.values())))
            length = float(flat([s.detach() for s in slope]).norm())
            self.report = Report(solved.residual, solved.curvature, length, solved.products, solved.ended)
            return -pulled(slope, [here], like(solved.x, points), graph=False)[0]

        return attach(fixed, h, pull, twice=False, name="Implicit", reads=[*fixed.values(), h])


def flat(values: list[Tensor]) -> Tensor:
    """One vector ``[P]``."""
    return torch.cat([v.reshape(-1) for v in values])


def like(x: Tensor, values: list[Tensor]) -> list[Tensor]:
    """``[P]`` cut to the shapes of ``values``."""
    return [part.view(v.shape) for part, v in zip(torch.split(x, [v.numel() for v in values]), values, strict=True)]
