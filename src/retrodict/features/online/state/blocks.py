"""Blocks: the events of one key, packed row by row: newer events are appended as bytes, a window is a subtraction.

A block is a header, a heap of UTF-8, and rows of int64 words in the total order (event time, known at, sequence)::

    rows | flags | greatest v | bytes of heap | rows of heap | layout … || heap || base row | row | row | …

    row: e | k? | sequence | bits … | kept column … | extreme … | number of rows so far | count so far … | limb so far …

Sums are running and exact (limbs of ``core.statistics.exact``), so a window is the difference of two rows. The row
before the first one, the base, holds what was cut off: cutting old rows is slicing bytes, and for a lifetime the base
is the total of everything that is gone. Texts are offsets into the heap, so appending moves none.

Values aggregated in advance were rejected: they cannot be read as of a time before the last write, nor take in a late
event. One array per column was rejected: appending a row to it moves everything. Rows are stored narrow, see
:mod:`~retrodict.features.online.state.narrow`; what a module says of bytes of rows is about wide ones.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrodict.core.errors import InputError
from retrodict.core.statistics.exact import (
    LimbScale,
    Shifted,
    magnitudes,
    round_limbs,
    scale_for,
    split_limbs,
    whole_limbs,
)
from retrodict.features.facts.columns import Ints
from retrodict.features.online.state.narrow import MOST_WORDS, NARROW, narrow, widen
from retrodict.features.plan import ViewPlan

FIXED = 5  # header words before the layout
MONOTONE, HOT = 1, 2
NULL, INT, FLOAT, BOOL, TEXT, DATE, LIST = range(7)
IN_HEAP = frozenset({TEXT, LIST})
"""Kinds whose words say where in the heap their bytes are: UTF-8, or doubles one after the other."""

NOTHING = -(1 << 62)
"""Event time of the base row, and greatest v of no events."""

FLAGS = 62
"""Flags per word: with the sign bit left alone, shifting right brings in no ones."""

WIDTH = 36
"""Bits per limb: running sums then take 2**27 rows of one key, ever."""

_ROWS, _STEP = 1 << 20, 8
_LEAST, _GREATEST = -1074, 1024  # exponents of doubles
_WORDS = ("null", "whole numbers", "floats", "booleans", "text", "dates", "lists")


class Shape:
    """Which words the rows of a view hold, whatever their types.

    Without ``known`` rows hold no known-at: it is the event time plus ``delay``, in microseconds. ``extremes``,
    ``counts`` and ``sums`` are channels by how they are kept: one value per row, running counts, running limbs;
    ``column_of`` gives the place of each among those of its kind (count 0 is the number of rows). ``bits`` are words of
    flags: whether each kept column has a value, each condition is true, the revision says something.
    """

    def __init__(self, plan: ViewPlan) -> None:
        source = plan.source
        self.revised, self.timeless = source.revised, source.timeless
        # Without a clock of its own a source is known after a fixed delay: no word is spent on that.
        self.known = source.known_at is not None and source.event_time is not None
        self.delay = 0 if source.timeless else source.delay_us
        self.lifetime = plan.lifetime
        channels = list(enumerate(plan.channels))
        self.extremes = tuple(i for i, c in channels if c.monoid != "sum")
        self.largest = tuple(plan.channels[i].monoid == "max" for i in self.extremes)
        # These lifts give 0 or 1: one running count each, without limbs.
        lifts = {"one", "present", "true"}
        self.all = next((i for i, c in channels if c.lift == "one" and c.where is None), None)
        self.counts = tuple(i for i, c in channels if c.monoid == "sum" and c.lift in lifts and i != self.all)
        self.sums = tuple(i for i, c in channels if c.monoid == "sum" and c.lift not in lifts)
        self.column_of = {i: place for group in (self.extremes, self.sums) for place, i in enumerate(group)}
        self.column_of |= {i: 1 + place for place, i in enumerate(self.counts)}
        # Counting every event is counting rows, which each block does anyway.
        if self.all is not None:
            self.column_of[self.all] = 0
        self.kept = plan.kept
        self.conditions = tuple(dict.fromkeys(bag.where for bag in plan.bags if bag.where is not None))
        flags = len(self.kept) + len(self.conditions) + self.revised
        self.bits = -(-flags // FLAGS)
        kinds = 1 + len(self.extremes) + len(self.kept)
        # Whole words, so that heap and rows after the header begin on one.
        self.layout_bytes = -(-(4 * len(self.sums) + kinds) // 8) * 8
        self.head_bytes = 8 * FIXED + self.layout_bytes


@dataclass(frozen=True)
class SummedBlock:
    """Limbs of one sum: how many, the exponent of the unit, and whether its values are floats."""

    limbs: int
    low: int
    floats: bool

    @property
    def beyond(self) -> bool:
        """Whether it may hold values that no double holds."""
        return self.low < _LEAST or self.low + WIDTH * self.limbs > _GREATEST


class Layout:
    """Types and scales of the rows of a block (``sequence`` is ``INT`` or ``TEXT``); equal for most keys of a view."""

    def __init__(
        self,
        shape: Shape,
        sums: tuple[SummedBlock, ...],
        sequence: int,
        extremes: tuple[int, ...],
        kept_kinds: tuple[int, ...],
    ) -> None:
        self.shape, self.sums, self.sequence, self.extremes, self.kept = shape, sums, sequence, extremes, kept_kinds
        self.k = 1
        self.seq = 1 + shape.known
        self.bits = self.seq + 1
        self.first_kept = self.bits + shape.bits
        self.first_extreme = self.first_kept + len(kept_kinds)
        self.first_running = self.first_extreme + len(extremes)
        self.first_limb = self.first_running + 1 + len(shape.counts)
        self.limb_of: list[slice] = []
        place = self.first_limb
        for one in sums:
            self.limb_of.append(slice(place, place + one.limbs))
            place += one.limbs
        self.words = place
        packed = b"".join(struct.pack("<hBB", one.low, one.limbs, one.floats) for one in sums)
        self.key = (packed + bytes([sequence, *extremes, *kept_kinds])).ljust(shape.layout_bytes, b"\0")
        self.texts = [self.first_kept + i for i, kind in enumerate(kept_kinds) if kind in IN_HEAP]
        if sequence == TEXT:
            self.texts.insert(0, self.seq)

    @cached_property
    def bare(self) -> bytes:
        """Bytes of the base of a block that has lost nothing."""
        return base_row(self).astype("<i8").tobytes()

    @cached_property
    def text_places(self) -> bytes:
        """Columns of texts, of rows that can be stored narrow."""
        return bytes(column for column in self.texts if column < MOST_WORDS)

    def scale(self, place: int) -> LimbScale:
        """Scale of one sum."""
        one = self.sums[place]
        return LimbScale(low=one.low, width=WIDTH, limbs=one.limbs, rows=_ROWS)

    def known_at(self, rows: Ints) -> Ints:
        """When rows became known."""
        return rows[:, self.k] if self.shape.known else rows[:, 0] + self.shape.delay

    def visible_at(self, rows: Ints) -> Ints:
        """When rows became visible."""
        return np.maximum(rows[:, 0], self.known_at(rows))


@lru_cache(maxsize=4096)
def layout_of(shape: Shape, key: bytes) -> Layout:
    """Layout of the header's bytes."""
    sums = tuple(
        SummedBlock(limbs, low, bool(floats))
        for low, limbs, floats in struct.iter_unpack("<hBB", key[: 4 * len(shape.sums)])
    )
    kinds = key[4 * len(shape.sums) :]
    extremes = 1 + len(shape.extremes)
    return Layout(shape, sums, kinds[0], tuple(kinds[1:extremes]), tuple(kinds[extremes : extremes + len(shape.kept)]))


def summed(values: NDArray[Any] | Shifted) -> SummedBlock:
    """Least limbs for values; exponents go in steps, so that neighbouring blocks mostly agree."""
    if not isinstance(values, Shifted) and values.dtype.kind != "f":
        largest = max(-int(values.min(initial=0)), int(values.max(initial=0)))
        return SummedBlock(max(1, -(-largest.bit_length() // WIDTH)), 0, floats=False)
    exact = scale_for(values, rows=max(_ROWS, len(values))).low
    sizes = magnitudes(values)
    high = max(int(sizes.max()) if len(sizes) else 0, exact + 1)
    # A new least digit within a step asks for no new layout, and so for no rewriting of blocks.
    low = exact // _STEP * _STEP
    return SummedBlock(max(1, -(-(high - low) // WIDTH)), low, floats=True)


def widened(first: Layout, second: Layout) -> Layout:
    """Least layout that holds what either holds."""
    if first.key == second.key:
        return first
    shape = first.shape
    sums = tuple(_wider(a, b) for a, b in zip(first.sums, second.sums, strict=True))
    extremes = tuple(max(pair) for pair in zip(first.extremes, second.extremes, strict=True))
    kept_kinds = tuple(_common(a, b) for a, b in zip(first.kept, second.kept, strict=True))
    return Layout(shape, sums, _common(first.sequence, second.sequence), extremes, kept_kinds)


def _wider(first: SummedBlock, second: SummedBlock) -> SummedBlock:
    if first == second:
        return first
    # The unit goes down to the finer one and the limbs up to the wider one: neither loses a digit.
    low = min(first.low, second.low)
    high = max(one.low + WIDTH * one.limbs for one in (first, second))
    limbs = -(-(high - low) // WIDTH)
    return SummedBlock(limbs, low, first.floats or second.floats)


def _common(first: int, second: int) -> int:
    if first == second or NULL in {first, second}:
        return max(first, second)
    if {first, second} in ({INT, FLOAT}, {INT, BOOL}):
        return FLOAT if FLOAT in {first, second} else INT
    raise InputError(
        "the values of a column must be of one type",
        where="online state",
        got=[_WORDS[kind] for kind in sorted((first, second))],
        remedy="Declare the column's type in its table, or write it to the stream in one type",
    )


@dataclass(frozen=True)
class Block:
    """A block, opened.

    ``visible`` is the greatest v. The heap has the texts of the ``heap_rows`` rows ever written, padded to whole words.
    ``rows``, of shape (n + 1, words), are the base row and then rows with running sums.
    """

    layout: Layout
    flags: int
    visible: int
    heap: bytes
    heap_rows: int
    rows: Ints

    def __len__(self) -> int:
        return len(self.rows) - 1

    def single(self) -> Ints:
        """Rows without the base, each with its own numbers instead of running ones."""
        return separate(self.layout, self.rows)


def layout_in(shape: Shape, blob: bytes | memoryview) -> Layout:
    """Layout of a block, which of a narrow one stands at its end."""
    key = blob[-shape.layout_bytes :] if blob[8] & NARROW else blob[8 * FIXED : shape.head_bytes]
    return layout_of(shape, bytes(key))


def wide_block(shape: Shape, blob: bytes | memoryview) -> bytes | memoryview:
    """Block with wide rows: itself, or one widened."""
    return widen(blob, shape.layout_bytes, layout_in(shape, blob).bare) if blob[8] & NARROW else blob


def narrow_block(shape: Shape, blob: bytes) -> bytes:
    """Block as it is stored, of one with wide rows."""
    layout = layout_of(shape, blob[8 * FIXED : shape.head_bytes])
    return narrow(blob, shape.layout_bytes, layout.bare, layout.text_places)


def visible_in(blob: bytes | memoryview) -> int:
    """Greatest v of a block."""
    return int.from_bytes(blob[9:16] if blob[8] & NARROW else blob[16:24], "little", signed=True)


def heap_of(shape: Shape, blob: bytes | memoryview) -> bytes:
    """Texts of a block, padded to whole words."""
    if not blob[8] & NARROW:
        return bytes(blob[shape.head_bytes : shape.head_bytes + int.from_bytes(blob[24:32], "little")])
    end, size = len(blob) - shape.layout_bytes, int.from_bytes(blob[4:8], "little")
    return bytes(blob[end - size : end]) + bytes(-size % 8)


def unpack(shape: Shape, blob: bytes | memoryview) -> Block:
    """Open a block; rows that are stored wide are those of the bytes, and only texts are copied."""
    layout, blob = layout_in(shape, blob), wide_block(shape, blob)
    count, flags, visible, heap, heap_rows = np.frombuffer(blob, dtype="<i8", count=FIXED).tolist()
    begin = shape.head_bytes + heap
    rows = np.frombuffer(blob, dtype="<i8", offset=begin, count=(count + 1) * layout.words)
    return Block(
        layout, flags, visible, bytes(blob[shape.head_bytes : begin]), heap_rows, rows.reshape(count + 1, layout.words)
    )


def pack(layout: Layout, rows: Ints, heap: bytes, *, flags: int, visible: int, heap_rows: int) -> bytes:
    """Bytes of a block; ``rows`` begin with the base and hold running sums."""
    head = struct.pack("<5q", len(rows) - 1, flags, visible, len(heap), heap_rows)
    return head + layout.key + heap + rows.astype("<i8", copy=False).tobytes()


def separate(layout: Layout, rows: Ints) -> Ints:
    """Rows without the first of them, each with its own numbers instead of running ones."""
    single = rows[1:].copy()
    single[:, layout.first_running :] -= rows[:-1, layout.first_running :]
    return single


def running(layout: Layout, base: Ints, rows: Ints) -> Ints:
    """A base row, and rows with numbers of their own behind it, with running ones."""
    summed_up = np.concatenate([base, rows])
    summed_up[:, layout.first_running :] = np.cumsum(summed_up[:, layout.first_running :], axis=0)
    return summed_up


def folded(layout: Layout, rows: Ints, starts: Ints) -> Ints:
    """The last row of each run of rows that begins at one of the starts, with the extremes of the whole run."""
    last: Ints = rows[np.append(starts[1:], len(rows)) - 1]
    for place, kind in enumerate(layout.extremes, layout.first_extreme):
        column = np.ascontiguousarray(rows[:, place])
        values = column.view(np.float64) if kind == FLOAT else column
        last[:, place] = np.maximum.reduceat(values, starts).view(np.int64)
    return last


def with_own_texts(layout: Layout, rows: Ints, heap: bytes) -> tuple[Ints, bytes]:
    """Rows, the first of them a base, and a heap that holds no other texts than theirs."""
    rows, length = rows.copy(), 0
    letters, parts = np.frombuffer(heap, dtype=np.uint8), []
    for column in layout.texts:
        begins, sizes = rows[1:, column] >> 32, rows[1:, column] & 0xFFFFFFFF
        after = np.cumsum(sizes) - sizes
        parts.append(letters[np.repeat(begins - after, sizes) + np.arange(sizes.sum())].tobytes())
        rows[0, column], rows[1:, column] = 0, (length + after) << 32 | sizes
        length += len(parts[-1])
    return rows, b"".join(parts) + bytes(-length % 8)


def base_row(layout: Layout) -> Ints:
    """Base of a block that has lost nothing, shape (1, words)."""
    row = np.zeros((1, layout.words), dtype=np.int64)
    row[0, 0] = NOTHING
    for place, kind in enumerate(layout.extremes):
        row[0, layout.first_extreme + place] = nothing_of(kind)
    return row


def nothing_of(kind: int) -> int:
    """Word of an extreme of nothing: extremes are kept so that the greatest wins."""
    return int(np.float64(-np.inf).view(np.int64)) if kind == FLOAT else -(1 << 63)


def relayout(rows: Ints, old: Layout, new: Layout) -> Ints:
    """Rows with numbers of their own in a wider layout; texts keep their places in the heap."""
    if old.key == new.key:
        return rows
    wider = np.zeros((len(rows), new.words), dtype=np.int64)
    wider[:, : new.first_kept] = rows[:, : old.first_kept]
    pairs = [(new.first_kept + i, old.kept[i], new.kept[i]) for i in range(len(old.kept))]
    pairs += [(new.first_extreme + i, old.extremes[i], new.extremes[i]) for i in range(len(old.extremes))]
    for column, before, after in pairs:
        words = rows[:, column]
        if after == FLOAT and before != FLOAT:
            numbers = words.astype(np.float64)
            # The word for "nothing" is another one among floats.
            if column >= new.first_extreme:
                numbers[words == -(1 << 63)] = -np.inf
            words = numbers.view(np.int64)
        wider[:, column] = words
    wider[:, new.first_running : new.first_limb] = rows[:, old.first_running : old.first_limb]
    for place in range(len(old.sums)):
        limbs = rows[:, old.limb_of[place]]
        if old.sums[place] != new.sums[place] and old.sums[place].beyond:
            limbs = _recut(limbs, old.scale(place), new.scale(place))
        elif old.sums[place] != new.sums[place]:
            limbs = np.ascontiguousarray(limbs)
            values = (round_limbs if old.sums[place].floats else whole_limbs)(limbs, old.scale(place))
            if new.sums[place].floats:
                values = values.astype(np.float64)
            limbs = split_limbs(values, new.scale(place))
        wider[:, new.limb_of[place]] = limbs
    return wider


def relayout_base(base: Ints, old: Layout, new: Layout) -> Ints:
    """Base row in a wider layout."""
    if old.key == new.key:
        return base
    if not new.shape.lifetime:  # only differences count, and its sums may have wrapped around
        wider = base_row(new)
        wider[0, 0] = base[0, 0]
        return wider
    bare = base.copy()
    bare[:, old.first_limb :] = 0
    wider = relayout(bare, old, new)
    for place in range(len(old.sums)):
        wider[:, new.limb_of[place]] = _recut(base[:, old.limb_of[place]], old.scale(place), new.scale(place))
    return wider


def _recut(limbs: Ints, old: LimbScale, new: LimbScale) -> Ints:
    """Limbs of a wider scale of sums that are no doubles: they go through Python's whole numbers."""
    wider = np.zeros((len(limbs), new.limbs), dtype=np.int64)
    for row, parts in enumerate(limbs.tolist()):
        # Borrows between limbs are settled here: the digits below the top one come out positive.
        total = sum(limb << (WIDTH * j) for j, limb in enumerate(parts)) << (old.low - new.low)
        for j in range(new.limbs):
            digit = total >> (WIDTH * j)
            wider[row, j] = digit if j == new.limbs - 1 else digit & ((1 << WIDTH) - 1)
    return wider


def text_at(blob: bytes, heap: int, word: int) -> str:
    """Text a word points to; ``heap`` is the byte where the heap begins."""
    begin = heap + (word >> 32)
    return blob[begin : begin + (word & 0xFFFFFFFF)].decode("utf-8", "surrogatepass")


def flag_of(layout: Layout, rows: Ints, place: int) -> NDArray[np.bool_]:
    """One flag of each row: whether a kept column has a value, a condition is true, the revision says something."""
    flags: NDArray[np.bool_] = (rows[:, layout.bits + place // FLAGS] >> (place % FLAGS) & 1) != 0
    return flags


def event_ids(layout: Layout, rows: Ints, heap: bytes) -> NDArray[Any]:
    """Sequence of each row: int64, or an object array of str."""
    words = rows[:, layout.seq]
    if layout.sequence != TEXT:
        return words
    texts = np.empty(len(words), dtype=object)
    texts[:] = [text_at(heap, 0, word) for word in words.tolist()]
    return texts
