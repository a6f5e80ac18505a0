"""Frames as files: CSV or Parquet by the suffix, any number of rows, the file whole or not there."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import csv

from retrodict.core.errors import InputError

__all__ = ["check_output", "write_rows"]

_FORMATS = (".csv", ".parquet")


def check_output(path: Path) -> Path:
    """Refuse a place where nothing can be written, before the work.

    Raises
    ------
    InputError
        If it is no .csv or .parquet file, or its folder does not exist.
    """
    if path.suffix not in _FORMATS or not path.parent.is_dir():
        raise InputError(
            "rows must go to a .csv or .parquet file in a folder that exists",
            where="output",
            got=str(path),
            remedy="Write it like 'values.parquet'",
        )
    return path


def write_rows(rows: pa.Table | Iterable[pa.Table], path: Path) -> tuple[int, dict[str, int]]:
    """Write tables of one schema after each other, under another name first: the file is whole or not there.

    Lists and maps are JSON in CSV, times ISO 8601.

    Parameters
    ----------
    rows : pyarrow.Table or iterable of pyarrow.Table
        At least one, which may be empty.
    path : Path
        A .csv or .parquet file; one that exists is replaced at the end.

    Returns
    -------
    tuple of int and dict
        Rows, and nulls by column.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    open_writer: Any = csv.CSVWriter if path.suffix == ".csv" else pq.ParquetWriter
    count, writer = 0, None
    nulls: dict[str, int] = {}
    try:
        for piece in [rows] if isinstance(rows, pa.Table) else rows:
            count += piece.num_rows
            for name, column in zip(piece.column_names, piece.columns, strict=True):
                nulls[name] = nulls.get(name, 0) + column.null_count
            table = _flat(piece) if path.suffix == ".csv" else piece
            if writer is None:
                writer = open_writer(draft, table.schema)
            writer.write_table(table)
        if writer is not None:
            writer.close()
            draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    return count, nulls


def _flat(table: pa.Table) -> pa.Table:
    """Columns as CSV can hold them: nested values as JSON, times as ISO 8601 with their zone."""
    for place, field in enumerate(table.schema):
        if pa.types.is_nested(field.type) or pa.types.is_timestamp(field.type):
            texts = [None if value is None else _text(value) for value in table.column(place).to_pylist()]
            table = table.set_column(place, field.name, pa.array(texts, pa.string()))
    return table


def _text(value: Any) -> str:
    if hasattr(value, "isoformat"):
        return str(value.isoformat()).replace("+00:00", "Z")
    if isinstance(value, list) and value and isinstance(value[0], tuple):  # an Arrow map
        value = dict(value)
    return json.dumps(value, ensure_ascii=False, default=_text)
