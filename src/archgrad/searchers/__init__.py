"""What decides where f is evaluated next."""

from archgrad.searchers.recipe import Recipe

__all__ = ["Recipe"]
