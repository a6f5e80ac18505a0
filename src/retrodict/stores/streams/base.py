"""Contracts of the streams: what any event stream does, and what the embedded log adds for sealing.

A server keeps records and gives them back by offset. It has no files to seal and no torn tail to report, so those are
promises of the embedded log alone: whoever needs only events asks for :class:`EventStreams`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, Self

__all__ = ["EventStreams", "EventWriter", "Segment", "SegmentObserver", "StreamStore", "StreamWriter", "TornTail"]


@dataclass(frozen=True, slots=True)
class TornTail:
    """What was cut off the end of a log when it was opened: a record that was being written when its writer died.

    Attributes
    ----------
    stream : str
        Which stream.
    segment : str
        Which segment file.
    offset : int
        Offset the cut record would have had.
    size : int
        Bytes cut off.
    """

    stream: str
    segment: str
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class Segment:
    """A contiguous piece of a stream: name, first offset, number of records, and whether it is closed.

    A closed segment never changes any more and can be sealed in the ledger.
    """

    name: str
    first: int
    count: int
    closed: bool


class SegmentObserver(Protocol):
    """Is told what a writer itself writes, in order, so that nobody has to read it back from the disk.

    Called by the thread that writes, one call at a time. An error in ``begin`` fails the append that needs the segment.
    """

    def begin(self, segment: str, first: int, header: bytes) -> None:
        """A segment of this name begins at this offset, and holds only its header."""

    def add(self, records: Sequence[bytes], frames: bytes) -> None:
        """Records are durable, as these bytes of the segment."""


class EventWriter(Protocol):
    """A writer of a stream; a context manager. Threads may share it: appends follow one another."""

    def append(self, records: Sequence[bytes]) -> int:
        """Append records in order and return the offset of the first once all are acknowledged.

        When it raises, a prefix of them may be kept. After a RetryableError the same call on the same writer takes up
        where it was interrupted, and doubles nothing. An append of nothing returns the next offset.

        Raises
        ------
        RetryableError
            If the disk or the server does not take them in time.
        InputError
            If a record is longer than the store allows; nothing was sent then.
        IntegrityError
            If a server has lost records that were acknowledged, or track of this writer.
        """

    def close(self) -> None:
        """Let go of the stream; a second call does nothing."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *exc: object) -> None: ...


class EventStreams(Protocol):
    """Streams by name (``events/landed``), each a sequence of byte records in one order.

    Promises
    --------
    * *Order and offsets*: offsets grow from record to record; a record never moves or changes. They are 0, 1, 2 …
      without gaps where the store says so; elsewhere reading jumps over the gaps and ``end`` is an upper bound.
    * *Acknowledged* records survive ``kill -9`` of the writer and of the server. What a loss of power may take, each
      store says for itself.
    * *Readers* see every record whose ``append`` has returned, in any process, and need no lock.
    * *Writers*: one at a time or several, as the store says; the records of one append keep their order.
    * *Errors*: a server that cannot be reached or does not answer is a RetryableError within the store's time limit,
      and the next call connects again. No message holds an address, a secret or a record.
    """

    def open_writer(self, stream: str, *, timeout_s: float = 10.0) -> EventWriter:
        """Open a writer of a stream, which is made if it does not exist.

        ``timeout_s`` is how long to wait for another writer, in seconds, where a stream has only one.

        Raises
        ------
        BusyError
            If another writer holds the stream for longer than ``timeout_s``.
        IntegrityError
            If acknowledged records are missing.
        ConfigurationError
            If the stream on the server may drop records, has more than one partition, or may not be made or written.
        """

    def read(self, stream: str, start: int = 0, limit: int | None = None) -> Iterator[tuple[int, bytes]]:
        """(offset, record) pairs from an offset on, up to the end as it is when the iteration gets there.

        Nothing for a stream that does not exist or a start beyond the end.

        Raises
        ------
        IntegrityError
            When the iteration meets a damaged, missing or deleted record; its offset is named.
        """

    def end(self, stream: str) -> int:
        """Offset the next record will get: 0 for a stream that does not exist."""

    def names(self, prefix: str = "") -> list[str]:
        """Streams that exist and whose name begins with a prefix, sorted."""


class StreamWriter(EventWriter, Protocol):
    """The one writer of a stream of the embedded log."""

    @property
    def recovered(self) -> list[TornTail]:
        """What was cut off when this writer opened the stream; empty after a clean end."""

    def append(self, records: Sequence[bytes]) -> int:
        """Append records in order, make them durable with one sync, and return the offset of the first.

        When it returns, the records survive ``kill -9`` and a loss of power. When it raises, none of them is visible.

        Raises
        ------
        RetryableError
            If the disk does not take them; the same call may be tried again.
        InputError
            If a record is longer than 1 GiB.
        """

    def roll(self) -> None:
        """Close the current segment (if it holds anything) and begin a new one with the next append."""


class StreamStore(EventStreams, Protocol):
    """Embedded log: event streams whose closed pieces are files that can be sealed.

    Promises, beyond those of :class:`EventStreams`
    -----------------------------------------------
    * *Order and offsets*: records have the offsets 0, 1, 2 … without gaps.
    * *One writer per stream*: a second writer, in any process, waits up to ``timeout_s`` and then gets BusyError that
      names the process holding it; the lock ends with the process, also after ``kill -9``.
    * *Torn tail*: a record that was half written when its writer died is never returned by a reader; the next writer
      cuts it off and reports it. Whole records of an append that did not return may be kept, as a prefix of it.
    * *Damage* is not a torn tail: an acknowledged record that is altered or missing is an IntegrityError that names
      segment and offset. Only a loss of power that takes the store's own note of the end with it widens the tail.
    * *Readers* see none of the records that could still vanish. Going on where an earlier read ended costs nothing
      more; any other start costs a walk within its segment.
    * *Closed segments* never change, also after a loss of power.
    """

    def open_writer(
        self, stream: str, *, timeout_s: float = 10.0, observer: SegmentObserver | None = None
    ) -> StreamWriter:
        """Become the writer of a stream, which is made if it does not exist; errors as for other streams.

        ``observer`` is told what is written from the first segment on that was empty when it began to watch.
        """

    def segments(self, stream: str) -> list[Segment]:
        """Pieces of the stream that hold records, oldest first."""

    def files(self, stream: str) -> list[str]:
        """Names of all files that look like segments and hold more than a header, also of those that do not count."""

    def remove_segment(self, stream: str, segment: str) -> None:
        """Delete the oldest segment of a stream, which must be closed; durable when it returns.

        Offsets stay what they were: reading one of its records is an IntegrityError, ``segments`` says where it begins.

        Raises
        ------
        RefusedError
            If it is not the oldest one, or is still written.
        """

    def read_segment(self, stream: str, segment: str) -> bytes:
        """Raw bytes of a segment, for sealing and verifying; of the open one, what is acknowledged.

        Raises
        ------
        NotFoundError
            If the stream has no such segment.
        """
