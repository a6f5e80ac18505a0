"""Columns from Python values that come in pieces: their kinds are inferred, and must agree over all pieces."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
from pyarrow import types as is_

from retrodict.core.errors import InputError
from retrodict.data.readers._types import EMPTY, one_schema


class Kinds:
    """Kinds of the columns so far; a piece is read with them, and may widen them."""

    def __init__(self, name: str, remedy: str) -> None:
        self._name, self._remedy = name, remedy
        self._types: dict[str, pa.DataType] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """Columns in the order in which they first came."""
        return tuple(self._types)

    def batch(self, columns: Mapping[str, Sequence[Any]]) -> pa.RecordBatch:
        """Values of all columns known so far, and perhaps further ones, as Arrow rows; at least one column.

        Raises
        ------
        InputError
            If the values of a column are not of one kind; the message names the column and quotes nothing.
        """
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
            raise InputError(
                "the values of a column must be of one kind",
                where=f"{self._name}, column {name!r}",
                remedy=self._remedy,
            ) from None  # its text quotes the value


def _with_key(kind: pa.DataType) -> pa.DataType:
    if is_.is_list(kind):
        return pa.list_(kind.value_field.with_type(_with_key(kind.value_type)))
    if not is_.is_struct(kind):
        return kind
    parts = [kind.field(place) for place in range(kind.num_fields)]
    return pa.struct([part.with_type(_with_key(part.type)) for part in parts] or [pa.field(EMPTY, pa.null())])
