"""What a network is trained *on*: data and its splits."""

from archgrad.tasks.data import Data, Split, load

__all__ = ["Data", "Split", "load"]
