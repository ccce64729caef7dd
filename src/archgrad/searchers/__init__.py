"""What decides where f is evaluated next."""

from archgrad.searchers.frugal import Frugal
from archgrad.searchers.recipe import Recipe

__all__ = ["Frugal", "Recipe"]
