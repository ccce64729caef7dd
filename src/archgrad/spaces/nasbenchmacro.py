"""The space of NAS-Bench-Macro: how deep and wide each of eight layers is."""

from __future__ import annotations

from archgrad.spaces.decisions import Decision, Decisions

LAYERS = 8
OPERATIONS = ("identity", "MB3_K3", "MB6_K5")


def macro_space() -> Decisions:
    """Su et al. (2021): each layer is left out, or an inverted bottleneck of expansion 3 or 6 and kernel 3 or 5: 6,561.

    The published architecture is a digit a layer, in the order of OPERATIONS.
    """
    return Decisions([Decision(f"layer{i}", OPERATIONS) for i in range(1, LAYERS + 1)])
