"""f: what a search minimises."""

from archgrad.objectives.additive import AdditiveCost, additive_cost
from archgrad.objectives.losses import LossPlusCost, ValidLoss, WeightedProduct

__all__ = ["AdditiveCost", "LossPlusCost", "ValidLoss", "WeightedProduct", "additive_cost"]
