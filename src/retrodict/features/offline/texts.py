"""Columns of text read as the types they will be compared with.

CSV has no types, and guessing them turns the key ``007`` into 7. So a column of text becomes the type of the column it
is compared with, and stays text where nothing asks for a type.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from retrodict.core.kinds import kind_error, kind_of, reader_of
from retrodict.features.plan import FeatureSet

__all__ = ["parse_texts", "request_types"]

_DERIVED = {"time": pa.timestamp("us", "UTC"), "text": pa.string(), "number": pa.float64()}


def request_types(features: FeatureSet, schemas: Mapping[str, pa.Schema]) -> dict[str, pa.DataType]:
    """Types that the columns of a spine or request need: of keys, of its own event, of inputs of derived functions.

    Parameters
    ----------
    features : FeatureSet
    schemas : mapping of str to pyarrow.Schema
        By table, those that hold rows. A key of another table has no type yet and is left out.
    """
    types: dict[str, pa.DataType] = {}
    for function in features.derived:
        for name in function.inputs:
            if name not in features.columns:
                kind = "time" if name in function.times else "text" if name in function.texts else "number"
                types[name] = _DERIVED[kind]
    for plan in features.views:
        schema = schemas.get(plan.source.table.name)
        if schema is None:
            continue
        pairs = [*zip(plan.request_keys, plan.keys, strict=True), *((name, name) for name in plan.current_columns)]
        types |= {name: schema.field(column).type for name, column in pairs if column in schema.names}
    return types


def parse_texts(table: pa.Table, types: Mapping[str, pa.DataType], *, where: str) -> pa.Table:
    """Read columns of text as types, where the table has them; columns with a type are the engines' to judge.

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
    for name, type_ in types.items():
        if name in table.column_names:
            place = table.column_names.index(name)
            column = table.column(place)
            if kind_of(column.type) == "text" != kind_of(type_):
                table = table.set_column(place, name, _parse_column(column, type_, f"{where}, column {name!r}"))
    return table


def _parse_column(column: pa.ChunkedArray, type_: pa.DataType, where: str) -> pa.Array[Any]:
    kind = kind_of(type_)
    read, values = reader_of(kind, text=True), []
    for row, value in enumerate(column.to_pylist(), start=1):
        try:
            values.append(None if value is None or value == "" else read(value))
        except (TypeError, ValueError):  # our own error for a time without a zone is a ValueError, too
            raise kind_error(kind, value, where=f"{where}, row {row}") from None
    if pa.types.is_timestamp(type_):
        return pa.array(values, pa.int64()).cast(type_)
    return pa.array(values, type_)
