"""How the columns of two versions relate, and in which type a pair of them can be compared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import pyarrow as pa
from pyarrow import types as is_

from retrodict.stores.sql import quote

SYSTEM_COLUMNS = ("_batch", "_row")
_INTS = (("int8", "TINYINT"), ("int16", "SMALLINT"), ("int32", "INTEGER"), ("int64", "BIGINT"))


@dataclass(frozen=True, slots=True)
class ColumnChange:
    """A difference between two schemas.

    Attributes
    ----------
    column : str
    change : {"added", "removed", "widened", "changed"}
        ``widened``: every value of the old type is one of the new type.
    before, after : str or None
        Types as Arrow writes them.
    compared : bool
        Whether the values of the two sides are compared all the same.
    """

    column: str
    change: Literal["added", "removed", "widened", "changed"]
    before: str | None
    after: str | None
    compared: bool


@dataclass(frozen=True, slots=True)
class Columns:
    """What two schemas have in common: ``shared`` are the columns compared, each with the type it is compared in."""

    changes: list[ColumnChange]
    shared: dict[str, pa.DataType]

    def selection(self, schema: pa.Schema, names: list[str] | None = None) -> str:
        """SQL that selects the compared columns of one side, in the types of the comparison."""
        parts = []
        for name in self.shared if names is None else names:
            kind, quoted = self.shared[name], quote(name)
            same = schema.field(name).type.equals(kind)
            parts.append(quoted if same else f"CAST({quoted} AS {_sql_type(kind)}) AS {quoted}")
        return ", ".join(parts)


def pair_columns(before: pa.Schema, after: pa.Schema) -> Columns:
    """Compare two schemas, without the columns that the store's own writers add."""
    changes: list[ColumnChange] = []
    shared: dict[str, pa.DataType] = {}
    for field in before:
        if field.name in SYSTEM_COLUMNS:
            continue
        if field.name not in after.names:
            changes.append(ColumnChange(field.name, "removed", str(field.type), None, compared=False))
            continue
        old, new = field.type, after.field(field.name).type
        common = _common_type(old, new)
        if common is not None:
            shared[field.name] = common
        if not old.equals(new):
            widened = common is not None and common.equals(new)
            changes.append(ColumnChange(
                field.name, "widened" if widened else "changed", str(old), str(new), compared=common is not None
            ))  # fmt: skip
    changes += [
        ColumnChange(field.name, "added", None, str(field.type), compared=False)
        for field in after
        if field.name not in before.names and field.name not in SYSTEM_COLUMNS
    ]
    return Columns(changes, shared)


def _common_type(a: pa.DataType, b: pa.DataType) -> pa.DataType | None:
    """Type that holds every value of both exactly; None if there is none."""
    if a.equals(b):
        return a
    if is_.is_signed_integer(a) and is_.is_signed_integer(b):
        return a if a.bit_width >= b.bit_width else b
    if is_.is_floating(a) and is_.is_floating(b):
        return pa.float64()
    if is_.is_decimal128(a) and is_.is_decimal128(b):
        scale = max(a.scale, b.scale)
        digits = scale + max(a.precision - a.scale, b.precision - b.scale)
        return pa.decimal128(digits, scale) if digits <= 38 else None
    small, other = (a, b) if is_.is_signed_integer(a) else (b, a)
    # A float64 holds every int32 exactly, but not every int64.
    if is_.is_signed_integer(small) and is_.is_float64(other) and small.bit_width <= 32:
        return pa.float64()
    return None


def _sql_type(kind: pa.DataType) -> str:
    if is_.is_decimal128(kind):
        return f"DECIMAL({kind.precision}, {kind.scale})"
    return "DOUBLE" if is_.is_float64(kind) else dict(_INTS)[str(kind)]
