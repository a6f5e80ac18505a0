"""Contract of the table stores: versioned history."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import pyarrow as pa

from retrodict.core.identity import content_hash

if TYPE_CHECKING:  # importing it loads pandas where that is installed
    import pyarrow.dataset as ds

__all__ = ["Belongs", "LogEntry", "TableFile", "TableStore", "TableVersion", "VacuumReport", "VersionGuard", "files_id"]


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
    vacuumed : bool
        Whether its data files were deleted, so that it can no longer be read.
    rewritten : tuple of int
        Versions whose commits took rows out of it (:meth:`TableStore.rewrite`), ascending.
    """

    version: int
    time: int
    operation: str
    metadata: Mapping[str, str]
    vacuumed: bool = False
    rewritten: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class TableFile:
    """One data file of a version: path inside the table, size in bytes, rows; and rows that rewrites took out of it."""

    path: str
    size: int
    rows: int
    removed: int = 0


def files_id(files: Sequence[TableFile]) -> str:
    """Hash of the data files of a version: what reads the same rows has the same; of two of one number it differs."""
    return content_hash([[file.path, file.size, file.rows] for file in files])


@dataclass(frozen=True, slots=True)
class VacuumReport:
    """What a vacuum deleted, or would delete.

    Attributes
    ----------
    versions : tuple of int
        Versions that this vacuum ends: they can no longer be read; ascending.
    files : tuple of TableFile
        Deleted data files; 0 rows for one that no version ever named.
    retained : tuple of int
        Versions that stay readable, ascending.
    """

    versions: tuple[int, ...]
    files: tuple[TableFile, ...]
    retained: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class LogEntry:
    """An entry of a table's log as it lies there: the version it makes, its SHA-256, the data files that it adds.

    ``replaced`` are those of all versions that it replaces, each with the file that has the rows that stay.
    """

    version: int
    digest: str
    added: tuple[str, ...]
    replaced: Mapping[str, TableFile] = field(default_factory=dict)


Belongs = Callable[[pa.RecordBatch], "np.ndarray[Any, np.dtype[np.bool_]]"]
"""Which rows of a batch are meant, as a mask."""


class VersionGuard(Protocol):
    """Knows which versions of tables were written by us: a store that has a guard shows no others."""

    def announce(self, name: str, version: int, digest: str) -> None:
        """Note that the entry of a version, of this SHA-256, is about to be put into the log of a table."""

    def admitted(self, name: str, digests: Sequence[str]) -> int:
        """Return how many of the entries of a log count, from the first on, by their SHA-256.

        Raises
        ------
        IntegrityError
            If a version is gone or altered that must be there.
        """


class TableStore(Protocol):
    """Tables by name, each a line of immutable versions.

    Promises
    --------
    * *Atomic*: a write makes exactly one new version or none; a reader never sees half of one, also after ``kill -9``.
    * *Immutable*: what a version holds never changes unless ``rewrite``, and no version disappears unless ``vacuum``
      is told to.
    * *Processes and threads*: any number read while one writes; writers of one table are serialised by the store, a
      second one waits up to its time limit and is then told who holds the table (BusyError).
    * *Order*: rows come back in the order they were written, version by version, also after ``compact``.
    * *Memory*: ``write`` of a reader and ``batches`` hold a bounded number of rows, whatever the size of the table.
    * *Types*: timestamps come back as ``timestamp[us, tz=UTC]``, text as ``string``, dictionaries decoded; decimals (up
      to 38 digits), bools, signed ints, float32 and float64, dates, bytes, lists and structs of these unchanged. Any
      other type, a time without zone and a time finer than a microsecond are refused.
    * *Columns*: appended rows have the columns and types of the table, in any order; with ``evolve`` they may add
      columns (null in earlier rows) and widen types; an overwrite may bring any others.
    * *Damage*: a data file that is missing or altered is an IntegrityError, never fewer rows.
    * *Guard*: where a store was given one, a version that it does not vouch for, and all that follow, do not exist
      for any call but ``log_entries``; nothing is written on top of them (IntegrityError).
    """

    def write(
        self,
        name: str,
        rows: pa.Table | pa.RecordBatchReader,
        *,
        mode: Literal["append", "overwrite"] = "append",
        metadata: Mapping[str, str] | None = None,
        create_only: bool = False,
        evolve: bool = False,
    ) -> int:
        """Commit rows as one new version and return its number; ``create_only`` refuses an existing table.

        A reader is consumed as it is written: some millions of rows are held, never all. It is used up also when the
        write fails, and what it raises itself comes through unchanged.

        Parameters
        ----------
        name : str
            The table.
        rows : pyarrow.Table or pyarrow.RecordBatchReader
            Columns in any order.
        mode : {"append", "overwrite"}, default "append"
            Whether the rows follow those of the newest version or stand alone.
        metadata : mapping of str to str, optional
            What to say of the version.
        create_only : bool, default False
            Whether the table must not exist.
        evolve : bool, default False
            Whether appended rows may add columns (null in earlier rows) and widen types: to a larger int, float32 and
            ints up to int32 to float64, decimals to more digits. Older versions keep their columns.

        Raises
        ------
        InputError
            If the rows do not fit the table, hold a type that is not kept, or ``create_only`` meets a table.
        BusyError
            If another writer holds the table for longer than ``timeout_s``.
        RetryableError
            If the disk is full or the bucket does not answer; nothing was changed.
        ConfigurationError
            If this process may not write there; nothing was changed.
        """

    def read(self, name: str, version: int | None = None, *, columns: Sequence[str] | None = None) -> pa.Table:
        """Rows of a version (None: the newest), in the order they were written.

        Raises
        ------
        NotFoundError
            If there is no such table, version or column (the nearest ones are named), or the version was vacuumed.
        IntegrityError
            If a data file is missing, cut off or damaged.
        """

    def batches(
        self, name: str, version: int | None = None, *, columns: Sequence[str] | None = None, start: int = 0
    ) -> pa.RecordBatchReader:
        """Rows of a version (None: the newest) from one on, in order, some ten thousand at a time.

        Files of earlier rows are not opened. Errors as for ``read``.
        """

    def dataset(self, name: str, version: int | None = None, *, paths: Sequence[str] | None = None) -> ds.Dataset:
        """Return what DuckDB and Polars scan: the files of a version, or those of ``paths`` among them.

        It has the columns of the version; files from before a column was added or widened are fitted by the scan.
        Files lie in the order of their rows, but an engine may return rows in another one.

        Raises
        ------
        NotFoundError
            If there is no such table, version or file, or the version was vacuumed.
        IntegrityError
            If a data file is missing or of another size. What it holds is not looked at here.
        """

    def schema(self, name: str, version: int | None = None) -> pa.Schema:
        """Columns and types of a version (None: the newest), also of one that was vacuumed."""

    def history(self, name: str) -> list[TableVersion]:
        """All versions, oldest first, vacuumed ones too; empty for a table that does not exist."""

    def files(self, name: str, version: int | None = None) -> list[TableFile]:
        """Return the data files of a version (None: the newest), sorted by path; of a vacuumed one, those it had."""

    def log_entries(self, name: str) -> list[LogEntry]:
        """Entries of the log of a table, oldest first, with those that no guard vouches for; for an audit."""

    def file_digest(self, path: str) -> str:
        """SHA-256 of a data file, by ``table/path`` with the path that ``files`` gives; NotFoundError if it is gone."""

    def restore(self, name: str, version: int, *, metadata: Mapping[str, str] | None = None) -> int:
        """Make a new version with the content and columns of an older one; no data file is written.

        Raises
        ------
        NotFoundError
            If there is no such table or version, or the version was vacuumed.
        """

    def compact(self, name: str, *, metadata: Mapping[str, str] | None = None) -> int | None:
        """Make a new version with the same rows in fewer files; None if there is nothing to gain.

        Neighbours are joined up to about a million rows or 128 MiB; older versions keep the files they have.

        Raises
        ------
        RetryableError
            If another writer replaced the files meanwhile (only where no lock keeps it off); nothing was changed.
        """

    def vacuum(self, name: str, *, keep: Collection[int], dry_run: bool = False) -> VacuumReport:
        """Delete the data files that no version of ``keep`` (nor the newest) needs; other versions become unreadable.

        First a version with the same content is committed that says which ones ended, then files are deleted. If the
        process dies between, the next vacuum completes it. Files that no version ever named go too once they are an
        hour old; the report gives them 0 rows. A version all of whose files stay is readable as before; reading one
        that ended is a NotFoundError that says it was vacuumed.

        Raises
        ------
        NotFoundError
            If there is no such table, or a version of ``keep`` does not exist or was vacuumed before.
        """

    def rewrite(
        self,
        name: str,
        belongs: Belongs,
        *,
        columns: Sequence[str],
        spare: Collection[int] = (),
        metadata: Mapping[str, str] | None = None,
    ) -> int | None:
        """Take rows out of all versions that can be read; None if none of them has any.

        A new version with the content of the newest one says which files have others in their place. From then on every
        version reads as its rows without those: same columns, same order. The replaced files stay until a ``vacuum``,
        whatever that keeps; other readers of the format do not find the rows of older versions after it.

        Parameters
        ----------
        name : str
            The table.
        belongs : callable
            Whether each row of a batch goes.
        columns : sequence of str
            What it looks at. Files without all of them stay as they are.
        spare : collection of int
            Versions whose files stay as they are, also in versions that share them.
        metadata : mapping of str to str, optional
            What to say of the new version.

        Raises
        ------
        NotFoundError
            If there is no such table.
        RetryableError
            If another writer changed the table meanwhile (only where no lock keeps it off); nothing was changed.
        """

    def names(self, *, every: bool = False) -> list[str]:
        """Tables that have at least one version, sorted; with ``every``, also where no guard vouches for any."""
