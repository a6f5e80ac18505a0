"""Tables as Delta Lake in a folder: the embedded twin of Delta on S3-compatible storage.

The Delta log decides what a version is; the data files are written here and not by ``write_deltalake``, because the
order of rows is a promise: Delta lists the files of a version in no order of use, so each file carries the version
that added it in its name, and holds the rows of one write in their order. It is synced before the log names it.

Versions stay readable: the log is never cleaned up and no file is deleted (Delta would do the first after 30 days).
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, cast
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import CommitProperties, DeltaTable, Schema
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError
from deltalake.transaction import AddAction, create_table_with_add_actions

from retrodict.core.clock import SystemClock
from retrodict.core.errors import InputError, IntegrityError, NotFoundError, RetryableError, near
from retrodict.core.identity import digest_file
from retrodict.stores._durable import make_folder, sync_file, sync_folder
from retrodict.stores._locks import FileLock
from retrodict.stores.tables._types import conform, kept_type, storable
from retrodict.stores.tables.base import TableFile, TableVersion

__all__ = ["DeltaTables"]

_NAME = re.compile(r"[a-z][a-z0-9_]{0,99}(\.[a-z0-9_]{1,100}){0,3}")
_OURS = re.compile(r"(\d{20})-[0-9a-f]{8}\.parquet")
_FOREVER = "interval 36500 days"
_CONFIGURATION = {
    "delta.enableExpiredLogCleanup": "false",
    "delta.logRetentionDuration": _FOREVER,
    "delta.deletedFileRetentionDuration": _FOREVER,
}
_ROW_GROUP = 1 << 17


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

    # writing ------------------------------------------------------------------------------------------------

    def write(
        self,
        name: str,
        rows: pa.Table,
        *,
        mode: Literal["append", "overwrite"] = "append",
        metadata: Mapping[str, str] | None = None,
        create_only: bool = False,
    ) -> int:
        """Commit rows as one new version and return its number; ``create_only`` refuses an existing table.

        Raises
        ------
        InputError
            If the rows do not fit the table, hold a type that is not kept, or ``create_only`` meets a table.
        BusyError
            If another writer holds the table for longer than ``timeout_s``.
        """
        folder, where = self._folder(name), f"table {name}"
        if mode not in ("append", "overwrite"):
            raise InputError("the mode is 'append' or 'overwrite'", where=where, got=mode)
        note = _pack_metadata(metadata or {}, where)
        with FileLock(self._root / ".locks" / name, where=where, timeout_s=self._timeout_s):
            newest = self._load(name) if _has_log(folder) else None
            if newest is not None and create_only:
                raise InputError(
                    "the table does not exist yet",
                    where=where,
                    got=f"version {newest.version()}",
                    remedy="Choose another name, or write without create_only",
                )
            known = None if newest is None or mode == "overwrite" else _schema_of(newest)
            kept = storable(rows, where=where, known=known)
            if known is not None:
                kept = conform(kept, known, where=where)
            version = 0 if newest is None else newest.version() + 1
            self._commit(folder, newest, version, kept, mode, note)
            return version

    def _commit(
        self, folder: Path, newest: DeltaTable | None, version: int, rows: pa.Table, mode: str, note: str
    ) -> None:
        make_folder(folder)
        added = [_store_rows(folder, version, rows)] if rows.num_rows else []
        # No retries inside: with the lock held only a foreign writer can be in the way, and a retried commit would get
        # another version than the one the file is named after.
        properties = CommitProperties(custom_metadata={"userMetadata": note}, max_commit_retries=0)
        schema = Schema.from_arrow(rows.schema)
        try:
            if newest is None:
                create_table_with_add_actions(
                    str(folder), schema, added, configuration=_CONFIGURATION, commit_properties=properties
                )
            else:
                newest.create_write_transaction([*added], mode, schema, commit_properties=properties)
        except CommitFailedError as error:
            _remove(folder, added)
            raise RetryableError(
                "no other program writes the table at the same time",
                where=f"table {folder.name}",
                remedy="Write it through this store only, then try again",
            ) from error
        except BaseException:
            if not _log_file(folder, version).exists():
                _remove(folder, added)
            raise
        sync_file(_log_file(folder, version))
        sync_folder(folder / "_delta_log")

    # reading ------------------------------------------------------------------------------------------------

    def read(self, name: str, version: int | None = None, *, columns: Sequence[str] | None = None) -> pa.Table:
        """Rows of a version (None: the newest), in the order they were written.

        Raises
        ------
        NotFoundError
            If there is no such table, version or column; the nearest ones are named.
        IntegrityError
            If a data file is missing, cut off or damaged.
        """
        table = self._load(name, version)
        schema = _schema_of(table)
        unknown = [column for column in columns or () if column not in schema.names]
        if unknown:
            raise NotFoundError(
                "the table has no such column",
                where=f"table {name}",
                got=unknown[0],
                remedy=near(unknown[0], schema.names, what="column"),
            )
        wanted = schema if columns is None else pa.schema([schema.field(column) for column in columns])
        pieces = [self._read_file(name, file, wanted) for file in self._ordered(name, table)]
        return pa.concat_tables(pieces) if pieces else wanted.empty_table()

    def _read_file(self, name: str, file: TableFile, schema: pa.Schema) -> pa.Table:
        path = self._folder(name) / file.path
        try:
            if path.stat().st_size != file.size:
                raise _damaged(name, file)
            # partitioning=None: a folder called 'a=b' above the table is no column of it.
            rows = pq.read_table(path, columns=schema.names, partitioning=None)
        except (FileNotFoundError, pa.ArrowInvalid, OSError) as error:
            raise _damaged(name, file) from error
        if rows.num_rows != file.rows:
            raise _damaged(name, file)
        return rows.select(schema.names).cast(schema)

    def schema(self, name: str, version: int | None = None) -> pa.Schema:
        """Columns and types of a version (None: the newest)."""
        return _schema_of(self._load(name, version))

    def history(self, name: str) -> list[TableVersion]:
        """All versions, oldest first; empty for a table that does not exist."""
        if not _has_log(self._folder(name)):
            return []
        entries = sorted(self._load(name).history(), key=lambda entry: int(entry["version"]))
        return [
            TableVersion(int(e["version"]), int(e["timestamp"]) * 1_000, str(e["operation"]), _unpack_metadata(e))
            for e in entries
        ]

    def files(self, name: str, version: int | None = None) -> list[TableFile]:
        """Return the data files of a version (None: the newest), sorted by path."""
        return sorted(_files_of(self._load(name, version)), key=lambda file: file.path)

    def file_digest(self, path: str) -> str:
        """SHA-256 of a data file, by ``table/path`` with the path that ``files`` gives; NotFoundError if it is gone."""
        name, _, inside = path.partition("/")
        folder = self._folder(name)
        if not inside or ".." in Path(inside).parts or Path(inside).is_absolute():
            raise InputError("a data file is named by table/path", where="tables", got=path)
        try:
            return digest_file(folder / inside)
        except FileNotFoundError as error:
            raise NotFoundError("the table has no such file", where=f"table {name}", got=inside) from error

    def names(self) -> list[str]:
        """Tables that have at least one version, sorted."""
        if not self._root.is_dir():
            return []
        return sorted(path.name for path in self._root.iterdir() if _NAME.fullmatch(path.name) and _has_log(path))

    # below --------------------------------------------------------------------------------------------------

    def _folder(self, name: str) -> Path:
        if not _NAME.fullmatch(name):
            raise InputError(
                "the name of a table is lower-case letters, digits and '_', in parts divided by '.', a letter first",
                where="tables",
                got=name,
                remedy="Rename it like 'flights'",
            )
        return self._root / name

    def _load(self, name: str, version: int | None = None) -> DeltaTable:
        folder = self._folder(name)
        if not _has_log(folder):
            raise NotFoundError(
                "there is no such table", where="tables", got=name, remedy=near(name, self.names(), what="table")
            )
        try:
            # The newest first even for an older version: only then an unknown version and a damaged log differ.
            table = DeltaTable(str(folder))
            newest = table.version()
            if version is not None and not 0 <= version <= newest:
                raise NotFoundError(
                    "the table has no such version", where=f"table {name}", got=version, remedy=f"Known: 0 to {newest}"
                )
            if version is not None and version != newest:
                table = DeltaTable(str(folder), version=version)
        except (DeltaError, TableNotFoundError) as error:
            raise IntegrityError(
                "the log of the table cannot be read",
                where=f"table {name}",
                remedy="Restore its folder _delta_log from a copy",
            ) from error
        if table.protocol().min_reader_version > 1 or table.metadata().partition_columns:
            raise InputError(
                "the table has neither partitions nor reader features (deletion vectors, column mapping)",
                where=f"table {name}",
                remedy="Copy it through another reader into a table of this store",
            )
        return table

    def _ordered(self, name: str, table: DeltaTable) -> list[TableFile]:
        """Files of a version in the order they were added."""
        files = _files_of(table)
        if all(_OURS.fullmatch(file.path) for file in files):
            return sorted(files, key=lambda file: file.path)
        # Another program wrote some of them: the log knows when.
        places: dict[str, tuple[int, int]] = {}
        for version in range(table.version() + 1):
            lines = _log_file(self._folder(name), version).read_text(encoding="utf-8").splitlines()
            for number, line in enumerate(lines):
                if action := json.loads(line).get("add"):
                    places[unquote(action["path"])] = (version, number)
        return sorted(files, key=lambda file: places[unquote(file.path)])


def _has_log(folder: Path) -> bool:
    return _log_file(folder, 0).is_file()


def _log_file(folder: Path, version: int) -> Path:
    return folder / "_delta_log" / f"{version:020d}.json"


def _schema_of(table: DeltaTable) -> pa.Schema:
    schema = pa.schema(cast("Any", table.schema().to_arrow()))  # by the Arrow interface, which the stubs do not know
    return pa.schema([pa.field(field.name, kept_type(field.type, f"column {field.name!r}")) for field in schema])


def _files_of(table: DeltaTable) -> list[TableFile]:
    actions = pa.table(table.get_add_actions(flatten=True)).select(["path", "size_bytes", "num_records"])
    return [TableFile(row["path"], row["size_bytes"], row["num_records"]) for row in actions.to_pylist()]


def _store_rows(folder: Path, version: int, rows: pa.Table) -> AddAction:
    path = folder / f"{version:020d}-{os.urandom(4).hex()}.parquet"
    try:
        pq.write_table(rows, path, compression="zstd", row_group_size=_ROW_GROUP)
        sync_file(path)
        sync_folder(folder)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    stats = json.dumps({"numRecords": rows.num_rows})
    return AddAction(path.name, path.stat().st_size, {}, SystemClock().now() // 1_000, True, stats)


def _remove(folder: Path, added: Sequence[AddAction]) -> None:
    for action in added:
        (folder / action.path).unlink(missing_ok=True)


def _pack_metadata(metadata: Mapping[str, str], where: str) -> str:
    plain: dict[object, object] = dict(metadata.items())
    if not all(isinstance(part, str) for item in plain.items() for part in item):
        raise InputError(
            "the metadata of a version is text by text",
            where=where,
            got={str(key): type(value).__name__ for key, value in plain.items()},
            remedy="Use str(value)",
        )
    return json.dumps(dict(metadata), sort_keys=True)


def _unpack_metadata(entry: Mapping[str, object]) -> dict[str, str]:
    text = entry.get("userMetadata")
    if not isinstance(text, str):
        return {}
    try:
        found = json.loads(text)
    except ValueError:
        return {"userMetadata": text}  # another program's note
    return {str(k): str(v) for k, v in found.items()} if isinstance(found, dict) else {"userMetadata": text}


def _damaged(name: str, file: TableFile) -> IntegrityError:
    return IntegrityError(
        "a data file is missing, cut off or damaged",
        where=f"table {name}, file {file.path}",
        remedy="Restore the file from a copy",
    )
