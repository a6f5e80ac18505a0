"""Streams as append-only segment files: the embedded twin of a log server.

One folder per stream. ``00000000000000000000.seg`` and its successors hold the records, named by their first offset;
``.head`` says up to where they are acknowledged; ``.lock`` belongs to the writer. SQLite as a log was rejected: it
writes every record twice and a sealed piece of it is not a file one can hash.
"""

from __future__ import annotations

import bisect
import os
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path

from retrodict.core.errors import ConfigurationError, IntegrityError, RefusedError, check_known
from retrodict.stores._durable import closing, read_file, sync_folder
from retrodict.stores.streams._frames import FRAME_SIZE, HEADER_SIZE, FrameWalk
from retrodict.stores.streams._layout import (
    FOREIGN,
    Head,
    check_base,
    missing_segment,
    open_segment,
    read_head,
    segment_firsts,
    segment_name,
)
from retrodict.stores.streams._names import check_range, check_stream
from retrodict.stores.streams._writer import SegmentWriter
from retrodict.stores.streams.base import Segment, SegmentObserver, StreamStore

__all__ = ["SegmentStreams"]

_HINTS = 4096


class SegmentStreams(StreamStore):
    """Embedded twin of :class:`~retrodict.stores.streams.base.StreamStore`.

    Parameters
    ----------
    root : Path
        Folder of all streams; made by the first writer.
    segment_bytes : int, default 64 MiB
        An append that finds the current segment at this size or above begins a new one.
    admitted : callable, optional
        Gives the names of the segments of a stream that count, or None for all of them. Files that are not named are
        neither read nor continued, whatever their number: they were put there by other hands.

    Examples
    --------
    >>> import tempfile
    >>> streams = SegmentStreams(Path(tempfile.mkdtemp()))
    >>> with streams.open_writer("events/landed") as writer:
    ...     writer.append([b"one", b"two"])
    0
    >>> list(streams.read("events/landed", start=1)), streams.end("events/landed")
    ([(1, b'two')], 2)
    """

    def __init__(
        self,
        root: Path,
        *,
        segment_bytes: int = 64 << 20,
        admitted: Callable[[str], Collection[str] | None] = lambda _: None,
    ) -> None:
        if segment_bytes < 1:
            raise ConfigurationError(
                "a segment must have room for at least one byte",
                where="streams",
                got=segment_bytes,
                remedy="Leave segment_bytes out for the default",
            )
        self._root, self._segment_bytes, self._admitted = Path(root), segment_bytes, admitted
        # Where earlier reads ended: (stream, offset) -> byte position in its segment. A poll goes on from there. Only a
        # shortcut, so a lost entry costs time and nothing else; single dict operations keep it safe among threads.
        self._hints: OrderedDict[tuple[str, int], int] = OrderedDict()

    def open_writer(
        self, stream: str, *, timeout_s: float = 10.0, observer: SegmentObserver | None = None
    ) -> SegmentWriter:
        check_stream(stream)
        return SegmentWriter(
            self._root / stream,
            stream,
            segment_bytes=self._segment_bytes,
            timeout_s=timeout_s,
            observer=observer,
            firsts=partial(self._firsts, stream),
        )

    def read(self, stream: str, start: int = 0, limit: int | None = None) -> Iterator[tuple[int, bytes]]:
        check_range(check_stream(stream), start, limit)
        return self._read(stream, start, limit)

    def _read(self, stream: str, offset: int, left: int | None) -> Iterator[tuple[int, bytes]]:
        folder = self._root / stream
        while left is None or left > 0:
            head = self._find_end(stream)
            if head is None or offset >= head.offset:
                return
            first, until = self._segment_of(stream, offset, head)
            count = until - offset if left is None else min(until - offset, left)
            with closing(open_segment(folder, stream, first, os.O_RDONLY)) as descriptor:
                size = head.position if first == head.first else os.fstat(descriptor).st_size
                # The nearest place at which a walk to the offset can begin.
                position = self._hints.get((stream, offset)) if offset > first else None
                start, position = (first, HEADER_SIZE) if position is None else (offset, position)
                walk = FrameWalk(descriptor, position, size)
                skipped = walk.skip(offset - start)
                if skipped < offset - start:
                    raise _damaged(stream, first, start + skipped)
                yield from self._give(stream, first, offset, count, walk)
                if offset + count == until and walk.position != size:
                    raise _damaged(stream, first, until)
            offset += count
            left = None if left is None else left - count

    def _give(self, stream: str, first: int, offset: int, count: int, walk: FrameWalk) -> Iterator[tuple[int, bytes]]:
        end, following = offset + count, offset
        records: list[bytes] = []
        try:
            while offset < end:
                records = walk.take(end - offset)
                if not records:
                    raise _damaged(stream, first, offset)
                following = offset + len(records)
                for record in records:
                    offset += 1
                    yield offset - 1, record
        finally:
            left = records[len(records) - (following - offset) :]  # of an iteration that was left early
            self._hints[stream, offset] = walk.position - sum(FRAME_SIZE + len(record) for record in left)
            if len(self._hints) > _HINTS:
                self._hints.popitem(last=False)

    def end(self, stream: str) -> int:
        head = self._find_end(check_stream(stream))
        return 0 if head is None else head.offset

    def segments(self, stream: str) -> list[Segment]:
        head = self._find_end(check_stream(stream))
        if head is None:
            return []
        firsts, names = [first for first in self._firsts(stream, head) if first <= head.first], self._admitted(stream)
        pieces = []
        for first, until in pairwise([*firsts, head.offset]):
            if names is not None and segment_name(first) not in names:
                continue
            if until > first:
                pieces.append(Segment(segment_name(first), first, until - first, first < head.first))
        return pieces

    def files(self, stream: str) -> list[str]:
        folder = self._root / check_stream(stream)
        paths = [*(folder / segment_name(first) for first in segment_firsts(folder)), *folder.glob(f"*{FOREIGN}")]
        return [path.name for path in paths if not path.is_file() or path.stat().st_size > HEADER_SIZE]

    def read_segment(self, stream: str, segment: str) -> bytes:
        head, pieces = self._find_end(check_stream(stream)), [piece.name for piece in self.segments(stream)]
        if segment not in self.files(stream):
            check_known(segment, pieces, "the stream must have this segment", where=f"stream {stream}", what="segment")
        is_last = head is not None and segment == segment_name(head.first)
        return read_file(self._root / stream / segment)[: head.position if head is not None and is_last else None]

    def remove_segment(self, stream: str, segment: str) -> None:
        pieces = self.segments(stream)
        if not pieces or pieces[0].name != segment or not pieces[0].closed:
            raise RefusedError("only the oldest segment, and a closed one, must be removed", where=f"stream {stream}",
                               got=segment, remedy="What comes before it goes first")  # fmt: skip
        (self._root / stream / segment).unlink()
        sync_folder(self._root / stream)

    def names(self, prefix: str = "") -> list[str]:
        streams = {path.parent.relative_to(self._root).as_posix() for path in self._root.glob("**/*.seg")}
        return sorted(name for name in streams if name.startswith(prefix))

    # finding ------------------------------------------------------------------------------------------------

    def _firsts(self, stream: str, head: Head | None) -> list[int]:
        """First offsets of the segments that count, ascending: the named ones, and the one the stream ends in."""
        firsts, names = segment_firsts(self._root / stream), self._admitted(stream)
        if names is None:
            return firsts
        last = None if head is None else head.first
        return [first for first in firsts if first == last or segment_name(first) in names]

    def _find_end(self, stream: str) -> Head | None:
        """End of the acknowledged records; None for a stream that does not exist."""
        folder = self._root / stream
        head = read_head(folder)
        if head is not None and head.current:
            return head
        # No writer since this machine started (or no head at all): what is whole on disk is what there is.
        base = check_base(folder, stream, self._firsts(stream, head), head)
        if base is None:
            return None
        with closing(open_segment(folder, stream, base.first, os.O_RDONLY)) as descriptor:
            size = os.fstat(descriptor).st_size
            walk = FrameWalk(descriptor, base.position, size)
            count = sum(1 for _ in walk.records())
        again = read_head(folder)
        if again is not None and again.current:
            return again  # a writer came meanwhile, and the walk may have met records of an unfinished append
        return Head(base.first, walk.position, base.offset + count, current=False)

    def _segment_of(self, stream: str, offset: int, head: Head) -> tuple[int, int]:
        """First offset of the segment that holds an offset, and the first offset after it."""
        if offset >= head.first:
            return head.first, head.offset
        firsts = self._firsts(stream, head)
        place = bisect.bisect_right(firsts, offset) - 1
        if place < 0 or place + 1 >= len(firsts):
            raise missing_segment(f"stream {stream}, offset {offset}")
        return firsts[place], firsts[place + 1]


def _damaged(stream: str, first: int, offset: int) -> IntegrityError:
    return IntegrityError(
        "a record must be there and intact",
        where=f"stream {stream}, segment {segment_name(first)}, offset {offset}",
        remedy="Restore the segment from a copy; 'segments' names those around it",
        got="a damaged or missing one",
    )
