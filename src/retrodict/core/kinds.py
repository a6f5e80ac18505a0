"""Kinds of values: one vocabulary for the columns of tables, the fields of requests, expressions and models.

A kind says what a value is and not how wide it is stored: an ``int8`` and an ``int64`` are both ``int``.

====== ============================ =========== ============= ==========================
kind   ``Table(columns=...)``       request     expression    Arrow
====== ============================ =========== ============= ==========================
bool   ``bool``                     ``bool``    ``bool``      bool
int    ``int``                      ``int``     ``number``    any integer; written int64
float  ``float``                    ``number``  ``number``    any float, any decimal
text   ``string``                   ``text``    ``text``      string, large or view
time   ``time``, ``time(Zone)``     ``time``    ``time``      timestamp[us, UTC]
date   ``date``                     ``date``    ``date``      date32
====== ============================ =========== ============= ==========================

The words in a table's definition, in a model's request schema and in an expression are older than this table and are
stored, so they are mapped here instead of changed. Arrow is imported inside functions: definitions load without it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

from retrodict.core.clock import parse_time, to_micros
from retrodict.core.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = [
    "KINDS",
    "ExpressionKind",
    "Kind",
    "arrow_type",
    "column_word",
    "description_of",
    "expression_kind",
    "kind_error",
    "kind_of",
    "reader_of",
    "request_word",
]

ExpressionKind = Literal["bool", "number", "text", "time", "duration", "date"]
"""Kind of a value inside an expression; a date column holds days and reads as the times of their midnights in UTC."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind and its word in each place where values are described.

    Attributes
    ----------
    name : str
        The kind.
    description : str
        What a value of it is, for errors.
    expression : str
        Its kind inside an expression.
    column_word, request_word : str
        Its word in a table's definition and in a model's request schema.
    """

    name: str
    description: str
    expression: ExpressionKind
    column_word: str
    request_word: str


KINDS = {
    kind.name: kind
    for kind in (
        Kind("bool", "true or false", "bool", "bool", "bool"),
        Kind("int", "a whole number of 64 bits", "number", "int", "int"),
        Kind("float", "a number", "number", "float", "number"),
        Kind("text", "text", "text", "string", "text"),
        Kind("time", "a time in ISO 8601 with its zone", "time", "time", "time"),
        Kind("date", "a date in ISO 8601", "date", "date", "date"),
    )
}
"""Every kind by name."""


@lru_cache(maxsize=256)
def kind_of(type_: pa.DataType) -> str:
    """Kind of an Arrow type: a name of :data:`KINDS`, ``null``, ``list`` (of numbers), or ``other``.

    Examples
    --------
    >>> import pyarrow as pa
    >>> [kind_of(type_) for type_ in (pa.int8(), pa.decimal128(9, 2), pa.dictionary(pa.int8(), pa.string()))]
    ['int', 'float', 'text']
    """
    from pyarrow import types

    if types.is_dictionary(type_):
        return kind_of(type_.value_type)
    tests = (
        ("bool", types.is_boolean),
        ("int", types.is_integer),
        ("float", types.is_floating),
        ("float", types.is_decimal),
        ("time", types.is_timestamp),
        ("date", types.is_date),
        ("text", types.is_string),
        ("text", types.is_large_string),
        ("text", types.is_string_view),
        ("null", types.is_null),
        ("list", _holds_numbers),
    )
    return next((name for name, test in tests if test(type_)), "other")


def _holds_numbers(type_: pa.DataType) -> bool:
    from pyarrow import types

    tests = (types.is_list, types.is_large_list, types.is_fixed_size_list)
    return any(test(type_) for test in tests) and kind_of(type_.value_type) in {"int", "float", "null"}


def arrow_type(kind: str) -> pa.DataType:
    """Arrow type in which values of a kind are stored."""
    import pyarrow as pa

    return {
        "bool": pa.bool_(),
        "int": pa.int64(),
        "float": pa.float64(),
        "text": pa.string(),
        "time": pa.timestamp("us", "UTC"),
        "date": pa.date32(),
    }[kind]


def expression_kind(kind: str) -> ExpressionKind | None:
    """Kind inside an expression of a kind of columns; None for what no expression reads."""
    return KINDS[kind].expression if kind in KINDS else None


def column_word(type_: pa.DataType) -> str:
    """Word of a table's definition for an Arrow type; Arrow's own name for what no definition declares."""
    kind = KINDS.get(kind_of(type_))
    return str(type_) if kind is None else kind.column_word


def request_word(type_: pa.DataType) -> str:
    """Word of a request schema for a column of the training rows; JSON has text for what it has no type for."""
    kind = KINDS.get(kind_of(type_))
    return "text" if kind is None else kind.request_word


def reader_of(kind: str, *, text: bool = False) -> Callable[[Any], Any]:
    """Return the function that reads a JSON value as a value of a kind.

    Parameters
    ----------
    kind : str
        A name of :data:`KINDS`, or ``list``; any other reads text.
    text : bool, default False
        Whether numbers and truth values may also come as text, as in a CSV file.

    Returns
    -------
    callable
        Raises TypeError or ValueError for what is not of the kind; make an error of it with :func:`kind_error`. Times
        become microseconds. Nulls are the caller's.

    Examples
    --------
    >>> reader_of("int")(7.0), reader_of("int", text=True)("007"), reader_of("time")("1970-01-01T00:00:01Z")
    (7, 7, 1000000)
    """
    return (_TEXT_READERS if text else _READERS).get(kind, _text)


def description_of(kind: str) -> str:
    """What a value of a kind is, in words; every other kind than those of :data:`KINDS` and ``list`` is text."""
    return KINDS[kind].description if kind in KINDS else {"list": "a list of numbers"}.get(kind, "text")


def kind_error(kind: str, value: object, *, where: str) -> InputError:
    """Return the error of a value that is not of a kind; it names the value's type and never the value."""
    description = description_of(kind)
    remedy = "Write it like '2013-09-01T18:00:00Z'" if kind == "time" else f"Send {description}"
    return InputError(f"the value must be {description} or null", where=where, got=type(value).__name__, remedy=remedy)


def _bool(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError
    return value


def _bool_of_text(value: Any) -> bool:
    words = {"true": True, "false": False, "1": True, "0": False}
    return words[value.strip().lower()] if isinstance(value, str) and value.strip().lower() in words else _bool(value)


def _int(value: Any) -> int:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError
    if not -(2**63) <= value < 2**63:
        raise ValueError
    return value


def _int_of_text(value: Any) -> int:
    return _int(int(value) if isinstance(value, str) else value)


def _float(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        raise TypeError
    try:
        return float(value)
    except OverflowError:  # a whole number of hundreds of digits
        raise ValueError from None


def _float_of_text(value: Any) -> float:
    return float(value) if isinstance(value, str) else _float(value)


def _time(value: Any) -> int:
    return to_micros(value) if isinstance(value, datetime) else parse_time(value)


def _date(value: Any) -> date:
    return value if isinstance(value, date) else date.fromisoformat(value)


def _list(value: Any) -> list[float | None]:
    if not isinstance(value, list):
        raise TypeError
    return [None if number is None else _float(number) for number in value]


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


_READERS: dict[str, Callable[[Any], Any]] = {
    "bool": _bool,
    "int": _int,
    "float": _float,
    "time": _time,
    "date": _date,
    "list": _list,
}
_TEXT_READERS = _READERS | {"bool": _bool_of_text, "int": _int_of_text, "float": _float_of_text}
