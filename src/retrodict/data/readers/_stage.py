"""A folder for one call, in which whatever is not Parquet becomes Parquet, and of which nothing stays.

A process that is killed leaves its folder behind; the next call takes away those that are a day old.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from itertools import count
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from retrodict.core.errors import InputError
from retrodict.data.readers._files import os_errors
from retrodict.data.readers._parquet import Part
from retrodict.data.readers._types import check_names, plain_batches, plain_schema

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

        Parameters
        ----------
        name : str
            What messages call the rows.
        batches : iterable of pyarrow.RecordBatch
        schema : pyarrow.Schema, optional
            Columns, if it may be that no batch comes.

        Returns
        -------
        list of Part
            At least one.
        """
        parts: list[Part] = []
        rest = iter(batches)
        head = next(rest, None)
        if head is None:
            return [self._write_part(name, plain_schema(schema or pa.schema([])), iter(()))]
        while head is not None:
            run = _Run(head, rest)
            parts.append(self._write_part(name, plain_schema(head.schema), run.batches()))
            head = run.next
        return parts

    def _write_part(self, name: str, schema: pa.Schema, batches: Iterator[pa.RecordBatch]) -> Part:
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


class _Run:
    """The batches that have the columns of the first; ``next`` is the one that ended them."""

    def __init__(self, head: pa.RecordBatch, rest: Iterator[pa.RecordBatch]) -> None:
        self.next: pa.RecordBatch | None = head
        self._rest, self._schema = rest, head.schema

    def batches(self) -> Iterator[pa.RecordBatch]:
        while self.next is not None and self.next.schema.equals(self._schema):
            yield self.next
            self.next = next(self._rest, None)


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
