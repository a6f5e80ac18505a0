"""Reading a block in plain Python: what the kernel in C means, and whatever it leaves out.

A window is two searches and the difference of two rows. The kernel reads most blocks; this reader has the features that
no program holds (moments, bags, windows that let the request's own event in), the blocks whose numbers do not fit into
128 bits, and everything where there is no compiler. Source made for each layout and compiled was rejected: three times
as fast, and a third text of the same meaning that nobody could step through.

Events later than the request and revisions are brought to the plain case by :func:`restricted` first, so there is one
way to compute a value.
"""

from __future__ import annotations

import struct
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any, NamedTuple

import numpy as np

from retrodict.features.facts.columns import Ints, Mask, too_large
from retrodict.features.monoids import AGGREGATES, divided
from retrodict.features.online.read.bags import BagReader
from retrodict.features.online.read.event import best, plus
from retrodict.features.online.state.blocks import (
    BOOL,
    DATE,
    FIXED,
    FLAGS,
    FLOAT,
    MONOTONE,
    NULL,
    TEXT,
    WIDTH,
    Layout,
    Shape,
    event_ids,
    flag_of,
    pack,
    running,
    text_at,
    unpack,
    wide_block,
)
from retrodict.features.plan import Output, ViewPlan
from retrodict.features.windows import Window

EPOCH = date(1970, 1, 1).toordinal()
"""Days are stored from here on."""

_HEAD = struct.Struct(f"<{FIXED}q").unpack_from
_WORD, _DOUBLE = struct.Struct("<q").unpack_from, struct.Struct("<d").unpack_from
_HALF, _FULL = 1 << 63, (1 << 64) - 1


def restricted(shape: Shape, blob: bytes, at: int) -> bytes:
    """Block of what is visible at a time, in force then if the source is revised."""
    block = unpack(shape, blob)
    layout, rows = block.layout, block.rows
    visible = layout.visible_at(rows[1:]) < at
    if shape.revised:
        visible &= _in_force(layout, rows[1:], block.heap, at)
    elif block.flags & MONOTONE:
        # Visibility in the order of the rows: what is visible is a prefix, whose running sums stand.
        rows = rows[: 1 + int(visible.sum())]
        return pack(layout, rows, block.heap, flags=MONOTONE, visible=at - 1, heap_rows=0)
    rows = running(layout, rows[:1], block.single()[visible])
    return pack(layout, rows, block.heap, flags=0, visible=at - 1, heap_rows=0)


def _in_force(layout: Layout, rows: Ints, heap: bytes, at: int) -> Mask:
    """Revisions that say something and that no later one has replaced before the request."""
    _, event = np.unique(event_ids(layout, rows, heap), return_inverse=True)
    known_at = layout.known_at(rows)
    order = np.lexsort((known_at, event))
    replaced = np.zeros(len(rows), dtype=np.bool_)
    same = event[order][1:] == event[order][:-1]
    replaced[order[:-1]] = same & (known_at[order][1:] < at)
    shape = layout.shape
    return ~replaced & flag_of(layout, rows, len(shape.kept) + len(shape.conditions))


class Edges(NamedTuple):
    """Edges of a window of durations, as microseconds before the decision.

    A window has a left edge unless it is a ``lifetime``, and a right one only if it is ``bounded``; otherwise it ends
    at the decision. Both go down to a multiple of the ``hop``, if it is not 0.
    """

    lifetime: bool
    start_us: int
    hop: int
    bounded: bool
    end_us: int

    @classmethod
    def of(cls, window: Window) -> Edges:
        """Edges of a declared window; it holds durations as text, which a request has no time to parse."""
        reach = window.offset_us + window.length_us
        return cls(window.lifetime, reach, window.hop_us, window.offset is not None, window.offset_us)

    def start(self, at: int) -> int:
        """Left edge for a decision."""
        return self._moment(at - self.start_us)

    def end(self, at: int) -> int:
        """Right edge for a decision."""
        return self._moment(at - self.end_us)

    def _moment(self, edge: int) -> int:
        return edge // self.hop * self.hop if self.hop else edge


def widest_window(plan: ViewPlan) -> int:
    """The window whose events are those within reach."""
    windows = plan.windows
    return max(range(len(windows)), key=lambda place: (windows[place].lifetime, windows[place].reach_us))


class BlockReader:
    """Reads features of a view (``outputs``; None: all) from the blocks of one layout."""

    def __init__(self, plan: ViewPlan, layout: Layout, outputs: Sequence[Output] | None = None) -> None:
        self._plan, self._layout = plan, layout
        self._outputs = plan.outputs if outputs is None else outputs
        self._edges = [Edges.of(window) if window.units is None else window for window in plan.windows]
        self._widest = widest_window(plan) if plan.windows else None
        self._bags = BagReader(plan, layout.shape) if any(output.bag for output in self._outputs) else None

    def read(self, blob: bytes, at: int, values: dict[str, Any], expired: set[str], current: Mapping[int, Any]) -> int:
        """Fill in ``values`` as of a time, in microseconds, and in ``expired`` the latest values that are too old.

        The block is not the head of a hot key; ``current`` is what the request's own event gives to each channel.
        Returns the visible events within reach of the widest window; at least 1 if there is a latest value of any age.
        """
        blob = bytes(wide_block(self._layout.shape, blob))
        if self._layout.shape.revised or _HEAD(blob)[2] >= at:
            blob = restricted(self._layout.shape, blob, at)
        rows = _Rows(self._plan, self._layout, self._edges, blob, at, current)
        bags = {} if self._bags is None else self._bags.read(blob, at, rows.places())
        for output in self._outputs:
            if output.op == "latest":
                values[output.column] = rows.latest(output, expired)
            elif output.bag:
                values[output.column] = bags[output.parts[0], output.window]
            else:
                values[output.column] = rows.aggregate(output)
        return rows.within_reach(self._widest)


class _Rows:
    """The rows of one block, all of them visible, and where the windows of one request lie in them."""

    def __init__(
        self,
        plan: ViewPlan,
        layout: Layout,
        edges: Sequence[Edges | Window],
        blob: bytes,
        at: int,
        current: Mapping[int, Any],
    ) -> None:
        self._plan, self._layout, self._shape, self._edges = plan, layout, layout.shape, edges
        self._blob, self._at, self._current = blob, at, current
        self._count, _, _, heap, _ = _HEAD(blob)
        self._begin, self._size = layout.shape.head_bytes + heap, 8 * layout.words
        self._times = memoryview(blob).cast("q")[self._begin >> 3 :: layout.words]
        self._running = struct.Struct(f"<{layout.words - layout.first_running}q").unpack_from
        self._windows: dict[int, tuple[int, int, list[int]]] = {}

    def places(self) -> list[tuple[int, int]]:
        """Rows [first, stop) of every window."""
        return [self._window(window)[:2] for window in range(len(self._edges))]

    def _window(self, number: int) -> tuple[int, int, list[int]]:
        """Rows [first, stop) of a window, and its running numbers; row 0, the base, belongs to a lifetime only."""
        if number in self._windows:
            return self._windows[number]
        edges, at, first, stop = self._edges[number], self._at, 0, self._count + 1
        if not edges.lifetime:
            first = bisect_left(self._times, edges.start(at), 1, stop)
        if edges.bounded:
            stop = bisect_left(self._times, edges.end(at), 1, stop)
        begin = self._begin + 8 * self._layout.first_running
        numbers = list(self._running(self._blob, begin + (stop - 1) * self._size))
        if first:
            before = self._running(self._blob, begin + (first - 1) * self._size)
            # Sums may have wrapped around in 64 bits; their differences then do so as well.
            numbers = [(a - b + _HALF & _FULL) - _HALF for a, b in zip(numbers, before, strict=True)]
        self._windows[number] = place = first, stop, numbers
        return place

    def _total(self, numbers: list[int], channel: int, current: Mapping[int, Any] | None) -> tuple[int, int]:
        """A sum or a count over a power of two; with what the request gives it, where ``current`` lets that in."""
        column = self._shape.column_of[channel]
        if channel not in self._shape.sums:
            return numbers[column] + (current[channel] if current is not None else 0), 1
        limbs, low, skipped = self._layout.limb_of[column], self._layout.sums[column].low, self._layout.first_running
        top = 0
        for limb in reversed(numbers[limbs.start - skipped : limbs.stop - skipped]):
            top = (top << WIDTH) + limb
        top, bottom = (top << low, 1) if low > 0 else (top, 1 << -low)
        return plus(top, bottom, current[channel]) if current is not None else (top, bottom)

    def aggregate(self, output: Output) -> Any:
        """Value of a feature made of totals."""
        kind, first, last = AGGREGATES[output.op], output.parts[0], output.parts[-1]
        begin, stop, numbers = self._window(output.window)
        current = self._current if self._plan.windows[output.window].include_current else None
        stored = numbers[self._shape.column_of[last]]
        count = stored + current[last] if current is not None else stored
        if output.op == "rate":
            top, bottom = output.factor or (1, 1)
            return count * top / bottom
        if output.op == "count":
            return count
        if not count:
            return None
        if self._plan.channels[first].monoid != "sum":
            value = self._extreme(first, begin, stop) if stored else None
            if current is None:
                return value
            return best(value, current[first], self._plan.channels[first].monoid == "max")
        if kind.exact:
            totals = [self._total(numbers, part, current) for part in output.parts[:-1]]
            return kind.finish(*totals, count, *(output.factor or ()))
        top, bottom = self._total(numbers, first, current)
        if output.op == "sum":
            if self._layout.sums[self._shape.column_of[first]].floats or (
                current is not None and type(current[first]) is float
            ):
                return divided(top, bottom)
            if not -_HALF <= top < _HALF:
                raise too_large(self._plan.where, self._plan.channels[first].value)
            return top
        total = divided(top, bottom)
        return top / (bottom * count) if total is None else total / count

    def _extreme(self, channel: int, first: int, stop: int) -> Any:
        """Value that the greatest word of a column stands for."""
        place = self._shape.column_of[channel]
        floats, largest = self._layout.extremes[place] == FLOAT, self._shape.largest[place]
        begin = self._begin + first * self._size + 8 * (self._layout.first_extreme + place)
        words = np.ndarray(stop - first, "<f8" if floats else "<i8", self._blob, begin, self._size)
        word = words.max().item()
        return word if largest else 0.0 - word if floats else ~word

    def latest(self, output: Output, expired: set[str]) -> Any:
        """Newest value of a column; None, and the column as expired, if it is too old."""
        if output.max_age is not None and not (self._count and self._at - self._times[self._count] <= output.max_age):
            expired.add(output.column)
            return None
        if not self._count:
            return None
        place, row = output.parts[0], self._begin + self._count * self._size
        (flags,) = _WORD(self._blob, row + 8 * (self._layout.bits + place // FLAGS))
        if not flags >> place % FLAGS & 1:
            return None
        kind, begin = self._layout.kept[place], row + 8 * (self._layout.first_kept + place)
        (word,) = (_DOUBLE if kind == FLOAT else _WORD)(self._blob, begin)
        if kind == TEXT:
            return text_at(self._blob, self._shape.head_bytes, word)
        if kind == DATE:
            return date.fromordinal(word + EPOCH)
        return word != 0 if kind == BOOL else None if kind == NULL else word

    def within_reach(self, widest: int | None) -> int:
        """Visible events within reach of the widest window, or of the latest values if there is none."""
        plan, count = self._plan, self._count
        if widest is None:
            return int(count > 0 and (plan.unbounded or self._at - self._times[count] < plan.lookback_us))
        events = self._window(widest)[2][0]
        return max(events, int(count > 0)) if plan.unbounded else events
