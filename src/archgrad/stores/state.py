"""A checkpoint as bytes: nested plain values as JSON and their tensors, in one safetensors file.

    8 bytes        length of the header, little-endian
    header         JSON: {"__metadata__": {"state": JSON of the values}, "0": {dtype, shape, data_offsets}, ...}
    the rest       the tensors, one after another

The format is written here and not by ``safetensors.torch.save``, which takes 60 us a tensor and refuses two names of
one tensor; its ``load`` reads these files all the same. No pickle: reading a checkpoint runs nobody's code.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from archgrad.errors import UsageError

# A plain JSON value stands for itself; these nodes are what JSON has no word for. A dict is a list of pairs, which
# keeps integer keys (Adam's), their order, and a user's own key called "tensor".
_DICT, _TUPLE, _TENSOR, _COMPLEX, _FLOAT = "dict", "tuple", "tensor", "complex", "float"

_DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint64: "U64",
    torch.uint32: "U32",
    torch.uint16: "U16",
    torch.uint8: "U8",
    torch.bool: "BOOL",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
}
_NAMES = {name: dtype for dtype, name in _DTYPES.items()}
_PLAIN = (str, int, type(None))  # bool is an int
_JSON = json.JSONEncoder(separators=(",", ":"), allow_nan=False)


def pack(state: Any) -> bytes:
    """Dicts (string or integer keys), lists, tuples, numbers, strings, bools, None and dense tensors, as bytes.

    Tensors lose their device and graph; subclasses (OrderedDict, Parameter, torch.Size) come back as the plain type.
    Raises UsageError for anything else.
    """
    tensors: list[Tensor] = []
    try:
        values = _JSON.encode(_encode(state, tensors))
    except RecursionError:
        raise UsageError("a state should be a finite nest of dicts and lists, got one that contains itself") from None
    entries = ['"__metadata__":' + _JSON.encode({"state": values})]
    chunks = []
    end = 0
    for i, tensor in enumerate(tensors):
        start, end = end, end + tensor.nbytes
        chunks.append(_bytes(tensor))
        entries.append(
            f'"{i}":{{"dtype":"{_DTYPES[tensor.dtype]}","shape":{list(tensor.shape)},"data_offsets":[{start},{end}]}}'
        )
    header = ("{" + ",".join(entries) + "}").encode()
    header += b" " * (-len(header) % 8)  # so that the first tensor is aligned in a mapped file
    return b"".join([len(header).to_bytes(8, "little"), header, *chunks])


def unpack(data: bytes) -> Any:
    """What was packed, with tensors on the CPU, each in memory of its own. Raises UsageError for other bytes."""
    try:
        n = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + n])
        values = json.loads(header.pop("__metadata__")["state"])
        body = memoryview(data)[8 + n :]
        tensors = [_tensor(header[str(i)], body) for i in range(len(header))]
        if sum(tensor.nbytes for tensor in tensors) != len(body):
            raise ValueError("its length")
        return _decode(values, tensors)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RuntimeError, OverflowError) as error:
        raise UsageError(
            f"a checkpoint should be bytes that pack() made, got {len(data)} others ({type(error).__name__}: "
            f"{' '.join(str(error).split())}); the file is damaged or from elsewhere"
        ) from error


def _encode(value: Any, tensors: list[Tensor]) -> Any:
    """The value as JSON; its tensors are appended to ``tensors`` and stand as their place there."""
    if isinstance(value, _PLAIN):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else {_FLOAT: repr(float(value))}
    if isinstance(value, Tensor):
        real = _dense(value)
        tensors.append(real)
        return {_COMPLEX if value.is_complex() else _TENSOR: len(tensors) - 1}
    if isinstance(value, list):
        return [_encode(item, tensors) for item in value]
    if isinstance(value, tuple):
        return {_TUPLE: [_encode(item, tensors) for item in value]}
    if isinstance(value, (dict, Mapping)):
        for key in value:
            if type(key) is not str and type(key) is not int:
                raise UsageError(f"keys of a state should be strings or integers, got {key!r}; rename it")
        return {_DICT: [[key, _encode(item, tensors)] for key, item in value.items()]}
    raise UsageError(
        f"a state should be made of dicts, lists, tuples, numbers, strings, bools, None and tensors, "
        f"got a {type(value).__name__}; turn it into one of them in state_dict()"
    )


def _decode(value: Any, tensors: list[Tensor]) -> Any:
    if isinstance(value, list):
        return [_decode(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == _DICT:
        return {key: _decode(item, tensors) for key, item in content}
    if kind == _TUPLE:
        return tuple(_decode(item, tensors) for item in content)
    if kind == _TENSOR:
        return tensors[content]
    if kind == _COMPLEX:
        return torch.view_as_complex(tensors[content])
    if kind == _FLOAT:
        return float(content)
    raise ValueError(f"unknown node {kind!r}")


def _dense(tensor: Tensor) -> Tensor:
    """On the CPU, real (a complex one gets a last dimension of 2), of a dtype the format names."""
    tensor = tensor.detach()
    if tensor.is_cpu and tensor.dtype in _DTYPES and tensor.layout == torch.strided and not tensor.is_neg():
        return tensor  # nearly all; the questions below are for the rest
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_meta:
        raise UsageError(
            f"a tensor in a state should be dense, with values, got {tensor.layout}, {tensor.dtype} "
            f"on {tensor.device}; store a dense one"
        )
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor.resolve_conj())
    if tensor.dtype not in _DTYPES:
        raise UsageError(f"a tensor in a state should have a dtype that safetensors names, got {tensor.dtype}")
    return tensor.resolve_neg().cpu()


def _bytes(tensor: Tensor) -> bytes:
    if sys.byteorder == "big":
        raise UsageError("checkpoints should be written on a little-endian machine, got a big-endian one")
    try:
        return tensor.numpy().tobytes()
    except TypeError:  # bfloat16 and the like, which NumPy has not
        return tensor.reshape(-1).view(torch.uint8).numpy().tobytes()


def _tensor(entry: Mapping[str, Any], body: memoryview) -> Tensor:
    dtype, shape, (start, end) = _NAMES[entry["dtype"]], entry["shape"], entry["data_offsets"]
    if not 0 <= start <= end <= len(body):
        raise ValueError(f"tensor at bytes {start} to {end} of {len(body)}")
    if start == end:
        return torch.empty(shape, dtype=dtype)  # frombuffer refuses no bytes
    # A copy: a view would be read-only, unaligned, and keep the whole checkpoint alive.
    return torch.frombuffer(bytearray(body[start:end]), dtype=dtype).reshape(shape)
