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
from retrodict.core.kinds import kind_of
from retrodict.core.native import in_threads, kernel
from retrodict.features.facts.columns import Ints, Mask, known_type, pick

__all__ = ["KeyIndex", "check_kinds", "encode_key", "key_array", "key_columns", "key_kind"]

_KINDS = {
    "text": "text",
    "int": "whole number",
    "bool": "boolean",
    "time": "whole number",
    "date": "whole number",
    "null": "null",
}
_LONGEST = 360
_LONG = 1 << 17  # rows that are worth a thread of their own
_DENSE = 4  # numbers up to so many times the rows are counted in a table, beyond that they are sorted
_EPOCH = date(1970, 1, 1)
_EVERYBODY = True  # the key of a view without an entity

NULL, UNKNOWN = -1, -2


def key_kind(column: pa.Array[Any], *, where: str) -> str:
    """Kind of a key column: text, whole number, boolean or null."""
    kind = _KINDS.get(kind_of(column.type))
    if kind is None:
        raise DefinitionError(
            "a key must be text, a whole number, a boolean or a time",
            where=where,
            got=str(column.type),
            remedy="Cast the key column where the table is read",
        )
    return kind


def check_kinds(source_kind: str, requested: pa.Array[Any], *, where: str) -> str:
    """Return the kind of a request's key column; DefinitionError if the source's key is of another one."""
    kind = key_kind(requested, where=where)
    if source_kind != kind and "null" not in {source_kind, kind}:
        raise DefinitionError(
            f"the key of request and source must be of one kind; the source has {source_kind}",
            where=where,
            got=kind,
            remedy="Cast one of the two where its table is read",
        )
    return kind


def key_array(column: pa.Array[Any], *, where: str) -> pa.Array[Any]:
    """Return a key column in its canonical Arrow type: large_string, int64 or bool."""
    kind = key_kind(column, where=where)
    if kind == "null":
        return column
    column = known_type(column, where=where)
    if pa.types.is_date(column.type):
        column = column.cast(pa.int32())
    return column.cast({"text": pa.large_string(), "whole number": pa.int64(), "boolean": pa.bool_()}[kind])


def key_columns(table: pa.Table, names: Sequence[str], *, where: str) -> list[pa.Array[Any]]:
    """Key columns of a table; where a view has no entity one constant, since all of the table is one key."""
    return [pick(table, name, where=where) for name in names] or [pa.repeat(_EVERYBODY, table.num_rows)]


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
        self._parts: list[pa.Array[Any]] = []
        # Radix of each part; the mixed-radix numbers are renumbered without gaps after each.
        self._steps: list[Ints] = []
        self._places: Ints | None = None
        self.codes = self._learn([key_array(column, where=where) for column in columns])
        self.size = len(self._steps[-1]) if self._steps else len(self._parts[0])

    @classmethod
    def numbered(cls, columns: Sequence[pa.Array[Any]], *, where: str) -> KeyIndex:
        """Return the index of distinct keys, each with the number of its row: what ``distinct`` gave, read again."""
        index = cls(columns, where=where)
        if not (index.codes == np.arange(index.size)).all():
            index._places = np.argsort(index.codes)  # the row of each number that was given anew
            index.codes = np.arange(index.size)
        return index

    def distinct(self) -> list[pa.Array[Any]]:
        """Key columns of the distinct keys, in the order of their numbers."""
        numbers = np.arange(self.size)
        columns: list[pa.Array[Any]] = []
        for place in range(len(self._parts) - 1, -1, -1):
            part = self._parts[place]
            if place:
                numbers, code = np.divmod(self._steps[place - 1][numbers], max(len(part), 1))
            else:
                code = numbers
            columns.insert(0, part.take(pa.array(code)))
        return columns

    def _learn(self, arrays: Sequence[pa.Array[Any]]) -> Ints:
        """Number of each row's key; -1 for a null part."""
        total, null = np.zeros(len(arrays[0]), dtype=np.int64), np.zeros(len(arrays[0]), dtype=np.bool_)
        for place, array in enumerate(arrays):
            code, part = _encoded(array)
            self._parts.append(part)
            if place:
                total, seen = _renumbered(total * max(len(part), 1) + np.maximum(code, 0), null | (code < 0))
                self._steps.append(seen)
            else:
                total = code
            null |= code < 0
            if place + 1 < len(arrays) and null.any():
                total = np.where(null, 0, total)
        return np.where(null, NULL, total) if null.any() else total

    def _known(self, array: pa.Array[Any], place: int) -> Ints:
        part = self._parts[place]
        if not len(part):
            return np.full(len(array), UNKNOWN, dtype=np.int64)
        if pa.types.is_large_string(part.type) and not array.null_count:
            numbers = _encoded_once(pa.concat_arrays([part, array]))[0][len(part) :]
            return np.where(numbers < len(part), numbers, UNKNOWN)
        places = pc.fill_null(pc.index_in(array, value_set=part), UNKNOWN)
        return np.asarray(places.to_numpy(zero_copy_only=False)).astype(np.int64)

    def locate(self, columns: Sequence[pa.Array[Any]], *, names: Sequence[str]) -> Ints:
        """Key number of each row of a spine: -1 where a part is null, -2 for a key without events.

        Raises
        ------
        DefinitionError
            If a column is of another kind than the events' key.
        """
        total = np.zeros(len(columns[0]), dtype=np.int64)
        unknown, null = np.zeros(len(total), dtype=np.bool_), np.zeros(len(total), dtype=np.bool_)
        for place, (column, name) in enumerate(zip(columns, names or ("",), strict=True)):
            array = self._canonical(column, name, place)
            code = self._known(array, place)
            unknown |= code < 0
            if array.null_count:
                null |= np.asarray(array.is_null().to_numpy(zero_copy_only=False))
            if place:
                total = total * max(len(self._parts[place]), 1) + np.maximum(code, 0)
                total, missing = _search(self._steps[place - 1], total)
                unknown |= missing
            else:
                total = np.maximum(code, 0)
        if self._places is not None and self.size:
            total = self._places[total]
        total[unknown] = UNKNOWN
        total[null] = NULL
        return total

    def _canonical(self, column: pa.Array[Any], name: str, place: int) -> pa.Array[Any]:
        where = f"{self._where}, request column {name!r}"
        kind = check_kinds(self._kinds[place], column, where=where)
        # A column of nothing but nulls matches no key; give it the events' type so that it can be looked up.
        return pa.nulls(len(column), self._parts[place].type) if kind == "null" else key_array(column, where=where)


def _encoded(array: pa.Array[Any]) -> tuple[Ints, pa.Array[Any]]:
    """Place of each value among the distinct ones, -1 for null; and those."""
    if pa.types.is_null(array.type):
        return np.full(len(array), NULL, dtype=np.int64), array.slice(0, 0)
    if pa.types.is_int64(array.type) and len(array) and not array.null_count:
        values = array.to_numpy()
        low, high = int(values.min()), int(values.max())
        if high - low < _DENSE * len(values):
            code = values - low if low else values
            used = np.zeros(high - low + 1, dtype=np.bool_)
            used[code] = True
            return code if used.all() else (np.cumsum(used) - 1)[code], pa.array(np.flatnonzero(used) + low)
    return _encoded_halves(array) if len(array) > _LONG and not array.null_count else _encoded_once(array)


def _encoded_once(array: pa.Array[Any]) -> tuple[Ints, pa.Array[Any]]:
    """Place of each value among the distinct ones as they first appear, -1 for null; and those."""
    if kernel is not None and pa.types.is_large_string(array.type) and not array.null_count and len(array):
        _, ends, text = array.buffers()
        codes, firsts = np.empty(len(array), dtype=np.int64), np.empty(len(array), dtype=np.int64)
        ends = np.frombuffer(ends, np.int64, len(array) + 1, 8 * array.offset)
        count = kernel.texts(ends, text or b"", codes, firsts)
        return codes, array.take(pa.array(firsts[:count]))
    encoded = array.dictionary_encode()
    indices = encoded.indices.fill_null(NULL) if array.null_count else encoded.indices
    return np.asarray(indices.to_numpy(zero_copy_only=False)).astype(np.int64), encoded.dictionary


def _encoded_halves(array: pa.Array[Any]) -> tuple[Ints, pa.Array[Any]]:
    """Return the same of values without nulls, each half by a thread: then only their distinct values are compared."""
    half = len(array) // 2
    (left, distinct), (right, others) = in_threads(_encoded_once, array.slice(0, half), array.slice(half))
    numbers, merged = _encoded_once(pa.concat_arrays([distinct, others]))
    return np.concatenate([left, numbers[len(distinct) :][right]]), merged


def _renumbered(total: Ints, without: Mask) -> tuple[Ints, Ints]:
    """Numbers without gaps in the same order, and what each stood for; those ``without`` a key get 0."""
    present = total[~without]
    top = int(present.max(initial=0))
    if top > _DENSE * len(total) + 1:
        seen, inverse = np.unique(present, return_inverse=True)
        numbers = np.zeros(len(total), dtype=np.int64)
        numbers[~without] = inverse
        return numbers, seen
    used = np.zeros(top + 1, dtype=np.bool_)
    used[present] = True
    numbers = (np.cumsum(used) - 1)[np.where(without, 0, total)]
    numbers[without] = 0
    return numbers, np.flatnonzero(used)


def _search(line: Ints, values: Ints) -> tuple[Ints, Mask]:
    if not len(line):
        return np.zeros(len(values), dtype=np.int64), np.ones(len(values), dtype=np.bool_)
    place = np.minimum(np.searchsorted(line, values), len(line) - 1)
    return place, line[place] != values


def encode_key(values: Sequence[object], *, where: str) -> bytes | None:
    """Bytes of one key, None if a part is null; equal exactly for equal keys. Without values: the key of everybody.

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
    for value in values or (_EVERYBODY,):
        if value is None:
            return None
        if isinstance(value, str):
            tag, body = b"t", value.encode("utf-8", "surrogatepass")
        elif isinstance(value, bool | np.bool_):
            tag, body = b"b", b"\1" if value else b"\0"
        elif isinstance(value, int | np.integer | datetime | date):
            tag, body = b"i", _eight_bytes(_whole(value), where)
        else:
            raise InputError(
                "a key must be text, a whole number, a boolean or a time",
                where=where,
                got=type(value).__name__,
                remedy="Convert the entity before asking",
            )
        parts.append(tag + len(body).to_bytes(2, "big") + body if len(body) < 1 << 16 else b"h" + digest(body).encode())
    joined = b"".join(parts)
    return joined if len(joined) <= _LONGEST else b"H" + digest(joined).encode()


def _eight_bytes(value: int, where: str) -> bytes:
    try:
        return value.to_bytes(8, "big", signed=True)
    except OverflowError as error:
        raise InputError(
            "a key that is a whole number must fit in 64 bits",
            where=where,
            got=f"{value.bit_length()} bits",
            remedy="Use text for longer ids",
        ) from error


def _whole(value: int | np.integer | datetime | date) -> int:
    if isinstance(value, datetime):
        return to_micros(value if value.tzinfo else value.replace(tzinfo=UTC))
    if isinstance(value, date):
        return (value - _EPOCH).days
    return int(value)
