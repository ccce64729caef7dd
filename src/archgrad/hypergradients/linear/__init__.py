"""(H + damping) x = b, H symmetric and known by its products with vectors."""

from archgrad.hypergradients.linear.conjugate_gradient import ConjugateGradient
from archgrad.hypergradients.linear.contract import LinearSolver, Product, Solved
from archgrad.hypergradients.linear.exact import Exact
from archgrad.hypergradients.linear.neumann import Neumann
from archgrad.hypergradients.linear.nystrom import Nystrom

__all__ = ["ConjugateGradient", "Exact", "LinearSolver", "Neumann", "Nystrom", "Product", "Solved"]
