"""A trained network as plain JSON: calls of core ATen operators, and a reader that runs nothing else.

``torch.export.load`` unpickles sample inputs, constants and weights, and evaluates shape expressions of the file, so
a file from somebody else may execute code. A program names operators only, and the reader takes only functional ones
of PyTorch's core ATen set: numbers in, numbers out; none opens a file or calls back.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind

from archgrad.errors import UsageError

FORMAT = 1

# Sizes are Python integers (the batch is dynamic), so their arithmetic needs names of its own.
_PYTHON: dict[str, Callable[..., Any]] = {
    f"operator.{f.__name__}": f
    for f in (operator.getitem, operator.add, operator.sub, operator.mul, operator.floordiv, operator.neg)
}
_NAMED: dict[str, Any] = {
    str(value): value
    for value in vars(torch).values()
    if isinstance(value, torch.dtype | torch.layout | torch.memory_format)
}


def record(exported: ExportedProgram) -> dict[str, Any]:
    """The program of an exported network with one input and one output; weights are named, other constants kept.

    Raises UsageError where the network uses an operator that the reader would refuse.
    """
    exported = exported.run_decompositions()
    inputs: list[dict[str, Any]] = []
    for spec in exported.graph_signature.input_specs:
        entry: dict[str, Any] = {"name": spec.arg.name}
        if spec.target is not None and spec.target in exported.state_dict:
            entry["weight"] = spec.target
        elif spec.kind in (InputKind.BUFFER, InputKind.CONSTANT_TENSOR):
            entry["constant"] = _encode_tensor(exported.constants[str(spec.target)])
        elif spec.kind is not InputKind.USER_INPUT:
            raise UsageError(f"a network should hold tensors only, got {spec.kind.name.lower()} {spec.target!r}")
        inputs.append(entry)
    calls: list[dict[str, Any]] = []
    output = ""
    for node in exported.graph.nodes:
        if node.op == "output":
            (output,) = (value.name for value in node.args[0])
        elif node.op == "call_function" and node.users:
            name = _name(node.target)
            _operator(name)
            calls.append({"name": node.name, "call": name, "args": _encode(node.args), "kwargs": _encode(node.kwargs)})
    return {"format": FORMAT, "inputs": inputs, "calls": calls, "output": output}


class Program:
    """Runs what ``record`` wrote, with the weights of a safetensors file; inputs and outputs ``[N, ...]``.

    Raises UsageError for a program that is damaged or names anything but a functional core operator.
    """

    def __init__(self, program: Mapping[str, Any], weights: Mapping[str, Tensor]) -> None:
        if program.get("format") != FORMAT:
            raise UsageError(f"the program should have format {FORMAT}, got {program.get('format')!r}; hand over again")
        try:
            self._constants: dict[str, Tensor] = {}
            self._input = ""
            for entry in program["inputs"]:
                if "weight" in entry:
                    self._constants[entry["name"]] = weights[entry["weight"]]
                elif "constant" in entry:
                    self._constants[entry["name"]] = _decode_tensor(entry["constant"])
                else:
                    self._input = entry["name"]
            self._calls = [(c["name"], _operator(c["call"]), c["args"], c["kwargs"]) for c in program["calls"]]
            self._output: str = program["output"]
        except (AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
            raise UsageError(f"the program and its weights should belong together, got {error!r}; copy both") from error

    @torch.no_grad()
    def __call__(self, x: Tensor) -> Tensor:
        """``[N, *input_shape] -> [N, classes]``."""
        values: dict[str, Any] = {**self._constants, self._input: x}
        for name, call, args, kwargs in self._calls:
            values[name] = call(*_decode(args, values), **_decode(kwargs, values))
        result = values[self._output]
        if not isinstance(result, Tensor):
            raise UsageError(f"the program should end in a tensor, got {type(result).__name__}")
        return result


def _name(target: Any) -> str:
    return str(target) if isinstance(target, OpOverload) else f"operator.{getattr(target, '__name__', target)}"


def _operator(name: str) -> Callable[..., Any]:
    if name in _PYTHON:
        return _PYTHON[name]
    found = re.fullmatch(r"aten\.(\w+)\.(\w+)", name)
    overload = getattr(getattr(torch.ops.aten, found[1], None), found[2], None) if found else None
    if not isinstance(overload, OpOverload) or overload._schema.is_mutable or torch.Tag.core not in overload.tags:
        raise UsageError(f"a program should call functional core ATen operators only, got {name!r}")
    return overload


def _encode(value: Any) -> Any:
    if isinstance(value, torch.fx.Node):
        return {"node": value.name}
    if isinstance(value, Mapping):
        return {"map": {key: _encode(item) for key, item in value.items()}}
    if isinstance(value, list | tuple):
        return [_encode(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": str(value)}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, torch.device):
        return {"device": "cpu"}
    if str(value) in _NAMED:
        return {"torch": str(value)}
    raise UsageError(f"a program should hold numbers and tensors only, got {value!r}")


def _decode(value: Any, values: Mapping[str, Any]) -> Any:
    if isinstance(value, list):
        return [_decode(item, values) for item in value]
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "node":
        return values[content]
    if kind == "map":
        return {key: _decode(item, values) for key, item in content.items()}
    if kind == "float":
        return float(content)
    if kind == "device":
        return torch.device("cpu")
    return _NAMED[content]


def _encode_tensor(tensor: Tensor) -> dict[str, Any]:
    flat = tensor.detach().cpu().flatten()
    return {"dtype": str(flat.dtype), "shape": list(tensor.shape), "data": _encode(flat.tolist())}


def _decode_tensor(entry: Mapping[str, Any]) -> Tensor:
    return torch.tensor(_decode(entry["data"], {}), dtype=_NAMED[entry["dtype"]]).reshape(entry["shape"])
