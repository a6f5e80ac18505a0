"""Content hash of rows: what a batch or a training set is called, whatever files or chunks it lies in."""

from __future__ import annotations

import hashlib
from typing import Any

import pyarrow as pa

__all__ = ["table_digest"]


def table_digest(table: pa.Table) -> str:
    """SHA-256 over schema, order and values of a table, equal for equal tables however they are chunked."""
    hasher = hashlib.sha256()
    sink: Any = _HashSink(hasher)
    plain = table.replace_schema_metadata(None).combine_chunks()
    with pa.ipc.new_stream(pa.PythonFile(sink, mode="w"), plain.schema) as writer:
        writer.write_table(plain, max_chunksize=1 << 16)
    return hasher.hexdigest()


class _HashSink:
    """A file that only hashes what is written to it: the rows are never held a second time."""

    closed = False

    def __init__(self, hasher: Any) -> None:
        self._hasher, self._position = hasher, 0

    def write(self, data: Any) -> int:
        self._hasher.update(data)
        self._position += len(data)
        return len(data)

    def tell(self) -> int:
        return self._position

    def flush(self) -> None:
        """Nothing is buffered."""

    def close(self) -> None:
        self.closed = True

    def writable(self) -> bool:
        return True

    def readable(self) -> bool:
        return False

    def seekable(self) -> bool:
        return False
