"""Puts real events through the stream once more, as badly as a stream can deliver them, to see what state they leave.

History up to a cut is loaded; the rest comes as records of a real stream, in another order, in small batches,
with redeliveries and with an overlap at the cut. Few events come in any order at all. Of many most come near their
place and some last of all: a single event that is a year late costs as much as everything after it, so that a hundred
thousand of them, one here and one there, would rewrite the year a hundred times and prove no more.

What must not be shuffled stays in order: events without an id are their position, and of two rows that say different
things of one event at one moment the later one counts.
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
from numpy.typing import NDArray

from retrodict.core.clock import SimulatedClock
from retrodict.data.sources import Source
from retrodict.features.facts.columns import Ints
from retrodict.features.online import OnlineFeatures, OnlineState, StreamFeeder, encode_event
from retrodict.features.plan import FeatureSet
from retrodict.stores.keys.lmdb import LmdbKeys
from retrodict.stores.streams.segments import SegmentStreams

__all__ = ["rehearsed"]

_HORIZON = "36525d"
_REPEATED = 0.1
_BATCHES = 40
_LARGEST = 2_000
_ANYWHERE = 20_000  # events up to which any order is drawn
_NEAR, _LAST = 1_500, 1_000  # of more: places by which most are off, and how many come last of all


@contextmanager
def rehearsed(
    features: FeatureSet, tables: Mapping[str, pa.Table], earliest: int, random: np.random.Generator
) -> Iterator[OnlineFeatures]:
    """Online features over a temporary key store that a stream of these events has filled.

    The events of each source come in its order, their times as int microseconds; the state can still answer at
    ``earliest``. It is ahead of every request: all events are in, those after it as well. It keeps a century of them,
    so that redeliveries of any age are recognised.
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
    state.apply(table.slice(0, 0), source.name)  # so that nothing is told from no state
    if source.sequence is not None:
        known_at = np.array([_known(source, row) for row in rows])
        history = np.zeros(0, dtype=np.int64)
        if rows and not source.timeless:
            history = np.flatnonzero(known_at <= np.sort(known_at)[len(rows) // 2])
            past = _in_turn(source, rows, random.permutation(history).tolist())
            state.apply(table.take(pa.array(past)), source.name, now=clock.now())
        order = _delivered(source, rows, known_at, history, random)
    stream = f"events/{source.name}"
    with streams.open_writer(stream) as writer:
        if order:
            writer.append([encode_event(rows[place]) for place in order])
    batch = min(max(len(order) // _BATCHES, 1), _LARGEST)
    feeder = StreamFeeder(state, streams, stream, source.name, clock=clock, batch=batch, schema=table.schema)
    feeder.catch_up()


def _known(source: Source, row: Mapping[str, Any]) -> float:
    """When a row became known but for a constant delay; never, where that is null."""
    name = source.known_at or source.event_time
    known_at = None if name is None else row[name]
    return float("inf") if known_at is None else known_at


def _same_moment(source: Source, row: Mapping[str, Any]) -> tuple[Any, float]:
    return row[str(source.sequence)], _known(source, row)


def _delivered(
    source: Source,
    rows: Sequence[Mapping[str, Any]],
    known_at: NDArray[Any],
    history: Ints,
    random: np.random.Generator,
) -> list[int]:
    """Order in which a stream delivers what history has not, and some of everything once more."""
    fresh = np.setdiff1d(np.arange(len(rows)), history)
    again = _repeatable(source, rows, random)
    if len(rows) <= _ANYWHERE:
        return [*_in_turn(source, rows, random.permutation(fresh).tolist()), *again.tolist()]
    rank = np.empty(len(rows))
    rank[np.argsort(known_at, kind="stable")] = np.arange(len(rows))
    seam = again[rank[again] >= len(history) - _NEAR]
    when = rank[fresh] + random.uniform(-_NEAR, _NEAR, len(fresh))
    last = random.integers(0, max(len(fresh), 1), min(_LAST, len(fresh)))
    when[last] = len(rows) + random.random(len(last))
    first = np.array(_in_turn(source, rows, fresh[np.argsort(when)].tolist()), dtype=np.int64)
    soon = rank[seam] + random.uniform(0, 2 * _NEAR, len(seam))
    order = np.concatenate([first, seam])[np.argsort(np.concatenate([np.sort(when), soon]), kind="stable")]
    return [*order.tolist(), *again[:_LAST].tolist()]


def _in_turn(source: Source, rows: Sequence[Mapping[str, Any]], order: Sequence[int]) -> list[int]:
    """An order, but rows of one event known at one moment among themselves as they were."""
    waiting: dict[Any, deque[int]] = defaultdict(deque)
    for place in sorted(order):
        waiting[_same_moment(source, rows[place])].append(place)
    return [waiting[_same_moment(source, rows[place])].popleft() for place in order]


def _repeatable(source: Source, rows: Sequence[Mapping[str, Any]], random: np.random.Generator) -> Ints:
    """Some rows once more, history among them; not those that another row of the same moment may have overruled."""
    count: dict[Any, int] = defaultdict(int)
    for row in rows:
        count[_same_moment(source, row)] += 1
    again = random.permutation(len(rows))[: int(len(rows) * _REPEATED) + 1]
    return np.array([p for p in again.tolist() if count[_same_moment(source, rows[p])] == 1], dtype=np.int64)
