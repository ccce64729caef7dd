"""Problems where the answer is known: every architecture's value, or E[f] in closed form."""

from archgrad.benchmarks.known import Known, enumerated
from archgrad.benchmarks.nasbench201 import nasbench201

__all__ = ["Known", "enumerated", "nasbench201"]
