"""How records lie in a segment file: a header, then frames of length, checksum and bytes.

::

    segment := magic(8) first(u64) crc32(u32) frame*       little-endian
    frame   := length(u32) crc32(u32) record               crc32 over the four length bytes and the record

The length is inside the checksum, so a run of zeros (what some file systems leave after a loss of power) is not a
valid empty record. Everything here is pure or only reads; who may write is decided in ``_writer``.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence

from retrodict.core.errors import InputError
from retrodict.core.native import kernel

_MAGIC = b"RTDSEG\x00\x01"  # the last byte is the version of the format
_HEADER = struct.Struct("<8sQ")
_LENGTH = struct.Struct("<I")
_FRAME = struct.Struct("<II")
HEADER_SIZE = _HEADER.size + _LENGTH.size
FRAME_SIZE = _FRAME.size
MAX_RECORD = 1 << 30
_CHUNK = 1 << 20
_ALL = 1 << 62
_FIRST_CHUNK = 1 << 14  # a poll that finds one new record should not read a megabyte


def pack_header(first: int) -> bytes:
    """Header of the segment whose first record has this offset."""
    body = _HEADER.pack(_MAGIC, first)
    return body + _LENGTH.pack(zlib.crc32(body))


def unpack_header(data: bytes) -> int | None:
    """First offset that a header names, or None if it is no intact header of this version."""
    if len(data) < HEADER_SIZE or data[: len(_MAGIC)] != _MAGIC:
        return None
    if _LENGTH.unpack_from(data, _HEADER.size)[0] != zlib.crc32(data[: _HEADER.size]):
        return None
    return int(_HEADER.unpack_from(data)[1])


def pack_frames(records: Sequence[bytes]) -> bytes:
    """Frames of records, in order."""
    parts: list[bytes] = []
    for record in records:
        if len(record) > MAX_RECORD:
            raise InputError(
                f"a record of a stream must have at most {MAX_RECORD} bytes",
                got=len(record),
                where="stream",
                remedy="Keep large values in the object store",
            )
        length = _LENGTH.pack(len(record))
        parts += (length, _LENGTH.pack(zlib.crc32(record, zlib.crc32(length))), record)
    return b"".join(parts)


class FrameWalk:
    """Walks the frames of an open segment file from one position up to another.

    It stops at the limit or before the first frame that is cut off or fails its checksum; ``position`` then says
    where that frame begins, so ``position == limit`` means that all was well.
    """

    def __init__(self, descriptor: int, position: int, limit: int) -> None:
        self.position = position
        self._descriptor, self._limit = descriptor, limit
        self._buffer, self._at, self._next_chunk = b"", 0, _FIRST_CHUNK

    def _have(self, size: int) -> bool:
        """Hold at least ``size`` bytes from ``position`` on, if the file has them below the limit."""
        if len(self._buffer) - self._at >= size:
            return True
        if self.position + size > self._limit:
            return False
        want = min(max(size, self._next_chunk), self._limit - self.position)
        self._buffer, self._at, self._next_chunk = os.pread(self._descriptor, want, self.position), 0, _CHUNK
        while len(self._buffer) < size:
            more = os.pread(self._descriptor, want - len(self._buffer), self.position + len(self._buffer))
            if not more:
                return False
            self._buffer += more
        return True

    def skip(self, count: int) -> int:
        """Step over up to ``count`` frames by their lengths alone; return how many there were."""
        for done in range(count):
            if not self._have(FRAME_SIZE):
                return done
            size = FRAME_SIZE + _LENGTH.unpack_from(self._buffer, self._at)[0]
            if self.position + size > self._limit:
                return done
            self.position += size
            # A record longer than what is held is jumped over, not read.
            self._at = min(self._at + size, len(self._buffer))
        return count

    def take(self, limit: int) -> list[bytes]:
        """Verified records that follow, up to ``limit`` and as many as are held; none at the end of what is well."""
        if not self._have(FRAME_SIZE):
            return []
        length = _LENGTH.unpack_from(self._buffer, self._at)[0]
        if length > MAX_RECORD or not self._have(FRAME_SIZE + length):
            return []
        records, end = cut_frames(self._buffer, self._at, limit)
        self.position += end - self._at
        self._at = end
        return records

    def records(self) -> Iterator[bytes]:
        """Give verified records; ``position`` is that of the frame where it ends once there are no more."""
        while records := self.take(_ALL):
            yield from records


def _cut_frames(data: bytes, at: int, limit: int) -> tuple[list[bytes], int]:
    """Cut at most ``limit`` verified records out of a buffer of frames, which may end within one.

    Returns those from ``at`` up to the first that is cut off or fails its checksum, and where the frame after them
    begins.
    """
    records: list[bytes] = []
    seeds: dict[int, int] = {}  # checksum of the length alone: records are mostly of few lengths
    while len(records) < limit and len(data) - at >= FRAME_SIZE:
        length, crc = _FRAME.unpack_from(data, at)
        end = at + FRAME_SIZE + length
        seed = seeds.get(length)
        if seed is None:
            seed = seeds[length] = zlib.crc32(data[at : at + 4])
        record = data[at + FRAME_SIZE : end]
        if end > len(data) or zlib.crc32(record, seed) != crc:
            break
        records.append(record)
        at = end
    return records, at


cut_frames: Callable[[bytes, int, int], tuple[list[bytes], int]] = _cut_frames if kernel is None else kernel.cut_frames
