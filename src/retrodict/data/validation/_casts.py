"""Gives the columns of a batch their declared types: one SQL expression per column, and one for "it does not fit".

What does not fit is never bent: ``1.5`` is not an int, ``2013-01-05`` is not an instant, ``1_000`` is not a number,
although the engine would take each of them. A column whose Arrow type can never fit is an error of the whole batch.
"""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa
from pyarrow import types as is_

from retrodict.core.errors import InputError
from retrodict.core.kinds import KINDS, ExpressionKind, arrow_type, expression_kind, kind_of
from retrodict.data.definitions import ColumnType, Table
from retrodict.stores.sql import quote, quote_text

_SQL_TYPES = {
    "bool": "BOOLEAN", "date": "DATE", "float": "DOUBLE", "int": "BIGINT", "text": "VARCHAR", "time": "TIMESTAMPTZ",
}  # fmt: skip
_DAY = "[0-9]{4}-[0-9]{2}-[0-9]{2}"
_CLOCK = "[ T][0-9]{2}:[0-9]{2}(:[0-9]{2}([.][0-9]{1,6}0*)?)?"  # finer than a microsecond does not fit
_ZONE = "(Z|[+-][0-9]{2}(:?[0-9]{2})?)"
_WHOLE = "[+-]?[0-9]+([.]0*)?"
_INFINITE = "[+-]?(inf|infinity)"
_REAL = f"[+-]?([0-9]+[.]?[0-9]*|[.][0-9]+)(e[+-]?[0-9]+)?|nan|{_INFINITE}"


@dataclass(frozen=True, slots=True)
class Cast:
    """How one column is read.

    Attributes
    ----------
    value : str
        SQL of the typed value.
    broken : str or None
        SQL of "there was a value and it does not have the type"; None where that cannot be.
    kind : ExpressionKind or None
        What expressions may do with it.
    floating : bool
        Whether it can hold NaN.
    target : pyarrow.DataType or None
        Type it is given by Arrow alone; None where that takes SQL.
    converted : bool
        Whether it is a time that does not arrive in microseconds, so that a value may be none of them.
    declared : bool
        Whether the definition gives it a type; else it stays as it came.
    """

    value: str
    broken: str | None
    kind: ExpressionKind | None
    floating: bool = False
    target: pa.DataType | None = None
    converted: bool = False
    declared: bool = True

    @property
    def spoils(self) -> bool:
        """Whether a value may turn out not to have the type."""
        return self.broken is not None or self.converted

    @property
    def by_sql(self) -> bool:
        """Whether the values have to be read by SQL."""
        return self.target is None


def cast_column(name: str, arrives: pa.DataType, table: Table) -> Cast:
    """How to read a column of a batch.

    Raises
    ------
    InputError
        If no value of the arriving type can have the declared one, or a time has no zone.
    """
    declared, where = table.type_of(name), f"table {table.name}, column {name!r}"
    if declared is None:
        if is_.is_timestamp(arrives) and arrives.tz is None:
            raise InputError(
                "a time must carry its zone",
                where=where,
                got=str(arrives),
                remedy="Declare the column as 'time(Zone/City)', or give the times a zone",
            )
        converted = is_.is_timestamp(arrives) and arrives.unit != "us"
        target = arrow_type("time") if is_.is_timestamp(arrives) else arrives
        return Cast(
            quote(name),
            None,
            expression_kind(kind_of(arrives)),
            is_.is_floating(arrives),
            target,
            converted,
            declared=False,
        )
    kind, floating = KINDS[declared.kind].expression, declared.kind == "float"
    if (target := _lossless(arrives, declared)) is not None:
        converted = declared.kind == "time" and is_.is_timestamp(arrives) and arrives.unit != "us"
        return Cast(quote(name), None, kind, floating, target, converted)
    reading = (_of_text if kind_of(arrives) == "text" else _of_typed)(quote(name), arrives, declared)
    if reading is None:
        raise InputError(
            f"a column declared as {table.columns[name]} must be readable from what arrives",
            where=where,
            got=str(arrives),
            remedy=_remedy(arrives, declared),
        )
    value, broken = reading
    return Cast(value, broken, kind, floating)


def _lossless(arrives: pa.DataType, declared: ColumnType) -> pa.DataType | None:
    """Type that Arrow gives every value of the arriving one without changing any; None if that is not so."""
    narrow = is_.is_integer(arrives) and not arrives.equals(pa.uint64())
    fits = {
        "bool": is_.is_boolean(arrives),
        "date": is_.is_date32(arrives),
        "float": is_.is_floating(arrives) or (narrow and arrives.bit_width < 64),
        "int": narrow,
        "text": kind_of(arrives) == "text",
        "time": declared.zone is None and is_.is_timestamp(arrives) and arrives.tz is not None,
    }[declared.kind]
    if fits or (is_.is_null(arrives)):
        return arrow_type(declared.kind)
    return None


def _of_text(column: str, _: pa.DataType, declared: ColumnType) -> tuple[str, str | None]:
    """(value, broken) of a text column; blank is null for every type but text."""
    if declared.kind == "text":
        return column, None
    text = f"NULLIF(TRIM({column}), '')"
    cast = f"TRY_CAST({text} AS {_SQL_TYPES[declared.kind]})"
    form = {
        "bool": None,  # the engine's own words: true false t f yes no y n 1 0
        "date": _DAY,
        "float": _REAL,
        "int": _WHOLE,
        "time": f"{_DAY}{_CLOCK}{_ZONE}" if declared.zone is None else f"{_DAY}({_CLOCK})?",
    }[declared.kind]
    if declared.zone is not None:
        cast = f"timezone({quote_text(declared.zone)}, TRY_CAST({text} AS TIMESTAMP))"
    value = cast
    if form is not None:
        value = f"CASE WHEN regexp_full_match({text}, {quote_text(form)}, 'i') THEN {cast} END"
    if declared.kind == "float":
        # 1e400 is no infinity: nobody wrote one.
        value = (
            f"CASE WHEN isinf({value}) AND NOT regexp_full_match({text}, '{_INFINITE}', 'i') THEN NULL ELSE {value} END"
        )
    return value, f"({value} IS NULL AND {text} IS NOT NULL)"


def _of_typed(column: str, arrives: pa.DataType, declared: ColumnType) -> tuple[str, str | None] | None:
    """(value, broken) of a column that is not text; None if it can never have the type."""
    real = is_.is_floating(arrives) or is_.is_decimal(arrives)
    kind, cast = declared.kind, f"TRY_CAST({column} AS {_SQL_TYPES[declared.kind]})"
    broken = f"({cast} IS NULL AND {column} IS NOT NULL)"
    if kind == "text" and not (is_.is_nested(arrives) or _is_bytes(arrives)):
        return f"CAST({column} AS VARCHAR)", None
    if kind == "int" and is_.is_integer(arrives):
        return cast, broken
    if kind == "int" and real:
        value = f"CASE WHEN {column} = trunc({column}) THEN {cast} END"  # SQL would round 1.5 to 2
        return value, f"({value} IS NULL AND {column} IS NOT NULL)"
    if kind == "float" and (real or is_.is_integer(arrives)):
        return cast, broken
    if kind == "bool" and is_.is_integer(arrives):
        return f"CASE {column} WHEN 1 THEN TRUE WHEN 0 THEN FALSE END", f"({column} NOT IN (0, 1))"
    if kind == "date" and is_.is_date(arrives):
        return cast, broken
    if kind == "time":
        return _time_of_typed(column, arrives, declared.zone)
    return None


def _time_of_typed(column: str, arrives: pa.DataType, zone: str | None) -> tuple[str, str | None] | None:
    carries_zone = is_.is_timestamp(arrives) and arrives.tz is not None
    if zone is None:
        return (column, None) if carries_zone else None
    if carries_zone or not (is_.is_timestamp(arrives) or is_.is_date(arrives)):
        return None
    return f"timezone({quote_text(zone)}, CAST({column} AS TIMESTAMP))", None


def _is_bytes(arrives: pa.DataType) -> bool:
    return bool(is_.is_binary(arrives) or is_.is_large_binary(arrives) or is_.is_fixed_size_binary(arrives))


def _remedy(arrives: pa.DataType, declared: ColumnType) -> str:
    if declared.kind == "time" and is_.is_timestamp(arrives):
        return "Declare it as 'time(Zone/City)'" if arrives.tz is None else "Declare it as 'time': it carries its zone"
    return "Convert it before the ingest, or declare another type"
