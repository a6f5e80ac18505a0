"""NumPy kernels on sorted events: positions in two orders, exact prefix differences, extremes of ranges.

An event is visible at q when ``e < q`` and ``k < q``, that is when ``v < q`` with ``v = max(e, k)``; one that a
revision has replaced or deleted only up to its end, ``v < q <= until``. Kernels know only key numbers, e, v and until.
No loop runs per row; loops run over levels, classes or chunks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from copy import copy
from dataclasses import dataclass
from functools import cached_property
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrodict.core.native import in_threads, kernel
from retrodict.features.facts.columns import Ints, Mask
from retrodict.features.facts.ranges import RangeExtremes, identity_of
from retrodict.features.windows import EVER, LIFETIME, Window

__all__ = ["FOREVER", "OrderedTimeline", "PrefixSums", "Queries", "Timeline", "ragged"]

FOREVER = 1 << 62
"""Until when a fact that nothing has revised is in force."""

_CHUNK = 1 << 21
_LONG = 1 << 18  # events that are worth a second thread
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
    steady : bool
        Whether all events are equally late, so that both orders are one.
    """

    ordered = False
    """Whether the events lie in event order."""

    def __init__(self, codes: Ints, event_time: Ints, known_at: Ints, order: Ints, size: int) -> None:
        self.codes, self.event_time, self._size = codes, event_time, size
        if known_at is event_time:
            self.visible_at, self.lateness = event_time, np.broadcast_to(np.int64(0), len(codes))
        else:
            self.visible_at = np.maximum(event_time, known_at)
            self.lateness = self.visible_at - event_time
        self._set_axis(size)
        self.by_event, self.packed_event = self._total_order(known_at, order)
        self.steady = not len(codes) or bool((self.lateness == self.lateness[0]).all())
        if self.steady:
            self.by_visible, self.packed_visible = self.by_event, self._shifted(self.packed_event)
        else:
            self.by_visible, self.packed_visible = self._sorted(codes, self.visible_at)

    def _shifted(self, packed: Ints) -> Ints:
        """When events that are all equally late become visible: packed as the times at which they happened are."""
        late = int(self.lateness[0]) if len(packed) else 0
        if not late:
            return packed
        return packed + late if self._ranks is None else self._pack(self.codes, self.visible_at)[self.by_event]

    def in_order(self) -> OrderedTimeline:
        """Return the timeline of the same events once they lie in event order."""
        numbers = {"base": self._base, "span": self._span, "size": self._size, "late": None}
        arrays = {"packed_event": self.packed_event}
        if self._ranks is not None:
            arrays["ranks"] = self._ranks
        if self.steady:
            numbers["late"] = int(self.lateness[0]) if len(self.codes) else 0
        else:
            place = np.empty(len(self.by_event), dtype=np.int64)
            place[self.by_event] = np.arange(len(place))
            arrays["lateness"], arrays["by_visible"] = self.lateness[self.by_event], place[self.by_visible]
            arrays["packed_visible"] = self.packed_visible
        return OrderedTimeline(numbers, arrays)

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
            return codes * self._span + moments
        # Clip before subtracting: a query far outside the events must not wrap around.
        packed = np.clip(moments, self._base, self._base + self._span - 1)
        packed -= self._base
        packed += codes * self._span
        return packed

    def _total_order(self, known_at: Ints, rank: Ints) -> tuple[Ints, Ints]:
        order, placed = self._sorted(self.codes, self.event_time)
        tied = placed[1:] == placed[:-1]
        if tied.any():
            second, third = known_at[order], rank[order]
            wrong = tied & ((second[1:] < second[:-1]) | ((second[1:] == second[:-1]) & (third[1:] < third[:-1])))
            if wrong.any():
                order = np.lexsort((rank, known_at, self.event_time, self.codes))
        return order, placed

    def nearby(self, codes: Ints, moments: Ints) -> Ints:
        """Order in which requests touch neighbouring events: by key, then by time."""
        return self._sorted(codes, moments)[0]

    def _sorted(self, codes: Ints, moments: Ints) -> tuple[Ints, Ints]:
        """Places by key and moment, equal ones as they come; and the packed moments in that order."""
        if kernel is None:
            packed = self._pack(codes, moments)
            order = np.argsort(packed, kind="stable")
            return order, packed[order]
        if self._ranks is not None:
            moments = np.searchsorted(self._ranks, moments)
        placed, order = np.empty(len(codes), dtype=np.int64), np.empty(len(codes), dtype=np.int64)
        columns, axis = (
            (np.ascontiguousarray(codes), np.ascontiguousarray(moments)),
            (self._base, self._span, self._size),
        )
        half = self._size // 2 if len(codes) >= _LONG else 0

        def place(keys: tuple[int, int]) -> None:
            kernel.order(*columns, (*axis, *keys), placed, order)

        in_threads(place, *([(0, half), (half, self._size)] if half else [(0, self._size)]))
        return order, placed

    @cached_property
    def memory(self) -> dict[str, Any]:
        """What was worked out from these events and holds for whoever asks next."""
        return {}

    def with_ends(self, until: Ints, known_at: Ints, order: Ints) -> tuple[Timeline, Ints]:
        """Return the events, and after them one more for each that ends, seen from its end on; and which those are.

        What an event gives to a sum, its end takes away again: so sums over revised events are sums over events.
        """
        ended = np.flatnonzero(until < FOREVER)
        codes, event_time, order = (
            np.concatenate([column, column[ended]]) for column in (self.codes, self.event_time, order)
        )
        return Timeline(codes, event_time, np.concatenate([known_at, until[ended]]), order, self._size), ended

    def placed(self, values: NDArray[Any], places: Ints | None) -> NDArray[Any]:
        """Return what events give, at some places in event order; None: at all."""
        if self.ordered:
            return values if places is None else values[places]
        return values[self.by_event if places is None else self.by_event[places]]

    def before_event(self, codes: Ints, moments: Ints) -> Ints:
        """Events of lower keys, and of the same key that happened before the moment."""
        return _positions(self.packed_event, self._pack(codes, moments))

    def before_visible(self, codes: Ints, moments: Ints) -> Ints:
        """Events of lower keys, and of the same key that were visible before the moment."""
        return _positions(self.packed_visible, self._pack(codes, moments))

    @cached_property
    def classes(self) -> list[LatenessClass]:
        """Events in classes of similar lateness: within one, almost every event before q is clearly in or out."""
        if self.steady and len(self.packed_event):
            return [LatenessClass(None, None, int(self.lateness[0]), int(self.lateness[0]))]
        late = self.lateness[self.by_event]
        # Powers of sixteen by frexp: few classes, and doubt about an event lasts at most as long as it was late.
        size = (np.frexp(late.astype(np.float64))[1] + 3) // 4
        groups = []
        for exponent in np.unique(size):
            inside = size == exponent
            lates = late[inside]
            rank = np.concatenate([[0], np.cumsum(inside)])
            groups.append(LatenessClass(np.flatnonzero(inside), rank, int(lates.min()), int(lates.max())))
        return groups


class OrderedTimeline(Timeline):
    """Timeline of events that lie in event order: nearly all of it follows from their packed times, when asked for.

    Parameters
    ----------
    numbers : mapping of str to int
        How keys and times are packed; ``late`` is how late all events are, None where they differ.
    arrays : mapping of str to array
        Packed times, and what does not follow from them; read when first asked for.
    """

    ordered = True

    def __init__(self, numbers: Mapping[str, int | None], arrays: Mapping[str, Ints]) -> None:
        self.numbers, self.arrays = numbers, arrays
        self._base, self._span, self._size = (int(numbers[name] or 0) for name in ("base", "span", "size"))
        self.steady = numbers["late"] is not None
        self._ranks = arrays.get("ranks")

    def __getattr__(self, name: str) -> Any:
        # Python asks here for what is not there yet.
        if name not in _DERIVED:
            raise AttributeError(name)
        value = self.__dict__[name] = self.arrays[name] if name in self.arrays else _DERIVED[name](self)
        return value

    def moments_of(self, events: Ints) -> Ints:
        """When some of the events happened."""
        moments = self.packed_event[events] % self._span
        return moments + self._base if self._ranks is None else self._ranks[moments]

    def holds(self, events: Ints, codes: Ints) -> Mask:
        """Whether events, none of a higher key than the one of its place in ``codes``, are of that key."""
        same_key: Mask = self.packed_event[events] >= codes * self._span
        return same_key

    @cached_property
    def newest_places(self) -> Ints | None:
        """Per place in visible order the greatest place in event order so far; None where both orders are one."""
        # Places grow with the key, so the running maximum needs no restart at each key.
        return None if self.steady else np.maximum.accumulate(self.by_visible)

    def _keys(self) -> Ints:
        starts = _positions(self.packed_event, np.arange(self._size + 1) * self._span)
        return np.repeat(np.arange(self._size), np.diff(starts))

    def _times(self) -> Ints:
        moments = self.packed_event - self.codes * self._span
        return moments + self._base if self._ranks is None else self._ranks[moments]


_DERIVED: dict[str, Callable[[Any], Any]] = {
    "packed_event": lambda line: line.arrays["packed_event"],
    "by_event": lambda line: np.arange(len(line.packed_event)),
    "codes": lambda line: line._keys(),  # noqa: SLF001 - its own class
    "event_time": lambda line: line._times(),  # noqa: SLF001 - its own class
    "lateness": lambda line: np.broadcast_to(np.int64(line.numbers["late"]), len(line.packed_event)),
    "visible_at": lambda line: line.event_time + line.lateness if line.numbers["late"] != 0 else line.event_time,
    "by_visible": lambda line: line.by_event,
    "packed_visible": lambda line: line._shifted(line.packed_event),  # noqa: SLF001 - its own class
}


def _positions(line: Ints, values: Ints) -> Ints:
    """Places in a sorted line before which everything is less; quick where neighbours want neighbouring places."""
    if kernel is None or not (line.flags.c_contiguous and line.flags.aligned):
        return np.searchsorted(line, values)
    places = np.empty(len(values), dtype=np.int64)
    kernel.positions(line, values, places)
    return places


@dataclass(frozen=True)
class LatenessClass:
    """Events whose lateness lies in ``[low, high]``: their places in event order, and ranks of places among them.

    Without ``places`` and ``rank``: all events, whose places are their ranks.
    """

    places: Ints | None
    rank: Ints | None
    low: int
    high: int

    def ranked(self, places: Ints) -> Ints:
        """How many of the class lie before each place."""
        return places if self.rank is None else self.rank[places]


class Queries:
    """Requests sorted by (key, time): neighbouring searches then touch neighbouring memory.

    Parameters
    ----------
    timeline : Timeline
        The events.
    codes, moments : int64 array
        Key number (negative: no events) and time of each request.
    until : int64 array, optional
        Until when each event is in force. None: for ever.
    """

    def __init__(self, timeline: Timeline, codes: Ints, moments: Ints, until: Ints | None = None) -> None:
        self.timeline, self.until = timeline, until
        keyed = np.flatnonzero(codes >= 0)
        self.rows = keyed[timeline.nearby(codes[keyed], moments[keyed])]
        self.codes, self.moments = codes[self.rows], moments[self.rows]
        self.total = len(codes)
        self._starts: dict[Window, Ints] = {}

    def of(self, timeline: Timeline) -> Queries:
        """Return the same requests, in the same order, of other events of the same keys that never end."""
        other = copy(self)
        for name in ("seen", "classes"):
            other.__dict__.pop(name, None)
        other.timeline, other.until, other._starts = timeline, None, {}  # noqa: SLF001 - its own class
        return other

    @cached_property
    def seen(self) -> Ints:
        """Position after the last visible event, in visible order."""
        return self.timeline.before_visible(self.codes, self.moments)

    def newest(self) -> Ints:
        """Event that is greatest in the total order among the visible ones, -1 if there is none."""
        line = self.timeline
        newest = np.full(len(self.rows), -1, dtype=np.int64)
        if self.until is not None:
            for queries, events, sizes in self.inside(Window(LIFETIME), None, count=1):
                filled = np.flatnonzero(sizes)
                newest[queries[filled]] = events[np.cumsum(sizes)[filled] - 1]
            return newest
        assert isinstance(line, OrderedTimeline)
        rows = np.flatnonzero(self.seen > 0)
        place = self.seen[rows] - 1
        event = place if line.newest_places is None else line.newest_places[place]
        same_key = line.holds(event, self.codes[rows])
        newest[rows[same_key]] = event[same_key]
        return newest

    @cached_property
    def classes(self) -> list[tuple[LatenessClass, Ints, Ints]]:
        """Per class of lateness: ranks below which every event is visible, and below which one can be."""
        line, bounds = self.timeline, []
        if line.steady:
            return [(group, self.seen, self.seen) for group in line.classes]
        for group in line.classes:
            sure = group.ranked(line.before_event(self.codes, self.moments - group.high))
            alike = group.low == group.high
            maybe = sure if alike else group.ranked(line.before_event(self.codes, self.moments - group.low))
            bounds.append((group, sure, maybe))
        return bounds

    def starts(self, window: Window) -> Ints:
        """Position, in event order, of the first event at or after the window's start."""
        if window not in self._starts:
            edge = np.full_like(self.moments, EVER) if window.lifetime else window.start(self.moments)
            self._starts[window] = self.timeline.before_event(self.codes, edge)
        return self._starts[window]

    def ends(self, window: Window, lateness: int = 0) -> Ints:
        """Position, in event order, after the last event before the window's end that can be so late and visible."""
        edge = np.minimum(window.end(self.moments), self.moments - lateness)
        return self.timeline.before_event(self.codes, edge)

    def extremes(
        self, values: NDArray[Any], window: Window, *, largest: bool, ranges: dict[int, RangeExtremes]
    ) -> NDArray[Any]:
        """Smallest or largest value over the visible events of a window, per request; the identity if there is none.

        ``values`` holds the identity where an event gives nothing. Nothing is subtracted: ranges of the events in
        order, per class of lateness, with a look at single events only where visibility is in doubt. Of revised
        sources events that end are looked at one by one. What is worked out of the values alone is put into ``ranges``.
        """
        merge = np.maximum if largest else np.minimum
        nothing = identity_of(values.dtype, largest=largest)
        if self.until is not None:
            passing = self.until < FOREVER
            best = self._extremes_of_few(values, window, passing, merge)
            values = np.where(passing, nothing, values)
        else:
            best = np.full(len(self.rows), nothing, dtype=values.dtype)
        left = self.starts(window)
        right = None if window.offset is None else self.ends(window)
        for number, (group, sure, maybe) in enumerate(self.classes):
            begin = group.ranked(left)
            if number not in ranges:
                ranges[number] = RangeExtremes(self.timeline.placed(values, group.places), largest=largest)
            if right is not None:
                sure, maybe = (np.minimum(bound, group.ranked(right)) for bound in (sure, maybe))  # noqa: PLW2901 - narrowed
            merge(best, ranges[number].over(begin, sure), out=best)
            for queries, places, begins in ragged(np.maximum(sure, begin), maybe):
                event = self.timeline.by_event[places if group.places is None else group.places[places]]
                visible = np.where(self._visible(event, queries, begins), values[event], nothing)
                best[queries] = merge(best[queries], merge.reduceat(visible, begins))
        return best

    def _extremes_of_few(self, values: NDArray[Any], window: Window, among: Mask, merge: np.ufunc) -> NDArray[Any]:
        best = np.full(len(self.rows), identity_of(values.dtype, largest=merge is np.maximum), dtype=values.dtype)
        for queries, events, sizes in self.inside(window, among):
            filled = np.flatnonzero(sizes)
            if len(filled):
                best[queries[filled]] = merge.reduceat(values[events], (np.cumsum(sizes) - sizes)[filled])
        return best

    def inside(
        self, window: Window, among: Mask | None, *, count: int = 0, newest: bool = True
    ) -> Iterator[tuple[Ints, Ints, Ints]]:
        """Visible events of a window, chunk by chunk: (requests, their events one after the other, how many each has).

        Requests without any may be left out. Every request comes once.

        Parameters
        ----------
        window : Window
            The window.
        among : bool array, optional
            Events that are looked for. None: all.
        count : int, default 0
            Stop looking once a request has so many, at least; 0: all of the window.
        newest : bool, default True
            With ``count``: from which end of the window to look.
        """
        line = self.timeline
        events, left = line.by_event, self.starts(window)
        right = self.ends(window, int(line.lateness.min(initial=_ROOM)) if len(events) else 0)
        if among is not None:
            eligible = among[line.by_event]
            rank = np.concatenate([[0], np.cumsum(eligible)])
            events, left, right = line.by_event[eligible], rank[left], rank[right]
        todo = np.flatnonzero(right > left)
        step = 2 * count
        while len(todo):
            begin, end = left[todo], right[todo]
            if count and newest:
                begin = np.maximum(begin, end - step)
            elif count:
                end = np.minimum(end, begin + step)
            entire = (begin == left[todo]) & (end == right[todo])
            again = []
            for places, chunk, sizes in self._look(todo, events, begin, end):
                done = entire[places] | (sizes >= count) if count else np.ones(len(places), dtype=np.bool_)
                if done.all():
                    yield todo[places], chunk, sizes
                    continue
                yield todo[places[done]], chunk[np.repeat(done, sizes)], sizes[done]
                again.append(todo[places[~done]])
            todo = np.concatenate(again) if again else todo[:0]
            step *= 8

    def _look(self, queries: Ints, events: Ints, left: Ints, right: Ints) -> Iterator[tuple[Ints, Ints, Ints]]:
        """Visible ones of ranges of events: (ranges, events, how many of each range)."""
        for places, positions, begins in ragged(left, right):
            chunk, sizes = events[positions], np.diff(np.append(begins, len(positions)))
            if self.until is not None or not self.timeline.steady:
                visible = self._visible(chunk, queries[places], begins)
                chunk, sizes = chunk[visible], np.add.reduceat(visible, begins, dtype=np.int64)
            yield places, chunk, sizes

    def _visible(self, event: Ints, queries: Ints, begins: Ints) -> Mask:
        moments = np.repeat(self.moments[queries], np.diff(np.append(begins, len(event))))
        seen: Mask = self.timeline.visible_at[event] < moments
        return seen if self.until is None else seen & (moments <= self.until[event])


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
        # The events themselves come with every question: what they remember must not hold them.
        self._given, self._columns = values, values.shape[1]
        self._latest = int(timeline.lateness.max(initial=0))
        self._known: dict[tuple[bool, int, int], Ints] = {}
        self._lock = Lock()

    @classmethod
    def of(cls, timeline: Timeline, before: Ints, seen: Ints) -> PrefixSums:
        """Return the sums whose ``all`` is given in event and in visible order; the events lie in event order."""
        sums = cls(timeline, before[:0])
        sums._known = {(True, 0, sums._latest + 1): before, (False, 0, sums._latest + 1): seen}
        return sums

    def all(self, timeline: Timeline, *, by_event: bool) -> Ints:
        """Prefix sums of all events, in event or in visible order."""
        return self._prefix(timeline, 0, self._latest + 1, by_event=by_event)

    @cached_property
    def _values(self) -> Ints:
        if len(self._given) or (True, 0, self._latest + 1) not in self._known:
            return self._given
        return np.diff(self._known[True, 0, self._latest + 1], axis=0)

    def over(self, queries: Queries, window: Window) -> Ints:
        """Sums over the visible events of a window, per request.

        Let ``P_e(t)`` and ``P_v(t)`` be the sums over the events before t in event and in visible order, and
        ``late = v - e``. Of the events before a moment t in the past of q those with ``late <= q - t`` are all
        visible at q: ``P_e(t)``. Those with ``late > q - t`` that are visible at q are all before t: ``P_v(q)``. So a
        window is

        * of events with ``late <= offset``: ``P_e(end) - P_e(start)``,
        * of those with ``offset < late <= offset + length``: ``P_v(q) - P_e(start)``,
        * of even later ones: nothing.

        With a hop the distance of an edge to q varies by up to one hop, and events whose lateness lies in that range
        are looked at one by one.
        """
        length = self._latest if window.lifetime else window.length_us
        hop, offset = window.hop_us, window.offset_us
        left = queries.starts(window)
        late = queries.timeline.lateness
        if window.units is not None and queries.timeline.steady and len(late):
            # All equally late: what is visible is what happened so long before the decision, and no edge is in doubt.
            ends = np.maximum(queries.ends(window, int(late[0])), left)
            return self._difference((0, self._latest + 1), queries, ends, left)
        if window.offset is None:
            right = None
            far, doubts = (0, length + 1), [(length + 1, length + hop)]
        else:
            right = queries.ends(window)
            far = (offset + max(hop, 1), offset + length + 1)
            doubts = [(offset + 1, offset + hop), (offset + length + 1, offset + length + hop)]
        total = self._difference(far, queries, None, left)
        if right is not None:
            total += self._difference((0, offset + 1), queries, right, left)
        odd = np.logical_or.reduce([(late >= low) & (late < high) for low, high in doubts if low < high], axis=0)
        if np.any(odd):
            right = queries.ends(window, length) if right is None else right
            self._add_odd(total, queries, odd, left, right)
        return total

    def _difference(self, lateness: tuple[int, int], queries: Queries, right: Ints | None, left: Ints) -> Ints:
        """Sums between two positions in event order (None: from all that is visible) of events so late."""
        low, high = (min(bound, self._latest + 1) for bound in lateness)
        if low >= high:
            return np.zeros((len(left), self._columns), dtype=np.int64)
        before = self._prefix(queries.timeline, low, high, by_event=True)
        if right is None:
            total = np.take(self._prefix(queries.timeline, low, high, by_event=False), queries.seen, axis=0)
        else:
            total = np.take(before, right, axis=0)
        total -= np.take(before, left, axis=0)
        return total

    def _prefix(self, line: Timeline, low: int, high: int, *, by_event: bool) -> Ints:
        """Prefix sums in event or in visible order of the events with ``low <= v - e < high``."""
        name = (by_event or line.steady, low, high)
        with self._lock:
            if name not in self._known:
                values = self._values
                if low > 0 or high <= self._latest:
                    values = np.where(((line.lateness < low) | (line.lateness >= high))[:, None], 0, values)
                order = line.by_event if name[0] else line.by_visible
                self._known[name] = _prefix(values, None if order is line.by_event and line.ordered else order)
            return self._known[name]

    def _add_odd(self, total: Ints, queries: Queries, odd: Mask, left: Ints, right: Ints) -> None:
        line = queries.timeline
        inside = odd[line.by_event]
        events = line.by_event[inside]
        rank = np.concatenate([[0], np.cumsum(inside)])
        for rows, places, begins in ragged(rank[left], rank[right], _CHUNK // max(total.shape[1], 1)):
            event = events[places]
            visible = np.where(queries._visible(event, rows, begins)[:, None], self._values[event], 0)  # noqa: SLF001 - one kernel in two classes
            total[rows] += np.add.reduceat(visible, begins, axis=0)


def _prefix(values: Ints, order: Ints | None) -> Ints:
    sums = np.zeros((len(values) + 1, values.shape[1]), dtype=np.int64)
    np.cumsum(values if order is None else values[order], axis=0, out=sums[1:])
    return sums


def ragged(left: Ints, right: Ints, chunk: int = _CHUNK) -> Iterator[tuple[Ints, Ints, Ints]]:
    """Places of many ranges in a row, chunk by chunk: (ranges that hold any, all their places, where each begins)."""
    filled = np.flatnonzero(right > left)
    sizes = (right - left)[filled]
    ends = np.cumsum(sizes)
    first = 0
    while first < len(filled):
        done = int(ends[first - 1]) if first else 0
        last = max(int(np.searchsorted(ends, done + chunk)), first + 1)
        size = sizes[first:last]
        begins = np.cumsum(size) - size
        places = np.arange(int(size.sum())) + np.repeat(left[filled[first:last]] - begins, size)
        yield filled[first:last], places, begins
        first = last
