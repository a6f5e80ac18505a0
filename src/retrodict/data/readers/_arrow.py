"""Arrow: files in the two IPC formats, anything that hands out an Arrow stream, and pandas frames."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from retrodict.core.errors import InputError
from retrodict.data.readers._files import AGAIN, InputFile, damage
from retrodict.data.readers._types import check_names, several_kinds

_WHOLE = "the file must be whole, readable Arrow IPC"
_END = b"\xff\xff\xff\xff\0\0\0\0"


def read_ipc(file: InputFile) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    """Columns and rows of a file in the file or the stream format.

    A stream that was cut between two messages reads like a shorter one, so it must carry its end mark.
    """
    with file.path.open("rb") as stream:
        head = stream.read(8)
        stream.seek(-min(8, stream.seek(0, 2)), 2)
        tail = stream.read(8)
    is_file = head.startswith(b"ARROW1")
    if not is_file and tail != _END:
        raise InputError(_WHOLE, where=file.name, got="a stream without its end mark", remedy=AGAIN)
    rows = _ipc_rows(file, is_file)
    first = next(rows)
    return first.schema, rows


def _ipc_rows(file: InputFile, is_file: bool) -> Iterator[Any]:
    """The reader's schema as an empty batch, then its rows: one generator, so that one place maps what is damaged."""
    with damage(_WHOLE, file.name), pa.OSFile(str(file.path)) as source:
        opened: Any = pa.ipc.open_file(source) if is_file else pa.ipc.open_stream(source)
        yield pa.RecordBatch.from_pylist([], schema=opened.schema)
        count = range(opened.num_record_batches) if is_file else None
        for rows in (opened.get_batch(place) for place in count) if count is not None else opened:
            rows.validate(full=True)  # offsets that point outside would crash whoever reads them
            yield rows


def open_stream(source: Any) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    """Columns and rows of an object with ``__arrow_c_stream__``; it is read once."""
    try:
        reader = pa.RecordBatchReader.from_stream(source)
    except (pa.ArrowException, TypeError) as error:
        raise InputError(
            "an Arrow stream must hold rows with columns",
            where="ingest",
            got=type(source).__name__,
            remedy="Pass a frame",
        ) from error
    return reader.schema, _stream_rows(reader, type(source).__name__)


def _stream_rows(reader: pa.RecordBatchReader, name: str) -> Iterator[pa.RecordBatch]:
    try:
        yield from reader
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise InputError(
            "the stream of rows must be readable to its end", where="ingest", got=name, remedy="Try its query by itself"
        ) from None  # its text may quote a value


def frame_table(frame: Any) -> pa.Table:
    """Columns of a pandas frame: an unnamed range is no column, an index with a name is one, any other is refused."""
    import pandas as pd

    names = list(frame.index.names)
    if any(name is not None for name in names):
        if any(name is None for name in names) or set(names) & set(frame.columns):
            raise _bad_index(names)
        frame = frame.reset_index()
    elif not isinstance(frame.index, pd.RangeIndex):
        raise _bad_index(names)
    labels = list(frame.columns)
    other = sorted({type(label).__name__ for label in labels if not isinstance(label, str)})
    if other:
        raise InputError("the names of a frame's columns must be text", where="ingest", got=other, remedy="Rename them")
    check_names(labels, "frame")
    columns = {}
    for place, label in enumerate(labels):
        try:
            columns[label] = pa.array(frame.iloc[:, place], from_pandas=True)
        except (pa.ArrowException, OverflowError, TypeError, ValueError):
            raise several_kinds("frame", label, remedy="Convert the column") from None  # its text quotes the value
    return pa.table(columns)


def _bad_index(names: list[Any]) -> InputError:
    return InputError(
        "the index of a frame must be a plain range, or have names that no column has",
        where="ingest",
        got=names,
        remedy="Call reset_index(), with drop=True if the index means nothing",
    )
