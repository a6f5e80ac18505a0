"""The events of one source and key, numbered, sorted, each once: what every feature of a training frame starts from.

Sorting costs more than everything after it, so whoever reads more than once (batch by batch, day by day) passes not a
table but something that keeps the result: :class:`MemoryEvents`, or the indexes on disk of
:mod:`retrodict.features.offline.event_index`.
"""

from __future__ import annotations

import threading
from contextlib import ContextDecorator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from retrodict.core.identity import content_hash
from retrodict.features.facts.columns import FactColumn, Ints, Mask, known_type
from retrodict.features.facts.events import Events, first_of_each, in_force, read_events
from retrodict.features.facts.kernels import OrderedTimeline, Timeline
from retrodict.features.facts.keys import UNKNOWN, KeyIndex
from retrodict.features.plan import ViewPlan

__all__ = ["FRAMES", "EventSource", "MemoryEvents", "Prepared", "prepare", "prepare_events", "reading_id"]


class _Running(ContextDecorator):
    """Calls of the functions that it decorates; what nobody waits for waits until there are none."""

    def __init__(self) -> None:
        self._count, self._changed = 0, threading.Condition()

    def __enter__(self) -> None:
        with self._changed:
            self._count += 1

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._count -= 1
            self._changed.notify_all()

    def wait(self, timeout_s: float) -> None:
        """Return when none is running, or after so long."""
        with self._changed:
            self._changed.wait_for(lambda: self._count <= 0, timeout_s)


FRAMES = _Running()
"""Training frames that this process is computing."""


@dataclass(frozen=True)
class Prepared:
    """Events ready to be searched.

    Attributes
    ----------
    events : Events
        Those that count: each once, with a key, in force at some time; of their table what is kept as it is.
    index : KeyIndex
        Numbers of the keys.
    line : OrderedTimeline
        The events in their orders.
    until : int64 array or None
        Of a revised source: until when each event is in force (inclusive), in event order; None: for ever.
    places : int64 array or None
        Where in ``events`` each event of the line is; None: they lie in event order, too.
    newer : Prepared or None
        All events of the keys that later rows touched, and of no other: those keys are asked there, not here.
    """

    events: Events
    index: KeyIndex
    line: OrderedTimeline
    until: Ints | None
    places: Ints | None
    newer: Prepared | None = None

    def array(self, name: str) -> NDArray[Any]:
        """One of the arrays of the events, in event order."""
        values: NDArray[Any] = getattr(self.events, name)
        return values if self.places is None else values[self.places]

    @cached_property
    def inputs(self) -> dict[str, FactColumn]:
        """Conditions and value columns by their text, in event order."""
        inputs = self.events.inputs
        return inputs if self.places is None else {text: c.take(self.places) for text, c in inputs.items()}

    @cached_property
    def outdated(self) -> Mask:
        """Which keys ``newer`` must be asked for, by number; of the two last places (UNKNOWN, NULL) the first."""
        assert self.newer is not None
        keys = self.newer.index.distinct()
        numbers = self.index.locate(keys, names=[""] * len(keys))
        outdated = np.zeros(self.index.size + 2, dtype=np.bool_)
        outdated[numbers] = outdated[UNKNOWN] = True
        return outdated

    def column(self, name: str, events: Ints | None = None, mask: Mask | None = None) -> pa.Array[Any]:
        """Return a column that is kept: of all events in event order, or of some (null where ``mask``)."""
        values, places = self.events.table.column(name), self.places
        if events is not None:
            places = events if places is None or not len(places) else places[events]
        if places is not None:
            values = values.take(pa.array(places, mask=mask))
        chunks = values.chunks or [pa.array([], values.type)]
        return known_type(chunks[0] if len(chunks) == 1 else pa.concat_arrays(chunks), where=f"column {name!r}")


class EventSource:
    """Rows of one source, prepared once for every view that reads them alike and asked often; threads may share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[tuple[str, bool], Prepared] = {}

    def prepared(self, plan: ViewPlan, *, ignore_known_at: bool) -> Prepared:
        """Events of a view of the source."""
        reading = reading_id(plan), ignore_known_at
        with self._lock:
            if reading not in self._known:
                self._known[reading] = self._prepare(plan, ignore_known_at=ignore_known_at)
            return self._known[reading]

    def _prepare(self, plan: ViewPlan, *, ignore_known_at: bool) -> Prepared:
        raise NotImplementedError


class MemoryEvents(EventSource):
    """Rows of a source in memory."""

    def __init__(self, table: pa.Table) -> None:
        super().__init__()
        self._table = table

    def _prepare(self, plan: ViewPlan, *, ignore_known_at: bool) -> Prepared:
        return prepare(plan, self._table, ignore_known_at=ignore_known_at)


def reading_id(plan: ViewPlan) -> str:
    """Content hash of what a view reads of its source and by which keys; windows do not matter."""
    return content_hash(
        plan.identity
        | {
            "source": plan.source,
            "keys": plan.keys,
            "channels": plan.channels,
            "conditions": sorted(plan.expressions),
            "kept": plan.kept,
        }
    )


def prepare(plan: ViewPlan, rows: pa.Table | EventSource, *, ignore_known_at: bool) -> Prepared:
    """Read, number and sort the events of a view's source, unless that was done before."""
    if not isinstance(rows, pa.Table):
        return rows.prepared(plan, ignore_known_at=ignore_known_at)
    events = read_events(plan, rows)
    index = KeyIndex(events.keys(plan), where=f"{plan.where}, source {plan.source.name!r}")
    return prepare_events(plan, events, index, index.codes, ignore_known_at=ignore_known_at)


def prepare_events(
    plan: ViewPlan, events: Events, index: KeyIndex, codes: Ints, *, ignore_known_at: bool = False
) -> Prepared:
    """Sort events whose keys are numbered."""
    known_at = events.event_time if ignore_known_at else events.known_at
    until: Ints | None = None
    selected: Ints | None
    if plan.source.revised:
        selected, until = in_force(codes, events)
    else:
        selected = first_of_each(codes, events)
    if (codes < 0).any():
        keyed = codes >= 0
        selected = np.flatnonzero(keyed) if selected is None else selected
        until = None if until is None else until[keyed[selected]]
        selected = selected[keyed[selected]]
    events = replace(events, table=events.table.select(plan.kept), known_at=known_at)
    if selected is not None:
        events, codes = events.take(selected), codes[selected]
    line = Timeline(codes, events.event_time, events.known_at, events.order, index.size)
    until = None if until is None else until[line.by_event]
    return Prepared(events, index, line.in_order(), until, line.by_event)
