"""Keeps online state up with a stream of events, and fills it from history.

The offset is stored with the state, in the same transaction. So there is nothing to commit afterwards, a killed process
continues exactly where its state is, and reading a piece of the stream twice changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from functools import lru_cache
from typing import Any

import msgspec
import pyarrow as pa

from retrodict.core.clock import Clock, SystemClock, to_micros
from retrodict.core.errors import InputError, IntegrityError
from retrodict.data.sources import Source
from retrodict.features.online.state.entries import Applied
from retrodict.features.online.write.records import EventDecoder
from retrodict.features.online.write.writer import OnlineState
from retrodict.stores.streams.base import EventStreams

__all__ = ["Progress", "StreamFeeder", "decode_event", "encode_event", "stream_of", "streamed_rows"]

_BATCH = 500_000
_FEW = 200  # records below which going through Arrow costs more than it saves


def encode_event(row: Mapping[str, Any]) -> bytes:
    """Record of one event: MessagePack of its columns, times as int microseconds, decimals as the nearest floats.

    Examples
    --------
    >>> decode_event(encode_event({"origin": "JFK", "arr_delay": 4.0}))
    {'origin': 'JFK', 'arr_delay': 4.0}
    """
    return msgspec.msgpack.encode(
        {name: _written(value, name) if isinstance(value, datetime | Decimal) else value for name, value in row.items()}
    )


def _written(value: datetime | Decimal, column: str) -> int | float:
    return float(value) if isinstance(value, Decimal) else to_micros(value, where=f"event, column {column!r}")


def decode_event(record: bytes) -> dict[str, Any]:
    """Columns of a record; InputError if it is not one of ours."""
    try:
        return msgspec.msgpack.decode(record, type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise InputError(
            "a record of an event stream must be made by encode_event",
            where="event stream",
            got=f"{len(record)} bytes",
            remedy="Write events with retrodict features push, or encode_event",
        ) from error


@dataclass(frozen=True)
class Progress:
    """Where a feeder is.

    Attributes
    ----------
    offset : int
        Offset of the next record to read.
    lag : int
        Records written after that.
    applied : Applied
        What was done since the call began.
    """

    offset: int
    lag: int
    applied: Applied


@lru_cache(maxsize=2)
def _first_records(streams: EventStreams, stream: str, count: int) -> list[bytes]:
    """First records of a stream, which never change."""
    records = [data for _, data in streams.read(stream, 0, count)]
    if len(records) != count:
        raise IntegrityError(
            "a stream must hold what was applied from it",
            where=f"stream {stream!r}",
            got=f"{len(records)} records, where {count} were read",
            remedy="Restore the stream from a backup",
        )
    return records


def streamed_rows(
    streams: EventStreams, source: Source, columns: Iterable[str], schema: pa.Schema | None, count: int
) -> pa.Table:
    """Columns of the first events of a source's stream, as rows of its table.

    Raises
    ------
    IntegrityError
        If the stream has fewer records.
    """
    hashed: Any = streams  # by identity
    return EventDecoder(source, columns, schema).decode(_first_records(hashed, stream_of(source.table.name), count))


def stream_of(table: str) -> str:
    """Name of the stream of a table's events; every source that reads the table shares it."""
    return f"events/{table}"


class StreamFeeder:
    """Applies the events of one stream to the online state of one source.

    One feeder per partition of the state at a time makes sense; two do no harm, since applying twice changes nothing.
    Which partitions it feeds is a matter of the state it is given: it reads the whole stream and passes over the rest.

    Parameters
    ----------
    state : OnlineState
        What to feed.
    streams : EventStreams
        Where the stream is.
    stream : str
        Name of the stream.
    source : str
        Name of the source its events belong to.
    clock : Clock, optional
        Present time. None: the host's.
    batch : int, default 500000
        Most records per transaction. What has come since the last one is one transaction: few when little happens,
        many after a pause, so that a backlog is worked off faster than it grew.
    schema : pyarrow.Schema, optional
        That of the source's table as it is stored: columns that the table does not declare have its types. None: they
        have the type of what is in them.
    """

    def __init__(
        self,
        state: OnlineState,
        streams: EventStreams,
        stream: str,
        source: str,
        *,
        clock: Clock | None = None,
        batch: int = _BATCH,
        schema: pa.Schema | None = None,
    ) -> None:
        self.state, self._streams, self._stream, self._source = state, streams, stream, source
        self._clock, self._batch = clock or SystemClock(), batch
        self._plans = state.plans(source)
        self._columns = {column for plan in self._plans for column in plan.source_columns}
        self._decoder = EventDecoder(self._plans[0].source, self._columns, schema)

    @property
    def offset(self) -> int:
        """Offset to continue from: that of the view that is furthest behind."""
        return min(self._offsets())

    def _offsets(self) -> list[int]:
        return [meta.offset or 0 for plan in self._plans for meta in self.state.metas(plan).values()]

    def lag(self) -> int:
        """Records that are in the stream and not yet in the state, in the partition that is furthest behind."""
        return max(self.lags().values())

    def lags(self) -> dict[int, int]:
        """Records that are in the stream and not yet in each of the partitions that are fed."""
        end, lags = self._streams.end(self._stream), dict.fromkeys(self.state.assigned, 0)
        for plan in self._plans:
            for partition, meta in self.state.metas(plan).items():
                # A stream that is shorter than what was applied is another stream: its records are not in.
                lags[partition] = max(lags[partition], abs(end - (meta.offset or 0)))
        return lags

    def catch_up(self, *, stop: Callable[[], bool] = lambda: False) -> Progress:
        """Apply everything up to the end of the stream as it is when the reading gets there."""
        offset, done = self.offset, Applied(0)
        if max(self._offsets()) > (end := self._streams.end(self._stream)):
            raise IntegrityError(
                "a stream must hold what was applied from it",
                where=f"stream {self._stream!r}",
                got=f"{end} records, where {max(self._offsets())} are applied",
                remedy="Restore the stream, or name an empty key store and run: retrodict features build",
            )
        # A view or partition that is behind is brought to where the others are, and then goes on with them.
        ahead = sorted({other for other in self._offsets() if other > offset})
        while not stop():
            limit = min(self._batch, ahead[0] - offset) if ahead else self._batch
            records = list(self._streams.read(self._stream, offset, limit))
            if ahead and (not records or records[-1][0] + 1 >= ahead[0]):
                records = [record for record in records if record[0] < ahead[0]]
                following = ahead.pop(0)
            elif not records:
                break
            else:
                following = records[-1][0] + 1
            if records:
                events, first, now = self._decode(records), records[0][0], self._clock.now()
                one = self.state.apply(events, self._source, offset=following, first_position=first, now=now)
                done = done.plus(**vars(one))
            offset = following
        return Progress(offset, self._streams.end(self._stream) - offset, done)

    def run(self, stop: Callable[[float], bool], *, poll_s: float = 0.2, expire_every: int = 500) -> Progress:
        """Catch up again and again until told to stop.

        Parameters
        ----------
        stop : callable
            Waits up to the given seconds and says whether to stop: the ``wait`` of a ``threading.Event``.
        poll_s : float, default 0.2
            Seconds between two looks at the stream.
        expire_every : int, default 500
            Rounds between two removals of old blocks.
        """
        progress, rounds = self.catch_up(), 0
        while not stop(poll_s):
            progress = self.catch_up(stop=lambda: stop(0.0))
            rounds += 1
            if rounds % expire_every == 0:
                self.state.expire()
        return progress

    def _decode(self, records: list[tuple[int, bytes]]) -> pa.Table:
        if len(records) >= _FEW:
            with suppress(msgspec.MsgspecError):  # found by its offset below
                return self._decoder.decode([record for _, record in records])
        rows = [self._decode_one(at, record) for at, record in records]
        return self._decoder.tabulate({name: [row.get(name) for row in rows] for name in self._columns})

    def _decode_one(self, offset: int, record: bytes) -> dict[str, Any]:
        try:
            return decode_event(record)
        except InputError as error:
            raise InputError(
                error.rule,
                where=f"stream {self._stream!r}, offset {offset}",
                got=error.got,
                remedy="Look at who writes this stream",
            ) from error
