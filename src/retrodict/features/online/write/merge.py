"""Merging arrivals into blocks: all keys of a batch in one pass, then one concatenation of bytes per key.

The rows of a block that come after the first new event are reopened, put with the new ones, sorted and summed anew; for
events newer than everything known, the usual case, that is no row at all. So a late event, a redelivery and a revision
are the same path as an append, and what is stored never depends on the order of arrival.
"""

from __future__ import annotations

import struct
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from retrodict.core.native import kernel
from retrodict.features.facts.columns import Ints, Mask
from retrodict.features.online.state.blocks import (
    FIXED,
    HOT,
    MONOTONE,
    NOTHING,
    TEXT,
    Layout,
    Shape,
    base_row,
    event_ids,
    folded,
    pack,
    relayout,
    relayout_base,
    running,
    separate,
    text_at,
    unpack,
    with_own_texts,
)
from retrodict.features.online.write.arrivals import Arrivals

_WORD = struct.Struct("<q").unpack_from
_HEAD = struct.Struct("<5q").pack
_RULES = struct.Struct("=8q").pack
_CUT_OLD, _CUT_BUT_NEWEST, _CUT_ELSEWHERE = range(3)
_GARBAGE = 4  # heaps are rewritten once they hold texts of this many times the rows that are left


@dataclass(frozen=True)
class Bounds:
    """What may be cut off.

    Below the event time ``limit`` no window and no age reaches from ``floor``, the earliest request that is answered.
    ``newest``: whether the newest event is wanted whatever its age; ``lifetime``: whether what is cut off still counts.
    """

    limit: int
    floor: int
    newest: bool
    lifetime: bool


@dataclass
class Merged:
    """Blocks to store, with the codes of their keys, and what became of the events."""

    codes: Ints
    blocks: list[bytes]
    stored: int = 0
    duplicates: int = 0


@dataclass(frozen=True)
class _Old:
    """What is known of the stored blocks of some keys, one entry per key; zeros where there is none.

    ``retained`` is the number of rows, the base included, that stay as they are; ``before`` holds the last of them.
    """

    blobs: list[bytes | None]
    heads: Ints
    begins: Ints
    retained: Ints
    before: Ints


def converted(shape: Shape, blob: bytes, layout: Layout) -> bytes:
    """Bytes of a block in a wider layout."""
    block = unpack(shape, blob)
    rows = relayout(block.single(), block.layout, layout)
    base = relayout_base(block.rows[:1], block.layout, layout)
    return pack(
        layout,
        running(layout, base, rows),
        block.heap,
        flags=block.flags,
        visible=block.visible,
        heap_rows=block.heap_rows,
    )


def gathered(values: Sequence[bytes | None], start: int, words: int) -> Ints:
    """Words of each value from a byte on (negative: from its end), one row per value; zeros for None."""
    return np.frombuffer(gather(values, start, 8 * words), dtype="<i8").reshape(len(values), words)


def _gather(values: Sequence[bytes | None], start: int, size: int) -> bytearray:
    """So many bytes of each value, one after another; zeros for None."""
    stop, nothing = start + size or None, bytes(size)
    return bytearray().join([nothing if value is None else value[start:stop] for value in values])


gather: Callable[[Sequence[bytes | None], int, int], bytearray] = _gather if kernel is None else kernel.gather


def merge(arrivals: Arrivals, layout: Layout, places: Ints, blobs: Sequence[bytes | None], bounds: Bounds) -> Merged:
    """Merge events into the blocks of their keys, old and new of one layout.

    ``places`` are the events of the batch to take, sorted by key; ``blobs`` the block of each of its keys, by code.
    """
    if not len(places):
        return Merged(places, [])
    sorted_codes = arrivals.codes[places]
    begins = np.append(True, sorted_codes[1:] != sorted_codes[:-1])
    first, local = np.flatnonzero(begins), np.cumsum(begins) - 1
    codes = sorted_codes[first]
    stored = [blobs[code] for code in codes.tolist()]
    old, tails, tail_key = _reopen(layout, stored, np.minimum.reduceat(arrivals.event_time[places], first))
    rows = arrivals.rows(layout, places)
    key = local
    if len(tails):
        rows, key = np.concatenate([tails, rows]), np.concatenate([tail_key, local])
    order = _arranged(layout, rows, key, lambda: _ids(arrivals, layout, places, tails, tail_key, stored), len(tails))
    rows, key = rows[order], key[order]
    fresh = order >= len(tails)
    heaps = _Heaps(arrivals, layout, places[order[fresh] - len(tails)], key[fresh], len(codes))
    heaps.point(rows, fresh, key, old.heads[:, 3])
    merged = Merged(codes, _Assembly(layout, old, rows, key, heaps, bounds).blocks())
    merged.stored = max(len(rows) - len(tails), 0)
    merged.duplicates = len(tails) + len(places) - len(rows)
    return merged


def _reopen(layout: Layout, blobs: list[bytes | None], earliest: Ints) -> tuple[_Old, Ints, Ints]:
    """Old blocks without the rows from ``earliest`` on, and those rows, with numbers of their own, with their keys."""
    shape, words = layout.shape, layout.words
    heads, before = gathered(blobs, 0, FIXED), gathered(blobs, -8 * words, words)
    stored = np.array([blob is not None for blob in blobs], dtype=np.bool_)
    heads[~stored, 1], heads[~stored, 2] = MONOTONE, NOTHING
    before[~stored] = base_row(layout)
    retained = heads[:, 0] + stored
    begins = shape.head_bytes + heads[:, 3]
    late = np.ones_like(stored) if shape.revised else before[:, 0] >= earliest
    parts, keys = [], []
    for place in np.flatnonzero(stored & late & (heads[:, 0] > 0)).tolist():
        blob = blobs[place] or b""
        count = int(heads[place, 0]) + 1
        table = np.frombuffer(blob, dtype="<i8", offset=int(begins[place])).reshape(count, words)
        start = 1 if shape.revised else bisect_left(table[:, 0], earliest[place], 1, count)
        parts.append(separate(layout, table[start - 1 :]))
        keys.append(np.full(count - start, place))
        retained[place], before[place] = start, table[start - 1]
    old = _Old(blobs, heads, begins, retained, before)
    if not parts:
        return old, np.zeros((0, layout.words), dtype=np.int64), np.zeros(0, dtype=np.int64)
    return old, np.concatenate(parts), np.concatenate(keys)


def _ids(
    arrivals: Arrivals, layout: Layout, places: Ints, tails: Ints, tail_key: Ints, blobs: Sequence[bytes | None]
) -> Ints:
    """Rank of the event id of each row, those of reopened rows first."""
    if layout.sequence != TEXT:
        return np.concatenate([tails[:, layout.seq], arrivals.sequence[places]])
    head = layout.shape.head_bytes
    earlier = [
        text_at(blobs[place] or b"", head, word)
        for word, place in zip(tails[:, layout.seq].tolist(), tail_key.tolist(), strict=True)
    ]
    texts = np.empty(len(earlier) + len(places), dtype=object)
    texts[: len(earlier)] = earlier
    texts[len(earlier) :] = arrivals.sequence[places]
    return np.unique(texts, return_inverse=True)[1].astype(np.int64)


def _arranged(layout: Layout, rows: Ints, key: Ints, ranks: Callable[[], Ints], tails: int) -> Ints:
    """Order of the rows by key and total order, each event once; event ids are ranked only where they decide.

    Of several deliveries of one event the one known first counts; of revisions known at the same moment the last.
    """
    event, known_at = rows[:, 0], layout.known_at(rows)
    if layout.shape.revised:
        ids = ranks()
        sort = np.lexsort((np.arange(len(rows)), known_at, ids, key))
        again = _equal(sort, key, ids, known_at)
        distinct = sort[np.append(~again, True)] if len(sort) else sort
        return distinct[np.lexsort((ids[distinct], known_at[distinct], event[distinct], key[distinct]))]
    # New rows come sorted by key: if they are in order within each key as well, nothing is to be done.
    if not tails and bool(((event[1:] > event[:-1]) | (key[1:] != key[:-1])).all()):
        return np.arange(len(rows))
    sort = np.lexsort((event, key))
    if not bool(_equal(sort, key, event).any()):
        return sort
    ids = ranks()
    sort = np.lexsort((known_at, ids, event, key))
    distinct = sort[np.append(True, ~_equal(sort, key, event, ids))]
    order: Ints = distinct[np.lexsort((ids[distinct], known_at[distinct], event[distinct], key[distinct]))]
    return order


def _equal(sort: Ints, *columns: Ints) -> Mask:
    """Where a row of a sorted order equals the one before in all columns."""
    same = np.ones(max(len(sort) - 1, 0), dtype=np.bool_)
    for column in columns:
        ordered = column[sort]
        same &= ordered[1:] == ordered[:-1]
    return same


class _Heaps:
    """Texts that the new rows bring, key by key; the rows are sorted by key."""

    def __init__(self, arrivals: Arrivals, layout: Layout, places: Ints, key: Ints, keys: int) -> None:
        self._columns = layout.texts
        self._texts = [arrivals.texts(layout, column, places) for column in layout.texts]
        edges = np.searchsorted(key, np.arange(keys + 1))
        self._edges = [texts.offsets[edges] for texts in self._texts]
        # Of each column its texts, and where those of each key begin.
        self.parts = tuple(zip((texts.data for texts in self._texts), self._edges, strict=True))
        self.rows = np.diff(edges)

    def point(self, rows: Ints, fresh: Mask, key: Ints, heap_bytes: Ints) -> None:
        """Write where each text will be: after what the heap holds, column by column."""
        if not self._columns:
            return
        base, new = heap_bytes.copy(), key[fresh]
        for column, texts, edges in zip(self._columns, self._texts, self._edges, strict=True):
            starts = texts.offsets[:-1] - edges[new] + base[new]
            rows[fresh, column] = starts << 32 | np.diff(texts.offsets)
            base += np.diff(edges)

    def of(self, place: int) -> bytes:
        """Bytes to add to the heap of a key."""
        joined = b"".join([data[edges[place] : edges[place + 1]] for data, edges in self.parts])
        return joined + bytes(-len(joined) % 8)


class _Assembly:
    """Blocks of merged keys."""

    def __init__(self, layout: Layout, old: _Old, rows: Ints, key: Ints, heaps: _Heaps, bounds: Bounds) -> None:
        self._layout, self._old, self._heaps, self._bounds = layout, old, heaps, bounds
        self._size = 8 * layout.words
        self._edges = np.searchsorted(key, np.arange(len(old.blobs) + 1))
        first = self._edges[:-1]
        running = rows[:, layout.first_running :]
        # Sums wrap around in two's complement, and so do their differences: the numbers come out right.
        total = np.cumsum(running, axis=0)
        start = old.before[:, layout.first_running :] - total[first] + running[first]
        rows[:, layout.first_running :] = total + start[key]
        visible = layout.visible_at(rows)
        self._greatest = np.maximum(np.maximum.reduceat(visible, first), old.heads[:, 2])
        steps = np.concatenate([[True], (visible[1:] >= visible[:-1]) | (key[1:] != key[:-1])])
        settled = np.where(old.before[:, 0] == NOTHING, NOTHING, layout.visible_at(old.before))
        steps[first] = visible[first] >= settled
        alike = np.minimum.reduceat(steps.astype(np.int64), first)
        self._flags = np.where(old.retained > 1, old.heads[:, 1], old.heads[:, 1] | MONOTONE) & ~(1 - alike)
        self._held = old.heads[:, 4] + heaps.rows if layout.texts else np.zeros_like(self._flags)
        self._rows, self._bare = rows.astype("<i8", copy=False), base_row(layout).astype("<i8").tobytes()

    def blocks(self) -> list[bytes]:
        """Bytes of the block of each key."""
        old = self._old
        # Of each key: end of its rows, where those of its old block begin and how many stay, flags, greatest v, texts.
        parts = np.stack([self._edges[1:], old.begins, old.retained, self._flags, self._greatest, self._held], axis=1)
        blocks, left = [b""] * len(parts), list(range(len(parts)))
        if kernel is not None:
            layout = self._layout.key
            blocks, left = kernel.assemble(
                self._rules(), layout, self._bare, old.blobs, self._rows, parts, self._heaps.parts
            )
        if left:
            self._bytes = self._rows.tobytes()
            # Column by column: one look at an array costs as much as the rest of a key.
            first = np.append(0, parts[:-1, 0])[left].tolist()
            for place, block in zip(left, map(self._block, left, first, *parts[left].T.tolist()), strict=True):
                blocks[place] = block
        return blocks

    def _rules(self) -> bytes:
        """What the kernel has to know about the batch."""
        layout, bounds, shape = self._layout, self._bounds, self._layout.shape
        cut = _CUT_ELSEWHERE if bounds.lifetime or shape.revised else _CUT_BUT_NEWEST if bounds.newest else _CUT_OLD
        known_at, head = layout.k if shape.known else 0, shape.head_bytes
        return _RULES(layout.words, head, cut, bounds.limit, bounds.floor, known_at, shape.delay, _GARBAGE)

    def _block(
        self, place: int, first: int, stop: int, begin: int, retained: int, flags: int, visible: int, heap_rows: int
    ) -> bytes:
        """Bytes of the block of a key."""
        layout, size = self._layout, self._size
        blob, head = self._old.blobs[place], layout.shape.head_bytes
        rows = self._bytes[first * size : stop * size]
        heap = self._heaps.of(place) if layout.texts else b""
        if blob is None:
            rows = self._bare + rows
        else:
            heap = blob[head:begin] + heap
            rows = blob[begin : begin + retained * size] + rows
        if not flags & HOT and _WORD(rows, size)[0] < self._bounds.limit:
            rows = _cut(layout, rows, heap, monotone=bool(flags & MONOTONE), bounds=self._bounds)
        count = len(rows) // size - 1
        if heap_rows > _GARBAGE * (count + 16):
            table, heap = with_own_texts(layout, np.frombuffer(rows, dtype="<i8").reshape(-1, layout.words), heap)
            rows, heap_rows = table.tobytes(), count
        return _HEAD(count, flags, visible, len(heap), heap_rows) + layout.key + heap + rows


def _cut(layout: Layout, rows: bytes, heap: bytes, *, monotone: bool, bounds: Bounds) -> bytes:
    """Rows without the oldest ones that no answerable request reads; the last one cut becomes the base."""
    words = layout.words
    if not (bounds.newest or bounds.lifetime or layout.shape.revised):
        return rows[(bisect_left(memoryview(rows).cast("q")[::words], bounds.limit, 1) - 1) * 8 * words :]
    count = len(rows) // 8 // words - 1
    table = np.frombuffer(rows, dtype="<i8").reshape(count + 1, words)
    if layout.shape.revised:
        return _cut_revised(layout, table, heap, bounds)
    removed = int(np.searchsorted(table[1:, 0], bounds.limit))
    visible = layout.visible_at(table[1 : removed + 1 if monotone else None])
    settled = np.flatnonzero(visible < bounds.floor)
    if bounds.newest:
        removed = min(removed, int(settled[-1]) if len(settled) else 0)
    if bounds.lifetime:
        early = np.flatnonzero(visible[:removed] >= bounds.floor)
        removed = int(early[0]) if len(early) else removed
    if bounds.lifetime and layout.extremes and removed:
        # The extremes of what is cut are still wanted: the base keeps the best of them.
        base = folded(layout, table[: removed + 1], np.zeros(1, dtype=np.int64))
        return bytes(base.tobytes() + table[removed + 1 :].tobytes())
    return rows[removed * 8 * words :]


def _cut_revised(layout: Layout, table: Ints, heap: bytes, bounds: Bounds) -> bytes:
    """Cut events all of whose revisions are out of reach; of the others a revision still ends the one before it."""
    if bounds.newest or bounds.lifetime:
        return table.tobytes()
    _, event = np.unique(event_ids(layout, table[1:], heap), return_inverse=True)
    reach = np.full(int(event.max(initial=0)) + 1, NOTHING)
    np.maximum.at(reach, event, layout.visible_at(table[1:]))
    reachable = np.flatnonzero(reach[event] >= bounds.limit)
    return running(layout, base_row(layout), separate(layout, table)[reachable]).tobytes()
