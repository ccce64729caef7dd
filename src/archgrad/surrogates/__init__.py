"""c: models of f, fitted to past evaluations, whose expectation under independent decisions is exact."""

from archgrad.surrogates.gaussian_process import GaussianProcess
from archgrad.surrogates.interactions import Interactions
from archgrad.surrogates.linear import Linear
from archgrad.surrogates.pairwise import Pairwise

__all__ = ["GaussianProcess", "Interactions", "Linear", "Pairwise"]
