"""Spines: the rows that a training frame is made for, from a table, a file or memory, readable again.

Rows come a bounded number at a time. A spine of CSV has no types: its columns of text get those of the columns they
are compared with.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from retrodict.data.ingest import staging_folder
from retrodict.data.readers import open_batch
from retrodict.data.versions import resolve
from retrodict.features.offline.texts import parse_texts
from retrodict.workspace import Workspace

__all__ = ["Spine", "SpineReader", "is_table", "open_spine", "table_spine"]


@dataclass(frozen=True, slots=True)
class Spine:
    """Rows that a frame is made for, readable again.

    Attributes
    ----------
    rows : callable
        Gives a fresh reader of the same rows.
    count : int
        How many there are.
    ref : str
        What they are, for the ledger: ``dataset:orders@3``, or ``batch:`` with the hash of a file.
    origin : str
        The same for people: ``orders@3``, the name of a file, or ``memory``.

    Examples
    --------
    >>> requests = pa.table({"card": ["a", "b"]})
    >>> Spine(requests.to_reader, requests.num_rows, "batch:9f2c", "requests.csv").rows().read_all().num_rows
    2
    """

    rows: Callable[[], pa.RecordBatchReader]
    count: int
    ref: str
    origin: str


class SpineReader:
    """Rows of a spine, taken so many at a time, whatever batches they come in; a reader is used up.

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
        parts, missing = [], count
        while missing:
            batch = next(self._batches, None) if self._rest is None else self._rest
            if batch is None:
                break
            parts.append(batch.slice(0, missing))
            self._rest = batch.slice(missing) if batch.num_rows > missing else None
            missing -= parts[-1].num_rows
        return pa.Table.from_batches(parts, self.schema)

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


def is_table(source: Any) -> bool:
    """Whether a spine names a table of the project, like ``orders`` or ``orders@3``; files have a suffix, or exist."""
    if not isinstance(source, str):
        return False
    if source.startswith("dataset:"):
        return True
    return source != "-" and not Path(source).suffix and not {"/", os.sep} & set(source) and not Path(source).exists()


def table_spine(workspace: Workspace, ref: str) -> Spine:
    """Rows of a table of the project as a spine, without the columns that say with which batch a row came.

    Parameters
    ----------
    workspace : Workspace
    ref : str
        ``orders``: the newest version; ``orders@3``, ``orders@golden``: that one.

    Raises
    ------
    NotFoundError
        If there is no such table, version or tag.
    """
    dataset, tables = resolve(workspace, ref), workspace.tables
    names = [name for name in tables.schema(dataset.name, dataset.version).names if not name.startswith("_")]
    count = sum(file.rows for file in tables.files(dataset.name, dataset.version))
    return Spine(
        lambda: tables.batches(dataset.name, dataset.version, columns=names), count, str(dataset), dataset.short
    )


@contextmanager
def open_spine(workspace: Workspace, source: Any, types: Mapping[str, pa.DataType]) -> Iterator[Spine]:
    """Open the rows of a table, a file or a frame, to be read any number of times while the block lasts.

    Parameters
    ----------
    workspace : Workspace
    source : str, path, Arrow object or frame
        A reference to a table (``orders``, ``orders@3``); a file or ``-`` for CSV from standard input; or rows in
        memory, as :func:`~retrodict.data.readers.open_batch` takes them.
    types : mapping of str to pyarrow.DataType
        As what columns of text are read, where the spine has them.

    Raises
    ------
    InputError
        If a column of text does not hold its type; the message names the row, never its value.
    RetryableError
        If the file changed while it was read.
    """
    where = f"spine {source}" if isinstance(source, str | Path) else "spine"
    if is_table(source):
        spine = table_spine(workspace, source)
        yield replace(spine, rows=_typed_rows(spine.rows().schema, spine.rows, types, where))
        return
    format_ = "csv" if isinstance(source, str) and source == "-" else None
    with staging_folder(workspace) as staging, open_batch(source, staging=staging, format=format_) as batch:
        rows = _typed_rows(batch.schema, batch.batches, types, where)
        yield Spine(rows, batch.num_rows, f"batch:{batch.id}", batch.origin)
        batch.check_unchanged()


def _typed_rows(
    schema: pa.Schema, batches: Callable[[], Iterable[pa.RecordBatch]], types: Mapping[str, pa.DataType], where: str
) -> Callable[[], pa.RecordBatchReader]:
    target = parse_texts(schema.empty_table(), types, where=where).schema.remove_metadata()

    def rows() -> Iterator[pa.RecordBatch]:
        count = 0
        for batch in batches():
            place = where if not count else f"{where}, after row {count}"
            table = parse_texts(pa.Table.from_batches([batch]), types, where=place)
            yield from table.cast(target).to_batches()
            count += batch.num_rows

    return lambda: pa.RecordBatchReader.from_batches(target, rows())
