"""Where the files of an embedded stream lie, and up to where their records are acknowledged.

The writer syncs its records first and then writes the few bytes of the head in place, without a sync of their own. So
readers never see a record that could still vanish, and ``end`` costs one small read. The head may lag behind after a
loss of power, never run ahead; it names the boot it was written in, and readers of another boot look for the end
themselves.
"""

from __future__ import annotations

import errno
import os
import re
import struct
import uuid
import zlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from retrodict.core.errors import IntegrityError
from retrodict.stores._durable import open_file
from retrodict.stores.streams._frames import HEADER_SIZE, unpack_header

_SEGMENT = re.compile(r"(\d{20})\.seg")
_MAGIC = b"RTDHEAD\x01"
_BODY = struct.Struct("<8s16sQQQ")
_CRC = struct.Struct("<I")
_SIZE = _BODY.size + _CRC.size
_BOOT_FILE = Path("/proc/sys/kernel/random/boot_id")
HEAD_NAME = ".head"
FOREIGN = ".foreign"  # what other hands put where a segment was to begin


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
def this_boot() -> bytes | None:
    """Identity of this run of the operating system; None where there is none to be had."""
    try:
        return uuid.UUID(_BOOT_FILE.read_text(encoding="ascii").strip()).bytes
    except (OSError, ValueError):
        return None


def pack_head(head: Head) -> bytes:
    """Bytes of a head of this boot."""
    body = _BODY.pack(_MAGIC, this_boot() or bytes(16), head.first, head.position, head.offset)
    return body + _CRC.pack(zlib.crc32(body))


def read_head(folder: Path) -> Head | None:
    """Head of a stream; None if there is none or it is damaged."""
    try:
        descriptor = open_file(folder / HEAD_NAME)
    except FileNotFoundError:
        return None
    try:
        # Read and write of 52 bytes are not promised to exclude each other: a torn read is simply read again.
        for _ in range(100):
            data = os.pread(descriptor, _SIZE, 0)
            if len(data) == _SIZE and _CRC.unpack_from(data, _BODY.size)[0] == zlib.crc32(data[: _BODY.size]):
                magic, boot, first, position, offset = _BODY.unpack_from(data)
                return Head(first, position, offset, current=boot == this_boot()) if magic == _MAGIC else None
        return None
    finally:
        os.close(descriptor)


def segment_name(first: int) -> str:
    """File name of the segment that begins with this offset; sorts by offset."""
    return f"{first:020d}.seg"


def segment_firsts(folder: Path) -> list[int]:
    """First offsets of the segments there are, ascending."""
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return []
    return sorted(int(match[1]) for match in map(_SEGMENT.fullmatch, names) if match)


def open_segment(folder: Path, stream: str, first: int, flags: int) -> int:
    """Descriptor of a segment whose header was checked."""
    where = f"stream {stream}, segment {segment_name(first)}"
    try:
        descriptor = open_file(folder / segment_name(first), flags)
    except FileNotFoundError as error:
        raise missing_segment(where) from error
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EISDIR, errno.ENXIO):
            raise
        raise missing_segment(where, "a folder, or something else that is no file, in its place") from error
    if unpack_header(os.pread(descriptor, HEADER_SIZE, 0)) != first:
        os.close(descriptor)
        raise IntegrityError(
            "the header of a segment must be intact and its own",
            where=where,
            remedy="Restore the segment from a copy",
            got="a damaged header, or that of another segment",
        )
    return descriptor


def check_base(folder: Path, stream: str, firsts: list[int], head: Head | None) -> Head | None:
    """Position up to which the last segment was acknowledged for certain; None for a stream without segments.

    IntegrityError if segments or bytes that were acknowledged are missing.
    """
    if not firsts:
        if head is not None and head.offset > 0:
            raise _missing(stream, f"offset {head.offset}", "no segment")
        return None
    last = firsts[-1]
    # A segment is begun only after all before it was acknowledged, so its first offset is certain by itself.
    if head is None or last > head.first:
        return Head(last, HEADER_SIZE, last, current=False)
    size = (folder / segment_name(last)).stat().st_size
    if last < head.first or size < head.position:
        raise _missing(
            stream,
            f"byte {head.position} of segment {segment_name(head.first)}",
            f"byte {size} of {segment_name(last)}",
        )
    return head


def missing_segment(where: str, got: str = "no such file") -> IntegrityError:
    """Say that a file is gone that the stream needs."""
    return IntegrityError(
        "a segment that the stream needs must be there",
        where=where,
        remedy="Restore it from a copy",
        got=got,
    )


def _missing(stream: str, acknowledged: str, end: str) -> IntegrityError:
    return IntegrityError(
        f"the files must hold every record that was acknowledged, up to {acknowledged}, and end before",
        where=f"stream {stream}",
        got=end,
        remedy="Restore the stream from a copy. Who goes on without the missing records keeps the folder as it is for "
        f"whoever looks into it, then removes the file {HEAD_NAME!r}; what was signed of them stays named by an audit",
    )
