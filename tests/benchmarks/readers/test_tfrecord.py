"""TFRecord and NAS-Bench-101, on a miniature made by hand; the real file has never been read."""

import base64
import json
import struct

import pytest
import torch

from archgrad import UsageError
from archgrad.benchmarks.readers import read_nasbench101
from archgrad.benchmarks.readers.nasbench101 import Evaluation, fields, metrics, varint
from archgrad.benchmarks.readers.tfrecord import crc32c, masked, records


def framed(*contents):
    out = b""
    for content in contents:
        length = struct.pack("<Q", len(content))
        out += length + struct.pack("<I", masked(length)) + content + struct.pack("<I", masked(content))
    return out


def double(number, value):
    return bytes([number << 3 | 1]) + struct.pack("<d", value)


def evaluation(*numbers, more=b""):
    return b"".join(double(i, v) for i, v in enumerate(numbers, start=1)) + more


def message():
    # unknown fields are skipped: 6 is the path of a checkpoint, 15 nobody's
    parts = [
        evaluation(0.0, 0.0, 0.1, 0.125, 0.1),
        evaluation(54.0, 100.5, 0.9, 0.875, 0.85, more=b"\x32\x03abc"),
        evaluation(108.0, 200.25, 1.0, 0.9375, 0.925),
    ]
    body = b"".join(b"\x0a" + bytes([len(p)]) + p for p in parts)
    return body + b"\x10\xac\x02" + double(3, 1234.5) + b"\x7d" + struct.pack("<f", 1.0)


def row(**changes):
    value = {
        "hash": "00005c142e6f48ac74fdcf73e3439874",
        "epochs": 108,
        "adjacency": "011001000",
        "operations": "input,conv3x3-bn-relu,output",
        "metrics": base64.b64encode(message()).decode(),
    } | changes
    return json.dumps(list(value.values())).encode()


def test_the_checksum_is_castagnolis():
    # RFC 3720, appendix B.4, and the check value of the catalogue of CRCs
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(bytes(32)) == 0x8A9136AA
    assert crc32c(b"\xff" * 32) == 0x62A8AB43
    assert crc32c(bytes(range(32))) == 0x46DD794E


def test_a_frame_that_tensorflow_wrote():
    # the empty record: its length's and its content's checksum
    assert framed(b"") == bytes.fromhex("0000000000000000 29039807 d8ea82a2")


def test_a_module_is_read(tmp_path):
    (tmp_path / "t").write_bytes(framed(row(), row(epochs=4, hash="b")))
    first, second = read_nasbench101(tmp_path / "t")
    assert first.hash == "00005c142e6f48ac74fdcf73e3439874"
    assert (first.epochs, second.epochs, second.hash) == (108, 4, "b")
    assert first.adjacency == ((0, 1, 1), (0, 0, 1), (0, 0, 0))
    assert first.operations == ("input", "conv3x3-bn-relu", "output")
    assert (first.parameters, first.seconds) == (300, 1234.5)
    assert first.evaluations == (
        Evaluation(0.0, 0.0, 0.1, 0.125, 0.1),
        Evaluation(54.0, 100.5, 0.9, 0.875, 0.85),
        Evaluation(108.0, 200.25, 1.0, 0.9375, 0.925),
    )


def test_absent_fields_are_nought():
    assert metrics(b"") == (0, 0.0, ())
    assert metrics(b"\x0a\x00")[2] == (Evaluation(),)


def test_integers_of_many_bytes():
    assert varint(b"\x00", 0) == (0, 1)
    assert varint(b"x\xac\x02", 1) == (300, 3)
    assert varint(b"\xff" * 9 + b"\x01", 0) == (2**64 - 1, 10)
    with pytest.raises(ValueError, match="10 bytes"):
        varint(b"\xff" * 11, 0)


@pytest.mark.parametrize("content", [b"\x0a\x05abc", b"\x09abc", b"\x0b", b"\x80", b"\x0a\xff\xff\xff\xff\x7f"])
def test_what_is_no_message_is_refused(content):
    with pytest.raises(ValueError, match="protobuf"):
        list(fields(content))


@pytest.mark.parametrize(
    "content",
    [
        b"[1, 2]",
        b"{",
        b"\xff",
        b"[" * 100_000,
        row(epochs="108"),
        row(hash=3),
        row(adjacency="01"),
        row(adjacency="012000000"),
        row(operations=""),
        row(metrics="%%%"),
        row(metrics=base64.b64encode(b"\x0a\x05abc").decode()),
    ],
)
def test_a_record_that_is_no_module_is_told_with_its_byte(tmp_path, content):
    (tmp_path / "t").write_bytes(framed(row(), content))
    reading = read_nasbench101(tmp_path / "t")
    next(reading)
    with pytest.raises(UsageError, match=f"byte {len(row()) + 16} should be a module") as refused:
        next(reading)
    assert "\n" not in str(refused.value)


def test_every_cut_and_every_changed_byte_is_noticed(tmp_path):
    content = framed(b"abc", b"", b"defgh" * 5)
    whole = [c for _, c in read(tmp_path, content)]
    assert whole == [b"abc", b"", b"defgh" * 5]
    ends = {0, 19, 35, len(content)}
    for end in range(len(content)):
        if end not in ends:
            with pytest.raises(UsageError, match="cut short"):
                read(tmp_path, content[:end])
    generator = torch.Generator().manual_seed(0)
    for at in range(len(content)):
        damaged = bytearray(content)
        damaged[at] ^= 1 + int(torch.randint(255, (), generator=generator))
        with pytest.raises(UsageError, match="checksum"):
            read(tmp_path, bytes(damaged))
    length = struct.pack("<Q", 2**63)
    with pytest.raises(UsageError, match="cut short"):  # an honest checksum of a length that cannot be
        read(tmp_path, length + struct.pack("<I", masked(length)) + bytes(8))
    with pytest.raises(UsageError, match="No such file"):
        list(records(tmp_path / "none"))


def read(folder, content):
    (folder / "t").write_bytes(content)
    return list(records(folder / "t"))
