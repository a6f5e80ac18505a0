"""A folder for one call, in which whatever is not Parquet becomes Parquet, and of which nothing stays.

A process that is killed leaves its folder behind; the next call takes away those that are a day old.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from itertools import count, groupby
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from retrodict.core.errors import InputError
from retrodict.data.readers._files import os_errors
from retrodict.data.readers._types import (
    check_names,
    one_schema,
    plain_batch,
    plain_batches,
    plain_schema,
    without_empty,
)
from retrodict.data.readers.batch import Part, part_batches

ROWS = 1 << 17  # of a row group
_BYTES = 1 << 26  # of a row group, if its rows are long
PREFIX = "batch-"
_DAY_S = 86_400


@dataclass(slots=True)
class Staging:
    """A folder for one call, and the names of the files in it."""

    folder: Path
    _names: Iterator[int] = field(default_factory=count)

    @classmethod
    @contextmanager
    def make(cls, root: Path) -> Iterator[Staging]:
        """Make a folder inside ``root``, remove what killed processes left there, and remove this one at the end."""
        with os_errors():
            root.mkdir(parents=True, exist_ok=True)
            sweep(root)
            folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=root))
        try:
            yield cls(folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def path(self, suffix: str) -> Path:
        """Return a path that was not given before."""
        return self.folder / f"{next(self._names):06d}{suffix}"

    def discard(self, part: Part) -> None:
        """Delete a part that was staged here; a file of the caller stays."""
        if part.path.parent == self.folder:
            part.path.unlink()

    def write(self, name: str, batches: Iterable[pa.RecordBatch], schema: pa.Schema | None = None) -> list[Part]:
        """Write rows to Parquet as they come; wherever their columns change, a new file begins.

        ``name`` is what messages call the rows; ``schema`` the columns of the one part there is if no batch comes.
        """
        runs = groupby(batches, key=lambda rows: rows.schema)
        parts = [self._write_part(name, plain_schema(columns), run) for columns, run in runs]
        return parts or [self._write_part(name, plain_schema(schema or pa.schema([])), ())]

    def _write_part(self, name: str, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> Part:
        check_names(schema.names, name)
        path, rows = self.path(".parquet"), 0
        try:
            writer = pq.ParquetWriter(path, schema, compression="lz4", use_compliant_nested_type=False)
        except pa.ArrowNotImplementedError as error:
            raise _unwritable(name, schema) from error
        with writer:
            for block in blocks(plain_batches(batches, schema, name), ROWS):
                writer.write_table(block, row_group_size=ROWS)
                rows += block.num_rows
        return Part(path, name, schema, rows)


def blocks(batches: Iterable[pa.RecordBatch], rows: int) -> Iterator[pa.Table]:
    """Rows in the same order, ``rows`` at a time (fewer if they are long, and at the end), however they came."""
    pending: list[pa.RecordBatch] = []
    count_, size = 0, 0
    for batch in batches:
        rest = batch
        while rest.num_rows:
            fit = rest.slice(0, rows - count_)
            rest = rest.slice(fit.num_rows)
            pending.append(fit)
            count_, size = count_ + fit.num_rows, size + fit.nbytes
            if count_ == rows or size >= _BYTES:
                yield pa.Table.from_batches(pending)
                pending, count_, size = [], 0, 0
    if pending:
        yield pa.Table.from_batches(pending)


def sweep(root: Path) -> None:
    """Remove folders of calls that nobody has written to for a day."""
    limit = time.time() - _DAY_S
    for folder in root.glob(f"{PREFIX}*"):
        try:
            newest = max(path.stat().st_mtime for path in (folder, *folder.iterdir()))
        except OSError:  # its owner removes it just now
            continue
        if newest < limit:
            shutil.rmtree(folder, ignore_errors=True)


def _unwritable(name: str, schema: pa.Schema) -> InputError:
    types = {}
    for one in schema:
        try:
            pq.ParquetWriter(BytesIO(), pa.schema([one])).close()
        except pa.ArrowNotImplementedError:
            types[one.name] = str(one.type)
    return InputError(
        "a column must have a type that Parquet keeps", where=name, got=types, remedy="Cast the column, or leave it out"
    )


# one batch of several files -----------------------------------------------------------------------------------


def join(groups: Sequence[Sequence[Part]], stage: Staging) -> tuple[tuple[Part, ...], pa.Schema]:
    """Parts of all files in order, each with the returned columns; those that differ are written anew.

    Within a file (a group) a column may begin late; files with other columns, or other kinds of a column, are refused.
    """
    schemas = [one_schema([part.schema for part in parts]) for parts in groups]
    for parts, schema in zip(groups, schemas, strict=True):
        missing = set(schemas[0].names) - set(schema.names)
        added = set(schema.names) - set(schemas[0].names)
        if missing or added:
            raise InputError(
                "the files of one batch must have the same columns",
                where=parts[0].name,
                got=f"{len(missing)} missing and {len(added)} more than in {groups[0][0].name}",
                remedy="Ingest them by calls of their own",
            )
    names = ", ".join(dict.fromkeys(part.name for parts in groups for part in parts))
    try:
        schema = one_schema(schemas)
    except InputError as error:
        raise _torn(names, error.where) from error
    schema = without_empty(schema, names)
    joined: list[Part] = []
    for part in (part for parts in groups for part in parts):
        if part.schema.equals(schema):
            joined.append(part)
            continue
        joined += stage.write(part.name, _cast(part, schema, names), schema)
        stage.discard(part)
    return tuple(joined), schema


def _cast(part: Part, schema: pa.Schema, names: str) -> Iterator[pa.RecordBatch]:
    for rows in part_batches(part, ROWS):
        try:
            yield plain_batch(rows, schema)
        except pa.ArrowException:
            raise _torn(names, None) from None  # its text quotes the value


def _torn(names: str, column: str | None) -> InputError:
    return InputError(
        "a column must have one type in all files of a batch",
        where=f"{names}, {column}" if column else names,
        remedy="Ingest them by calls of their own",
    )
