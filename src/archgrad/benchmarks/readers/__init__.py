"""Official files of published benchmarks, as they were released. Tested on miniatures, never run on the real files."""

from archgrad.benchmarks.readers.nasbench101 import Module, read_nasbench101
from archgrad.benchmarks.readers.nats import Training, read_nats
from archgrad.benchmarks.readers.pickled import read_pickle

__all__ = ["Module", "Training", "read_nasbench101", "read_nats", "read_pickle"]
