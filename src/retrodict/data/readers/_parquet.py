"""Parquet files as the parts of a batch: read a few rows at a time, with what is damaged mapped by file.

A footer tells columns and row counts but nothing of the pages: those are checked when they are read, by the checksums
the file carries (if its writer made any), by its codec, and by what a type allows (text is UTF-8, offsets ascend).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from retrodict.data.readers._files import damage, os_errors
from retrodict.data.readers._types import check_names, plain_batch, plain_schema

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
            yield _sound(rows, part)


def part_table(part: Part) -> pa.Table:
    """All rows of a file."""
    with _opened(part.path, part.name) as file:
        rows = [_sound(batch, part) for batch in file.read().to_batches()]
        return pa.Table.from_batches(rows, schema=part.schema)


def _sound(rows: pa.RecordBatch, part: Part) -> pa.RecordBatch:
    rows.validate(full=True)
    return plain_batch(rows, part.schema)


@contextmanager
def _opened(path: Path, name: str) -> Iterator[pq.ParquetFile]:
    with (
        os_errors(name),
        damage("the file must be whole, readable Parquet", name),
        # Not read ahead: that would hold every column of a row group, however large, at once.
        pq.ParquetFile(path, page_checksum_verification=True, pre_buffer=False, buffer_size=1 << 20) as file,
    ):
        yield file
