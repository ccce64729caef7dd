"""Problems where the answer is known: every architecture's value, or E[f] in closed form."""

from archgrad.benchmarks.known import Known, enumerated
from archgrad.benchmarks.nasbench201 import nasbench201
from archgrad.benchmarks.nk_chain import nk_chain
from archgrad.benchmarks.table import Column, Table, read_table

__all__ = ["Column", "Known", "Table", "enumerated", "nasbench201", "nk_chain", "read_table"]
