"""NumPy kernels on sorted events: positions in two orders, exact prefix differences, extremes of ranges.

An event is visible at q when ``e < q`` and ``k < q``, that is when ``v < q`` with ``v = max(e, k)``. Kernels know only
key numbers, e and v. No loop runs per row; loops run over levels, classes or chunks.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrodict.features.columns import Ints, Mask

__all__ = ["PrefixSums", "Queries", "Timeline", "extreme_of_ranges", "identity_of", "ragged"]

_CHUNK = 1 << 21
_ROOM = 1 << 62


class Timeline:
    """Events of one key space, in the order they happened and in the order they became visible.

    Parameters
    ----------
    codes : int64 array
        Key number of each event, 0 or more.
    event_time, known_at : int64 array
        Microseconds.
    order : int64 array
        Rank of the sequence ids: the last tie breaker.
    size : int
        Number of keys.

    Attributes
    ----------
    by_event : int64 array
        Events sorted by (key, event time, known at, sequence): the total order.
    by_visible : int64 array
        Events sorted by (key, v).
    lateness : int64 array
        ``v - e`` of each event.
    """

    def __init__(self, codes: Ints, event_time: Ints, known_at: Ints, order: Ints, size: int) -> None:
        self.codes, self.event_time, self._known_at, self._order = codes, event_time, known_at, order
        self.visible_at = np.maximum(event_time, known_at)
        self.lateness = self.visible_at - event_time
        self._set_axis(size)
        packed = self._pack(codes, event_time)
        self.by_event = self._total_order(packed)
        self.packed_event = packed[self.by_event]
        visible = self._pack(codes, self.visible_at)
        steady = not len(codes) or bool((self.lateness == self.lateness[0]).all())
        self.by_visible = self.by_event if steady else np.argsort(visible, kind="stable")
        self.packed_visible = visible[self.by_visible]

    def _set_axis(self, size: int) -> None:
        """Choose how (key, time) becomes one sortable integer: by arithmetic if it fits, else by ranks of times."""
        self._ranks: Ints | None = None
        low = int(self.event_time.min(initial=_ROOM))
        high = int(self.visible_at.max(initial=low))
        self._base, self._span = low, high - low + 2
        if self._span * (size + 1) >= _ROOM:
            self._ranks = np.unique(np.concatenate([self.event_time, self.visible_at]))
            self._base, self._span = 0, len(self._ranks) + 2

    def _pack(self, codes: Ints, moments: Ints) -> Ints:
        if self._ranks is not None:
            moments = np.searchsorted(self._ranks, moments)
        else:
            # Clip before subtracting: a query far outside the events must not wrap around.
            moments = np.clip(moments, self._base, self._base + self._span - 1)
        return codes * self._span + (moments - self._base)

    def _total_order(self, packed: Ints) -> Ints:
        order = np.argsort(packed, kind="stable")
        placed = packed[order]
        tied = placed[1:] == placed[:-1]
        if not tied.any():
            return order
        known, rank = self._known_at[order], self._order[order]
        wrong = tied & ((known[1:] < known[:-1]) | ((known[1:] == known[:-1]) & (rank[1:] < rank[:-1])))
        return np.lexsort((self._order, self._known_at, packed)) if wrong.any() else order

    def before_event(self, codes: Ints, moments: Ints) -> Ints:
        """Events of lower keys, and of the same key that happened before the moment."""
        return np.searchsorted(self.packed_event, self._pack(codes, moments))

    def before_visible(self, codes: Ints, moments: Ints) -> Ints:
        """Events of lower keys, and of the same key that were visible before the moment."""
        return np.searchsorted(self.packed_visible, self._pack(codes, moments))

    @cached_property
    def classes(self) -> list[LatenessClass]:
        """Events in classes of similar lateness: within one, almost every event before q is clearly in or out."""
        late = self.lateness[self.by_event]
        # Powers of sixteen by frexp: few classes, and doubt about an event lasts at most as long as it was late.
        size = (np.frexp(late.astype(np.float64))[1] + 3) // 4
        found = []
        for exponent in np.unique(size):
            inside = size == exponent
            chosen = late[inside]
            rank = np.concatenate([[0], np.cumsum(inside)])
            found.append(LatenessClass(np.flatnonzero(inside), rank, int(chosen.min()), int(chosen.max())))
        return found


@dataclass(frozen=True)
class LatenessClass:
    """Events whose lateness lies in ``[least, most]``: their places in event order, and ranks of places among them."""

    places: Ints
    rank: Ints
    least: int
    most: int


class Queries:
    """Requests sorted by (key, time): neighbouring searches then touch neighbouring memory.

    Parameters
    ----------
    timeline : Timeline
        The events.
    codes, moments : int64 array
        Key number (negative: no events) and time of each request.
    """

    def __init__(self, timeline: Timeline, codes: Ints, moments: Ints) -> None:
        self.timeline = timeline
        known = np.flatnonzero(codes >= 0)
        self.rows = known[np.lexsort((moments[known], codes[known]))]
        self.codes, self.moments = codes[self.rows], moments[self.rows]
        self.total = len(codes)

    @cached_property
    def seen(self) -> Ints:
        """Position after the last visible event, in visible order."""
        return self.timeline.before_visible(self.codes, self.moments)

    def newest(self) -> Ints:
        """Event that is greatest in the total order among the visible ones, -1 if there is none."""
        line = self.timeline
        place = np.empty(len(line.by_event), dtype=np.int64)
        place[line.by_event] = np.arange(len(place))
        # Places grow with the key, so the running maximum needs no restart at each key.
        running = np.maximum.accumulate(place[line.by_visible]) if len(place) else place
        found = np.full(len(self.rows), -1, dtype=np.int64)
        some = np.flatnonzero(self.seen > 0)
        event = line.by_event[running[self.seen[some] - 1]]
        own = line.codes[event] == self.codes[some]
        found[some[own]] = event[own]
        return found

    @cached_property
    def classes(self) -> list[tuple[LatenessClass, Ints, Ints]]:
        """Per class of lateness: ranks below which every event is visible, and below which one can be."""
        line, found = self.timeline, []
        for group in line.classes:
            sure = group.rank[line.before_event(self.codes, self.moments - group.most)]
            alike = group.least == group.most
            maybe = sure if alike else group.rank[line.before_event(self.codes, self.moments - group.least)]
            found.append((group, sure, maybe))
        return found

    def starts(self, length: int, hop: int) -> Ints:
        """Position, in event order, of the first event at or after the window's start."""
        start = self.moments - length
        return self.timeline.before_event(self.codes, start // hop * hop if hop else start)

    def extremes(self, values: NDArray[Any], length: int, hop: int, *, largest: bool) -> NDArray[Any]:
        """Smallest or largest value over the visible events of a window, per request; the identity if there is none.

        ``values`` holds the identity where an event gives nothing. Nothing is subtracted: ranges of the events in
        order, per class of lateness, with a look at single events only where visibility is in doubt.
        """
        merge = np.maximum if largest else np.minimum
        nothing = identity_of(values.dtype, largest=largest)
        left = self.starts(length, hop)
        best = np.full(len(self.rows), nothing, dtype=values.dtype)
        for group, sure, maybe in self.classes:
            events = self.timeline.by_event[group.places]
            begin = group.rank[left]
            merge(best, extreme_of_ranges(values[events], begin, sure, largest=largest), out=best)
            for queries, places, begins in ragged(np.maximum(sure, begin), maybe):
                event = events[places]
                shown = np.where(self._visible(event, queries, begins), values[event], nothing)
                best[queries] = merge(best[queries], merge.reduceat(shown, begins))
        return best

    def _visible(self, event: Ints, queries: Ints, begins: Ints) -> Mask:
        moments = np.repeat(self.moments[queries], np.diff(np.append(begins, len(event))))
        seen: Mask = self.timeline.visible_at[event] < moments
        return seen


class PrefixSums:
    """Exact sums of int64 columns over windows of two clocks.

    Parameters
    ----------
    timeline : Timeline
        The events.
    values : int64 array, shape (events, columns)
        What each event gives; counts, whole numbers or limbs of exact sums.
    """

    def __init__(self, timeline: Timeline, values: Ints) -> None:
        self._line, self._values = timeline, values
        self._most = int(timeline.lateness.max(initial=0))
        self._known: dict[int, tuple[Ints, Ints]] = {}

    def over(self, queries: Queries, length: int, hop: int) -> Ints:
        """Sums over the visible events of a window, per request.

        With ``value = P_v(q) - P_e(start)`` an event before ``start`` must have been visible before q, or it would be
        subtracted without having been added. That holds when ``v - e < length``, and no other event can be visible
        inside an exact window. With a hop the window reaches up to one hop further back, so events with
        ``length <= v - e < length + hop`` can be inside: those are looked at one by one.
        """
        seen, before = self._prefixes(length)
        left = queries.starts(length, hop)
        total = np.take(seen, queries.seen, axis=0)
        total -= np.take(before, left, axis=0)
        odd = (self._line.lateness >= length) & (self._line.lateness < length + hop)
        if odd.any():
            self._add_odd(total, queries, odd, left, length)
        return total

    def _prefixes(self, length: int) -> tuple[Ints, Ints]:
        """Prefix sums in visible and in event order of the events with ``v - e < length``."""
        limit = min(length, self._most + 1)
        if limit not in self._known:
            line, values = self._line, self._values
            if limit <= self._most:
                values = np.where((line.lateness >= limit)[:, None], 0, values)
            seen = _prefix(values, line.by_visible)
            alike = line.by_event is line.by_visible
            self._known[limit] = (seen, seen if alike else _prefix(values, line.by_event))
        return self._known[limit]

    def _add_odd(self, total: Ints, queries: Queries, odd: Mask, left: Ints, length: int) -> None:
        line = self._line
        inside = odd[line.by_event]
        events = line.by_event[inside]
        rank = np.concatenate([[0], np.cumsum(inside)])
        right = line.before_event(queries.codes, queries.moments - length)
        for rows, places, begins in ragged(rank[left], rank[right]):
            event = events[places]
            shown = np.where(queries._visible(event, rows, begins)[:, None], self._values[event], 0)  # noqa: SLF001 - one kernel in two classes
            total[rows] += np.add.reduceat(shown, begins, axis=0)


def identity_of(dtype: np.dtype[Any], *, largest: bool) -> Any:
    """Neutral element of max (largest) or min for a type."""
    if dtype.kind == "f":
        return -np.inf if largest else np.inf
    return np.iinfo(np.int64).min if largest else np.iinfo(np.int64).max


def _prefix(values: Ints, order: Ints) -> Ints:
    sums = np.zeros((len(values) + 1, values.shape[1]), dtype=np.int64)
    np.cumsum(values[order], axis=0, out=sums[1:])
    return sums


def ragged(left: Ints, right: Ints) -> Iterator[tuple[Ints, Ints, Ints]]:
    """Places of many ranges in a row, chunk by chunk: (ranges that hold any, all their places, where each begins)."""
    some = np.flatnonzero(right > left)
    sizes = (right - left)[some]
    ends = np.cumsum(sizes)
    first = 0
    while first < len(some):
        done = int(ends[first - 1]) if first else 0
        last = max(int(np.searchsorted(ends, done + _CHUNK)), first + 1)
        size = sizes[first:last]
        begins = np.cumsum(size) - size
        places = np.arange(int(size.sum())) + np.repeat(left[some[first:last]] - begins, size)
        yield some[first:last], places, begins
        first = last


def extreme_of_ranges(values: NDArray[Any], left: Ints, right: Ints, *, largest: bool) -> NDArray[Any]:
    """Smallest or largest value of each range [left, right), the identity for an empty one.

    A sparse table (Bender and Farach-Colton, "The LCA Problem Revisited") whose levels live one after the other: level
    j holds the extreme of every run of 2**j values, and ranges of that size take two overlapping runs from it.
    """
    merge = np.maximum if largest else np.minimum
    best = np.full(len(left), identity_of(values.dtype, largest=largest), dtype=values.dtype)
    sizes = np.maximum(right - left, 0)
    level_of = np.frexp(sizes.astype(np.float64))[1] - 1
    current = values
    for level in range(int(level_of.max(initial=-1)) + 1):
        if level:
            half = 1 << (level - 1)
            current = merge(current[:-half], current[half:])
        chosen = np.flatnonzero(level_of == level)
        if len(chosen):
            best[chosen] = merge(current[left[chosen]], current[right[chosen] - (1 << level)])
    return best
