"""Narrow rows: how the rows of a block are stored, in a third of their words and as quickly read.

A wide row has a 64-bit word per column. Times, ids and running sums of one key lie near one another, so what is stored
of a word is its distance from the least of its column, without the zeros that all distances end in, in as few bytes as
the greatest of them needs. Rows keep one size, so a search and a difference of two rows look at these rows alone::

    header with the flag NARROW | layout | heap | base row, wide | least of each column | bytes and zero bits of each
    column | row | row | … | eight bytes of nothing

Compression of whole blocks was rejected: it takes less, and every read would have to undo all of it. Blocks of a few
rows are shorter wide and stay so. Blocks are merged wide: rows are narrowed when they are stored.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

import numpy as np

from retrodict.core.native import kernel

__all__ = ["NARROW", "narrow", "widen"]

NARROW = 4
"""Flag of a block with narrow rows."""

_MOST_WORDS = 256
_HEAD = struct.Struct("<5q")
_FLAGS = struct.Struct("<q")


def _widen(blob: bytes | memoryview, head: int, words: int) -> bytes:
    """Block with wide rows; ``head`` bytes stand before its heap."""
    count, flags, _, heap, _ = _HEAD.unpack_from(blob)
    begin = head + heap + 8 * words
    least = np.frombuffer(blob, dtype="<u8", count=words, offset=begin)
    measures = np.frombuffer(blob, dtype=np.uint8, count=2 * words, offset=begin + 8 * words).tolist()
    widths, shifts = measures[:words], measures[words:]
    size, place = sum(widths), begin + 8 * words + -(-2 * words // 8) * 8
    packed = np.frombuffer(blob, dtype=np.uint8, count=count * size, offset=place).reshape(count, size)
    rows, place = np.empty((count, words), dtype="<u8"), 0
    for column, (width, shift) in enumerate(zip(widths, shifts, strict=True)):
        word = np.zeros((count, 8), dtype=np.uint8)
        word[:, :width] = packed[:, place : place + width]
        rows[:, column] = least[column] + (word.view("<u8")[:, 0] << np.uint64(shift))
        place += width
    return bytes(blob[:8]) + _FLAGS.pack(flags & ~NARROW) + bytes(blob[16:begin]) + rows.tobytes()


def _narrow(blob: bytes, head: int, words: int) -> bytes:
    """Block with narrow rows; itself if that is no shorter."""
    count, flags, _, heap, _ = _HEAD.unpack_from(blob)
    if flags & NARROW or words > _MOST_WORDS or not count:
        return blob
    begin = head + heap + 8 * words
    rows = np.frombuffer(blob, dtype="<i8", offset=begin).reshape(count, words)
    least = rows.min(axis=0)
    distances = rows.view("<u8") - least.view("<u8")
    parts, widths, shifts = [], [], []
    for column, bits in enumerate(np.bitwise_or.reduce(distances, axis=0).tolist()):
        shift = (bits & -bits).bit_length() - 1 if bits else 0
        width = -(-(bits >> shift).bit_length() // 8)
        word = (distances[:, column] >> np.uint64(shift)).view(np.uint8).reshape(count, 8)
        parts.append(word[:, :width])
        widths.append(width)
        shifts.append(shift)
    measures = bytes([*widths, *shifts]) + bytes(-2 * words % 8)
    tail = least.tobytes() + measures + np.concatenate(parts, axis=1).tobytes() + bytes(8)
    shorter = blob[:8] + _FLAGS.pack(flags | NARROW) + blob[16:begin] + tail
    return shorter if sum(widths) and len(shorter) < len(blob) else blob


widen: Callable[[bytes | memoryview, int, int], bytes] = _widen if kernel is None else kernel.widen
narrow: Callable[[bytes, int, int], bytes] = _narrow if kernel is None else kernel.narrow
