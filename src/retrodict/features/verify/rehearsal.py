"""Puts real events through the stream once more, as badly as a stream can deliver them, to see what state they leave.

History up to a cut is materialised; the rest comes as records of a real stream, in another order, in small batches,
with redeliveries and with an overlap at the cut. What must not be shuffled stays in order: events without an id are
their position, and of two rows that say different things of one event at one moment the later one counts.
"""

from __future__ import annotations

import tempfile
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from retrodict.core.clock import SimulatedClock
from retrodict.data.sources import Source
from retrodict.features.online.features import OnlineFeatures
from retrodict.features.online.state import OnlineState
from retrodict.features.online.stream import StreamFeeder, encode_event, materialise
from retrodict.features.plan import FeatureSet
from retrodict.stores.keys.lmdb import LmdbKeys
from retrodict.stores.streams.segments import SegmentStreams

__all__ = ["rehearsed"]

_HORIZON = "36525d"
_REPEATED = 0.1
_BATCHES = 40
_LARGEST = 2_000


@contextmanager
def rehearsed(
    features: FeatureSet, tables: Mapping[str, pa.Table], earliest: int, random: np.random.Generator
) -> Iterator[OnlineFeatures]:
    """Online features over a temporary key store that a stream of these events has filled.

    The state is ahead of every request: all events are in, those after it as well. It keeps a century of them, so that
    redeliveries of any age are recognised.

    Parameters
    ----------
    features : FeatureSet
        What is read.
    tables : mapping of str to pyarrow.Table
        Events of each source, in the order of the source, times as int microseconds.
    earliest : int
        Time of the first request, which the state can still answer.
    random : numpy.random.Generator
        Order and redeliveries.
    """
    with tempfile.TemporaryDirectory() as folder:
        keys, streams = LmdbKeys(Path(folder) / "keys"), SegmentStreams(Path(folder) / "streams")
        try:
            state = OnlineState(features, keys, horizon=_HORIZON, durable=False)
            for name, table in tables.items():
                _feed(state, streams, features.sources[name], table, SimulatedClock(earliest), random)
            yield OnlineFeatures(features, keys)
        finally:
            keys.close()


def _feed(
    state: OnlineState,
    streams: SegmentStreams,
    source: Source,
    table: pa.Table,
    clock: SimulatedClock,
    random: np.random.Generator,
) -> None:
    rows, order = table.to_pylist(), list(range(table.num_rows))
    if source.sequence is not None:
        order = _shuffled(source, rows, random)
        cut = _cut(source, rows)
        history = [place for place in order if cut is not None and _known(source, rows[place]) <= cut]
        if history:
            materialise(state, table.take(pa.array(history)), source.name, now=clock.now())
        done = set(history)
        order = [place for place in order if place not in done] + _repeatable(source, rows, random)
    stream = f"events/{source.name}"
    with streams.open_writer(stream) as writer:
        if order:
            writer.append([encode_event(rows[place]) for place in order])
    batch = min(max(len(order) // _BATCHES, 1), _LARGEST)
    StreamFeeder(state, streams, stream, source.name, clock=clock, batch=batch).catch_up()


def _known(source: Source, row: Mapping[str, Any]) -> float:
    """When a row became known but for a constant delay; never, where that is null."""
    name = source.known_at or source.event_time
    known = None if name is None else row[name]
    return float("inf") if known is None else known


def _cut(source: Source, rows: Sequence[Mapping[str, Any]]) -> float | None:
    known = sorted(_known(source, row) for row in rows)
    return None if source.timeless or not known else known[len(known) // 2]


def _same_moment(source: Source, row: Mapping[str, Any]) -> tuple[Any, float]:
    return row[str(source.sequence)], _known(source, row)


def _shuffled(source: Source, rows: Sequence[Mapping[str, Any]], random: np.random.Generator) -> list[int]:
    """Any order, but rows of one event known at one moment among themselves as they were."""
    waiting: dict[Any, deque[int]] = defaultdict(deque)
    for place, row in enumerate(rows):
        waiting[_same_moment(source, row)].append(place)
    return [waiting[_same_moment(source, rows[place])].popleft() for place in random.permutation(len(rows)).tolist()]


def _repeatable(source: Source, rows: Sequence[Mapping[str, Any]], random: np.random.Generator) -> list[int]:
    """Some rows once more, history among them; not those that another row of the same moment may have overruled."""
    count: dict[Any, int] = defaultdict(int)
    for row in rows:
        count[_same_moment(source, row)] += 1
    again = random.permutation(len(rows))[: int(len(rows) * _REPEATED) + 1].tolist()
    return [place for place in again if count[_same_moment(source, rows[place])] == 1]
