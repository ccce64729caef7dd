"""dz*/dh: how weights that were trained under h depend on h."""

from archgrad.hypergradients.finite_difference import FiniteDifference
from archgrad.hypergradients.first_order import FirstOrder
from archgrad.hypergradients.implicit import Implicit, Report
from archgrad.hypergradients.linear import ConjugateGradient, Exact, LinearSolver, Neumann, Nystrom, Solved
from archgrad.hypergradients.unrolled import Unrolled

__all__ = [
    "ConjugateGradient",
    "Exact",
    "FiniteDifference",
    "FirstOrder",
    "Implicit",
    "LinearSolver",
    "Neumann",
    "Nystrom",
    "Report",
    "Solved",
    "Unrolled",
]
