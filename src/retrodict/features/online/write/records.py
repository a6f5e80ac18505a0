"""Records of a stream as a table: decoded all at once, each column in the type its table declares.

A column's type must not depend on which events a batch happens to hold: a batch in which every price is whole, or null,
is still one of floats. A column that the table does not declare has the type that the table is stored in; only one
of no stored table is typed by what is in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from operator import attrgetter
from typing import Any

import msgspec
import pyarrow as pa

from retrodict.core.clock import to_micros
from retrodict.core.errors import InputError
from retrodict.core.kinds import KINDS, arrow_type, kind_of
from retrodict.core.native import kernel
from retrodict.data.definitions import Table
from retrodict.data.sources import Source

_ANY, _INT, _FLOAT, _BOOL, _TEXT = range(5)  # kinds of columns in the kernel
_KINDS = {None: _ANY, "bool": _BOOL, "date": _TEXT, "float": _FLOAT, "int": _INT, "text": _TEXT, "time": _INT}
_PLAIN = {_INT: pa.int64(), _FLOAT: pa.float64(), _BOOL: pa.bool_(), _TEXT: pa.string()}


class EventDecoder:
    """Decodes records of ``encode_event`` into the columns that are wanted; one that a record lacks is null.

    ``schema`` is that of the source's table as it is stored, None if it is not.
    """

    def __init__(self, source: Source, columns: Iterable[str], schema: pa.Schema | None = None) -> None:
        self._source, self._columns = source, sorted(columns)
        fields = [(f"c{i}", Any, None) for i in range(len(self._columns))]
        names = {f"c{i}": name for i, name in enumerate(self._columns)}
        event = msgspec.defstruct("Event", fields, rename=names, gc=False)
        self._decoder = msgspec.msgpack.Decoder(list[event])  # type: ignore[valid-type]  # made at run time
        self._declared = [_declared(source, name, schema) for name in self._columns]
        self._names = tuple(name.encode() for name in self._columns)
        self._kinds = bytes(_KINDS[word] for word in self._declared)

    def decode(self, records: Sequence[bytes]) -> pa.Table:
        """Table of records; msgspec.MsgspecError if one of them is no event."""
        table = self._usual(records)
        if table is not None:
            return table
        # One array of all records: a call per record costs as much as decoding it.
        try:
            rows = self._decoder.decode(b"".join([b"\xdd", len(records).to_bytes(4, "big"), *records]))
        except UnicodeDecodeError:  # it holds the text
            raise msgspec.DecodeError("a text is not UTF-8") from None
        return self.tabulate({name: list(map(attrgetter(f"c{i}"), rows)) for i, name in enumerate(self._columns)})

    def tabulate(self, columns: Mapping[str, list[Any]]) -> pa.Table:
        """Table of Python values of the wanted columns; times are int microseconds."""
        return tabulate(self._source, columns, dict(zip(self._columns, self._declared, strict=True)))

    def _usual(self, records: Sequence[bytes]) -> pa.Table | None:
        """What ``decode`` gives, by the kernel: None where there is none, or for records that are not of the usual."""
        columns = None if kernel is None else kernel.columns(records, self._names, self._kinds)
        if columns is None:
            return None
        columns_of = {}
        with suppress(pa.ArrowInvalid):  # text that is no UTF-8, or no date
            for name, word, (kind, nulls, values, valid, text) in zip(
                self._columns, self._declared, columns, strict=True
            ):
                type_ = None if word is None else arrow_type(word)
                if kind == _ANY:
                    columns_of[name] = pa.nulls(len(records), type_ or pa.null())
                    continue
                parts = [pa.py_buffer(valid) if nulls else None, pa.py_buffer(values)]
                parts += [pa.py_buffer(text)] if kind == _TEXT else []
                column = pa.Array.from_buffers(_PLAIN[kind], len(records), parts, nulls)
                column.validate(full=kind == _TEXT)
                columns_of[name] = column if type_ is None else column.cast(type_)
            return pa.table(columns_of)
        return None


def _declared(source: Source, name: str, schema: pa.Schema | None) -> str | None:
    """Kind that the source's table declares for a column, or that it is stored in."""
    declared = source.table.type_of(name) if isinstance(source.table, Table) else None
    if declared is not None:
        return declared.kind
    stored = "" if schema is None or name not in schema.names else kind_of(schema.field(name).type)
    return stored if stored in KINDS else None


def tabulate(
    source: Source, columns: Mapping[str, list[Any]], kinds: Mapping[str, str | None] | None = None
) -> pa.Table:
    """Table of Python values in these kinds (None: what the source's table declares); times are int microseconds."""
    arrays = {}
    for name, values in columns.items():
        declared = _declared(source, name, None) if kinds is None else kinds[name]
        type_ = None if declared is None else arrow_type(declared)
        try:
            if type_ is not None and pa.types.is_timestamp(type_):
                arrays[name] = pa.array(values, pa.int64()).cast(type_)
            elif type_ is not None and pa.types.is_date(type_) and any(isinstance(value, str) for value in values):
                arrays[name] = pa.array(values, pa.string()).cast(type_)
            else:
                arrays[name] = pa.array(values, type_)
        except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError) as error:
            raise InputError(
                "the values of a column must be of one type, the one its table declares",
                where=f"source {source.name!r}, column {name!r}",
                got=sorted({type(value).__name__ for value in values}),
                remedy="Look at who writes this stream" if declared else "Declare the column's type in its table",
            ) from error
    return pa.table(arrays)


def plain_time(value: Any) -> Any:
    """Times as int microseconds, anything else as it is."""
    return to_micros(value) if isinstance(value, datetime) else value
