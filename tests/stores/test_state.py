from __future__ import annotations

import contextlib
import math

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from archgrad.errors import UsageError
from archgrad.stores.state import pack, unpack

DTYPES = [
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2),
    *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint64, torch.uint32, torch.uint16, torch.uint8),
    *(torch.bool, torch.complex64, torch.complex128),
]


def equal(a: object, b: object) -> bool:
    """The same values, types, order of keys, dtypes, shapes and bits (nan included)."""
    if type(a) is not type(b):
        return False
    if isinstance(a, torch.Tensor):
        bits = [torch.view_as_real(x) if x.is_complex() else x for x in (a, b)]
        return (a.dtype, a.shape) == (b.dtype, b.shape) and bytes_of(bits[0]) == bytes_of(bits[1])
    if isinstance(a, dict):
        return list(a) == list(b) and all(equal(a[k], b[k]) and equal(k, key) for k, key in zip(a, b, strict=True))
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(equal, a, b))
    if isinstance(a, float):
        return (math.isnan(a) and math.isnan(b)) or (a == b and math.copysign(1, a) == math.copysign(1, b))
    return a == b


def bytes_of(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


@st.composite
def tensors(draw):
    """Random bits of any dtype, also nan, and of any shape, also empty, 0-d and not contiguous."""
    dtype = draw(st.sampled_from(DTYPES))
    shape = draw(st.lists(st.integers(0, 3), max_size=3))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**16)))
    if dtype == torch.bool:
        tensor = torch.rand(shape, generator=generator) < 0.5
    else:
        size = torch.empty(0, dtype=dtype).element_size()
        raw = torch.randint(0, 256, [math.prod(shape) * size], dtype=torch.uint8, generator=generator)
        tensor = raw.view(dtype).reshape(shape)
    return tensor.transpose(0, -1) if tensor.dim() > 1 and draw(st.booleans()) else tensor


leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | tensors()
states = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(st.text(max_size=8) | st.integers(), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(states)
@settings(deadline=None, max_examples=150)
def test_round_trip(state):
    data = pack(state)
    assert equal(unpack(data), state)
    safetensors.torch.load(data)  # the library agrees that the file is well formed


def test_adam_goes_on_as_if_nothing_had_happened():
    def advance(weights, optimizer):
        for _ in range(3):
            optimizer.zero_grad()
            sum((w**2).sum() for w in weights).backward()
            optimizer.step()

    weights = [torch.nn.Parameter(torch.arange(4.0) + i) for i in range(3)]
    optimizer = torch.optim.Adam(weights, lr=0.1, amsgrad=True)
    advance(weights, optimizer)
    state = unpack(pack({"weights": [w.detach() for w in weights], "optimizer": optimizer.state_dict()}))
    assert equal(state["optimizer"], optimizer.state_dict())

    others = [torch.nn.Parameter(w) for w in state["weights"]]
    other = torch.optim.Adam(others)
    other.load_state_dict(state["optimizer"])
    advance(weights, optimizer)
    advance(others, other)
    assert all(torch.equal(a, b) for a, b in zip(weights, others, strict=True))


def test_a_module_and_a_generator_round_trip():
    module, generator = torch.nn.LSTM(3, 4), torch.Generator().manual_seed(3)
    state = unpack(pack({"policy": module.state_dict(), "generator": generator.get_state()}))
    torch.nn.LSTM(3, 4).load_state_dict(state["policy"])
    other = torch.Generator()
    other.set_state(state["generator"])
    assert torch.equal(torch.rand(5, generator=generator), torch.rand(5, generator=other))


def test_two_names_of_one_tensor_become_two_tensors():
    shared = torch.zeros(4)
    state = unpack(pack({"a": shared, "b": shared[1:]}))
    state["a"] += 1
    assert torch.equal(state["b"], torch.zeros(3))


def test_unpacked_tensors_can_be_written_to_and_leave_the_bytes_alone():
    data = pack(torch.arange(4.0))
    unpack(data).add_(1)
    assert torch.equal(unpack(data), torch.arange(4.0))


def test_views_are_kept_as_they_look():
    z = torch.tensor([1 + 2j, 3 - 1j])
    state = unpack(pack([z.conj(), z.conj().imag, torch.arange(6.0).expand(2, 6).T]))
    assert torch.equal(state[0], torch.tensor([1 - 2j, 3 + 1j]))
    assert torch.equal(state[1], torch.tensor([-2.0, 1.0]))
    assert torch.equal(state[2], torch.arange(6.0).expand(2, 6).T)


@pytest.mark.parametrize(
    "value",
    [
        {1, 2},
        b"bytes",
        object(),
        1j,
        {1.5: 0},
        {True: 0},
        {None: 0},
        torch.zeros(2, 2).to_sparse(),
        torch.zeros(2, device="meta"),
        torch.quantize_per_tensor(torch.zeros(2), 1.0, 0, torch.qint8),
    ],
    ids=str,
)
def test_anything_else_is_refused(value):
    with pytest.raises(UsageError, match="state should"):
        pack({"deep": [value]})


def test_a_state_that_contains_itself_is_refused():
    state: list[object] = []
    state.append(state)
    with pytest.raises(UsageError, match="contains itself"):
        pack(state)


GOOD = pack({"a": torch.arange(10.0), "b": [1, (2.5, None)], "c": {3: float("nan")}})


@given(st.binary(max_size=200) | st.integers(0, len(GOOD) - 1).map(lambda n: GOOD[:n]) | st.just(GOOD + b"x"))
@settings(deadline=None)
def test_other_bytes_are_refused_in_one_line(data):
    with pytest.raises(UsageError, match="checkpoint should be") as caught:
        unpack(data)
    assert "\n" not in str(caught.value)


@given(st.integers(0, len(GOOD) - 1), st.integers(1, 255))
@settings(deadline=None, max_examples=300)
def test_a_changed_byte_is_refused_or_harmless_but_no_other_error(place, change):
    data = bytearray(GOOD)
    data[place] ^= change
    with contextlib.suppress(UsageError):
        unpack(bytes(data))
