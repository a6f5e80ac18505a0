"""Columns as the kernels take them: int64 or float64 with a mask, and the kinds that must agree between engines.

One rule for numbers that are no number: as the value of a feature NaN and the infinities are null, before anything is
computed (inside a condition the expression language decides). And ``-0.0`` is read as ``0.0``, so that equal values
have equal bits.

One rule for types: each kind is held in the one Arrow type the engines know (:func:`known_type`), whatever frame it
comes from. Decimals are the nearest doubles, finer times are cut to microseconds.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from retrodict.core.errors import DefinitionError, InputError, check_known
from retrodict.core.expressions import Expression
from retrodict.core.kinds import arrow_type, expression_kind, kind_of
from retrodict.stores.sql import connect_duckdb

if TYPE_CHECKING:  # a state is looked at without an engine
    import duckdb

__all__ = [
    "FactColumn",
    "Ints",
    "Mask",
    "as_table",
    "compute",
    "evaluate",
    "is_known",
    "known_type",
    "list_numbers",
    "numeric",
    "pick",
    "pick_times",
    "plain",
    "present",
    "spine_times",
    "times",
    "too_large",
]

Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]

_MOST_TEXT = 1 << 31  # bytes of a column of text with small offsets


@dataclass(frozen=True)
class FactColumn:
    """Numbers with a mask.

    Attributes
    ----------
    values : int64 or float64 array
        0 where not valid.
    valid : bool array
        Where there is a value.
    kind : str
        ``bool``, ``int``, ``float``, ``time`` or ``null``.
    """

    values: NDArray[Any]
    valid: Mask
    kind: str

    @property
    def true(self) -> Mask:
        """Where a condition holds; where it is null it does not."""
        return self.valid & self.values.astype(np.bool_)

    def take(self, rows: Ints | Mask | slice) -> FactColumn:
        """Return some of the rows."""
        return FactColumn(self.values[rows], self.valid[rows], self.kind)


def as_table(rows: Any, *, where: str) -> pa.Table:
    """Return rows as an Arrow table, copied only where they must be.

    Parameters
    ----------
    rows : pyarrow.Table, pandas.DataFrame, polars.DataFrame or other frame
        Whatever speaks the Arrow C stream interface and has columns.
    where : str
        What to call the rows in the error.

    Raises
    ------
    InputError
        If they are no frame, or a column holds values that Arrow has no type for.
    """
    if isinstance(rows, pa.Table):
        return rows
    try:
        table = pa.table(rows) if hasattr(rows, "__arrow_c_stream__") else None
    except (pa.ArrowException, TypeError) as error:  # a series is a stream, too, but has no columns
        raise _no_frame(rows, where) from error
    if table is None:
        raise _no_frame(rows, where)
    return table.drop_columns([name for name in table.column_names if name.startswith("__index_level_")])


def _no_frame(rows: Any, where: str) -> InputError:
    return InputError(
        "rows must be an Arrow table, or a frame of pandas or Polars whose columns have one type each",
        where=where,
        got=type(rows).__name__,
        remedy="Collect a lazy frame, give each column one type, or pass pyarrow.Table.from_pylist(rows)",
    )


def known_type(column: pa.Array[Any], *, where: str) -> pa.Array[Any]:
    """Return a column in the type that the engines know for its kind; one of another kind as it is.

    Dictionaries and runs are decoded, views of text are text, unsigned numbers are int64, times are microseconds (what
    is finer is cut off), days are date32, decimals are the nearest doubles.

    Raises
    ------
    InputError
        If a whole number has more than 64 bits with its sign.
    """
    type_ = column.type
    if pa.types.is_run_end_encoded(type_):
        return known_type(pc.run_end_decode(column), where=where)
    if pa.types.is_dictionary(type_):
        return known_type(column.dictionary_decode(), where=where)
    if pa.types.is_string_view(type_):
        return column.cast(pa.string() if column.nbytes < _MOST_TEXT else pa.large_string())
    if pa.types.is_decimal(type_):
        # Arrow's own cast is off by a bit for one value in eight; from text it is the nearest double.
        return column.cast(pa.string()).cast(pa.float64())
    if pa.types.is_float16(type_):
        return column.cast(pa.float32())
    if pa.types.is_timestamp(type_) and type_.unit != "us":
        # A cast cuts towards 1970, so that the microsecond before it would be twice as long.
        column = pc.floor_temporal(column, unit="microsecond") if type_.unit == "ns" else column
        return column.cast(pa.timestamp("us", type_.tz), safe=False)
    if pa.types.is_date64(type_):
        return column.cast(pa.date32())
    if pa.types.is_uint64(type_):
        try:
            return column.cast(pa.int64())
        except pa.ArrowInvalid as error:
            raise InputError(
                "whole numbers must fit in 64 bits", where=where, got="uint64", remedy="Cast the column to a float"
            ) from error
    return column


def is_known(type_: pa.DataType) -> bool:
    """Whether a type is one that the engines know as it is."""
    empty = pa.array([], type_)
    return bool(known_type(empty, where="").type == type_)


def pick(table: pa.Table, name: str, *, where: str) -> pa.Array[Any]:
    """Return a column in one piece and of a known type; InputError with near names if there is none."""
    check_known(name, table.column_names, "the column must exist", where=where, what="column", error=InputError)
    column = table.column(name).combine_chunks()
    if isinstance(column, pa.ChunkedArray):
        column = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], table.schema.field(name).type)
    return known_type(column, where=f"{where}, column {name!r}")


def plain(column: pa.Array[Any]) -> pa.Array[Any]:
    """Return the column with numbers that are no number as null."""
    if pa.types.is_floating(column.type):
        finite, column = pc.is_finite(column), pc.add(column, pa.scalar(0.0, column.type))
        return column if pc.all(finite).as_py() is not False else pc.if_else(finite, column, None)
    return column


def numeric(column: pa.Array[Any], *, where: str) -> FactColumn:
    """Return a column of numbers, booleans or times as int64 or float64 with a mask."""
    column = known_type(column, where=where)
    kind = kind_of(column.type)
    if kind not in {"bool", "int", "float", "time", "null"}:
        raise DefinitionError(
            "an aggregate must read numbers, booleans or times",
            where=where,
            got=str(column.type),
            remedy="Use latest() for text, or a condition in agg.share",
        )
    column = plain(column)
    valid = present(column)
    if kind == "null":
        return FactColumn(np.zeros(len(column), dtype=np.int64), valid, kind)
    column = column.cast(pa.float64() if kind == "float" else pa.int64())
    filled = pc.fill_null(column, 0) if column.null_count else column
    return FactColumn(np.asarray(filled.to_numpy(zero_copy_only=False)), valid, kind)


def list_numbers(lists: pa.Array[Any], *, where: str) -> NDArray[np.float64]:
    """Return the numbers of lists, one list after the other, as doubles; a null among them as NaN."""
    flat = known_type(pc.list_flatten(lists), where=where)
    return np.asarray(flat.to_numpy(zero_copy_only=False)).astype(np.float64)


def too_large(where: str, column: str | None) -> DefinitionError:
    """Error of a sum of whole numbers that leaves 64 bits: the definition must say that floats will do."""
    return DefinitionError(
        "a sum of whole numbers must fit in 64 bits",
        where=f"{where}, sum of column {column!r}",
        got="a sum beyond them",
        remedy="Declare the column as float in its table, or take agg.mean with agg.count",
    )


def times(column: pa.Array[Any], *, where: str) -> tuple[Ints, Mask]:
    """Return instants as int64 microseconds with a mask; whole numbers are taken as microseconds already.

    Raises
    ------
    InputError
        If the column is of another type or its timestamps carry no zone.
    """
    kind = kind_of(column.type)
    if kind not in {"time", "int", "null"} or (kind == "time" and column.type.tz is None):
        raise InputError(
            "a time column must be a timestamp with a zone",
            where=where,
            got=str(column.type),
            remedy="Cast it to timestamp('us', 'UTC') where it is read",
        )
    numbers = numeric(column, where=where)
    return numbers.values.astype(np.int64, copy=False), numbers.valid


def pick_times(table: pa.Table, name: str, *, where: str) -> tuple[Ints, Mask]:
    """Return a time column of a table as :func:`times` does; errors name the column."""
    return times(pick(table, name, where=where), where=f"{where}, column {name!r}")


def spine_times(spine: pa.Table, at: str) -> Ints:
    """Times of the rows of a spine, in microseconds; InputError if one is null."""
    moments, valid = pick_times(spine, at, where="spine")
    if not valid.all():
        raise InputError(
            "every row of a spine must have its time",
            where=f"spine, column {at!r}",
            got=f"{int((~valid).sum())} nulls",
            remedy="Drop or complete those rows",
        )
    return moments


def present(column: pa.Array[Any]) -> Mask:
    """Where a column holds a value."""
    if not column.null_count:
        return np.ones(len(column), dtype=np.bool_)
    return np.asarray(column.is_valid().to_numpy(zero_copy_only=False))


def evaluate(
    expressions: Mapping[str, Expression], data: pa.Table | Sequence[Mapping[str, Any]], *, where: str
) -> dict[str, FactColumn]:
    """Values of conditions over a table (as SQL, at once) or over rows (one by one; a missing column is null)."""
    columns = compute(expressions, data, where=where)
    return {text: numeric(column, where=where) for text, column in columns.items()}


def compute(
    expressions: Mapping[str, Expression], data: pa.Table | Sequence[Mapping[str, Any]], *, where: str
) -> dict[str, pa.Array[Any]]:
    """Columns of expressions over a table (as SQL, at once) or over rows (one by one; a missing column is null).

    Raises
    ------
    DefinitionError
        If a column is missing or of a kind that an expression does not take, or a whole number leaves 64 bits.
    """
    if not expressions:
        return {}
    if not isinstance(data, pa.Table):
        return {text: _compute_rows(expression, data, where) for text, expression in expressions.items()}
    needed = sorted({column for expression in expressions.values() for column in expression.columns})
    for expression in expressions.values():
        expression.check_columns(data.column_names, where=where)
    moments = {name for e in expressions.values() for name in e.columns if e.column_kind(name) == "time"}
    table = pa.table({name: _wide(pick(data, name, where=where), name in moments) for name in needed})
    column_kinds = {field.name: expression_kind(kind_of(field.type)) for field in table.schema}
    kinds = {text: expression.check_columns(column_kinds, where=where) for text, expression in expressions.items()}
    if not needed or any(pa.types.is_null(type_) for type_ in table.schema.types):
        rows = table.to_pylist() if needed else [{}] * data.num_rows
        columns = {text: _compute_rows(expression, rows, where) for text, expression in expressions.items()}
        return {text: c.cast(arrow_type("time")) if kinds[text] == "time" else c for text, c in columns.items()}
    return _compute_table(expressions, table, where)


def _wide(column: pa.Array[Any], moment: bool) -> pa.Array[Any]:
    """Numbers as the row function reads them: the engine would compute narrow ones in their own width."""
    if pa.types.is_integer(column.type):
        return column.cast(pa.int64()).cast(arrow_type("time" if moment else "int"))
    return column.cast(pa.float64()) if pa.types.is_floating(column.type) else column


@lru_cache(maxsize=1)
def _engine(process: int) -> duckdb.DuckDBPyConnection:  # noqa: ARG001 - an engine does not survive a fork
    """Open one in-memory engine per process: opening one costs more than evaluating a small batch."""
    return connect_duckdb()


def _compute_table(expressions: Mapping[str, Expression], table: pa.Table, where: str) -> dict[str, pa.Array[Any]]:
    import duckdb

    selected = ", ".join(f"({expression.to_sql()}) as c{i}" for i, expression in enumerate(expressions.values()))
    with _engine(os.getpid()).cursor() as connection:
        connection.execute("set TimeZone = 'UTC'")
        connection.register("events", table)
        try:
            result = connection.sql(f"select {selected} from events").to_arrow_table()
        except duckdb.Error as error:
            if len(expressions) > 1:  # which of them it is, each alone tells
                return {t: _compute_table({t: one}, table, where)[t] for t, one in expressions.items()}
            (expression,) = expressions.values()
            if isinstance(error, duckdb.OutOfRangeException):
                raise DefinitionError(
                    "a whole number must fit in 64 bits",
                    where=f"{where}, {expression.text}",
                    got="a result beyond them",
                    remedy="Multiply by 1.0 first to compute in fractions",
                ) from error
            raise _unfit(expression, where) from error
    columns = {text: pick(result, f"c{i}", where=where) for i, text in enumerate(expressions)}
    for text, column in columns.items():
        if pa.types.is_interval(column.type):
            raise _unfit(expressions[text], where, f"Write seconds({text})")
    return columns


def _compute_rows(expression: Expression, rows: Sequence[Mapping[str, Any]], where: str) -> pa.Array[Any]:
    compute_row, names = expression.to_row(), expression.columns
    try:
        values = [compute_row({name: row.get(name) for name in names}) for row in rows]
        if any(type(value) is float for value in values):
            return pa.array([None if value is None else float(value) for value in values])
        return pa.array(values)
    except InputError as error:
        place = f"{where}, {expression.text}"
        raise DefinitionError(error.rule, where=place, got=error.got, remedy=error.remedy) from error
    except (TypeError, pa.ArrowException) as error:
        raise _unfit(expression, where) from error


def _unfit(expression: Expression, where: str, remedy: str = "") -> DefinitionError:
    return DefinitionError(
        "an expression must fit the types of its columns",
        where=where,
        got=expression.text,
        remedy=remedy or "Compare and combine each column with values of its own type",
    )
