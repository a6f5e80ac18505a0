"""The key on which outcomes join decisions: one text per row of the label's table.

A key of one column is its value as text. A key of several is written with lengths (``3:JFK20:2013-09-01T18:00:00Z``),
since plain concatenation makes ("1", "23") and ("12", "3") the same. Python and SQL give the same text.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime

import pyarrow as pa

from retrodict.core.clock import format_time, parse_time, to_micros
from retrodict.core.errors import DefinitionError, InputError, check_known
from retrodict.data.definitions import Table
from retrodict.stores.sql import quote

__all__ = ["join_key", "join_key_sql"]

_REMEDY = "Declare the column as string, int, bool, date or time"


def join_key(table: Table, values: Mapping[str, object]) -> str | None:
    """Key of a row of a label's table as decisions carry it.

    Parameters
    ----------
    table : Table
        Its ``key`` says which columns, in which order; a column declared as ``time`` is read as an instant.
    values : mapping of str to object
        At least the key columns: text, whole number, bool, date, aware datetime; further ones are ignored.

    Returns
    -------
    str or None
        None if a part is null: such a row joins nothing.

    Raises
    ------
    InputError
        If a key column is absent or of another type; the message names the column, never the value.

    Examples
    --------
    >>> join_key(Table("flights", key="flight_id"), {"flight_id": 12})
    '12'
    >>> weather = Table("weather", key=["origin", "hour"], columns={"hour": "time"})
    >>> join_key(weather, {"origin": "JFK", "hour": "2013-09-01T14:00-04:00"})
    '3:JFK20:2013-09-01T18:00:00Z'
    """
    parts = []
    for column in table.key:
        rule = "a key must have every key column of its table"
        check_known(column, values, rule, where=f"table {table.name}", what="column", error=InputError)
        value = values[column]
        if value is None:
            return None
        declared = table.type_of(column)
        is_time = declared is not None and declared.kind == "time"
        parts.append(_text(value, is_time=is_time, where=f"table {table.name}, key column {column!r}"))
    return parts[0] if len(parts) == 1 else "".join(f"{len(part)}:{part}" for part in parts)


def _text(value: object, *, is_time: bool, where: str) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return format_time(parse_time(value, where=where)) if is_time else value
    if isinstance(value, int):
        return format_time(value) if is_time else str(value)
    if isinstance(value, datetime):
        return format_time(to_micros(value, where=where))
    if isinstance(value, date):
        return value.isoformat()
    # Two floats that print alike need not be equal, and engines print them differently.
    raise InputError("a key must be text, a whole number, a bool, a date or a time", where=where,
                     got=type(value).__name__, remedy=_REMEDY)  # fmt: skip


def join_key_sql(table: Table, schema: pa.Schema) -> str:
    """Return the SQL text that gives :func:`join_key` of a row; null where a part is null.

    Parameters
    ----------
    table : Table
    schema : pyarrow.Schema
        Types of the stored columns.

    Raises
    ------
    DefinitionError
        If a key column is missing or of a type that cannot be a key.
    """
    parts = []
    for column in table.key:
        where = f"table {table.name}, key column {column!r}"
        rule = "a key column must be in the table"
        check_known(column, schema.names, rule, where=where, what="column", error=DefinitionError)
        parts.append(_sql(quote(column), schema.field(column).type, where=where))
    return parts[0] if len(parts) == 1 else " || ".join(f"length({part}) || ':' || {part}" for part in parts)


def _sql(column: str, kind: pa.DataType, *, where: str) -> str:
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return column
    if pa.types.is_integer(kind) or pa.types.is_date(kind) or pa.types.is_boolean(kind):
        return f"CAST({column} AS VARCHAR)"
    if pa.types.is_timestamp(kind) and kind.tz is not None:
        # The same shape as format_time: microseconds only where there are any.
        no_fraction = f"epoch_us({column}) % 1000000 = 0"
        return f"strftime({column}, CASE WHEN {no_fraction} THEN '%Y-%m-%dT%H:%M:%SZ' ELSE '%Y-%m-%dT%H:%M:%S.%fZ' END)"
    raise DefinitionError(
        "a key must be text, a whole number, a bool, a date or a time", where=where, got=str(kind), remedy=_REMEDY
    )
