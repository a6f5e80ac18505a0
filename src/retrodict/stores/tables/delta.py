"""Tables as Delta Lake in a folder: the embedded twin of Delta on S3-compatible storage.

The Delta log decides what a version is; the data files are written here and not by ``write_deltalake``, because the
order of rows is a promise: Delta lists the files of a version in no order of use, so here the log gives each file its
place, and each holds the rows of one write in their order. It is durable before the log names it.

Versions stay readable until ``vacuum`` is told otherwise: the log is never cleaned up (Delta would after 30 days).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pyarrow as pa

from retrodict.core.errors import InputError, IntegrityError, NotFoundError, near
from retrodict.stores.tables import _operations
from retrodict.stores.tables._file_reader import batches_of, check_sizes, dataset_of, described
from retrodict.stores.tables._log import Snapshot
from retrodict.stores.tables._places import Folder, mapped
from retrodict.stores.tables._versions import Versions, check_name
from retrodict.stores.tables.base import TableFile, TableVersion, VacuumReport

if TYPE_CHECKING:
    import pyarrow.dataset as ds

__all__ = ["DeltaTables"]


class DeltaTables:
    """Embedded twin of :class:`~retrodict.stores.tables.base.TableStore`.

    Parameters
    ----------
    root : Path
        Folder of all tables, one folder each; made by the first write.
    timeout_s : float, default 30
        How long a writer waits for another writer of the same table, in seconds.

    Examples
    --------
    >>> import tempfile
    >>> tables = DeltaTables(Path(tempfile.mkdtemp()))
    >>> tables.write("flights", pa.table({"origin": ["JFK"]}), metadata={"batch": "b1"})
    0
    >>> tables.write("flights", pa.table({"origin": ["EWR"]}))
    1
    >>> tables.read("flights")["origin"].to_pylist(), tables.read("flights", 0)["origin"].to_pylist()
    (['JFK', 'EWR'], ['JFK'])
    """

    def __init__(self, root: Path, *, timeout_s: float = 30.0) -> None:
        self._root, self._timeout_s = Path(root), timeout_s
        self._versions = Versions(Folder(self._root), timeout_s)

    # writing ------------------------------------------------------------------------------------------------

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
        if mode not in ("append", "overwrite"):
            raise InputError(
                "the mode must be 'append' or 'overwrite'",
                where=f"table {name}",
                got=mode,
                remedy="Leave it out for 'append'",
            )
        check_name(name)
        note = _operations.pack(metadata, name)
        return _operations.write(self._versions, name, rows, mode, note, create_only=create_only, evolve=evolve)

    def restore(self, name: str, version: int, *, metadata: Mapping[str, str] | None = None) -> int:
        """Make a new version with the content and columns of an older one; no data file is written.

        Raises
        ------
        NotFoundError
            If there is no such table or version, or the version was vacuumed.
        """
        check_name(name)
        return _operations.restore(self._versions, name, version, _operations.pack(metadata, name))

    def compact(self, name: str, *, metadata: Mapping[str, str] | None = None) -> int | None:
        """Make a new version with the same rows in fewer files; None if there is nothing to gain.

        Neighbours are joined up to about a million rows or 128 MiB; older versions keep the files they have.

        Raises
        ------
        RetryableError
            If another writer replaced the files meanwhile (only where no lock keeps it off); nothing was changed.
        """
        check_name(name)
        return _operations.compact(self._versions, name, _operations.pack(metadata, name))

    def vacuum(self, name: str, *, keep: Collection[int], dry_run: bool = False) -> VacuumReport:
        """Delete the data files that no version of ``keep`` (nor the newest) needs; other versions become unreadable.

        First a version with the same content is committed that says which ones ended, then files are deleted. If the
        process dies between, the next vacuum completes it. Files that no version ever named go too once they are an
        hour old; the report gives them 0 rows. A version all of whose files stay is readable as before.

        Raises
        ------
        NotFoundError
            If there is no such table, or a version of ``keep`` does not exist or was vacuumed before.
        """
        check_name(name)
        return _operations.vacuum(self._versions, name, keep, dry_run=dry_run)

    # reading ------------------------------------------------------------------------------------------------

    def read(self, name: str, version: int | None = None, *, columns: Sequence[str] | None = None) -> pa.Table:
        """Rows of a version (None: the newest), in the order they were written.

        Raises
        ------
        NotFoundError
            If there is no such table, version or column (the nearest ones are named), or the version was vacuumed.
        IntegrityError
            If a data file is missing, cut off or damaged.
        """
        return self.batches(name, version, columns=columns).read_all()

    def batches(
        self, name: str, version: int | None = None, *, columns: Sequence[str] | None = None
    ) -> pa.RecordBatchReader:
        """Rows of a version (None: the newest), in order, some ten thousand at a time; errors as for ``read``."""
        state = self._versions.found(name).readable(version)
        schema = state.schema
        unknown = [column for column in columns or () if column not in schema.names]
        if unknown:
            raise NotFoundError(
                "the table must have the column",
                where=f"table {name}",
                got=unknown[0],
                remedy=near(unknown[0], schema.names, what="column"),
            )
        selected = schema if columns is None else pa.schema([schema.field(column) for column in columns])
        return pa.RecordBatchReader.from_batches(selected, self._rows(name, state, selected.names))

    def _rows(self, name: str, state: Snapshot, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        try:
            files = state.ordered()
            check_sizes(self._versions.place, name, files)
            yield from batches_of(self._versions.place, name, files, state.schema, columns)
        except IntegrityError:
            # Files that go while they are read were vacuumed, not damaged.
            self._versions.found(name).readable(state.version)
            raise

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
        state = self._versions.found(name).readable(version)
        if paths is not None and (strange := [path for path in paths if path not in state.files]):
            raise NotFoundError(
                "the version must have the file",
                where=f"table {name}, version {state.version}",
                got=strange[0],
                remedy="Ask files for those it has",
            )
        files = [file for file in state.ordered() if paths is None or file.path in set(paths)]
        return dataset_of(self._versions.place, name, files, state.schema)

    def schema(self, name: str, version: int | None = None) -> pa.Schema:
        """Columns and types of a version (None: the newest), also of one that was vacuumed."""
        return self._versions.found(name).snapshot(version).schema

    def history(self, name: str) -> list[TableVersion]:
        """All versions, oldest first, vacuumed ones too; empty for a table that does not exist."""
        log = self._versions.log(name)
        return [replace(commit.info, vacuumed=commit.info.version in log.vacuumed) for commit in log.commits]

    def files(self, name: str, version: int | None = None) -> list[TableFile]:
        """Return the data files of a version (None: the newest), sorted by path; of a vacuumed one, those it had."""
        state = self._versions.found(name).snapshot(version)
        files = [described(self._versions.place, name, file) for file in state.files.values()]
        return sorted(files, key=lambda file: file.path)

    def file_digest(self, path: str) -> str:
        """SHA-256 of a data file, by ``table/path`` with the path that ``files`` gives; NotFoundError if it is gone."""
        name, _, inside = path.partition("/")
        check_name(name)
        if not inside or ".." in Path(inside).parts or Path(inside).is_absolute():
            raise InputError(
                "a data file must be named by table/path",
                where="tables",
                got=path,
                remedy="Ask files for those there are",
            )
        try:
            return self._versions.place.digest(name, inside)
        except FileNotFoundError as error:
            raise NotFoundError(
                "the table must have the file", where=f"table {name}", got=inside, remedy="Ask files for those it has"
            ) from error
        except OSError as error:
            raise mapped(error, f"table {name}") from error

    def names(self) -> list[str]:
        """Tables that have at least one version, sorted."""
        return self._versions.names()
