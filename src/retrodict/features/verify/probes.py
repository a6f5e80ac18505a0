"""Which requests a verification asks: some as they come, and as many at moments when something enters or leaves.

Random times almost never hit an edge, and the edges are where engines differ. So every sort of edge has its turn, half
of the time exactly and half of the time one microsecond beside. What is asked is bounded, too: only a few keys are
looked at, and of those the events alone, so that the naive oracle is done in seconds whatever the size of the table.
Drawing events first and asking for their keys was rejected: nothing but the busiest keys would ever be looked at.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from retrodict.core.durations import DAY, HOUR, MINUTE
from retrodict.features.facts.columns import Ints, pick, pick_times, spine_times, times
from retrodict.features.facts.events import FOREVER, in_force, read_events
from retrodict.features.facts.keys import KeyIndex, check_kinds, key_array, key_columns, key_kind
from retrodict.features.plan import FeatureSet, ViewPlan

__all__ = ["Nearby", "Probes", "draw_probes"]

_BUSY = 32  # keys of each source besides those of the spine
_MOST_EVENTS = 1_000_000
_MOST_VISITS = 10_000_000  # of an event for a feature: ten seconds or so
_LOADING = 8  # an event is loaded in the time that so many features take to look at it
_PRESENT = "present of online state"
_BESIDE = np.array([0, 1, 0, -1])

Edge = tuple[str, Ints, Ints]  # its sort, events it is an edge of, and when


@dataclass(frozen=True)
class Probes:
    """Requests to ask.

    Attributes
    ----------
    requests : pyarrow.Table
        Rows like those of the spine, the time in whole microseconds.
    boundaries : dict of str to int
        How many of them stand on an edge, by its sort, or in the present of online state.
    left_out : int
        Requests that were drawn and not kept: their keys have too many events for the oracle.
    """

    requests: pa.Table
    boundaries: dict[str, int]
    left_out: int


def draw_probes(
    features: FeatureSet,
    tables: Mapping[str, pa.Table],
    spine: pa.Table,
    at: str,
    *,
    samples: int,
    seed: int,
    present: tuple[int, int] | None = None,
) -> Probes:
    """Draw ``samples`` rows of a spine, as many requests on edges per view, and as many in the present of online state.

    ``present`` is the first and the last time at which online state answers, in microseconds; None asks nothing there
    for its sake. Requests on edges take the other columns of the spine, which has at least one row.
    """
    random = np.random.default_rng(seed)
    drawn = _plain(spine.take(pa.array(random.integers(0, spine.num_rows, samples))), at, features.request_keys)
    pool = pa.concat_tables([drawn, *(_busy(p, tables[p.source.name], drawn, random) for p in features.views)])
    events = {plan.name: _Known(plan, tables[plan.source.name], pool) for plan in features.views}
    masks = [np.ones(pool.num_rows, np.bool_), *(view_events.cheap for view_events in events.values())]
    cheap = np.logical_and.reduce(masks, axis=0)
    first = np.flatnonzero(cheap[:samples])
    draws = [(first, spine_times(drawn, at)[first], [""] * len(first))]
    draws += [view_events.edges(random, np.flatnonzero(cheap), samples) for view_events in events.values()]
    if present is not None:
        rows = random.choice(np.flatnonzero(cheap), samples if cheap.any() else 0)
        draws.append((rows, random.integers(present[0], present[1], len(rows), endpoint=True), [_PRESENT] * len(rows)))
    rows, moments = (np.concatenate([draw[place] for draw in draws]) for place in (0, 1))
    sorts = [sort for draw in draws for sort in draw[2]]
    order = random.permutation(len(sorts))
    affordable = np.sort(order[np.cumsum(_visits(events, rows, moments)[order]) <= _MOST_VISITS])
    hit = [sorts[i] for i in affordable.tolist()]
    left_out = samples - len(first) + len(sorts) - len(affordable)
    boundaries = {sort: hit.count(sort) for sort in dict.fromkeys(sorts) if sort}
    return Probes(_at(pool.take(pa.array(rows[affordable])), at, moments[affordable]), boundaries, left_out)


def _events_of(plan: ViewPlan, table: pa.Table, requests: pa.Table) -> Ints:
    """Positions of the events of the keys of some requests; of composite keys some others may be among them."""
    where = f"{plan.where}, source {plan.source.name!r}"
    matches = np.ones(table.num_rows, dtype=np.bool_)
    for key, request_key in zip(plan.keys, plan.request_keys, strict=True):
        requested = pick(requests, request_key, where="spine")
        column = pick(table, key, where=where)
        check_kinds(key_kind(column, where=where), requested, where=f"spine, column {request_key!r}")
        keys = pc.drop_null(pc.unique(key_array(requested, where="spine")))
        is_in = pc.is_in(key_array(column, where=where), value_set=keys) if len(keys) else None
        matches &= False if is_in is None else np.asarray(is_in.to_numpy(zero_copy_only=False))
    return np.flatnonzero(matches)


def _plain(rows: pa.Table, at: str, keys: Sequence[str]) -> pa.Table:
    """Edges need whole microseconds and keys of other rows, whatever unit or width the spine's columns have."""
    column = pick(rows, at, where="spine")
    if pa.types.is_timestamp(column.type):
        micros = column.cast(pa.timestamp("us", column.type.tz), safe=False)
        rows = rows.set_column(rows.column_names.index(at), at, micros)
    for key in keys:
        column = pick(rows, key, where="spine")
        if key_kind(column, where=f"spine, column {key!r}") in {"text", "whole number"}:
            rows = rows.set_column(rows.column_names.index(key), key, key_array(column, where="spine"))
    return rows


def _at(rows: pa.Table, at: str, moments: Ints) -> pa.Table:
    place = rows.column_names.index(at)
    return rows.set_column(place, rows.schema.field(at), pa.array(moments).cast(rows.schema.field(at).type))


def _busy(plan: ViewPlan, table: pa.Table, drawn: pa.Table, random: np.random.Generator) -> pa.Table:
    """Rows of the spine moved to keys that have events, the busiest ones among them."""
    if not table.num_rows:
        return drawn.slice(0, 0)
    rows = drawn.take(pa.array(random.integers(0, drawn.num_rows, _BUSY)))
    positions = pa.array(random.integers(0, table.num_rows, _BUSY))
    for key, request_key in zip(plan.keys, plan.request_keys, strict=True):
        column = pick(table.select([key]).take(positions), key, where=plan.where)
        field = rows.schema.field(request_key)
        requested = pick(rows, request_key, where="spine")
        check_kinds(key_kind(column, where=plan.where), requested, where=f"spine, column {request_key!r}")
        if not pa.types.is_null(field.type):
            values = key_array(column, where=plan.where).cast(field.type)
            rows = rows.set_column(rows.column_names.index(request_key), field, values)
    return rows


def _visits(views: Mapping[str, _Known], rows: Ints, moments: Ints) -> Ints:
    """How often the oracle looks at an event, for each request: once for every feature of a view."""
    visits = np.zeros(len(rows), dtype=np.int64)
    for i, (row, moment) in enumerate(zip(rows.tolist(), moments.tolist(), strict=True)):
        visits[i] = sum((_LOADING + view.outputs) * len(view.rows(row, moment)) for view in views.values())
    return visits


class Nearby:
    """Events of the keys of some requests, and which of them a request needs.

    A request needs those it can see by the definition, and some that it should not: all of its key; where no feature
    looks back for ever, those as far back as the longest window and an eighth more, and of a minute on both sides.

    Attributes
    ----------
    positions : int64 array
        Their rows in the source.
    events : pyarrow.Table
        What the view reads of them.
    codes, asked : int64 array
        Number of the key of each event and of each request, negative where there is none.
    """

    def __init__(self, plan: ViewPlan, table: pa.Table, requests: pa.Table) -> None:
        where = f"{plan.where}, source {plan.source.name!r}"
        self.positions = _events_of(plan, table, requests)
        self.events = table.select(list(plan.source_columns)).take(pa.array(self.positions))
        index = KeyIndex(key_columns(self.events, plan.keys, where=where), where=where)
        keys = key_columns(requests, plan.request_keys, where="spine")
        self.codes, self.asked = index.codes, index.locate(keys, names=plan.request_keys)
        clock = plan.source.event_time or plan.source.known_at
        # A revision may move its event, so all of them are needed.
        self._bounded = not (plan.unbounded or plan.lifetime or plan.source.revised or clock is None)
        ages = [output.max_age for output in plan.outputs if output.max_age is not None]
        reach = max([window.reach_us for window in plan.windows] + ages, default=0)
        self._span = reach + reach // 8 + MINUTE
        if self._bounded:
            self._time, self._present = pick_times(self.events, clock or "", where=where)

    def rows(self, request: int, moment: int) -> Ints:
        """Events that a request needs at a time, in the order of the source."""
        if self.asked[request] < 0:
            return np.zeros(0, dtype=np.int64)
        needed = self.codes == self.asked[request]
        if self._bounded:
            needed &= ~self._present | ((self._time >= moment - self._span) & (self._time <= moment + MINUTE))
        return np.flatnonzero(needed)


class _Known(Nearby):
    """Events of the keys of a pool of requests, and which requests have keys that can be loaded (``cheap``)."""

    def __init__(self, plan: ViewPlan, table: pa.Table, pool: pa.Table) -> None:
        super().__init__(plan, table, pool)
        self._plan, self.outputs = plan, len(plan.outputs)
        self._seam = _newest(plan, table)
        counts = np.bincount(self.codes[self.codes >= 0], minlength=1)
        # In the order they were drawn, as many keys as fit.
        first = np.unique(self.asked, return_index=True)[1]
        drawn = self.asked[np.sort(first[self.asked[first] >= 0])]
        afforded = drawn[_afforded(counts[drawn], one=self._bounded and not plan.keys)] if len(drawn) else drawn
        self.cheap = (self.asked < 0) | np.isin(self.asked, afforded)
        loaded = np.isin(self.codes, afforded)
        self._events = read_events(plan, self.events.filter(pa.array(loaded)))
        self._event_codes = self.codes[loaded][self._events.row]

    def edges(self, random: np.random.Generator, rows: Ints, samples: int) -> tuple[Ints, Ints, list[str]]:
        """Rows of the pool, moments at which an event of their key enters or leaves, and the sort of each edge."""
        edges = [edge for edge in self._all() if len(edge[1])]
        row_of = dict(zip(self.asked[rows].tolist(), rows.tolist(), strict=True))
        if not edges or not row_of:
            return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64), []
        request_rows: list[int] = []
        moments: list[int] = []
        sorts: list[str] = []
        for sort, events, when in _in_turn(edges, random, samples):
            codes = self._event_codes[events]
            # Every key alike, however many events it has.
            weight = 1.0 / np.bincount(codes)[codes]
            pick_ = int(random.choice(len(events), p=weight / weight.sum()))
            if int(codes[pick_]) in row_of:
                request_rows.append(row_of[int(codes[pick_])])
                moments.append(int(when[pick_] + _BESIDE[len(moments) % len(_BESIDE)]))
                sorts.append(sort)
        return np.array(request_rows, dtype=np.int64), np.array(moments, dtype=np.int64), sorts

    def _all(self) -> list[Edge]:
        plan, events = self._plan, self._events
        if plan.source.timeless or not len(events.row):
            return []
        e, k, every = events.event_time, events.known_at, np.arange(len(events.row))
        tied = _tied(self._event_codes, e)
        edges: list[Edge] = [("event", every, e), ("known at", every, k)]
        edges += [("tie", tied, e[tied]), ("tie", tied, k[tied])]
        edges += [("hour", every, e // HOUR * HOUR + step) for step in (0, HOUR)]
        edges += [("day", every, e // DAY * DAY + step) for step in (0, DAY)]
        edges += [("month", every, _month(e, step)) for step in (0, 1)]
        for age in sorted({output.max_age for output in plan.outputs if output.max_age is not None}):
            newest = _newest_for(self._event_codes, e, age)
            edges.append(("max age", newest, e[newest] + age))
        edges += [("calendar", every, moment) for moment in self._turns()]
        for sort, reach, hop in self._reaches():
            edges += [(sort, every, moment) for moment in _leaving(e, reach, hop)]
            late = np.flatnonzero(e + reach >= self._seam[0])
            edges.append(("seam", late, (e + reach)[late]))
        edges += [("seam", every, np.full_like(e, moment)) for moment in self._seam]
        if plan.source.revised:
            revisions, until = in_force(self._event_codes, events)
            ended = until < FOREVER
            edges.append(("until", revisions[ended], until[ended]))
        return edges

    def _turns(self) -> Iterator[Ints]:
        """When a unit of a calendar begins with which an event enters or leaves a window."""
        for window in self._plan.windows:
            if window.units is not None:
                for step in (window.units.before, window.units.before + window.units.count):
                    yield window.units.beginning(self._events.event_time, step)

    def _reaches(self) -> list[tuple[str, int, int]]:
        """Sort of each edge of a window, how long after an event it is, and the hop it is snapped to."""
        reaches = []
        for window in self._plan.windows:
            hop = window.hop_us
            if window.units is None and not window.lifetime:
                reaches.append(("hop" if hop else "window start", window.length_us + window.offset_us, hop))
            if window.units is None and window.offset is not None:
                reaches.append(("hop" if hop else "window end", window.offset_us, hop))
        return reaches


def _afforded(sizes: Ints, *, one: bool) -> NDArray[np.bool_]:
    """Keys whose events fit together; with ``one`` the first whatever it holds: everybody's, looked at in part."""
    spent, fits = 0, np.zeros(len(sizes), dtype=np.bool_)
    for i, size in enumerate(sizes.tolist()):
        fits[i] = spent + size <= _MOST_EVENTS or (one and not spent)
        spent += size if fits[i] else 0
    return fits


def _in_turn(edges: list[Edge], random: np.random.Generator, samples: int) -> list[Edge]:
    """Every sort has its turn, and within a sort every edge."""
    queues: dict[str, list[Edge]] = {}
    for place in random.permutation(len(edges)).tolist():
        queues.setdefault(edges[place][0], []).append(edges[place])
    turns = list(queues.values())
    return [turns[i % len(turns)][i // len(turns) % len(turns[i % len(turns)])] for i in range(samples)]


def _leaving(event_time: Ints, reach: int, hop: int) -> list[Ints]:
    """When a snapped edge passes an event: the multiples of the hop around it, later by the reach."""
    if not hop:
        return [event_time + reach]
    return [-(-event_time // hop) * hop + reach, (event_time // hop + 1) * hop + reach]


def _month(moments: Ints, step: int) -> Ints:
    months = moments.astype("datetime64[us]").astype("datetime64[M]") + step
    return months.astype("datetime64[us]").astype(np.int64)


def _tied(codes: Ints, event_time: Ints) -> Ints:
    """Events that happened at the same microsecond as another one of their key."""
    order = np.lexsort((event_time, codes))
    same = (np.diff(codes[order]) == 0) & (np.diff(event_time[order]) == 0)
    tied = np.zeros(len(order), dtype=np.bool_)
    tied[1:] |= same
    tied[:-1] |= same
    return np.sort(order[tied])


def _newest_for(codes: Ints, event_time: Ints, age: int) -> Ints:
    """Events that the next one of their key does not follow before they have this age; all, if there is none."""
    order = np.lexsort((event_time, codes))
    followed = np.zeros(len(order), dtype=np.bool_)
    followed[:-1] = (np.diff(codes[order]) == 0) & (np.diff(event_time[order]) <= age)
    return np.sort(order if followed.all() else order[~followed])


def _newest(plan: ViewPlan, table: pa.Table) -> tuple[int, int]:
    """Newest event time and known-at of a whole source: where its history ends and its stream begins."""
    source, newest = plan.source, []
    for name in (source.event_time or source.known_at, source.known_at):
        latest = None if name is None else pc.max(pick(table, name, where=plan.where))
        column = None if latest is None or not latest.is_valid else pa.array([latest.as_py()], latest.type)
        newest.append(None if column is None else int(times(column, where=plan.where)[0][0]))
    happened = 0 if newest[0] is None else newest[0]
    return happened, happened + source.delay_us if newest[1] is None else newest[1]
