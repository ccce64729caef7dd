"""A key that is equal for equal networks: the live graph, skips contracted, shared operations kept distinct."""

from __future__ import annotations

import copy
import hashlib
from typing import Any

import torch
from torch import Tensor, nn

from archgrad.spaces.choice import Inputs
from archgrad.spaces.plain import Dead, tensors

COMMUTATIVE = ("AddBackward0", "MulBackward0", "MaximumBackward0", "MinimumBackward0")


def graph_key(network: nn.Module, example: Tensor) -> str:
    """A hexadecimal digest of the autograd graph from the outputs to the input and the parameters.

    Dead parts are not in that graph, an identity leaves no node, and a node used twice is one node: two convolutions
    that share an input path differ from two that do not. Nodes carry their settings (stride, padding, groups, ...),
    parameters their shapes, live leaf modules their ``repr`` (settings that leave no trace in evaluation mode, as
    dropout). Sums and products do not know the order of their terms. Constants inside a user's own arithmetic
    (``x + 3``) are not seen; two networks that differ in nothing else share a key.
    """
    probe = copy.deepcopy(network).eval()
    for p in probe.parameters():
        p.requires_grad_(p.is_floating_point() or p.is_complex())
    outputs_of: list[tuple[str, Tensor]] = []

    def record(module: nn.Module, args: Any, output: Any) -> None:
        if isinstance(output, Tensor) and output.requires_grad:
            outputs_of.append((repr(module), output))

    for m in probe.modules():
        if not any(True for _ in m.children()) and not isinstance(m, nn.Identity | Inputs | Dead):
            m.register_forward_hook(record)
    x = example[:1].detach().clone()
    if x.is_floating_point():
        x.requires_grad_()
    roots = [o.grad_fn for o in tensors(probe(x)) if o.grad_fn is not None]

    merkle = _merkle(roots)
    number: dict[Any, int] = {}
    lines: list[str] = []
    for root in roots:
        stack: list[tuple[Any, bool]] = [(root, False)]
        while stack:  # depth first, children in canonical order; a node's number is when it was finished
            node, ready = stack.pop()
            if node in number:
                continue
            children = _children(node, merkle)
            if ready:
                number[node] = len(number)
                lines.append(f"{_label(node, x)}({','.join(str(number[c]) for c in children)})")
            else:
                stack.append((node, True))
                stack.extend((c, False) for c in reversed(children))
    live = sorted(text for text, output in outputs_of if output is x or output.grad_fn in number)
    return hashlib.sha256("\n".join([*lines, str([number[r] for r in roots]), *live]).encode()).hexdigest()


def _merkle(roots: list[Any]) -> dict[Any, str]:
    digest: dict[Any, str] = {}
    stack = [(r, False) for r in roots]
    while stack:
        node, ready = stack.pop()
        if node in digest:
            continue
        children = [c for c, _ in node.next_functions if c is not None]
        if ready:
            below = [digest[c] for c in children]
            text = _label(node, None) + str(sorted(below) if node.name() in COMMUTATIVE else below)
            digest[node] = hashlib.sha256(text.encode()).hexdigest()
        else:
            stack.append((node, True))
            stack.extend((c, False) for c in children)
    return digest


def _children(node: Any, merkle: dict[Any, str]) -> list[Any]:
    children = [c for c, _ in node.next_functions if c is not None]
    return sorted(children, key=merkle.__getitem__) if node.name() in COMMUTATIVE else children


def _label(node: Any, x: Tensor | None) -> str:
    name = node.name()
    if hasattr(node, "variable"):
        kind = "input" if node.variable is x else "leaf"
        return f"{kind}{tuple(node.variable.shape)}"
    settings = []
    for attribute in sorted(a for a in dir(node) if a.startswith("_saved_")):
        value = getattr(node, attribute)
        if isinstance(value, Tensor):
            # a scalar is a constant of the architecture; activations and parameters are not
            if value.numel() == 1 and not value.requires_grad and name in COMMUTATIVE:
                settings.append(f"{attribute}={value.item()}")
        elif isinstance(value, bool | int | float | str | torch.dtype) or (
            isinstance(value, tuple | list) and all(isinstance(v, bool | int | float) for v in value)
        ):
            settings.append(f"{attribute}={value}")
    return f"{name}[{';'.join(settings)}]"
