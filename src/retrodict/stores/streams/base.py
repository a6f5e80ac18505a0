"""Contract of the stream stores: append-only logs of events in and decisions out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, Self

__all__ = ["Segment", "StreamStore", "StreamWriter", "TornTail"]


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
    """A contiguous piece of a stream: name, first offset, number of records, bytes, and whether it is closed.

    A closed segment never changes any more and can be sealed in the ledger.
    """

    name: str
    first: int
    count: int
    size: int
    closed: bool


class StreamWriter(Protocol):
    """The one writer of a stream; a context manager."""

    @property
    def recovered(self) -> list[TornTail]:
        """What was cut off when this writer opened the stream; empty after a clean end."""
        ...

    def append(self, records: Sequence[bytes]) -> int:
        """Append records in order, make them durable with one sync, and return the offset of the first.

        When it returns, the records survive ``kill -9`` and a loss of power. When it raises, none of them is visible.
        """
        ...

    def roll(self) -> None:
        """Close the current segment (if it holds anything) and begin a new one with the next append."""
        ...

    def close(self) -> None:
        """Let go of the stream."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *exc: object) -> None: ...


class StreamStore(Protocol):
    """Streams by name (``decisions/0``, ``events/landed``), each a gapless sequence of byte records from offset 0.

    Promises
    --------
    * *Order and offsets*: records have the offsets 0, 1, 2 …; a record never moves or changes.
    * *One writer per stream*: a second writer, in any process, waits up to ``timeout_s`` and then gets BusyError that
      names the process holding it; the lock ends with the process, also after ``kill -9``.
    * *Torn tail*: a record that was half written when its writer died is never returned by a reader; the next writer
      cuts it off and reports it. Whole records of an append that did not return may be kept, as a prefix of it.
    * *Damage* is not a torn tail: an acknowledged record that is altered or missing is an IntegrityError that names
      segment and offset. Only a loss of power that takes the store's own note of the end with it widens the tail.
    * *Readers* need no lock, may be in other processes, see every record whose ``append`` has returned, and none
      that could still vanish.
    * *Closed segments* never change, also after a loss of power.
    """

    def open_writer(self, stream: str, *, timeout_s: float = 10.0) -> StreamWriter:
        """Become the writer of a stream, which is made if it does not exist."""
        ...

    def read(self, stream: str, start: int = 0, limit: int | None = None) -> Iterator[tuple[int, bytes]]:
        """(offset, record) pairs from an offset on, up to the end as it is when the iteration gets there.

        Nothing for a stream that does not exist or a start beyond the end. Going on where an earlier read ended costs
        nothing more; any other start costs a walk within its segment.
        """
        ...

    def end(self, stream: str) -> int:
        """Offset the next record will get: 0 for a stream that does not exist."""
        ...

    def segments(self, stream: str) -> list[Segment]:
        """Pieces of the stream that hold records, oldest first."""
        ...

    def read_segment(self, stream: str, segment: str) -> bytes:
        """Raw bytes of a segment, for sealing and verifying; of the open one, what is acknowledged."""
        ...

    def names(self, prefix: str = "") -> list[str]:
        """Streams that exist and whose name begins with a prefix, sorted."""
        ...
