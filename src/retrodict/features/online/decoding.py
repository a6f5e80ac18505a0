"""Records of a stream as a table: decoded all at once, each column in the type its table declares.

A column's type must not depend on which events a batch happens to hold: a batch in which every price is whole, or null,
is still one of floats. Only columns that no table declares are typed by what is in them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from operator import attrgetter
from typing import Any

import msgspec
import pyarrow as pa

from retrodict.core.clock import to_micros
from retrodict.core.errors import InputError
from retrodict.data.definitions import Table
from retrodict.data.sources import Source

__all__ = ["EventDecoder", "plain_time", "tabulate"]

_TYPES = {
    "bool": pa.bool_(),
    "date": pa.date32(),
    "float": pa.float64(),
    "int": pa.int64(),
    "string": pa.string(),
    "time": pa.timestamp("us", "UTC"),
}


class EventDecoder:
    """Decodes records of ``encode_event`` into the columns that are wanted.

    Parameters
    ----------
    source : Source
        Whose events they are.
    columns : iterable of str
        Columns to read; one that a record lacks is null.
    """

    def __init__(self, source: Source, columns: Iterable[str]) -> None:
        self._source, self._columns = source, sorted(columns)
        fields = [(f"c{i}", Any, None) for i in range(len(self._columns))]
        names = {f"c{i}": name for i, name in enumerate(self._columns)}
        event = msgspec.defstruct("Event", fields, rename=names, gc=False)
        self._decoder = msgspec.msgpack.Decoder(list[event])  # type: ignore[valid-type]  # made at run time

    def decode(self, records: Sequence[bytes]) -> pa.Table:
        """Table of records; msgspec.MsgspecError if one of them is no event."""
        # One array of all records: a call per record costs as much as decoding it.
        rows = self._decoder.decode(b"".join([b"\xdd", len(records).to_bytes(4, "big"), *records]))
        columns = {name: list(map(attrgetter(f"c{i}"), rows)) for i, name in enumerate(self._columns)}
        return tabulate(self._source, columns)


def tabulate(source: Source, columns: Mapping[str, list[Any]]) -> pa.Table:
    """Table of Python values, in the types that the source's table declares; times are int microseconds."""
    found = {}
    for name, values in columns.items():
        declared = source.table.type_of(name) if isinstance(source.table, Table) else None
        type_ = None if declared is None else _TYPES[declared.word]
        try:
            if type_ is not None and pa.types.is_timestamp(type_):
                found[name] = pa.array(values, pa.int64()).cast(type_)
            elif type_ is not None and pa.types.is_date(type_) and any(isinstance(value, str) for value in values):
                found[name] = pa.array(values, pa.string()).cast(type_)
            else:
                found[name] = pa.array(values, type_)
        except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError) as error:
            raise InputError(
                "the values of a column are of one type, the one its table declares",
                where=f"source {source.name!r}, column {name!r}",
                got=sorted({type(value).__name__ for value in values}),
                remedy="Look at who writes this stream" if declared else "Declare the column's type in its table",
            ) from error
    return pa.table(found)


def plain_time(value: Any) -> Any:
    """Times as int microseconds, anything else as it is."""
    return to_micros(value) if isinstance(value, datetime) else value
