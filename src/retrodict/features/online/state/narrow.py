"""Narrow rows: how the rows of a block are stored, in a fifth of their words and as quickly read.

A wide row has a 64-bit word per column. Of a narrow one each column has as many bits as its numbers need: a word is
``least + factor * bits``, so that times of whole seconds are counted in seconds, or the row's place if all steps are
alike, as of a running count (``LINEAR``). Floats that are whole numbers over a power of ten are stored as those, and
what an extreme has for nothing as all ones. Columns with equal bits share them, and a text is stored once. Rows keep
one size, so a search and a difference of two rows look at these rows alone::

    rows | bytes of heap | greatest v and flags | columns || row | row | … || heap | layout

    column: bits | bytes of least and of factor | kind? | shared with? | low bits of a text's word? | least | factor

A base row that has lost nothing is not stored (``BARE``). Everything is tried out when a block is stored: what does not
come back bit for bit is stored otherwise, and a block that gets no shorter stays wide. Compression of whole blocks was
rejected: every read would have to undo all of it. Blocks are merged wide.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from retrodict.core.native import kernel
from retrodict.features.facts.columns import Ints, Mask

__all__ = ["MOST_WORDS", "NARROW", "narrow", "widen"]

NARROW = 4
"""Flag of a block with narrow rows."""

MOST_WORDS = 256
"""Words of the longest rows that are stored narrow."""

_BARE = 8
_LINEAR, _KIND = 127, 128  # in place of a number of bits, and beside it
_NO_INT, _NO_FLOAT, _SHARED, _PAIRED = 1, 2, 4, 8  # kinds
_SCALE = 4  # bits of a kind below its power of ten, counted from 1
_SCALES = 7  # powers of ten, from 0
_LEAST_INT, _LEAST_FLOAT = -(1 << 63), -(1 << 52)  # words of nothing; the second is that of the float -inf
_HEAD, _SHORT = struct.Struct("<5q"), struct.Struct("<2Iq")
_FAR, _FULL = 1 << 55, (1 << 64) - 1


@dataclass
class _Column:
    """A column and what makes words of its bits; ``low`` are those of a text's length, below those of its place."""

    least: int
    factor: int = 1
    width: int = 0
    kind: int = 0
    bits: NDArray[np.uint64] | None = None
    shared: int = 0
    low: int = 0

    def share(self, earlier: list[_Column]) -> None:
        """Use the bits of the first earlier column that has the same."""
        for place, other in enumerate(earlier):
            if self.bits is None or other.bits is None or other.kind & _SHARED or self.width != other.width:
                continue
            if np.array_equal(self.bits, other.bits):
                self.kind, self.shared = self.kind | _SHARED, place
                return

    def described(self) -> bytes:
        """Bytes that say all but the bits."""
        least = 0 if self.least == 0 else max(self.least, ~self.least).bit_length() // 8 + 1
        factor = -(-(self.factor - 1).bit_length() // 8)
        parts = [self.width | (_KIND if self.kind else 0), least | factor << 4]
        parts += [self.kind] if self.kind else []
        parts += [self.shared] if self.kind & _SHARED else []
        parts += [self.low] if self.kind & _PAIRED else []
        return (
            bytes(parts)
            + self.least.to_bytes(least, "little", signed=True)
            + (self.factor - 1).to_bytes(factor, "little")
        )

    @classmethod
    def read(cls, blob: bytes, at: int) -> tuple[_Column, int]:
        """Column described at a byte, and the byte after that."""
        width, sizes, at = blob[at], blob[at + 1], at + 2
        column = cls(0, width=width & ~_KIND)
        if width & _KIND:
            column.kind, at = blob[at], at + 1
        if column.kind & _SHARED:
            column.shared, at = blob[at], at + 1
        if column.kind & _PAIRED:
            column.low, at = blob[at], at + 1
        least, factor = at + (sizes & 15), at + (sizes & 15) + (sizes >> 4)
        column.least = int.from_bytes(blob[at:least], "little", signed=True)
        column.factor = 1 + int.from_bytes(blob[least:factor], "little")
        return column, factor

    def words(self, count: int) -> Ints:
        """Words of the rows."""
        bits = np.arange(count, dtype=np.uint64) if self.width == _LINEAR or self.bits is None else self.bits
        if self.width == 0:
            bits = np.zeros(count, dtype=np.uint64)
        if self.kind & _PAIRED:
            low = bits & np.uint64((1 << self.low) - 1)
            return (low + (bits >> np.uint64(self.low) << np.uint64(32)) + np.uint64(self.least & _FULL)).view(np.int64)
        words = (np.uint64(self.least & _FULL) + np.uint64(self.factor) * bits).view(np.int64)
        if self.kind >> _SCALE:
            words = (words / 10.0 ** ((self.kind >> _SCALE) - 1)).view(np.int64)
        if self.kind & (_NO_INT | _NO_FLOAT):
            nothing = _LEAST_FLOAT if self.kind & _NO_FLOAT else _LEAST_INT
            words = np.where(bits == np.uint64((1 << self.width) - 1), nothing, words)
        return words


def _column(words: Ints, *, text: bool) -> _Column:
    """Shortest way to store a column."""
    steps = np.diff(words)
    if not steps.any():
        return _Column(int(words[0]))
    if (steps == steps[0]).all():
        return _Column(int(words[0]), int(steps[0]) & _FULL, _LINEAR)
    if text:
        high, low = words >> 32, words & 0xFFFFFFFF
        size = int(low.max() - low.min()).bit_length()
        bits = (high - high.min() << size | low - low.min()).view(np.uint64)
        least = (int(high.min()) << 32) + int(low.min())
        return _Column(least, 1, int(bits.max()).bit_length(), _PAIRED, bits, low=size)
    missing, kind = words == _LEAST_FLOAT, _NO_FLOAT
    if not missing.any():
        missing, kind = words == _LEAST_INT, _NO_INT
    plain = _measured(words, missing, kind) or _measured(words, missing & False, kind)
    assert plain is not None
    numbers = _over_power_of_ten(words, missing) if plain.width > 16 else None
    if numbers is None:
        return plain
    decimal = _measured(numbers[0], missing, kind)
    if decimal is None or decimal.width >= plain.width:
        return plain
    decimal.kind |= numbers[1]
    return decimal


def _measured(numbers: Ints, missing: Mask, kind: int) -> _Column | None:
    """Column of numbers but for those that are missing, whose bits are all ones; None if that is too much."""
    least = numbers[~missing].min()
    distances = numbers.view(np.uint64) - least.view(np.uint64)
    factor = math.gcd(int(np.gcd.reduce(distances[~missing])) or 1, 30**64)  # powers of 2, 3 and 5 are soon found
    bits, gaps = distances // np.uint64(factor), bool(missing.any())
    width = (int(bits[~missing].max()) + gaps).bit_length()
    if width > 64:
        return None
    bits[missing] = (1 << width) - 1
    return _Column(int(least), factor, width, kind if gaps else 0, bits)


def _over_power_of_ten(words: Ints, missing: Mask) -> tuple[Ints, int] | None:
    """Integers that divided by a power of ten are these floats, with the kind of that; None if there are none."""
    values = words.view(np.float64)
    for power in range(_SCALES):
        with np.errstate(all="ignore"):
            numbers = np.rint(values * 10.0**power)
        fits = np.abs(numbers) < 1 << 53
        integers = np.where(fits, numbers, 0).astype(np.int64)
        if (missing | fits & ((integers / 10.0**power).view(np.int64) == words)).all():
            return integers, (power + 1) << _SCALE
    return None


def _with_texts_once(rows: Ints, heap: bytes, texts: bytes) -> tuple[Ints, bytes]:
    """Rows, the first of them a base, and a heap that holds each of their texts once and no other."""
    rows, places, length = rows.copy(), dict[bytes, int](), 0
    for column in texts:
        for row, word in enumerate(rows[1:, column].tolist(), 1):
            begin, size = word >> 32, word & 0xFFFFFFFF
            if begin < 0 or begin + size > len(heap):
                raise ValueError("a text lies outside its block")
            place = places.setdefault(heap[begin : begin + size], length)
            length += size if place == length else 0
            rows[row, column] = place << 32 | size
        rows[0, column] = rows[1, column]  # nobody reads the texts of a base
    return rows, b"".join(places)


def _narrow(blob: bytes, layout: int, bare: bytes, texts: bytes) -> bytes:
    """Block with narrow rows; itself if that is no shorter.

    ``layout`` are the bytes of its layout, ``bare`` its base row if it lost nothing, ``texts`` the columns of texts.
    """
    count, flags, visible, heap_size, _ = _HEAD.unpack_from(blob)
    words, head = len(bare) // 8, _HEAD.size + layout
    begin = head + heap_size
    if flags & ~3 or not 0 < count < 1 << 32 or heap_size >> 32 or words > MOST_WORDS or not -_FAR <= visible < _FAR:
        return blob
    rows = np.frombuffer(blob, dtype="<i8", offset=begin).reshape(count + 1, words)
    flags |= NARROW | (_BARE if blob[begin : begin + 8 * words] == bare else 0)
    rows, heap = _with_texts_once(rows, blob[head:begin], texts)
    rows = rows[1 if flags & _BARE else 0 :]
    columns = [_column(np.ascontiguousarray(rows[:, i]), text=i in texts) for i in range(words)]
    for i, column in enumerate(columns):
        column.share(columns[:i])
    places, size = _placed(columns)
    table = np.zeros((len(rows), 8 * size), dtype=np.uint8)
    for column, place in zip(columns, places, strict=True):
        if column.bits is not None and not column.kind & _SHARED:
            table[:, place : place + column.width] = (
                column.bits[:, None] >> np.arange(column.width, dtype=np.uint64) & 1
            )
    short = _SHORT.pack(count, len(heap), visible << 8 | flags) + b"".join(column.described() for column in columns)
    short += np.packbits(table, axis=1, bitorder="little").tobytes() + heap + blob[_HEAD.size : head]
    return short if len(short) < len(blob) else blob


def _placed(columns: list[_Column]) -> tuple[list[int], int]:
    """Bit at which each column begins in a row, and the bytes of a row: one load of 64 bits must hold a column."""
    places, bit = list[int](), 0
    for column in columns:
        width = 0 if column.width == _LINEAR or column.kind & _SHARED else column.width
        if bit % 8 + width > 64:
            bit += -bit % 8
        places.append(places[column.shared] if column.kind & _SHARED else bit)
        bit += width
    return places, max(-(-bit // 8), 1)  # a number of rows is not taken on trust


def _widen(blob: bytes | memoryview, layout: int, bare: bytes) -> bytes:
    """Block with wide rows."""
    blob = bytes(blob)
    count, heap_size, visible = _SHORT.unpack_from(blob)
    columns, at, words = [], _SHORT.size, len(bare) // 8
    for _ in range(words):
        column, at = _Column.read(blob, at)
        columns.append(column)
    places, size = _placed(columns)
    stored, end = count + (not visible & _BARE), len(blob) - layout - heap_size
    packed = np.frombuffer(blob, dtype=np.uint8, offset=at, count=end - at).reshape(stored, size)
    table = np.unpackbits(packed, axis=1, bitorder="little").astype(np.uint64)
    rows = np.empty((stored, words), dtype="<i8")
    for i, (column, place) in enumerate(zip(columns, places, strict=True)):
        if column.width != _LINEAR:
            powers = np.arange(column.width, dtype=np.uint64)
            column.bits = (table[:, place : place + column.width] << powers).sum(axis=1, dtype=np.uint64)
        rows[:, i] = column.words(stored)
    heap = blob[end : end + heap_size] + bytes(-heap_size % 8)
    head = _HEAD.pack(count, visible & 3, visible >> 8, len(heap), count if heap else 0)
    return head + blob[end + heap_size :] + heap + (bare if visible & _BARE else b"") + rows.tobytes()


widen: Callable[[bytes | memoryview, int, bytes], bytes] = _widen if kernel is None else kernel.widen
narrow: Callable[[bytes, int, bytes, bytes], bytes] = _narrow if kernel is None else kernel.narrow
