"""Types a batch arrives in: those that Parquet gives back as they were written, and how several become one.

Dictionaries are decoded and views laid out, since every reader after this one would have to do it. Whole seconds
become milliseconds, the coarsest unit that Parquet has. Nothing else changes: what a column means is decided later.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
from pyarrow import types as is_

from retrodict.core.errors import InputError

# Parquet has no object without a key; while none was seen, an empty one is written with this one, which is always null.
EMPTY = "retrodict.empty"


def check_names(names: Sequence[str], where: str) -> None:
    """Refuse a column name that stands twice."""
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(
            "every column must have a name of its own",
            where=where,
            got=twice,
            remedy="Rename them; nothing was written",
        )


def plain_schema(schema: pa.Schema) -> pa.Schema:
    """Return the columns as a batch holds them, without metadata."""
    return pa.schema([pa.field(field.name, _plain(field.type)) for field in schema])


def _plain(kind: pa.DataType) -> pa.DataType:
    if is_.is_dictionary(kind) or is_.is_run_end_encoded(kind):
        return _plain(kind.value_type)
    if is_.is_string_view(kind):
        return pa.large_string()
    if is_.is_binary_view(kind):
        return pa.large_binary()
    if is_.is_timestamp(kind) and kind.unit == "s":
        return pa.timestamp("ms", kind.tz)
    if is_.is_time32(kind) and kind.unit == "s":
        return pa.time32("ms")
    if is_.is_date64(kind):
        return pa.date32()
    if is_.is_struct(kind):
        return pa.struct(
            [kind.field(place).with_type(_plain(kind.field(place).type)) for place in range(kind.num_fields)]
        )
    if is_.is_list_view(kind) or is_.is_list(kind):
        return pa.list_(kind.value_field.with_type(_plain(kind.value_type)))
    if is_.is_large_list_view(kind) or is_.is_large_list(kind):
        return pa.large_list(kind.value_field.with_type(_plain(kind.value_type)))
    return kind


def plain_batch(rows: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """Rows in the columns and types of a schema; a column that they lack is null."""
    if rows.schema.equals(schema, check_metadata=True):
        return rows
    columns = []
    for field in schema:
        place = rows.schema.get_field_index(field.name)
        if place < 0:
            columns.append(pa.nulls(rows.num_rows, field.type))
            continue
        column = rows.column(place)
        if is_.is_run_end_encoded(column.type):
            column = pa.compute.run_end_decode(column)
        elif is_.is_dictionary(column.type):
            # Not dictionary_decode, which knows no views.
            column = column.dictionary.cast(_plain(column.type.value_type)).take(column.indices)
        columns.append(column if column.type.equals(field.type) else column.cast(field.type))
    return pa.RecordBatch.from_arrays(columns, schema=schema) if columns else rows.select([])


def plain_batches(batches: Iterable[pa.RecordBatch], schema: pa.Schema, name: str) -> Iterator[pa.RecordBatch]:
    """Rows in the columns and types of a schema; InputError if a value does not fit."""
    for rows in batches:
        try:
            yield plain_batch(rows, schema)
        except pa.ArrowException:
            raise InputError(
                "every value must fit the type of its column",
                where=name,
                got=[str(kind) for kind in rows.schema.types],
                remedy="Cast the column that does not",
            ) from None  # its text quotes the value


def one_schema(schemas: Sequence[pa.Schema]) -> pa.Schema:
    """Return columns that hold the values of all, in the order in which they first appear.

    Kinds widen as far as no value changes (null to anything, ints to floats, units of time, objects by their keys);
    instants of several zones are those in UTC. The InputError of kinds that are not one lacks the place.
    """
    types: dict[str, pa.DataType] = {}
    for schema in schemas:
        for field in schema:
            earlier = types.get(field.name, field.type)
            types[field.name] = earlier if earlier.equals(field.type) else _one_type(field.name, earlier, field.type)
    return pa.schema([pa.field(name, kind) for name, kind in types.items()])


def _one_type(name: str, first: pa.DataType, second: pa.DataType) -> pa.DataType:
    if all(is_.is_timestamp(kind) and kind.tz for kind in (first, second)) and first.tz != second.tz:
        first, second = (pa.timestamp(kind.unit, "UTC") for kind in (first, second))
    if _is_text(first) != _is_text(second) and not (is_.is_null(first) or is_.is_null(second)):
        raise _torn(name, first, second)  # Arrow would make bytes of text
    pair = [pa.schema([pa.field(name, kind)]) for kind in (first, second)]
    try:
        return pa.unify_schemas(pair, promote_options="permissive").field(0).type
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as error:
        raise _torn(name, first, second) from error


def _torn(name: str, first: pa.DataType, second: pa.DataType) -> InputError:
    return several_kinds(None, name, got=[str(first), str(second)])


def several_kinds(place: str | None, column: str, **parts: Any) -> InputError:
    """Error of a column with values of several kinds; it quotes none of them."""
    where = f"column {column!r}" if place is None else f"{place}, column {column!r}"
    return InputError("the values of a column must be of one kind", where=where, **parts)


def _is_text(kind: pa.DataType) -> bool:
    return bool(is_.is_string(kind) or is_.is_large_string(kind))


def without_empty(schema: pa.Schema, where: str) -> pa.Schema:
    """Return columns without the key that stood for none; refuse an object that never had another."""
    return pa.schema(
        [pa.field(field.name, _without(field.type, f"{where}, column {field.name!r}")) for field in schema]
    )


def _without(kind: pa.DataType, where: str) -> pa.DataType:
    if is_.is_list(kind):
        return pa.list_(kind.value_field.with_type(_without(kind.value_type, where)))
    if not is_.is_struct(kind):
        return kind
    parts = [kind.field(place) for place in range(kind.num_fields)]
    fields = [part.with_type(_without(part.type, where)) for part in parts if part.name != EMPTY]
    if not fields:
        raise InputError(
            "an object that is a value must have a key in at least one row", where=where, remedy="Leave the column out"
        )
    return pa.struct(fields)


# values in Python ---------------------------------------------------------------------------------------------


class Kinds:
    """Kinds of the columns of Python values that come in pieces: a piece is read with them, and may widen them."""

    def __init__(self, name: str, remedy: str) -> None:
        self._name, self._remedy = name, remedy
        self._types: dict[str, pa.DataType] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """Columns in the order in which they first came."""
        return tuple(self._types)

    def batch(self, columns: Mapping[str, Sequence[Any]]) -> pa.RecordBatch:
        """Values of all columns known so far, and perhaps further ones, as Arrow rows; at least one column."""
        arrays = {name: self._array(name, values) for name, values in columns.items()}
        self._types |= {name: array.type for name, array in arrays.items()}
        return pa.RecordBatch.from_arrays(list(arrays.values()), names=list(arrays))

    def _array(self, name: str, values: Sequence[Any]) -> pa.Array:
        try:
            array = pa.array(values)
            kind = _with_key(array.type)
            if name in self._types:
                pair = [pa.schema([pa.field(name, arrow)]) for arrow in (self._types[name], kind)]
                kind = one_schema(pair).field(0).type
            return array if array.type.equals(kind) else pa.array(values, type=kind)
        except (pa.ArrowException, OverflowError, TypeError, ValueError):
            raise several_kinds(self._name, name, remedy=self._remedy) from None  # its text quotes the value


def _with_key(kind: pa.DataType) -> pa.DataType:
    if is_.is_list(kind):
        return pa.list_(kind.value_field.with_type(_with_key(kind.value_type)))
    if not is_.is_struct(kind):
        return kind
    parts = [kind.field(place) for place in range(kind.num_fields)]
    return pa.struct([part.with_type(_with_key(part.type)) for part in parts] or [pa.field(EMPTY, pa.null())])
