"""Where evaluations run."""

from archgrad.executors.inline import Inline

__all__ = ["Inline"]
