"""How far a relaxation can be from what it relaxes: E f(h) against f(E h)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from archgrad.benchmarks.known import Known, means
from archgrad.protocols import Policy
from archgrad.spaces.decisions import Decisions


@dataclass(frozen=True)
class Gap:
    """E f(h) - f(p), p = E h, and what the curvature of f along single decisions says about it.

    For independent decisions replace p_d by h_d one after the other: rows before d are vertices, rows after it means,
    and E h_d = p_d takes the first order away. What is left is, exactly,

        E f(h) - f(p) = sum_d E (1/2) |h_d - p_d|^2 c_d,   c_d = 2 int_0^1 (1 - s) v' H_dd v ds,   v = unit(h_d - p_d),

    with H_dd = d2f/dh_d2 at p_d + s (h_d - p_d). Second derivatives *across* decisions do not occur. Where
    m_d <= v' H_dd v <= M_d on these segments, and as E|h_d - p_d|^2 = 1 - |p_d|^2:

        (1/2) sum_d m_d (1 - |p_d|^2)  <=  E f(h) - f(p)  <=  (1/2) sum_d M_d (1 - |p_d|^2),

    both attained by f = (M/2) sum_d |h_d|^2. With M = max |v'H_dd v| the familiar |gap| <= (M/2) sum_d (1 - |p_d|^2).

    gap: measured, from the exact E f. M: the largest |curvature| met at ``points`` random points of the segments, so an
    estimate from below. bound: (M/2) sum_d (1 - |p_d|^2). low, high: the two-sided bound, a decision's own curvatures.
    """

    problem: str
    alpha: str
    gap: float
    bound: float
    low: float
    high: float
    M: float
    points: int


def gap(problem: Known, policy: Policy, *, points: int = 2000, seed: int = 0, alpha: str = "given") -> Gap | None:
    """None where the question does not arise: dependent or conditional decisions, or an f without second derivative."""
    space = problem.space
    if not policy.independent or space.conditional or problem.differentiable < 2:
        return None
    with torch.no_grad():
        p = means(policy)
        measured = float(problem.expectation(policy) - problem.f(p.unsqueeze(-3)).squeeze(-1))
    generator = torch.Generator().manual_seed(seed)
    width = 1 - p.square().sum(-1)
    least, most = (torch.stack(rows) for rows in zip(*(
        extremes(curvature(problem, p, d, points, space, generator)) for d in range(space.D)
    ), strict=True))  # fmt: skip
    M = float(torch.maximum(most, -least).max())
    return Gap(
        problem.name,
        alpha,
        measured,
        M / 2 * float(width.sum()),
        float((least * width).sum()) / 2,
        float((most * width).sum()) / 2,
        M,
        points * space.D,
    )


def curvature(problem: Known, p: Tensor, d: int, points: int, space: Decisions, generator: torch.Generator) -> Tensor:
    """v' H_dd v ``[points]`` on the segments of decision d: vertices before it, means after it.

    Vertices are drawn uniformly, not from p: a bound has to hold at the rare ones as well.
    """
    h = space.uniform(points, generator).to(p)
    at = torch.cat([h[:, :d], p.expand(points, -1, -1)[:, d:]], 1)
    step = h[:, d] - p[d]
    s = torch.rand(points, 1, generator=generator, dtype=p.dtype)
    at[:, d] = p[d] + s * step
    v = torch.zeros_like(at)
    v[:, d] = step / step.norm(dim=-1, keepdim=True).clamp(min=torch.finfo(p.dtype).tiny)
    at.requires_grad_()
    (slope,) = torch.autograd.grad(problem.f(at).sum(), at, create_graph=True)
    if not slope.requires_grad:  # affine
        return torch.zeros(points, dtype=p.dtype)
    (second,) = torch.autograd.grad((slope * v).sum(), at)
    return (second * v).sum((-2, -1))


def extremes(values: Tensor) -> tuple[Tensor, Tensor]:
    return values.min(), values.max()
