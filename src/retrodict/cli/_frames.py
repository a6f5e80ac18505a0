"""Files of rows in and out of a command: CSV or Parquet by the suffix, every column with the type that is wanted of it.

CSV has no types, and guessing them turns the key ``007`` into 7. So a column of text is read as the type of what it
will be compared with, and stays text where nothing asks.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retrodict.core.errors import InputError
from retrodict.core.kinds import kind_error, kind_of, reader_of

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["check_output", "flat", "read_rows", "typed", "write_rows"]

_FORMATS = (".csv", ".parquet")


def read_rows(path: str) -> pa.Table:
    """Rows of a file in their order; ``-`` is CSV from standard input, and columns of CSV are text."""
    from retrodict.data.readers import read_batch

    return read_batch(path, format="csv" if path == "-" else None).rows


def check_output(path: Path) -> Path:
    """Refuse a place where nothing can be written, before the work."""
    if path.suffix not in _FORMATS or not path.parent.is_dir():
        raise InputError(
            "the rows go to a .csv or .parquet file in a folder that exists",
            where="--output",
            got=str(path),
            remedy="Write it like 'values.parquet'",
        )
    return path


def write_rows(table: pa.Table, path: Path) -> None:
    """Write rows under another name first: the file is whole or not there. Lists and maps are JSON in CSV."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        if path.suffix == ".csv":
            from pyarrow import csv

            csv.write_csv(flat(table), draft)
        else:
            import pyarrow.parquet as pq

            pq.write_table(table, draft)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def flat(table: pa.Table) -> pa.Table:
    """Columns as CSV can hold them: nested values as JSON, times as ISO 8601 with their zone."""
    import pyarrow as pa

    for place, field in enumerate(table.schema):
        if pa.types.is_nested(field.type) or pa.types.is_timestamp(field.type):
            texts = [None if value is None else _said(value) for value in table.column(place).to_pylist()]
            table = table.set_column(place, field.name, pa.array(texts, pa.string()))
    return table


def _said(value: Any) -> str:
    if hasattr(value, "isoformat"):
        return str(value.isoformat()).replace("+00:00", "Z")
    if isinstance(value, list) and value and isinstance(value[0], tuple):  # an Arrow map
        value = dict(value)
    return json.dumps(value, ensure_ascii=False, default=_said)


def typed(table: pa.Table, types: Mapping[str, pa.DataType], *, where: str) -> pa.Table:
    """Read columns of text as types, where the table has them; typed columns are the engines' to judge.

    Parameters
    ----------
    table : pyarrow.Table
        Rows of a file.
    types : mapping of str to pyarrow.DataType
        By column.
    where : str
        The file, for errors.

    Raises
    ------
    InputError
        That names the column and the first row at fault, never its value.
    """
    import pyarrow as pa

    for name, type_ in types.items():
        if name in table.column_names:
            place = table.column_names.index(name)
            column = table.column(place)
            if pa.types.is_string(column.type) and not pa.types.is_string(type_):
                table = table.set_column(place, name, _read_column(column, type_, f"{where}, column {name!r}"))
    return table


def _read_column(column: pa.ChunkedArray, type_: pa.DataType, where: str) -> pa.Array[Any]:
    import pyarrow as pa

    kind = kind_of(type_)
    read, values = reader_of(kind, text=True), []
    for row, value in enumerate(column.to_pylist(), start=1):
        try:
            values.append(None if value is None or value == "" else read(value))
        except (TypeError, ValueError):
            raise kind_error(kind, value, where=f"{where}, row {row}") from None
    if pa.types.is_timestamp(type_):
        return pa.array(values, pa.int64()).cast(type_)
    return pa.array(values, type_)
