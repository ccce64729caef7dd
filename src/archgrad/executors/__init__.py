"""Where evaluations run."""

from archgrad.executors.inline import Inline
from archgrad.executors.processes import Processes

__all__ = ["Inline", "Processes"]
