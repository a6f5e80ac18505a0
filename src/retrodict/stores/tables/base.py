"""Contract of the table stores: versioned history."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import pyarrow as pa

__all__ = ["TableFile", "TableStore", "TableVersion"]


@dataclass(frozen=True, slots=True)
class TableVersion:
    """One immutable version of a table.

    Attributes
    ----------
    version : int
        0, 1, 2 … without gaps.
    time : int
        When it was committed: microseconds since 1970-01-01 UTC, by the clock of the store.
    operation : str
        What the store calls the commit, for instance ``"WRITE"``.
    metadata : mapping of str to str
        What the writer said of it (batch id, rows in, …).
    """

    version: int
    time: int
    operation: str
    metadata: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class TableFile:
    """One data file of a version: path inside the table, size in bytes, rows."""

    path: str
    size: int
    rows: int


class TableStore(Protocol):
    """Tables by name, each a line of immutable versions.

    Promises
    --------
    * *Atomic*: a write makes exactly one new version or none; a reader never sees half of one, also after ``kill -9``.
    * *Immutable*: what a version holds never changes, and no version disappears unless asked for by name.
    * *Processes and threads*: any number read while one writes; writers of one table are serialised by the store, a
      second one waits up to its time limit and is then told who holds the table (BusyError).
    * *Order*: rows come back in the order they were written, version by version.
    * *Types*: timestamps come back as ``timestamp[us, tz=UTC]``, text as ``string``, dictionaries decoded; decimals (up
      to 38 digits), bools, signed ints, float32 and float64, dates, bytes, lists and structs of these unchanged. Any
      other type, a time without zone and a time finer than a microsecond are refused.
    * *Columns*: appended rows have the columns and types of the table, in any order; an overwrite may bring others.
    * *Damage*: a data file that is missing or altered is an IntegrityError, never fewer rows.
    """

    def write(
        self,
        name: str,
        rows: pa.Table,
        *,
        mode: Literal["append", "overwrite"] = "append",
        metadata: Mapping[str, str] | None = None,
        create_only: bool = False,
    ) -> int:
        """Commit rows as one new version and return its number; ``create_only`` refuses an existing table."""
        ...

    def read(self, name: str, version: int | None = None, *, columns: Sequence[str] | None = None) -> pa.Table:
        """Rows of a version (None: the newest); NotFoundError names the nearest tables or the known versions."""
        ...

    def schema(self, name: str, version: int | None = None) -> pa.Schema:
        """Columns and types of a version (None: the newest)."""
        ...

    def history(self, name: str) -> list[TableVersion]:
        """All versions, oldest first; empty for a table that does not exist."""
        ...

    def files(self, name: str, version: int | None = None) -> list[TableFile]:
        """Return the data files of a version (None: the newest), sorted by path."""
        ...

    def file_digest(self, path: str) -> str:
        """SHA-256 of a data file, by ``table/path`` with the path that ``files`` gives; NotFoundError if it is gone."""
        ...

    def names(self) -> list[str]:
        """Tables that have at least one version, sorted."""
        ...
