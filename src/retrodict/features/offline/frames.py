"""Training frames of any length in bounded memory, and frames that are kept and grow with their spine.

A spine is cut into pieces; each piece is one training frame over the same prepared events, so nothing is read or sorted
twice, and pieces run on all cores. A kept frame is a table: each of its versions says which rows of the spine it holds
and everything they were made from, so a frame that was interrupted, and one whose spine got more rows, are the same
case. Keeping a second kind of file beside the tables was rejected.
"""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from typing import Any

import pyarrow as pa

from retrodict.core.errors import BusyError, InputError, InternalError, near
from retrodict.core.identity import content_hash
from retrodict.features.offline.frame import Rows, training_frame
from retrodict.features.offline.indexes import IndexedEvents
from retrodict.features.offline.prepared import EventSource, HeldEvents
from retrodict.features.plan import FeatureSet
from retrodict.stores.tables.base import TableStore
from retrodict.stores.tables.content import table_digest

__all__ = ["KeptFrame", "frame_batches", "keep_frame"]

_PIECE = 1 << 19  # rows: enough for neighbours to share memory when sorted, few enough to hold one per core
_COMMIT = 1 << 21
_NOTE = "frame"


@dataclass(frozen=True, slots=True)
class KeptFrame:
    """A frame that lies in a table.

    Attributes
    ----------
    name : str
        The table.
    version : int
        Its version.
    rows : int
        Rows of the frame: as many as its spine has.
    computed : int
        How many of them were computed now; the others were there.
    origin : dict
        What it was made from, as hashes: ``features``, ``sources`` by name, ``code``, ``spine`` (rows and SHA-256 of
        each part, in order); and ``at``.
    """

    name: str
    version: int
    rows: int
    computed: int
    origin: dict[str, Any]


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
        _Spine(spine).pieces(_PIECE), lambda piece: training_frame(piece, at, features, held), threads
    ):
        if frame.num_rows != piece.num_rows:
            raise InternalError("a frame holds the rows of its spine", where="frames", got=frame.num_rows)
        schema = schema or frame.schema
        yield frame if frame.schema.equals(schema) else frame.cast(schema)


def keep_frame(
    tables: TableStore,
    name: str,
    spine: pa.Table | Callable[[], pa.RecordBatchReader],
    at: str,
    features: FeatureSet,
    sources: Mapping[str, Rows],
    *,
    code: str | None = None,
) -> KeptFrame:
    """Bring a kept frame up to its spine: only rows that are not there yet are computed.

    Rows are there if the table's newest version was made by the same features, of the same rows of the same sources, by
    the same code, and the spine still begins with the rows that it holds. Otherwise the frame is made anew, as a new
    version of the same table. Every two million rows are a version of their own, so a process that is killed loses at
    most those it was at. One process at a time: a caller that cannot be sure holds ``project.lock`` meanwhile.

    Parameters
    ----------
    tables : TableStore
        Where the frame is kept.
    name : str
        Its table, which holds nothing else.
    spine : pyarrow.Table or callable
        One row per decision; a callable gives a fresh reader of the same rows each time.
    at, features, sources
        As :func:`frame_batches`.
    code : str, optional
        Id of the project's code, if derived functions call functions beside them. None: not looked at.

    Raises
    ------
    InputError
        If the table holds something else, or as :func:`~retrodict.features.offline.training_frame`.
    BusyError
        If another process wrote the table meanwhile.
    """
    again = spine if callable(spine) else spine.to_reader
    made = {"at": at, "features": features.version, "sources": _identities(features, sources), "code": code}
    parts, rest = _known_parts(tables, name, made), _Spine(again())
    if not rest.begins_with(parts):
        parts, rest = [], _Spine(again())
    before = sum(rows for rows, _ in parts)
    version = len(tables.history(name)) - 1
    held = _held(sources)
    for part in rest.pieces(_COMMIT):
        if parts and not part.num_rows:
            break
        parts = [*parts, (part.num_rows, table_digest(part))]
        note = {_NOTE: json.dumps({**made, "spine": parts}, sort_keys=True)}
        rows = _reader(frame_batches(part, at, features, held))
        written = tables.write(name, rows, mode="append" if len(parts) > 1 else "overwrite", metadata=note)
        version += 1
        if written != version:
            raise BusyError(
                "one process at a time writes a kept frame",
                where=f"frame {name}",
                got=f"version {written} instead of {version}",
                remedy=f"Restore version {written - 1} of the table, and hold project.lock('frame/{name}')",
            )
    total = sum(rows for rows, _ in parts)
    return KeptFrame(name, version, total, total - before, {**made, "spine": parts})


def _held(sources: Mapping[str, Rows]) -> dict[str, EventSource]:
    return {name: HeldEvents(rows) if isinstance(rows, pa.Table) else rows for name, rows in sources.items()}


def _reader(frames: Iterator[pa.Table]) -> pa.RecordBatchReader:
    first = next(frames)
    batches = (batch for frame in chain([first], frames) for batch in frame.to_batches())
    return pa.RecordBatchReader.from_batches(first.schema, batches)


def _identities(features: FeatureSet, sources: Mapping[str, Rows]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name in features.sources:
        rows = sources.get(name)
        if rows is None:
            raise InputError(
                "there are rows for every source", where="sources", got=name, remedy=near(name, sources, what="source")
            )
        if isinstance(rows, IndexedEvents):
            found[name] = rows.identity
        elif isinstance(rows, pa.Table):
            found[name] = table_digest(rows)
        else:
            raise InputError(
                "a kept frame knows what it was made from",
                where=f"source {name!r}",
                got=type(rows).__name__,
                remedy="Pass the table, or EventIndexes.sources(features)",
            )
    return found


def _known_parts(tables: TableStore, name: str, made: Mapping[str, Any]) -> list[tuple[int, str]]:
    """Parts of the spine that the newest version holds, if it was made from the same; else none."""
    history = tables.history(name)
    if not history:
        return []
    note = history[-1].metadata.get(_NOTE)
    if not any(_NOTE in version.metadata for version in history):
        raise InputError(
            "the table of a kept frame holds nothing else", where=f"frame {name}", remedy="Give the frame another name"
        )
    if note is None:  # compacted, or restored from another version: nobody vouches for the rows
        return []
    origin = json.loads(note)
    parts = [(int(rows), str(digest)) for rows, digest in origin.pop("spine")]
    return parts if content_hash(origin) == content_hash(dict(made)) else []


class _Spine:
    """Rows of a spine, taken so many at a time."""

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
