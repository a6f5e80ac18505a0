"""The head of a stream: up to where its records are acknowledged, for readers in other processes.

The writer syncs its records first and then writes these few bytes in place, without a sync of their own. So readers
never see a record that could still vanish, and ``end`` costs one small read. The head may lag behind after a loss of
power, never run ahead; it names the boot it was written in, and readers of another boot look for the end themselves.
"""

from __future__ import annotations

import os
import struct
import uuid
import zlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_MAGIC = b"RTDHEAD\x01"
_BODY = struct.Struct("<8s16sQQQ")
_CRC = struct.Struct("<I")
_SIZE = _BODY.size + _CRC.size
_BOOT_FILE = Path("/proc/sys/kernel/random/boot_id")
HEAD_NAME = ".head"


@dataclass(frozen=True, slots=True)
class Head:
    """Where a stream ends: last segment (by its first offset), byte position in it, next offset.

    ``current`` says that it was written since this machine was started, so nothing acknowledged lies beyond it.
    """

    first: int
    position: int
    offset: int
    current: bool = True


@cache
def _boot() -> bytes | None:
    """Identity of this run of the operating system; None where there is none to be had."""
    try:
        return uuid.UUID(_BOOT_FILE.read_text(encoding="ascii").strip()).bytes
    except (OSError, ValueError):
        return None


def pack_head(head: Head) -> bytes:
    """Bytes of a head of this boot."""
    body = _BODY.pack(_MAGIC, _boot() or bytes(16), head.first, head.position, head.offset)
    return body + _CRC.pack(zlib.crc32(body))


def read_head(folder: Path) -> Head | None:
    """Head of a stream; None if there is none or it is damaged."""
    try:
        descriptor = os.open(folder / HEAD_NAME, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        # Read and write of 52 bytes are not promised to exclude each other: a torn read is simply read again.
        for _ in range(100):
            data = os.pread(descriptor, _SIZE, 0)
            if len(data) == _SIZE and _CRC.unpack_from(data, _BODY.size)[0] == zlib.crc32(data[: _BODY.size]):
                magic, boot, first, position, offset = _BODY.unpack_from(data)
                return Head(first, position, offset, current=boot == _boot()) if magic == _MAGIC else None
        return None
    finally:
        os.close(descriptor)
