"""A batch: rows as they came, in order, with the id that makes a second ingest of them a no-op.

Its parts are Parquet files. A footer tells columns and row counts but nothing of the pages: those are checked when they
are read, by the checksums the file carries (if its writer made any), by its codec, and by what a type allows (text is
UTF-8, offsets ascend).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from retrodict.core.errors import InternalError
from retrodict.data.readers._files import Stamped, check_unchanged, damage, os_errors
from retrodict.data.readers._types import check_names, plain_batch, plain_schema

__all__ = ["Batch"]

_BYTES = 1 << 28  # read at once, if rows are long


@dataclass(frozen=True, slots=True)
class Part:
    """A Parquet file that holds rows of a batch: where, what messages call it, its columns, how many rows."""

    path: Path
    name: str
    schema: pa.Schema
    rows: int


def open_part(path: Path, name: str) -> Part:
    """Read the footer of a file; InputError if it is none, or names a column twice."""
    with _opened(path, name) as file:
        schema = plain_schema(file.schema_arrow)
        check_names(schema.names, name)
        return Part(path, name, schema, file.metadata.num_rows)


def row_groups(part: Part) -> list[int]:
    """Rows per row group."""
    with _opened(part.path, part.name) as file:
        return [file.metadata.row_group(place).num_rows for place in range(file.metadata.num_row_groups)]


def part_batches(part: Part, size: int, groups: Sequence[int] | None = None) -> Iterator[pa.RecordBatch]:
    """Rows of a file in order, or those of some of its row groups, at most ``size`` at a time."""
    with _opened(part.path, part.name) as file:
        total = sum(file.metadata.row_group(place).total_byte_size for place in range(file.metadata.num_row_groups))
        fit = max(1, _BYTES * part.rows // max(1, total))
        for rows in file.iter_batches(batch_size=min(size, fit), row_groups=groups):
            rows.validate(full=True)
            yield plain_batch(rows, part.schema)


@contextmanager
def _opened(path: Path, name: str) -> Iterator[pq.ParquetFile]:
    with (
        os_errors(name),
        damage("the file must be whole, readable Parquet", name),
        # Not read ahead: that would hold every column of a row group, however large, at once.
        pq.ParquetFile(path, page_checksum_verification=True, pre_buffer=False, buffer_size=1 << 20) as file,
    ):
        yield file


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Rows as they came, readable any number of times; those in files only while the batch is open.

    Attributes
    ----------
    id : str
        SHA-256 over the content: of the files' bytes in their order, of a table's values, or of the values that a
        query or a stream gave. Neither names nor chunks count.
    origin : str
        Where they came from, for reports: file names without folders, ``"memory"``, ``"stdin"`` or ``"sql"``.
    schema : pyarrow.Schema
        Names and types as they arrive; CSV columns are text, dictionaries are decoded.
    num_rows : int
    table : pyarrow.Table or None
        All rows, if they are in memory.

    Examples
    --------
    >>> from retrodict.data.readers import read_batch
    >>> batch = read_batch(pa.table({"id": [1, 2, 3]}))
    >>> batch.num_rows, batch.take(np.array([0, 2])).to_pylist()
    (3, [{'id': 1}, {'id': 3}])
    """

    id: str
    origin: str
    schema: pa.Schema
    num_rows: int
    table: pa.Table | None = field(default=None, repr=False)
    _parts: tuple[Part, ...] = field(default=(), repr=False)
    _sources: tuple[Stamped, ...] = field(default=(), repr=False)

    @property
    def files(self) -> tuple[Path, ...]:
        """Parquet files that hold the rows in order, all with the columns of ``schema``; none if ``table`` does."""
        return tuple(part.path for part in self._parts)

    @property
    def rows(self) -> pa.Table:
        """All rows, in memory: for small batches."""
        if self.table is not None:
            return self.table
        return pa.Table.from_batches(self.batches(), schema=self.schema)

    def batches(self, size: int = 1 << 17) -> Iterator[pa.RecordBatch]:
        """Rows in order, at most ``size`` at a time; a few row groups' worth of memory at most.

        Raises
        ------
        InputError
            If a file turns out damaged on the way: its footer is checked when it is opened, its pages only here.
        """
        if self.table is not None:
            yield from self.table.to_batches(max_chunksize=size)
            return
        for part in self._parts:
            yield from part_batches(part, size)

    def take(self, positions: np.ndarray[Any, np.dtype[np.integer[Any]]]) -> pa.Table:
        """Rows at places of the batch, which ascend; only the row groups that hold one of them are read.

        Parameters
        ----------
        positions : numpy.ndarray of int, shape (n,)
            0 is the first row; ascending.

        Returns
        -------
        pyarrow.Table
            n rows.
        """
        places = np.asarray(positions, dtype=np.int64)
        if len(places) and (places[0] < 0 or places[-1] >= self.num_rows or (np.diff(places) < 0).any()):
            raise InternalError(
                "places of rows must ascend and lie inside the batch",
                where=f"batch {self.origin}",
                got=len(places),
                remedy="Report it",
            )
        if self.table is not None:
            return self.table.take(pa.array(places))
        return pa.Table.from_batches(self._taken(places), schema=self.schema)

    def _taken(self, places: np.ndarray[Any, np.dtype[np.int64]]) -> Iterator[pa.RecordBatch]:
        begin = 0
        for part in self._parts:
            inside = places[np.searchsorted(places, begin) : np.searchsorted(places, begin + part.rows)] - begin
            begin += part.rows
            if not len(inside):
                continue
            edges = np.concatenate([[0], np.cumsum(row_groups(part))])
            for group, (low, high) in enumerate(pairwise(edges)):
                positions = inside[np.searchsorted(inside, low) : np.searchsorted(inside, high)] - low
                if len(positions):
                    yield from _pick(part_batches(part, 1 << 16, [group]), positions)

    def check_unchanged(self) -> None:
        """Refuse to go on if a file that the rows are read from is another one by now; call it before publishing.

        Raises
        ------
        RetryableError
            If one changed, was replaced, or is gone.
        """
        check_unchanged(self._sources)


def _pick(
    batches: Iterator[pa.RecordBatch], positions: np.ndarray[Any, np.dtype[np.int64]]
) -> Iterator[pa.RecordBatch]:
    begin = 0
    for rows in batches:
        here = positions[np.searchsorted(positions, begin) : np.searchsorted(positions, begin + rows.num_rows)] - begin
        if len(here):
            yield rows.take(pa.array(here))
        begin += rows.num_rows
