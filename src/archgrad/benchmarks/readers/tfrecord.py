"""The records of a TFRecord file, without TensorFlow."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path

from archgrad.errors import UsageError

POLYNOMIAL = 0x82F63B78  # CRC-32C (Castagnoli), reflected
MASK = 0xA282EAD8


def byte_table() -> tuple[int, ...]:
    """What each value of a byte does to the checksum."""
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (POLYNOMIAL if byte & 1 else 0)
        table.append(byte)
    return tuple(table)


TABLE = byte_table()


def crc32c(data: bytes) -> int:
    """CRC-32C, as of iSCSI (RFC 3720)."""
    table, crc = TABLE, 0xFFFFFFFF
    for byte in data:
        crc = table[(crc ^ byte) & 0xFF] ^ crc >> 8
    return crc ^ 0xFFFFFFFF


def masked(data: bytes) -> int:
    """The checksum as the format stores it: rotated and shifted, so that a checksum of checksums is none."""
    crc = crc32c(data)
    return ((crc >> 15 | crc << 17) + MASK) & 0xFFFFFFFF


def records(path: Path | str) -> Iterator[tuple[int, bytes]]:
    """Each record's offset and content: length (uint64), its checksum, content, its checksum, little endian.

    UsageError, with the offset, for a file that cannot be read, is cut short, or has a wrong checksum.
    """
    path = Path(path)
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            offset = 0
            while offset < size:
                head = file.read(12)
                if len(head) < 12:
                    raise UsageError(f"{path} should be a whole TFRecord file, it is cut short at byte {offset}")
                length, checksum = struct.unpack("<QI", head)
                if masked(head[:8]) != checksum:
                    raise UsageError(
                        f"{path} should be a TFRecord file, the length at byte {offset} has a wrong checksum"
                    )
                if length > size - offset - 16:
                    raise UsageError(f"{path} should be a whole TFRecord file, it is cut short at byte {offset}")
                content, end = file.read(length), file.read(4)
                if struct.pack("<I", masked(content)) != end:
                    raise UsageError(
                        f"{path} is damaged: the record at byte {offset} has a wrong checksum; get it again"
                    )
                yield offset, content
                offset += length + 16
    except OSError as error:
        raise UsageError(f"a TFRecord file should be one that can be read, got {path}: {error.strerror}") from None
