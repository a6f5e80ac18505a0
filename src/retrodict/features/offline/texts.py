"""Columns of text read as the types they will be compared with.

CSV has no types, and guessing them turns the key ``007`` into 7. So a column of text becomes the type of the column it
is compared with, and stays text where nothing asks for a type.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import date
from typing import Any

import pyarrow as pa

from retrodict.core.clock import parse_time, to_micros
from retrodict.core.errors import InputError, RetrodictError
from retrodict.features.plan import FeatureSet

__all__ = ["parse_texts", "request_types", "value_parser"]

_DERIVED = {"time": pa.timestamp("us", "UTC"), "text": pa.string(), "number": pa.float64()}
_TRUTH = {"true": True, "false": False, "1": True, "0": False}


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
            if _is_text(column.type) and not _is_text(type_):
                table = table.set_column(place, name, _parse_column(column, type_, f"{where}, column {name!r}"))
    return table


def _is_text(type_: pa.DataType) -> bool:
    # pandas and Polars hand over large strings or views of strings
    return str(type_) in ("string", "large_string", "string_view")


def _parse_column(column: pa.ChunkedArray, type_: pa.DataType, where: str) -> pa.Array[Any]:
    parse, values = value_parser(type_), []
    for row, value in enumerate(column.to_pylist(), start=1):
        try:
            values.append(None if value is None or value == "" else parse(value))
        except (TypeError, ValueError, RetrodictError):
            raise InputError(
                f"every value of the column must be {type_}", where=f"{where}, row {row}", got=type(value).__name__,
                remedy="Times are ISO 8601 with a zone" if pa.types.is_timestamp(type_) else "Correct the file",
            ) from None  # fmt: skip
    if pa.types.is_timestamp(type_):
        return pa.array(values, pa.int64()).cast(type_)
    return pa.array(values, type_)


def value_parser(type_: pa.DataType) -> Callable[[Any], Any]:
    """Function that reads a value, or its text, as a type; times become microseconds.

    The function raises TypeError or ValueError for what is not of the type.
    """
    if pa.types.is_timestamp(type_):
        return _parse_instant
    if pa.types.is_boolean(type_):
        return _parse_truth
    if pa.types.is_integer(type_):
        return _parse_integer
    if pa.types.is_floating(type_) or pa.types.is_decimal(type_):
        return _parse_number
    if pa.types.is_date(type_):
        return _parse_day
    return _parse_text


def _parse_instant(value: Any) -> int:
    return parse_time(value) if isinstance(value, str) else to_micros(value)


def _parse_truth(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if not isinstance(value, str) or value.strip().lower() not in _TRUTH:
        raise TypeError
    return _TRUTH[value.strip().lower()]


def _parse_integer(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise TypeError
    if isinstance(value, float) and value != int(value):
        raise TypeError
    return int(value)


def _parse_number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise TypeError
    return float(value)


def _parse_day(value: Any) -> Any:
    return date.fromisoformat(value) if isinstance(value, str) else value


def _parse_text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value
