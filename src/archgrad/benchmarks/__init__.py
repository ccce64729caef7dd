"""Problems where the answer is known: every architecture's value, or E[f] in closed form."""

from archgrad.benchmarks.known import Known, enumerated
from archgrad.benchmarks.nasbench201 import nasbench201
from archgrad.benchmarks.nk_chain import nk_chain

__all__ = ["Known", "enumerated", "nasbench201", "nk_chain"]
