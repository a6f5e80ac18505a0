"""Entity keys: one canonical form for columns, for requests and for stored state.

Text, whole numbers (times and dates are whole numbers) and booleans are different kinds and never equal, so ``1`` and
``"1"`` are two keys and comparing them is an error. Parts are stored with their lengths: (1, 23) is not (12, 3). Floats
are refused: two floats that print alike need not be equal.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from retrodict.core.clock import to_micros
from retrodict.core.errors import DefinitionError, InputError
from retrodict.core.identity import digest
from retrodict.features.columns import Ints, kind_of

__all__ = ["KeyIndex", "encode_key", "key_array", "key_kind"]

_KINDS = {
    "text": "text",
    "int": "whole number",
    "bool": "boolean",
    "time": "whole number",
    "date": "whole number",
    "null": "null",
}
_LONGEST = 360
_COMPRESS = 1 << 40
_EPOCH = date(1970, 1, 1)

NULL, UNKNOWN = -1, -2


def key_kind(column: pa.Array[Any], *, where: str) -> str:
    """Kind of a key column: text, whole number, boolean or null."""
    kind = _KINDS.get(kind_of(column.type))
    if kind is None:
        raise DefinitionError(
            "a key is text, a whole number, a boolean or a time",
            where=where,
            got=str(column.type),
            remedy="Cast the key column where the table is read",
        )
    return kind


def key_array(column: pa.Array[Any], *, where: str) -> pa.Array[Any]:
    """Return a key column in its canonical Arrow type: large_string, int64 or bool."""
    kind = key_kind(column, where=where)
    if kind == "null":
        return column
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.timestamp("us", column.type.tz), safe=False)
    elif pa.types.is_date(column.type):
        column = column.cast(pa.date32()).cast(pa.int32())
    return column.cast({"text": pa.large_string(), "whole number": pa.int64(), "boolean": pa.bool_()}[kind])


class KeyIndex:
    """Numbers the distinct keys of a set of events and finds the keys of requests among them.

    Parameters
    ----------
    columns : sequence of Array
        Key columns of the events.
    where : str
        What to name in an error.

    Attributes
    ----------
    codes : int64 array
        Number of each event's key, -1 where a part is null.
    size : int
        Number of distinct keys.
    """

    def __init__(self, columns: Sequence[pa.Array[Any]], *, where: str) -> None:
        self._where = where
        self._kinds = [key_kind(column, where=where) for column in columns]
        arrays = [key_array(column, where=where) for column in columns]
        self._parts = [pc.drop_null(pc.unique(array)) for array in arrays]
        # Radix of each part; the mixed-radix numbers are then renumbered without gaps.
        self._steps: list[Ints] = []
        combined = self._combine(arrays, learn=True)
        self._distinct, codes = np.unique(combined[combined >= 0], return_inverse=True)
        self.codes = np.full(len(combined), NULL, dtype=np.int64)
        self.codes[combined >= 0] = codes
        self.size = len(self._distinct)

    def _combine(self, arrays: Sequence[pa.Array[Any]], *, learn: bool) -> Ints:
        """One number per row: -1 for a null part, -2 for a part no event has."""
        total = np.zeros(len(arrays[0]), dtype=np.int64)
        null, unknown = np.zeros(len(total), dtype=np.bool_), np.zeros(len(total), dtype=np.bool_)
        for place, (array, part) in enumerate(zip(arrays, self._parts, strict=True)):
            found = pc.index_in(array, value_set=part) if len(part) else pa.nulls(len(array), pa.int32())
            code = np.asarray(pc.fill_null(found, UNKNOWN).to_numpy(zero_copy_only=False)).astype(np.int64)
            null |= np.asarray(array.is_null().to_numpy(zero_copy_only=False))
            unknown |= code < 0
            total = total * max(len(part), 1) + np.maximum(code, 0)
            total, lost = self._compress(total, place, learn=learn)
            unknown |= lost
        total[unknown] = UNKNOWN
        total[null] = NULL
        return total

    def _compress(self, total: Ints, place: int, *, learn: bool) -> tuple[Ints, np.ndarray]:
        """Renumber after every part but the last, so that no product of sizes leaves 64 bits."""
        nothing_lost = np.zeros(len(total), dtype=np.bool_)
        if place == len(self._parts) - 1:
            return total, nothing_lost
        if learn:
            seen, codes = np.unique(total, return_inverse=True)
            self._steps.append(seen)
            return codes.astype(np.int64), nothing_lost
        return _search(self._steps[place], total)

    def locate(self, columns: Sequence[pa.Array[Any]], *, names: Sequence[str]) -> Ints:
        """Key number of each row of a spine: -1 where a part is null, -2 for a key without events.

        Raises
        ------
        DefinitionError
            If a column is of another kind than the events' key.
        """
        arrays: list[pa.Array[Any]] = []
        for column, name, kind in zip(columns, names, self._kinds, strict=True):
            own = key_kind(column, where=f"{self._where}, request column {name!r}")
            if own != kind and "null" not in {own, kind}:
                raise DefinitionError(
                    f"the key of request and source are of one kind; the source has {kind}",
                    where=f"{self._where}, request column {name!r}",
                    got=own,
                    remedy="Cast one of the two where its table is read",
                )
            array = key_array(column, where=self._where)
            # A column of nothing but nulls matches no key; give it the events' type so that it can be looked up.
            arrays.append(pa.nulls(len(array), self._parts[len(arrays)].type) if own == "null" else array)
        combined = self._combine(arrays, learn=False)
        codes, lost = _search(self._distinct, combined)
        codes[lost | (combined == UNKNOWN)] = UNKNOWN
        codes[combined == NULL] = NULL
        return codes


def _search(known: Ints, wanted: Ints) -> tuple[Ints, np.ndarray]:
    if not len(known):
        return np.zeros(len(wanted), dtype=np.int64), np.ones(len(wanted), dtype=np.bool_)
    place = np.minimum(np.searchsorted(known, wanted), len(known) - 1)
    return place, known[place] != wanted


def encode_key(values: Sequence[object], *, where: str) -> bytes | None:
    """Bytes of one key, None if a part is null; equal exactly for equal keys.

    Raises
    ------
    InputError
        If a part is of a type that cannot be a key; the message names the type, never the value.
    """
    if (
        len(values) == 1
        and type(values[0]) is str
        and len(body := values[0].encode("utf-8", "surrogatepass")) < _LONGEST - 3
    ):
        return b"t" + len(body).to_bytes(2, "big") + body  # what the loop below gives, for the most frequent key
    parts = []
    for value in values:
        if value is None:
            return None
        if isinstance(value, str):
            tag, body = b"t", value.encode("utf-8", "surrogatepass")
        elif isinstance(value, bool | np.bool_):
            tag, body = b"b", b"\1" if value else b"\0"
        elif isinstance(value, int | np.integer | datetime | date):
            tag, body = b"i", _whole(value).to_bytes(8, "big", signed=True)
        else:
            raise InputError(
                "a key is text, a whole number, a boolean or a time",
                where=where,
                got=type(value).__name__,
                remedy="Convert the entity before asking",
            )
        parts.append(tag + len(body).to_bytes(2, "big") + body if len(body) < 1 << 16 else b"h" + digest(body).encode())
    joined = b"".join(parts)
    return joined if len(joined) <= _LONGEST else b"H" + digest(joined).encode()


def _whole(value: int | np.integer | datetime | date) -> int:
    if isinstance(value, datetime):
        return to_micros(value if value.tzinfo else value.replace(tzinfo=UTC))
    if isinstance(value, date):
        return (value - _EPOCH).days
    return int(value)
