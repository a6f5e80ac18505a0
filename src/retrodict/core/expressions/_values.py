"""What a row may hold, and how the row function reads it: a bool, an int, a float that is not NaN, a str, or None."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime
from typing import Any

from retrodict.core.clock import to_micros
from retrodict.core.errors import InputError
from retrodict.core.expressions._nodes import Node, render

RowFunction = Callable[[Mapping[str, Any]], Any]

LEAST, MOST = -(2**63), 2**63 - 1
NUMBERS = frozenset({int, float})
_WORDS = {bool: "true or false", int: "a number", float: "a number", str: "text"}


def read_column(name: str) -> RowFunction:
    """Return the function that reads one column of a row."""

    def column(row: Mapping[str, Any]) -> Any:
        try:
            value = row[name]
        except KeyError:
            raise missing(name) from None
        kind = type(value)
        if value is None or kind is str or kind is bool:
            return value
        if kind is float:
            return value if value == value else None  # noqa: PLR0124  (only NaN differs from itself)
        if kind is int and LEAST <= value <= MOST:
            return value
        return _instant(name, value)

    return column


def _instant(name: str, value: object) -> int:
    """Microseconds of a date (its midnight in UTC) or of a time with its zone; nothing else is left here."""
    if isinstance(value, datetime):
        if value.utcoffset() is None:
            raise InputError(
                "a time in a row must carry its zone",
                where=f"column {name!r}",
                got="a datetime without a zone",
                remedy="Give it its zone where the row is made",
            )
        return to_micros(value)
    if isinstance(value, date):
        return to_micros(datetime(value.year, value.month, value.day, tzinfo=UTC))
    got = "a whole number beyond 64 bits" if isinstance(value, int) else type(value).__name__
    raise InputError(
        "a value in a row must be None, bool, int, float or str; a time is microseconds since 1970 UTC as int, "
        "a datetime with its zone or a date",
        where=f"column {name!r}",
        got=got,
        remedy="Convert it where the row is made",
    )


def missing(name: str) -> InputError:
    """Return the error of a row that lacks a column."""
    return InputError(
        "a row must hold every column of the expression, None for null",
        where=f"column {name!r}",
        got="no value",
        remedy="Pass the column",
    )


def mixed(node: Node, *values: object) -> InputError:
    """Return the error of values that an operator cannot work on; it tells their kinds, never the values."""
    got = " and ".join(sorted({_WORDS[type(value)] for value in values}))
    return InputError(
        "the values of an operator must be of the kind it works on, and of one kind",
        where=render(node),
        got=got,
        remedy="Check the types of the columns",
    )


def aligned(node: Node, *values: Any) -> tuple[Any, ...]:
    """Return the values as they are if of one type, as floats if of both number types, raise otherwise."""
    kinds = {type(value) for value in values}
    if len(kinds) == 1:
        return values
    if kinds == NUMBERS:
        return tuple(float(value) for value in values)
    raise mixed(node, *values)


def truth(node: Node, value: object) -> bool | None:
    """Return a value that must be true, false or null."""
    if value is None or value is True or value is False:
        return value
    raise mixed(node, value)
