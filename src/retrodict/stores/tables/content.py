"""Content hash of rows: what a batch or a training set is called, whatever files or chunks it lies in.

Every column is hashed as up to three streams (which values there are, how long each is, the values themselves, without
what a buffer holds under a null), so no piece has to be put together again. A hash of the staged files was rejected:
it would change with the version of the library that writes them.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types as is_

from retrodict.core.identity import canonical_json, digest

__all__ = ["rows_digest", "table_digest"]


def table_digest(table: pa.Table) -> str:
    """SHA-256 over names, types, order and values of a table, equal for equal tables however they are chunked.

    Examples
    --------
    >>> whole = pa.table({"x": [1, None, 3]})
    >>> table_digest(whole.slice(1)) == table_digest(pa.table({"x": [None, 3]}))
    True
    """
    return rows_digest(table.schema, table.to_batches())


def rows_digest(schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> str:
    """SHA-256 over names, types, order and values of rows."""
    content, rows = _Content(), 0
    for batch in batches:
        rows += batch.num_rows
        for place, column in enumerate(batch.columns):
            content.add(str(place), column)
    columns = [[field.name, str(field.type)] for field in schema]
    streams = {name: hasher.hexdigest() for name, hasher in content.streams.items()}
    return digest(canonical_json({"columns": columns, "rows": rows, "streams": streams}))


class _Content:
    def __init__(self) -> None:
        self.streams: defaultdict[str, Any] = defaultdict(hashlib.sha256)

    def add(self, place: str, column: pa.Array) -> None:
        """Hash the values of a column, or of a part of one."""
        if is_.is_dictionary(column.type):
            column = column.dictionary_decode()
        if is_.is_string_view(column.type) or is_.is_binary_view(column.type):
            column = column.cast(pa.string() if is_.is_string_view(column.type) else pa.binary())
        if column.null_count:
            self._hash(f"{place} there", column.is_valid())
            column = column.drop_null()
        else:
            self.streams[f"{place} there"].update(b"\1" * len(column))
        kind = column.type
        if isinstance(column, pa.ExtensionArray):
            self.add(place, column.storage)
        elif is_.is_struct(kind):
            for number, child in enumerate(column.flatten()):
                self.add(f"{place}.{number}", child)
        elif is_.is_map(kind):
            edges = column.offsets.to_numpy()
            self.streams[f"{place} lengths"].update(np.diff(edges).astype(np.int64))
            self.add(f"{place}.keys", column.keys[edges[0] : edges[-1]])
            self.add(f"{place}.items", column.items[edges[0] : edges[-1]])
        elif is_.is_list(kind) or is_.is_large_list(kind) or is_.is_fixed_size_list(kind):
            self._hash(f"{place} lengths", pc.list_value_length(column))
            self.add(f"{place}.items", column.flatten())
        elif is_.is_string(kind) or is_.is_large_string(kind) or is_.is_binary(kind) or is_.is_large_binary(kind):
            self._hash(f"{place} lengths", pc.binary_length(column))
            self._texts(f"{place} values", column)
        elif not is_.is_null(kind):
            self._hash(f"{place} values", column)

    def _hash(self, name: str, column: pa.Array) -> None:
        """Hash values of a fixed width, none of them null."""
        if is_.is_boolean(column.type):
            column = column.cast(pa.uint8())  # bits of a piece need not begin with a byte
        elif name.endswith("lengths"):
            column = column.cast(pa.int64())
        data = column.buffers()[1]
        if data is not None and len(column):
            width = column.type.bit_width // 8
            self.streams[name].update(memoryview(data)[column.offset * width : (column.offset + len(column)) * width])
        else:
            self.streams[name].update(b"")

    def _texts(self, name: str, column: pa.Array) -> None:
        wide = is_.is_large_string(column.type) or is_.is_large_binary(column.type)
        _, places, data = column.buffers()
        if data is None or not len(column):
            self.streams[name].update(b"")
            return
        edges = np.frombuffer(places, dtype=np.int64 if wide else np.int32)
        first, last = edges[column.offset], edges[column.offset + len(column)]
        self.streams[name].update(memoryview(data)[first:last])
