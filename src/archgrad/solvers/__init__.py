"""z*(h): how an architecture gets its weights."""

from archgrad.solvers.from_scratch import FromScratch

__all__ = ["FromScratch"]
