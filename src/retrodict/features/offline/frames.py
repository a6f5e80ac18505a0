"""Training frames of any length in bounded memory.

A spine is cut into pieces; each piece is one training frame over the same prepared events, so nothing is read or sorted
twice, and pieces run on all cores.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor

import pyarrow as pa

from retrodict.core.errors import InternalError
from retrodict.features.offline.frame import Rows, training_frame
from retrodict.features.offline.prepared import EventSource, HeldEvents
from retrodict.features.plan import FeatureSet
from retrodict.stores.tables.content import table_digest

__all__ = ["SpineReader", "frame_batches"]

_PIECE = 1 << 19  # rows: enough for neighbours to share memory when sorted, few enough to hold one per core


def frame_batches(
    spine: pa.Table | pa.RecordBatchReader,
    at: str,
    features: FeatureSet,
    sources: Mapping[str, Rows],
    *,
    threads: int | None = None,
) -> Iterator[pa.Table]:
    """Training frame of a spine, piece by piece, in the order of the spine; it has at least one piece.

    Parameters
    ----------
    spine : pyarrow.Table or pyarrow.RecordBatchReader
        One row per decision; of a reader some million rows are held at a time.
    at : str
        Its time column.
    features : FeatureSet
        What to compute.
    sources : mapping of str to pyarrow.Table or EventSource
        Rows of each source by the source's name; a table is prepared once for all pieces.
    threads : int, optional
        Pieces computed at the same time. None: one per core, at most 4.

    Raises
    ------
    InputError
        As :func:`~retrodict.features.offline.training_frame`.
    """
    threads = threads or min(os.cpu_count() or 1, 4)
    held = _held(sources)
    schema: pa.Schema | None = None
    for piece, frame in _ahead(
        SpineReader(spine).pieces(_PIECE), lambda piece: training_frame(piece, at, features, held), threads
    ):
        if frame.num_rows != piece.num_rows:
            raise InternalError("a frame holds the rows of its spine", where="frames", got=frame.num_rows)
        schema = schema or frame.schema
        yield frame if frame.schema.equals(schema) else frame.cast(schema)


def _held(sources: Mapping[str, Rows]) -> dict[str, EventSource]:
    return {name: HeldEvents(rows) if isinstance(rows, pa.Table) else rows for name, rows in sources.items()}


class SpineReader:
    """Rows of a spine, taken so many at a time, whatever batches they come in.

    Parameters
    ----------
    rows : pyarrow.Table or pyarrow.RecordBatchReader
        The spine; a reader is used up.

    Attributes
    ----------
    schema : pyarrow.Schema
        Its columns.

    Examples
    --------
    >>> reader = SpineReader(pa.table({"id": [1, 2, 3]}))
    >>> reader.take(2)["id"].to_pylist(), reader.more, reader.take(2)["id"].to_pylist(), reader.more
    ([1, 2], True, [3], False)
    """

    def __init__(self, rows: pa.Table | pa.RecordBatchReader) -> None:
        self.schema = rows.schema
        self._batches = iter(rows.to_batches() if isinstance(rows, pa.Table) else rows)
        self._rest: pa.RecordBatch | None = None

    def take(self, count: int) -> pa.Table:
        """Return the next rows; fewer at the end."""
        found, missing = [], count
        while missing:
            batch = next(self._batches, None) if self._rest is None else self._rest
            if batch is None:
                break
            found.append(batch.slice(0, missing))
            self._rest = batch.slice(missing) if batch.num_rows > missing else None
            missing -= found[-1].num_rows
        return pa.Table.from_batches(found, self.schema)

    @property
    def more(self) -> bool:
        """Whether there are rows that were not taken yet."""
        while self._rest is None or not self._rest.num_rows:
            self._rest = next(self._batches, None)
            if self._rest is None:
                return False
        return True

    def pieces(self, size: int) -> Iterator[pa.Table]:
        """Return all that is left, piece by piece; one that is empty if nothing is."""
        piece = self.take(size)
        yield piece
        while piece.num_rows == size:
            piece = self.take(size)
            if piece.num_rows:
                yield piece

    def begins_with(self, parts: Iterable[tuple[int, str]]) -> bool:
        """Whether the next rows are these, by number and digest of each part; they are taken."""
        return all(table_digest(self.take(rows)) == digest for rows, digest in parts)


def _ahead(
    pieces: Iterable[pa.Table], job: Callable[[pa.Table], pa.Table], threads: int
) -> Iterator[tuple[pa.Table, pa.Table]]:
    """Each piece and what the job made of it, in order, with ``threads`` jobs at work."""
    with ThreadPoolExecutor(threads) as pool:
        waiting: deque[tuple[pa.Table, Future[pa.Table]]] = deque()
        try:
            for piece in pieces:
                waiting.append((piece, pool.submit(job, piece)))
                if len(waiting) >= threads:
                    given, future = waiting.popleft()
                    yield given, future.result()
            while waiting:
                given, future = waiting.popleft()
                yield given, future.result()
        finally:
            for _, future in waiting:
                future.cancel()
