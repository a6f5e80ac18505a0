"""Rows into Parquet files, a bounded number at a time.

A stream is cut into files of a million rows and two of them are written at once: Arrow encodes one file on one core.
What made most of the difference to speed is not the codec but dictionaries, so each column of each file is asked
whether one would help; zstd at level 1 then costs little and reads back smaller than snappy or lz4.
"""

from __future__ import annotations

import contextlib
import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import types as is_

from retrodict.core.errors import OpenBreakerError
from retrodict.stores.tables._places import Place, mapped, mapping
from retrodict.stores.tables._types import cast_rows

FILE_ROWS, FILE_BYTES = 1 << 20, 128 << 20
ROW_GROUP, _GROUP_BYTES = 1 << 17, 64 << 20
_PIECE = 1 << 16
_SAMPLE = 10_000


@dataclass(frozen=True, slots=True)
class Written:
    """A data file that lies there, named by no version yet."""

    path: str
    size: int
    rows: int


def file_name(version: int, index: int) -> str:
    """Name of a data file; names sort like the rows in them."""
    return f"{version:020d}-{index:05d}-{os.urandom(4).hex()}.parquet"


def store_rows(
    place: Place, name: str, version: int, rows: pa.Table | pa.RecordBatchReader, schema: pa.Schema
) -> list[Written]:
    """Write rows in the types of a schema as data files; on any failure none of them is left.

    Holds at most as many pieces of ``FILE_ROWS`` rows or ``FILE_BYTES`` as there are threads, and one more.
    """
    batches = rows.to_batches() if isinstance(rows, pa.Table) else rows
    pieces = _gathered(batches, FILE_ROWS, FILE_BYTES)
    first, second = next(pieces, None), next(pieces, None)
    if first is None:
        return []
    with mapping(f"table {name}"):
        place.prepare(name)
    if second is None:
        return [write_file(place, name, file_name(version, 0), [first], schema)]
    return _store_pieces(place, name, version, chain([first, second], pieces), schema)


def _store_pieces(
    place: Place, name: str, version: int, pieces: Iterable[pa.Table], schema: pa.Schema
) -> list[Written]:
    started: list[str] = []
    threads = min(os.cpu_count() or 1, 4)
    pool = ThreadPoolExecutor(threads)
    done: list[Written] = []
    waiting: deque[Future[Written]] = deque()
    try:
        for index, piece in enumerate(pieces):
            if len(waiting) >= threads:
                done.append(waiting.popleft().result())
            started.append(file_name(version, index))
            waiting.append(pool.submit(write_file, place, name, started[-1], [piece], schema))
        done += [future.result() for future in waiting]
    except BaseException:
        # The threads end first: a file that is removed while it is written would come back.
        pool.shutdown(wait=True, cancel_futures=True)
        discard(place, name, started)
        raise
    pool.shutdown()
    return done


def discard(place: Place, name: str, paths: Iterable[str]) -> None:
    """Remove files after a failure; one that cannot be is left to a vacuum, and the failure itself is told."""
    with contextlib.suppress(OSError, OpenBreakerError):
        place.remove(name, paths)


def write_file(place: Place, name: str, path: str, pieces: Iterable[pa.Table], schema: pa.Schema) -> Written:
    """Write one data file, durably, from tables that come one by one; a failure leaves nothing."""
    where, count = f"table {name}", 0
    writer: pq.ParquetWriter | None = None
    full = place.path(name, path)
    try:
        with place.filesystem.open_output_stream(full) as sink:
            for piece in pieces:
                table = cast_rows(piece, schema, where=where)
                if writer is None:
                    writer = _open(sink, table)
                writer.write_table(table, row_group_size=ROW_GROUP)
                count += table.num_rows
            if writer is None:
                writer = _open(sink, schema.empty_table())
            writer.close()
            size = sink.tell()
        place.settle(name, [path])
    except BaseException as error:
        if writer is not None:
            writer.is_open = False  # it would write a footer to the closed file when it is collected
        discard(place, name, [path])
        if isinstance(error, OSError):
            raise mapped(error, where) from error
        raise
    return Written(path, size, count)


def row_groups(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    """Small batches gathered to tables of about a row group."""
    yield from _gathered(batches, ROW_GROUP, _GROUP_BYTES)


def _gathered(batches: Iterable[pa.RecordBatch], rows: int, size: int) -> Iterator[pa.Table]:
    pieces: list[pa.RecordBatch] = []
    count = weight = 0
    for batch in batches:
        start = 0
        while start < batch.num_rows:
            piece = batch.slice(start, min(_PIECE, rows - count))
            pieces.append(piece)
            start, count, weight = start + piece.num_rows, count + piece.num_rows, weight + _weight(piece)
            if count >= rows or weight >= size:
                yield pa.Table.from_batches(pieces)
                pieces, count, weight = [], 0, 0
    if pieces:
        yield pa.Table.from_batches(pieces)


def _weight(batch: pa.RecordBatch) -> int:
    # A slice counts its whole dictionary again: what its rows weigh when decoded is guessed from the indices.
    return sum(4 * part.indices.nbytes if is_.is_dictionary(part.type) else part.nbytes for part in batch.columns)


def _open(sink: pa.NativeFile, first: pa.Table) -> pq.ParquetWriter:
    return pq.ParquetWriter(
        sink, first.schema, compression="zstd", compression_level=1, use_dictionary=_repetitive(first)
    )


def _repetitive(rows: pa.Table) -> list[str]:
    """Columns with few values: for others a dictionary is built in vain, at twice the time."""
    repetitive = []
    for name, column in zip(rows.schema.names, rows.columns, strict=True):
        if is_.is_nested(column.type) or is_.is_boolean(column.type):
            continue
        sample = column.slice(0, _SAMPLE)
        if len(sample.unique()) <= max(len(sample) // 4, 16):
            repetitive.append(name)
    return repetitive
