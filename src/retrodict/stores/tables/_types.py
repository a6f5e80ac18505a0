"""Which Arrow types a table keeps, in one place: what is stored is what comes back, so what cannot be is refused."""

from __future__ import annotations

import pyarrow as pa
from pyarrow import types as is_

from retrodict.core.errors import InputError

_MOMENT = pa.timestamp("us", tz="UTC")
_INTS = (pa.int8(), pa.int16(), pa.int32(), pa.int64())
_ZONE = "Say which zone it is in (pyarrow.compute.assume_timezone), UTC if it was written so"


def stored_schema(schema: pa.Schema, *, where: str, existing: pa.Schema | None = None) -> pa.Schema:
    """Columns in the types a table keeps: timestamps in ``timestamp[us, UTC]``, text as ``string``, no dictionaries.

    A column of nothing but untyped nulls takes its type from the ``existing`` ones. InputError if a column has no
    storable type, or a bad or doubled name.
    """
    _check_names(schema.names, where)
    fields = []
    for field in schema:
        if is_.is_null(field.type) and existing is not None and field.name in existing.names:
            stored_type: pa.DataType = existing.field(field.name).type
        else:
            stored_type = stored_type_of(field.type, f"{where}, column {field.name!r}")
        fields.append(pa.field(field.name, stored_type))
    return pa.schema(fields)


def cast_rows(rows: pa.Table, schema: pa.Schema, *, where: str) -> pa.Table:
    """Rows in the columns and types of a schema that they fit; InputError if times are finer than a microsecond."""
    selected = rows.select(schema.names)
    if selected.schema.equals(schema, check_metadata=True):
        return selected
    try:
        return selected.cast(schema)
    except pa.ArrowInvalid as error:
        # Arrow's own text holds a value of the data.
        raise InputError(
            "every time must be a whole microsecond, and every value fit the type that the table keeps",
            where=where,
            got=[
                f"{name} is {rows.field(name).type}"
                for name in schema.names
                if not _casts(selected, schema.field(name))
            ],
            remedy="Round the times to microseconds",
        ) from error


def _casts(rows: pa.Table, field: pa.Field) -> bool:
    """Whether every value of a column fits the type of a field."""
    try:
        rows.column(field.name).cast(field.type)
    except pa.ArrowInvalid:
        return False
    return True


def table_schema(schema: pa.Schema, existing: pa.Schema | None, *, evolve: bool, where: str) -> pa.Schema:
    """Columns of a table after rows of a schema, in any order, are appended to the ``existing`` ones (None: no table).

    InputError names each column that is missing, narrower or otherwise changed, or added without ``evolve``, which
    lets added columns and wider types become the table's.
    """
    rows = stored_schema(schema, where=where, existing=existing)
    if existing is None:
        return rows
    missing = [name for name in existing.names if name not in rows.names]
    added = [name for name in rows.names if name not in existing.names]
    changed = [
        f"{field.name} is {rows.field(field.name).type}, kept as {field.type}"
        for field in existing
        if field.name in rows.names
        and rows.field(field.name).type != field.type
        and not (evolve and widens(field.type, rows.field(field.name).type))
    ]
    parts = {"missing": missing, "added": [] if evolve else added, "type": changed}
    if any(parts.values()):
        rule = "appended rows must have the columns and types of the table"
        raise InputError(
            f"{rule}, and may add columns or widen types" if evolve else rule,
            where=where,
            got="; ".join(f"{word}: {', '.join(names)}" for word, names in parts.items() if names),
            remedy="Change the rows, or write a version with the new columns in mode 'overwrite'",
        )
    _check_names([*existing.names, *added], where)
    return pa.schema([rows.field(name) for name in [*existing.names, *added]])


def widens(stored: pa.DataType, other: pa.DataType) -> bool:
    """Whether every value of a kept type is exact in another one that may take its place."""
    if stored in _INTS and other in _INTS:
        return _INTS.index(stored) < _INTS.index(other)
    if is_.is_float64(other):
        return is_.is_float32(stored) or stored in _INTS[:3]
    if is_.is_decimal128(stored) and is_.is_decimal128(other):
        return bool(stored.scale == other.scale and stored.precision < other.precision)
    return False


def stored_type_of(kind: pa.DataType, where: str) -> pa.DataType:
    """Type in which values of a type are kept and come back."""
    if is_.is_dictionary(kind):
        return stored_type_of(kind.value_type, where)
    if is_.is_timestamp(kind):
        if kind.tz is None:
            raise InputError("a timestamp must carry its zone", where=where, got=str(kind), remedy=_ZONE)
        return _MOMENT
    if is_.is_string(kind) or is_.is_large_string(kind) or is_.is_string_view(kind):
        return pa.string()
    if is_.is_binary(kind) or is_.is_large_binary(kind) or is_.is_binary_view(kind):
        return pa.binary()
    if is_.is_signed_integer(kind) or is_.is_boolean(kind) or is_.is_date32(kind) or is_.is_decimal128(kind):
        return kind
    if is_.is_float32(kind) or is_.is_float64(kind):
        return kind
    if is_.is_list(kind) or is_.is_large_list(kind):
        return pa.list_(stored_type_of(kind.value_type, where))
    if is_.is_struct(kind):
        parts = [kind.field(i) for i in range(kind.num_fields)]
        return pa.struct([pa.field(part.name, stored_type_of(part.type, f"{where}.{part.name}")) for part in parts])
    remedy = "Cast the column before writing it"
    if is_.is_unsigned_integer(kind):
        remedy = "Cast the column to the next larger signed type"
    elif is_.is_null(kind):
        remedy = "Cast the column to the type its values will have"
    raise InputError("a column must have a type that tables keep unchanged", where=where, got=str(kind), remedy=remedy)


def _check_names(names: list[str], where: str) -> None:
    if not names:
        raise InputError("a table must have at least one column", where=where, got=0, remedy="Write rows with columns")
    lowered = [name.lower() for name in names]
    doubled = sorted({name for name in names if lowered.count(name.lower()) > 1})
    if doubled:
        raise InputError(
            "column names must differ in more than upper and lower case", where=where, got=doubled, remedy="Rename them"
        )
    bad = [name for name in names if not name or not name.isprintable()]
    if bad:
        raise InputError(
            "a column name must not be empty and have no control characters", where=where, got=bad, remedy="Rename them"
        )
