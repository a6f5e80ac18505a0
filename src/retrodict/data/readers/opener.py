"""Opens a batch: decides what a source is, and leaves its rows in Parquet files or in memory."""

from __future__ import annotations

import hashlib
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from retrodict.core.errors import InputError, check_known
from retrodict.core.identity import digest_file
from retrodict.data.readers._arrow import frame_table, open_stream, read_ipc
from retrodict.data.readers._csv import read_csv
from retrodict.data.readers._files import FORMATS, InputFile, check_unchanged, find_files, os_errors, stamp
from retrodict.data.readers._json_lines import read_json_lines
from retrodict.data.readers._stage import Staging, join
from retrodict.data.readers._types import check_names, plain_batches, plain_schema
from retrodict.data.readers.batch import Batch, Part, open_part
from retrodict.data.readers.sql import SqlQuery
from retrodict.stores.tables.content import rows_digest, table_digest

__all__ = ["open_batch", "read_batch"]


@contextmanager
def open_batch(
    source: Any,
    *,
    staging: Path,
    format: str | None = None,  # noqa: A002
    identify: bool = True,
) -> Iterator[Batch]:
    """Open one batch of any size.

    Parameters
    ----------
    source : path, glob, folder, a list of these, ``"-"``, SqlQuery, ``"sql:URL SELECT …"``, Arrow object, or frame
        Files of one call have one format and the same columns, and make one batch in the order given. Of a folder,
        the files of a known format are taken, by name. An Arrow object is a table, a record batch, a reader or
        whatever has ``__arrow_c_stream__``.
    staging : pathlib.Path
        Folder in which a folder of this call is made, and removed at the end. It needs room for the batch as
        Parquet, unless that is what it is, and for what is compressed or comes from standard input.
    format : {"csv", "jsonl", "parquet", "arrow"}, optional
        Of standard input, or of files whose name does not say it. None: by the suffix.
    identify : bool, default True
        Whether the batch gets its id, for which everything is read; without, it is empty.

    Yields
    ------
    Batch
        Readable until the block ends.

    Raises
    ------
    InputError
        If nothing matches, the format is unknown, or the rows cannot be read; the message names file and line, and
        never repeats what stands there.
    RetryableError
        If a file changed while it was read, or the disk is full.
    """
    if format is not None:
        rule = "a format must be one of those that are read"
        check_known(format, FORMATS, rule, where="ingest", what="format", error=InputError)
    with Staging.make(Path(staging)) as stage:
        with os_errors():
            batch = _open(source, stage, format, identify)
        yield batch


def read_batch(source: Any, *, format: str | None = None) -> Batch:  # noqa: A002
    """Read one small batch into memory.

    Parameters
    ----------
    source, format
        As in :func:`open_batch`.

    Returns
    -------
    Batch
        With its ``table``.

    Raises
    ------
    InputError, RetryableError
        As :func:`open_batch`.
    """
    if isinstance(source, pa.Table):
        return _in_memory(source, True)
    with (
        tempfile.TemporaryDirectory(prefix="retrodict-") as folder,
        open_batch(source, staging=Path(folder), format=format) as batch,
    ):
        rows = batch.rows
        batch.check_unchanged()
        return Batch(batch.id, batch.origin, batch.schema, batch.num_rows, rows)


def _open(source: Any, stage: Staging, declared: str | None, identify: bool) -> Batch:
    if isinstance(source, SqlQuery) or (isinstance(source, str) and source.startswith("sql:")):
        query = source if isinstance(source, SqlQuery) else SqlQuery.parse(source)
        return _staged(stage.write("sql", query.batches()), stage, "sql", identify)
    if isinstance(source, str) and source == "-":
        return _from_files([_spooled(stage, declared)], stage, identify)
    if isinstance(source, str | Path):
        return _from_files(find_files([source], declared), stage, identify)
    if isinstance(source, pa.RecordBatch):
        return _in_memory(pa.Table.from_batches([source]), identify)
    if isinstance(source, pa.Table):
        return _in_memory(source, identify)
    pandas = sys.modules.get("pandas")
    if pandas is not None and isinstance(source, pandas.DataFrame):
        return _in_memory(frame_table(source), identify)
    if hasattr(source, "__arrow_c_stream__"):
        schema, rows = open_stream(source)
        return _staged(stage.write("rows", rows, schema), stage, "memory", identify)
    if isinstance(source, Sequence) and all(isinstance(item, str | Path) for item in source):
        return _from_files(find_files(source, declared), stage, identify)
    raise InputError(
        "a batch must be a path, a list of paths, a query, an Arrow object or a frame",
        where="ingest",
        got=type(source).__name__,
        remedy="Convert it to an Arrow table",
    )


def _in_memory(table: pa.Table, identify: bool) -> Batch:
    check_names(table.column_names, "memory")
    name, plain = table_digest(table) if identify else "", plain_schema(table.schema)
    rows = table
    if not table.schema.equals(plain):
        rows = pa.Table.from_batches(plain_batches(table.to_batches(), plain, "memory"), schema=plain)
    return Batch(name, "memory", rows.schema, rows.num_rows, rows)


def _staged(parts: Sequence[Part], stage: Staging, origin: str, identify: bool) -> Batch:
    joined, schema = join([parts], stage)
    batch = Batch("", origin, schema, sum(part.rows for part in joined), None, joined)
    return replace(batch, id=rows_digest(schema, batch.batches())) if identify else batch


def _spooled(stage: Staging, declared: str | None) -> InputFile:
    """Standard input as a file: formats are read from their end, and an error must not lose what cannot come again."""
    if declared is None:
        raise InputError(
            "standard input must come with its format",
            where="ingest",
            got=None,
            remedy=f"Say one of {', '.join(FORMATS)}",
        )
    path = stage.path(".stdin")
    head = b""
    with path.open("wb") as stream:
        while block := sys.stdin.buffer.read(1 << 20):
            head = head or block[:4]
            stream.write(block)
    packed = {b"\x1f\x8b": "gzip", b"\x28\xb5": "zstd"}.get(head[:2]) if declared in ("csv", "jsonl") else None
    return InputFile(path, "stdin", declared, packed)


def _from_files(files: Sequence[InputFile], stage: Staging, identify: bool) -> Batch:
    stamps = [stamp(file) for file in files]
    name = ""
    if identify:
        with ThreadPoolExecutor(max_workers=4) as pool:
            hashes = list(pool.map(digest_file, [file.path for file in files]))
        name = hashlib.sha256(b"".join(map(bytes.fromhex, hashes))).hexdigest()
    parts, schema = join([_parts(file, stage) for file in files], stage)
    check_unchanged(stamps)
    origin, rows = ", ".join(file.name for file in files), sum(part.rows for part in parts)
    in_place = {part.path for part in parts}
    return Batch(name, origin, schema, rows, None, parts, tuple(s for s in stamps if s[0].path in in_place))


def _parts(file: InputFile, stage: Staging) -> list[Part]:
    if file.format == "parquet":
        return [open_part(file.path, file.name)]
    if file.format == "jsonl":
        return stage.write(file.name, read_json_lines(file))
    schema, rows = read_csv(file, stage) if file.format == "csv" else read_ipc(file)
    return stage.write(file.name, rows, schema)
