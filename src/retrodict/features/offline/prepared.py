"""The events of one source and key, numbered, sorted, each once: what every feature of a training frame starts from.

Sorting costs more than everything after it, so whoever reads more than once (batch by batch, day by day) passes not a
table but something that keeps the result: :class:`MemoryEvents`, or the indexes on disk of
:mod:`retrodict.features.offline.event_index`.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pyarrow as pa

from retrodict.core.identity import content_hash
from retrodict.features.facts.columns import Ints
from retrodict.features.facts.events import Events, first_of_each, in_force, read_events
from retrodict.features.facts.kernels import Timeline
from retrodict.features.facts.keys import KeyIndex
from retrodict.features.plan import ViewPlan

__all__ = ["EventSource", "MemoryEvents", "Prepared", "prepare", "prepare_events", "reading_id"]


@dataclass(frozen=True)
class Prepared:
    """Events ready to be searched.

    Attributes
    ----------
    events : Events
        As read.
    selected : int64 array or None
        Which of them count (each once, with a key, in force at some time); None: all.
    index : KeyIndex
        Numbers of the keys.
    line : Timeline
        The kept events in their orders.
    until : int64 array or None
        Of a revised source: until when each kept event is in force (inclusive); None: for ever.
    """

    events: Events
    selected: Ints | None
    index: KeyIndex
    line: Timeline
    until: Ints | None


class EventSource(Protocol):
    """Rows of one source that are prepared once and asked often; threads may share it."""

    def prepared(self, plan: ViewPlan, *, ignore_known_at: bool) -> Prepared:
        """Events of a view of the source."""
        ...


class MemoryEvents:
    """Rows of a source in memory, sorted once for every view that reads them alike.

    Parameters
    ----------
    table : pyarrow.Table
        The rows.
    """

    def __init__(self, table: pa.Table) -> None:
        self._table = table
        self._lock = threading.Lock()
        self._known: dict[tuple[str, bool], Prepared] = {}

    def prepared(self, plan: ViewPlan, *, ignore_known_at: bool) -> Prepared:
        """Events of a view of the source."""
        reading = reading_id(plan), ignore_known_at
        with self._lock:
            if reading not in self._known:
                self._known[reading] = prepare(plan, self._table, ignore_known_at=ignore_known_at)
            return self._known[reading]


def reading_id(plan: ViewPlan) -> str:
    """Content hash of what a view reads of its source and by which keys; windows do not matter."""
    return content_hash(
        {
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
    events_kept = slice(None) if selected is None else selected
    line = Timeline(
        codes[events_kept], events.event_time[events_kept], known_at[events_kept], events.order[events_kept], index.size
    )
    return Prepared(events, selected, index, line, until)
