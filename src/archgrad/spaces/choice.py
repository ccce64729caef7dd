"""The two pieces that turn an ordinary module into a space: what runs here, and which inputs are read.

A piece learns its row of h through two plain attributes, ``weights`` and ``run``, which ``Supernet.forward`` sets and
restores. Nothing global, no hooks: a deep copy, torch.compile and re-entrant calls keep working.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from archgrad.errors import UsageError


class Piece(nn.Module):
    """A decision inside a model: ``name``, ``names`` of its options, and whether the name may occur again.

    weights: this decision's row of h ``[K]``, or None. run: the options to execute, or None while undecided.
    """

    name: str
    names: tuple[str, ...]
    shared: bool

    def __init__(self, name: str, names: Sequence[str], shared: bool) -> None:
        super().__init__()
        if not isinstance(name, str) or not name:
            raise UsageError(f"a decision's name should be a non-empty string, got {name!r}")
        if not names or not all(isinstance(n, str) and n for n in names):
            raise UsageError(f"the options of {name!r} should have non-empty names, got {list(names)}")
        if len(set(names)) != len(names):
            raise UsageError(f"the options of {name!r} should have distinct names, got {list(names)}")
        self.name, self.names, self.shared = name, tuple(names), shared
        self.weights: Tensor | None = None
        self.run: tuple[int, ...] | None = None

    def decided(self) -> tuple[int, ...]:
        """The options to run. RuntimeError while nothing has decided."""
        if self.run is None:
            raise RuntimeError(
                f"{self.name!r} is undecided: run space.build(architecture) or space.supernet() instead of the model"
            )
        return self.run

    def decide(self, option: int) -> nn.Module:
        """The plain module that stands here once ``option`` is chosen; the option itself, not a copy."""
        raise TypeError(f"{type(self).__name__} does not say what a choice builds")


class Choice(Piece):
    """One of several modules, by name: ``Choice("conv1", {"3x3": conv3, "5x5": conv5, "skip": nn.Identity()})``.

    Every option takes the same arguments and returns a tensor of the same shape. ``shared=True`` lets other pieces
    with the same name and options follow the same decision (each with its own weights).
    """

    def __init__(self, name: str, options: Mapping[str, nn.Module], *, shared: bool = False) -> None:
        super().__init__(name, list(options), shared)
        for option, module in options.items():
            if not isinstance(module, nn.Module):
                raise UsageError(
                    f"option {option!r} of {name!r} should be an nn.Module, got {type(module).__name__}; "
                    "nn.Identity() is the one that does nothing"
                )
        self.options = nn.ModuleList(options.values())

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        run = self.decided()
        if self.weights is None:
            return self.options[run[0]](*args, **kwargs)
        first, *rest = run
        total = self.weights[first] * self.options[first](*args, **kwargs)
        for k in rest:
            total = total + self.weights[k] * self.options[k](*args, **kwargs)
        return total

    def decide(self, option: int) -> nn.Module:
        return self.options[option]

    def extra_repr(self) -> str:
        return f"{self.name!r}, {list(self.names)}"


class InputChoice(Piece):
    """Which of several tensors to read: ``InputChoice("skip", ["stem", "block1"], choose=1)([stem, block1])``.

    ``choose`` of them are summed; the decision's options are the subsets of that size, named "a+b" in the order given.
    The inputs have equal shapes.
    """

    def __init__(self, name: str, inputs: Sequence[str], *, choose: int = 1, shared: bool = False) -> None:
        if not 1 <= choose <= len(inputs):
            raise UsageError(f"choose should be between 1 and the {len(inputs)} inputs of {name!r}, got {choose}")
        self_subsets = list(itertools.combinations(range(len(inputs)), choose))
        super().__init__(name, ["+".join(inputs[i] for i in subset) for subset in self_subsets], shared)
        self.inputs, self.subsets = tuple(inputs), self_subsets

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        run = self.decided()
        if len(inputs) != len(self.inputs):
            raise UsageError(f"{self.name!r} reads {len(self.inputs)} tensors {self.inputs}, got {len(inputs)}")
        if self.weights is None:
            return add([inputs[i] for i in self.subsets[run[0]]])
        # A tensor's coefficient is the weight of all subsets that hold it: one multiplication a tensor, not a subset.
        terms = []
        for i in sorted({i for k in run for i in self.subsets[k]}):
            terms.append(add([self.weights[k] for k in run if i in self.subsets[k]]) * inputs[i])
        return add(terms)

    def decide(self, option: int) -> nn.Module:
        return Inputs(self.subsets[option])

    def extra_repr(self) -> str:
        return f"{self.name!r}, {list(self.inputs)}"


class Inputs(nn.Module):
    """The sum of some of the tensors given: what an InputChoice becomes once decided."""

    def __init__(self, indices: Sequence[int]) -> None:
        super().__init__()
        self.indices = tuple(indices)

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        return add([inputs[i] for i in self.indices])

    def extra_repr(self) -> str:
        return str(list(self.indices))


def add(terms: Sequence[Tensor]) -> Tensor:
    """Sum without the zero that ``sum`` starts from."""
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total
