"""The drawing's nodes and edges, contracted from an exported program: layers stay, bookkeeping disappears."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.export import ExportedProgram

# What a reader of the paper would draw, by operator name. Anything else is drawn only where it joins two branches or
# holds parameters (a subtraction of constants, a view or a dropout is neither).
_LAYERS = {
    "conv1d": "conv",
    "conv2d": "conv",
    "conv3d": "conv",
    "convolution": "conv",
    "conv_transpose1d": "transposed conv",
    "conv_transpose2d": "transposed conv",
    "linear": "linear",
    "addmm": "linear",
    "embedding": "embedding",
    "scaled_dot_product_attention": "attention",
    "max_pool1d": "max pool",
    "max_pool2d": "max pool",
    "max_pool2d_with_indices": "max pool",
    "max_pool3d": "max pool",
    "avg_pool1d": "average pool",
    "avg_pool2d": "average pool",
    "avg_pool3d": "average pool",
    "adaptive_avg_pool1d": "average pool",
    "adaptive_avg_pool2d": "average pool",
    "adaptive_max_pool2d": "max pool",
    "mean": "average pool",
    "amax": "max pool",
    "lstm": "LSTM",
    "gru": "GRU",
}
_NORMS = {
    "batch_norm": "batch norm",
    "native_batch_norm_legit_no_training": "batch norm",
    "layer_norm": "layer norm",
    "native_layer_norm": "layer norm",
    "group_norm": "group norm",
    "native_group_norm": "group norm",
    "instance_norm": "instance norm",
    "rms_norm": "RMS norm",
}
_ACTIVATIONS = {
    "relu": "ReLU",
    "relu6": "ReLU6",
    "hardtanh": "hardtanh",
    "leaky_relu": "leaky ReLU",
    "prelu": "PReLU",
    "elu": "ELU",
    "selu": "SELU",
    "gelu": "GELU",
    "silu": "SiLU",
    "mish": "Mish",
    "tanh": "tanh",
    "sigmoid": "sigmoid",
    "hardswish": "hardswish",
    "hardsigmoid": "hardsigmoid",
    "softplus": "softplus",
    "softmax": "softmax",
    "log_softmax": "log softmax",
}
_JOINS = {"add": "add", "cat": "concatenate", "mul": "multiply", "bmm": "matrix product", "matmul": "matrix product"}


@dataclass
class _Node:
    id: str
    label: str
    detail: str
    weights: dict[str, int]
    inputs: list[str]
    extras: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Value:
    """Where a tensor of the program comes from: drawn nodes, and parameters not yet attributed to one."""

    sources: tuple[str, ...] = ()
    weights: tuple[str, ...] = ()


def describe(exported: ExportedProgram) -> dict[str, Any]:
    """``{"nodes": [{"id", "label", "detail"}], "edges": [[from, to], ...]}``, nodes in topological order.

    Norms and activations that alone follow a node are merged into it: ``conv · batch norm · ReLU``.
    """
    # No operator is taken apart, but in-place ones become functional: an edge then is where the data goes.
    exported = exported.run_decompositions({})
    sizes = {name: parameter.numel() for name, parameter in exported.named_parameters()}
    parameters = exported.graph_signature.inputs_to_parameters
    values: dict[Any, _Value] = {}
    nodes: dict[str, _Node] = {}
    for node in exported.graph.nodes:
        if node.op == "placeholder":
            if node.name in parameters:
                values[node] = _Value(weights=(parameters[node.name],))
            elif node.name in exported.graph_signature.user_inputs:
                nodes[node.name] = _Node(node.name, "input", _shape(node), {}, [])
                values[node] = _Value(sources=(node.name,))
            else:
                values[node] = _Value()
        elif node.op == "call_function":
            values[node] = _call(node, values, nodes, sizes)
        elif node.op == "output":
            sources = _union([values[n].sources for n in node.all_input_nodes])
            nodes["output"] = _Node("output", "output", _shape(node.all_input_nodes[0]), {}, list(sources))
    _merge(nodes)
    return {
        "nodes": [
            {"id": n.id, "label": " · ".join([n.label, *n.extras]), "detail": _detail(n)} for n in nodes.values()
        ],
        "edges": [[source, n.id] for n in nodes.values() for source in n.inputs],
    }


def _call(node: Any, values: dict[Any, _Value], nodes: dict[str, _Node], sizes: dict[str, int]) -> _Value:
    if isinstance(node.meta.get("val"), int | torch.SymInt):
        return _Value()  # a size is not data
    inputs = [values[n] for n in node.all_input_nodes]
    sources, weights = _union([v.sources for v in inputs]), _union([v.weights for v in inputs])
    if not sources:
        return _Value(weights=weights)
    name = re.sub(r"^aten\._?|_?\.\w+$", "", str(node.target))
    label = _LAYERS.get(name) or _NORMS.get(name) or _ACTIVATIONS.get(name)
    if label is None and len(sources) == 1 and not weights:
        return _Value(sources)
    nodes[node.name] = _Node(
        node.name,
        label or _JOINS.get(name, name.replace("_", " ")),
        _arguments(node, name),
        {w: sizes[w] for w in weights},
        list(sources),
    )
    return _Value((node.name,))


def _merge(nodes: dict[str, _Node]) -> None:
    """Fold a norm or an activation into the only node it follows, in place."""
    quiet = {*_NORMS.values(), *_ACTIVATIONS.values()}
    for name in list(nodes):
        node = nodes[name]
        if node.label not in quiet or len(node.inputs) != 1:
            continue
        before = nodes[node.inputs[0]]
        if before.label == "input" or sum(before.id in n.inputs for n in nodes.values()) != 1:
            continue
        before.extras.append(node.label)
        before.weights |= node.weights
        del nodes[name]
        for other in nodes.values():
            other.inputs = list(dict.fromkeys(before.id if i == name else i for i in other.inputs))


def _arguments(node: Any, name: str) -> str:
    """What tells this layer from its neighbours, from weight shapes and arguments: ``3×3, 16→32, stride 2``."""
    arguments = dict(
        zip((a.name for a in getattr(node.target, "_schema", _Empty).arguments), node.args, strict=False), **node.kwargs
    )
    weight = arguments.get("weight")
    shape = list(weight.meta["val"].shape) if isinstance(weight, torch.fx.Node) else []
    parts: list[str] = []
    if "conv" in name and len(shape) > 2:
        groups = int(arguments.get("groups", 1))
        transposed = "transpose" in name
        inputs, outputs = (shape[0], shape[1] * groups) if transposed else (shape[1] * groups, shape[0])
        parts = ["×".join(map(str, shape[2:])), f"{inputs}→{outputs}"]
        parts += [_unless(arguments, "stride", 1, "stride"), _unless(arguments, "dilation", 1, "dilation")]
        parts.append("" if groups == 1 else "depthwise" if groups == inputs else f"{groups} groups")
    elif name == "linear" and len(shape) == 2:
        parts = [f"{shape[1]}→{shape[0]}"]
    elif "kernel_size" in arguments:
        kernel = arguments["kernel_size"]
        kernel = kernel if isinstance(kernel, list | tuple) else [kernel, kernel]
        parts = ["×".join(map(str, kernel)), _unless(arguments, "stride", 1, "stride")]
    elif "pool" in _LAYERS.get(name, ""):
        parts = [f"to {_shape(node)}"]
    elif name in ("add", "cat", "mul"):
        parts = [_shape(node)]
    return ", ".join(part for part in parts if part)


class _Empty:
    arguments: tuple[Any, ...] = ()


def _unless(arguments: dict[str, Any], name: str, usual: int, word: str) -> str:
    value = arguments.get(name, usual)
    value = list(value) if isinstance(value, list | tuple) else [value]
    if not value or all(v == usual for v in value):
        return ""
    return f"{word} {value[0] if len(set(value)) == 1 else '×'.join(map(str, value))}"


def _detail(node: _Node) -> str:
    count = sum(node.weights.values())
    return ", ".join(part for part in (node.detail, f"{count:,} parameters" if count else "") if part)


def _shape(node: Any) -> str:
    """Sizes after the batch dimension, as in ``16×8×8``."""
    value = node.meta.get("val")
    return "×".join(str(n) for n in value.shape[1:]) if isinstance(value, torch.Tensor) else ""


def _union(groups: list[tuple[str, ...]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(item for group in groups for item in group))
