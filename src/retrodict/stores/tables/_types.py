"""Which Arrow types a table keeps, in one place: what is stored is what comes back, so what cannot be is refused."""

from __future__ import annotations

import pyarrow as pa
from pyarrow import types as is_

from retrodict.core.errors import InputError

_MOMENT = pa.timestamp("us", tz="UTC")
_NAME_STOPS = frozenset(" ,;{}()\n\t=")  # Delta refuses these in column names
_REMEDIES = {
    "uint": "Cast the column to the next larger signed type",
    "naive": "Say which zone it is in (pyarrow.compute.assume_timezone), UTC if it was written so",
    "null": "Cast the column to the type its values will have",
}


def storable(rows: pa.Table, *, where: str, known: pa.Schema | None = None) -> pa.Table:
    """Rows in the types a table keeps; refuse what would come back changed.

    Parameters
    ----------
    rows : pyarrow.Table
        What a caller wants to store.
    where : str
        The table, for errors.
    known : pyarrow.Schema, optional
        Columns of the table there is; a column of nothing but untyped nulls takes its type from there.

    Returns
    -------
    pyarrow.Table
        The same rows and column order; timestamps in ``timestamp[us, UTC]``, text as ``string``, dictionaries decoded.

    Raises
    ------
    InputError
        If a column has no storable type, a bad or doubled name, or times finer than a microsecond.
    """
    _check_names(rows.schema.names, where)
    fields = []
    for field in rows.schema:
        if is_.is_null(field.type) and known is not None and field.name in known.names:
            kept: pa.DataType = known.field(field.name).type
        else:
            kept = kept_type(field.type, f"{where}, column {field.name!r}")
        fields.append(pa.field(field.name, kept))
    schema = pa.schema(fields)
    if rows.schema.equals(schema, check_metadata=True):
        return rows
    try:
        return rows.cast(schema)
    except pa.ArrowInvalid as error:
        # Arrow's own text holds a value of the data.
        raise InputError(
            "every time is a whole microsecond, and every value fits the kept type",
            where=where,
            got=[str(field.type) for field in rows.schema],
            remedy="Round the times to microseconds",
        ) from error


def kept_type(kind: pa.DataType, where: str) -> pa.DataType:
    """Type in which values of a type are kept and come back."""
    if is_.is_dictionary(kind):
        return kept_type(kind.value_type, where)
    if is_.is_timestamp(kind):
        if kind.tz is None:
            raise _refused("a timestamp carries its zone", where, kind, "naive")
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
        return pa.list_(kept_type(kind.value_type, where))
    if is_.is_struct(kind):
        parts = [kind.field(i) for i in range(kind.num_fields)]
        return pa.struct([pa.field(part.name, kept_type(part.type, f"{where}.{part.name}")) for part in parts])
    why = "uint" if is_.is_unsigned_integer(kind) else "null" if is_.is_null(kind) else ""
    raise _refused("a column has a type that tables keep unchanged", where, kind, why)


def conform(rows: pa.Table, schema: pa.Schema, *, where: str) -> pa.Table:
    """Rows in the column order of a schema; refuse other columns or types, naming each difference."""
    missing = [name for name in schema.names if name not in rows.schema.names]
    added = [name for name in rows.schema.names if name not in schema.names]
    changed = [
        f"{field.name} is {rows.schema.field(field.name).type}, kept as {field.type}"
        for field in schema
        if field.name in rows.schema.names and rows.schema.field(field.name).type != field.type
    ]
    parts = {"missing": missing, "added": added, "type": changed}
    if any(parts.values()):
        raise InputError(
            "appended rows have the columns and types of the table",
            where=where,
            got="; ".join(f"{word}: {', '.join(names)}" for word, names in parts.items() if names),
            remedy="Change the rows, or write a version with the new columns in mode 'overwrite'",
        )
    return rows.select(schema.names).cast(schema)


def _check_names(names: list[str], where: str) -> None:
    if not names:
        raise InputError("a table has at least one column", where=where)
    lowered = [name.lower() for name in names]
    doubled = sorted({name for name in names if lowered.count(name.lower()) > 1})
    if doubled:
        raise InputError(
            "column names differ in more than upper and lower case", where=where, got=doubled, remedy="Rename them"
        )
    bad = [name for name in names if not name or _NAME_STOPS & set(name)]
    if bad:
        raise InputError(
            "a column name is not empty and has no space and none of ,;{}()=",
            where=where,
            got=bad,
            remedy="Rename them",
        )


def _refused(rule: str, where: str, kind: pa.DataType, why: str) -> InputError:
    return InputError(rule, where=where, got=str(kind), remedy=_REMEDIES.get(why, "Cast the column before writing it"))
