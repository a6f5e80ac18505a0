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
from retrodict.features.offline.prepared import MemoryEvents
from retrodict.features.offline.spine import SpineReader
from retrodict.features.plan import FeatureSet

__all__ = ["frame_batches"]

_PIECE = 1 << 19  # rows: enough for neighbours to share memory when sorted, few enough to hold one per core
_LEAST = 1 << 16  # rows that are worth a thread of their own


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
    events = {name: MemoryEvents(rows) if isinstance(rows, pa.Table) else rows for name, rows in sources.items()}
    schema: pa.Schema | None = None
    share = -(-spine.num_rows // threads) if isinstance(spine, pa.Table) else _PIECE
    for piece, frame in _ahead(
        SpineReader(spine).pieces(min(max(share, _LEAST), _PIECE)),
        lambda piece: training_frame(piece, at, features, events),
        threads,
    ):
        if frame.num_rows != piece.num_rows:
            raise InternalError("a frame must hold the rows of its spine", where="frames", got=frame.num_rows)
        schema = schema or frame.schema
        yield frame if frame.schema.equals(schema) else frame.cast(schema)


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
                    first, future = waiting.popleft()
                    yield first, future.result()
            while waiting:
                first, future = waiting.popleft()
                yield first, future.result()
        finally:
            for _, future in waiting:
                future.cancel()
