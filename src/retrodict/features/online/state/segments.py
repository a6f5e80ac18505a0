"""Hot keys: the older rows of a block that grew large, closed into segments that a write no longer touches.

The block stays the head: the newest rows, rewritten with every batch. What it sheds becomes segments of some hundred
rows, and one index per key says of each segment where it begins and ends, and holds its last row, whose running sums
are all that a window across it needs. So a read fetches the head, the index, and of the segments only those in which an
edge of a window lies; a million events in a window cost what a few thousand do. A late event reopens the segments from
its own time on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from retrodict.core.native import kernel
from retrodict.features.facts.columns import Ints
from retrodict.features.online.state.blocks import (
    FLOAT,
    HOT,
    MONOTONE,
    Block,
    Layout,
    Shape,
    folded,
    heap_of,
    layout_of,
    pack,
    unpack,
    with_own_texts,
)
from retrodict.features.plan import ViewPlan

_MOST, _KEPT, _SEGMENT = 1024, 512, 512
_NOTES = 4  # number of the segment, first event time, greatest v, rows
_ALL = np.zeros(1, dtype=np.int64)  # where the one run of rows begins
_Piece = tuple[Ints, bytes]  # rows without a base, and the heap with their texts


@dataclass(frozen=True)
class Index:
    """The segments of a key, oldest first; they and the head have one layout.

    ``rows``, of shape (segments + 1, 4 + words), say of each its number, first event time, greatest v and size, and
    hold its last row with the segment's extremes in it; before them is the base.
    """

    layout: Layout
    rows: Ints

    @classmethod
    def read(cls, shape: Shape, blob: bytes | memoryview) -> Index:
        """Index of stored bytes."""
        layout = layout_of(shape, bytes(blob[: shape.layout_bytes]))
        return cls(
            layout, np.frombuffer(blob, dtype="<i8", offset=shape.layout_bytes).reshape(-1, _NOTES + layout.words)
        )

    def write(self) -> bytes:
        """Bytes to store."""
        return self.layout.key + self.rows.astype("<i8").tobytes()

    def __len__(self) -> int:
        return len(self.rows) - 1

    @property
    def events(self) -> int:
        """Rows of all segments."""
        return int(self.rows[1:, _NOTES - 1].sum())

    @property
    def numbers(self) -> list[int]:
        """Numbers of the segments."""
        numbers: list[int] = self.rows[1:, 0].tolist()
        return numbers

    def places(self, numbers: Iterable[int]) -> list[int]:
        """Rows of some segments, oldest first; numbers grow with time."""
        ordered = np.array(sorted(numbers), dtype=np.int64)
        places: list[int] = (np.searchsorted(self.rows[1:, 0], ordered) + 1).tolist()
        return places

    def since(self, moment: int) -> list[int]:
        """Numbers of the segments that hold an event at or after a time."""
        first = int(np.searchsorted(self.rows[1:, _NOTES], moment))
        return self.numbers[first:]


@dataclass(frozen=True)
class Closed:
    """What to store of a hot key: its head, its index, its new segments, and the segments to remove."""

    head: bytes
    index: Index
    segments: dict[int, bytes]
    removed: list[int]


def close(shape: Shape, blob: bytes, index: Index | None, limit: int, floor: int) -> Closed | None:
    """Close the older rows of a block that is too large; None if it is not.

    Segments whose events all lie before ``limit``, and were visible before ``floor``, are let go of, but for the last.
    """
    block = unpack(shape, blob)
    layout, rows = block.layout, block.rows
    if len(block) <= _MOST:
        return None
    if index is None:
        index = Index(layout, np.concatenate([np.zeros((1, _NOTES), dtype=np.int64), rows[:1]], axis=1))
    number, begin, segments, notes = int(index.rows[:, 0].max()), 0, {}, [index.rows]
    while len(block) - begin > _KEPT + _SEGMENT // 2:
        # Equal times stay together, so that an event's time says where it belongs.
        end = int(np.searchsorted(rows[1:, 0], rows[min(begin + _SEGMENT, len(block) - _KEPT // 2), 0], side="right"))
        if end >= len(block):
            break
        number += 1
        part, visible = rows[begin : end + 1], layout.visible_at(rows[begin + 1 : end + 1])
        segments[number] = _packed(block, part, MONOTONE)
        last = folded(layout, part[1:], _ALL)[0]
        notes.append(np.concatenate([[number, part[1, 0], visible.max(), end - begin], last])[None])
        begin = end
    if not segments:
        return None
    head = _packed(block, rows[begin:], block.flags | HOT)
    notes_of = np.concatenate(notes)
    needed_rows = (notes_of[1:, _NOTES] >= limit) | (notes_of[1:, 2] >= floor)
    needed_rows[-1] = True
    past = int(np.argmax(needed_rows))
    removed = notes_of[1 : past + 1, 0].tolist()
    if past:
        base = np.concatenate([notes_of[past, :_NOTES], folded(layout, notes_of[: past + 1, _NOTES:], _ALL)[0]])
        notes_of = np.concatenate([base[None], notes_of[past + 1 :]])
    return Closed(head, Index(layout, notes_of), {n: s for n, s in segments.items() if n not in removed}, removed)


def _packed(block: Block, rows: Ints, flags: int) -> bytes:
    """Bytes of some rows of a block; the first row is the base."""
    rows, heap = with_own_texts(block.layout, rows, block.heap)
    return pack(block.layout, rows, heap, flags=flags, visible=block.visible, heap_rows=len(rows) - 1)


def _strung(layout: Layout, pieces: Sequence[_Piece]) -> tuple[list[Ints], bytes]:
    """Rows of several pieces, and the one heap that holds the texts of all of them."""
    parts, length = [], 0
    for piece, heap in pieces:
        rows = piece
        if length and layout.texts:
            rows = rows.copy()
            rows[:, layout.texts] += length << 32
        parts.append(rows)
        length += len(heap)
    return parts, b"".join(heap for _, heap in pieces)


def _piece(shape: Shape, blob: bytes | memoryview) -> _Piece:
    block = unpack(shape, blob)
    return block.rows[1:], block.heap


def edges_of(plan: ViewPlan, at: int) -> list[int]:
    """Edges of the windows of a request that lie before it, ascending."""
    edges = {window.start(at) for window in plan.windows if not window.lifetime}
    return sorted(edges | {window.end(at) for window in plan.windows if window.offset is not None})


def needed(plan: ViewPlan, index: Index, at: int, *, ahead: bool) -> list[int]:
    """Numbers of the segments that a request reads: those with an edge of a window inside, and whatever it is ahead of.

    Bags read all events of their windows, so all segments from the first of them on. If the head is ``ahead`` of the
    request, the newest event may be in the newest segment that is not.
    """
    first, last = index.rows[1:, 1], index.rows[1:, _NOTES]
    edges = edges_of(plan, at)
    places = np.searchsorted(last, np.array(edges, dtype=np.int64))
    read = index.rows[1:, 2] >= at
    for place, edge in zip(places.tolist(), edges, strict=True):
        if place < len(index) and first[place] < edge:
            read[place] = True
    before = np.flatnonzero(index.rows[1:, 2] < at)
    if plan.latest and ahead and len(before):
        read[before[-1]] = True
    starts = [plan.windows[output.window].start(at) for output in plan.outputs if output.bag]
    if starts:
        read |= last >= min(starts)
    numbers: list[int] = index.rows[1:, 0][read].tolist()
    return numbers


def joined(
    shape: Shape,
    head: bytes | memoryview,
    index: Index,
    segments: Mapping[int, bytes | memoryview],
    *,
    at: int,
    edges: Sequence[int] | None,
) -> bytes:
    """One block for a request: the rows of these segments and of the head; every other segment is in its last row.

    Rows between two edges of windows always count together, so those that are visible become one, too; ``edges`` of
    None: all of them are wanted.
    """
    block, layout, places = unpack(shape, head), index.layout, index.places(segments)
    pieces = []
    for place in places:
        blob, visible = segments[int(index.rows[place, 0])], index.rows[place, 2] < at
        pieces.append(_piece(shape, blob) if edges is None or not visible else _settled(shape, layout, blob, edges))
    (*segment_rows, head_rows), heap = _strung(layout, [*pieces, (block.rows[1:], block.heap)])
    parts, done = [index.rows[:1, _NOTES:]], 1
    for place, rows in zip(places, segment_rows, strict=True):
        parts += [_together(layout, index.rows[done:place, _NOTES:], edges), rows]
        done = place + 1
    parts += [_together(layout, index.rows[done:, _NOTES:], edges), head_rows]
    return pack(layout, np.concatenate(parts), heap, flags=0, visible=block.visible, heap_rows=0)


def _settled(shape: Shape, layout: Layout, blob: bytes | memoryview, edges: Sequence[int]) -> _Piece:
    """Rows of a segment, those between two edges together."""
    if kernel is None:
        rows, heap = _piece(shape, blob)
        return _together_twin(layout, rows, edges), heap
    floats = bytes(kind == FLOAT for kind in layout.extremes)
    rows = kernel.settled(blob, shape.layout_bytes, layout.bare, edges, layout.first_extreme, floats)
    return np.frombuffer(rows, dtype=np.int64).reshape(-1, layout.words), heap_of(shape, blob)


def _together(layout: Layout, rows: Ints, edges: Sequence[int] | None) -> Ints:
    """Rows between two edges, ascending, as the last of them, with the extremes of all of them."""
    if edges is None or not len(rows):
        return rows
    if kernel is not None:
        floats = bytes(kind == FLOAT for kind in layout.extremes)
        return np.frombuffer(kernel.together(rows, edges, layout.first_extreme, floats), dtype=np.int64).reshape(
            -1, layout.words
        )
    return _together_twin(layout, rows, edges)


def _together_twin(layout: Layout, rows: Ints, edges: Sequence[int]) -> Ints:
    cuts = np.searchsorted(rows[:, 0], np.array(edges, dtype=np.int64))
    return folded(layout, rows, np.unique(np.append(0, cuts[cuts < len(rows)])))


def reopened(shape: Shape, head: bytes, index: Index, segments: Sequence[bytes]) -> tuple[bytes, Index | None]:
    """Head with the rows of the newest segments in it again, and the index without them; None if there is no other."""
    block, layout = unpack(shape, head), index.layout
    closed = index.rows[: len(index) + 1 - len(segments)]
    parts, heap = _strung(layout, [*(_piece(shape, blob) for blob in segments), (block.rows[1:], block.heap)])
    # Whether visibility is in order across the seams is not known any more. The base of a segment holds the running
    # sums only; the extremes of what lies before all segments are in the base of the index.
    base = unpack(shape, segments[0]).rows[:1] if len(closed) > 1 else closed[:, _NOTES:]
    flags, rows = HOT if len(closed) > 1 else 0, np.concatenate([base, *parts])
    blob = pack(layout, rows, heap, flags=flags, visible=block.visible, heap_rows=len(rows) - 1)
    return blob, Index(layout, closed) if len(closed) > 1 else None


def agree(shape: Shape, head: bytes, index: Index, segments: Mapping[int, bytes]) -> bool:
    """Whether head, index and segments were written together: a read of them in two steps may find a newer piece."""
    opened = unpack(shape, head)
    if opened.layout.key != index.layout.key:
        return False
    running = index.layout.first_running
    pairs = [(opened.rows[0], index.rows[-1, _NOTES:])]
    for place in index.places(segments):
        segment = unpack(shape, segments[int(index.rows[place, 0])])
        if segment.layout.key != index.layout.key:
            return False
        pairs.append((segment.rows[-1], index.rows[place, _NOTES:]))
    return all(a[0] == b[0] and (a[running:] == b[running:]).all() for a, b in pairs)


def is_hot(blob: bytes) -> bool:
    """Whether a block has segments."""
    return bool(blob[8] & HOT)
