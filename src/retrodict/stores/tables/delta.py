"""Tables as Delta Lake in a folder: the embedded twin of Delta on S3-compatible storage.

The Delta log decides what a version is; the data files are written here and not by ``write_deltalake``, because the
order of rows is a promise: Delta lists the files of a version in no order of use, so here the log gives each file its
place, and each holds the rows of one write in their order. It is durable before the log names it.

Versions stay readable until ``vacuum`` is told otherwise: the log is never cleaned up (Delta would after 30 days).
"""

from __future__ import annotations

import errno
import hashlib
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pyarrow as pa
import pyarrow.fs as pafs

from retrodict.core.errors import InputError, IntegrityError, NotFoundError, RetryableError, check_known
from retrodict.stores.tables import _compaction, _log, _rewrite, _vacuum
from retrodict.stores.tables._file_reader import batches_of, check_sizes, dataset_of, described
from retrodict.stores.tables._file_writer import Written, discard, store_rows
from retrodict.stores.tables._log import Action, Log, Snapshot
from retrodict.stores.tables._places import Folder, mapping
from retrodict.stores.tables._types import table_schema
from retrodict.stores.tables._versions import Versions, check_name
from retrodict.stores.tables.base import (
    Belongs,
    LogEntry,
    TableFile,
    TableStore,
    TableVersion,
    VacuumReport,
    VersionGuard,
)

if TYPE_CHECKING:
    import pyarrow.dataset as ds

__all__ = ["DeltaTables"]

Mode = Literal["append", "overwrite"]
# Half of what makes a file nobody names an orphan: no lock keeps a vacuum off in a bucket.
_LONG_S = 1_800


class DeltaTables(TableStore):
    """Embedded twin of :class:`~retrodict.stores.tables.base.TableStore`.

    Parameters
    ----------
    root : Path
        Folder of all tables, one folder each; made by the first write.
    timeout_s : float, default 30
        How long a writer waits for another writer of the same table, in seconds.
    guard : VersionGuard, optional
        Who knows which versions are ours. None: every version that is there counts.

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

    def __init__(self, root: Path, *, timeout_s: float = 30.0, guard: VersionGuard | None = None) -> None:
        self._root = Path(root)
        self._versions = Versions(Folder(self._root), timeout_s, guard)

    # writing ------------------------------------------------------------------------------------------------

    def write(
        self,
        name: str,
        rows: pa.Table | pa.RecordBatchReader,
        *,
        mode: Mode = "append",
        metadata: Mapping[str, str] | None = None,
        create_only: bool = False,
        evolve: bool = False,
    ) -> int:
        if mode not in ("append", "overwrite"):
            raise InputError(
                "the mode must be 'append' or 'overwrite'",
                where=f"table {name}",
                got=mode,
                remedy="Leave it out for 'append'",
            )
        versions, note = self._versions, _log.pack_metadata(metadata, f"table {name}")
        with versions.lock(name):
            log = versions.log(name)
            _check_new(log, create_only=create_only)
            schema = _schema_after(log, rows.schema, mode, evolve=evolve)
            begun = time.monotonic()
            written = store_rows(versions.place, name, len(log.commits), rows, schema)

            def entry(now: Log) -> bytes:
                _check_new(now, create_only=create_only)
                # The same schema again unless somebody came in between: then the rows are judged as the later ones.
                after = _schema_after(now, schema, mode, evolve=evolve)
                if time.monotonic() - begun > _LONG_S:
                    self._check_still_there(name, written)
                operation = "WRITE" if now.newest else "CREATE TABLE"
                actions = _write_actions(now, written, after, mode)
                return _log.entry(now, actions, operation, note, operationParameters={"mode": mode.capitalize()})

            return versions.commit(log, entry, lambda: discard(versions.place, name, [new.path for new in written]))

    def restore(self, name: str, version: int, *, metadata: Mapping[str, str] | None = None) -> int:
        note = _log.pack_metadata(metadata, f"table {name}")

        def entry(now: Log) -> bytes:
            old, state = now.readable(version), now.snapshot()
            actions = _log.redefine(state, str(old.definition["schemaString"]))
            actions += [_log.remove(file) for file in state.ordered() if file.path not in old.files]
            again = [file.action for file in old.ordered() if file.path not in state.files]
            actions += [{"add": {**action, "dataChange": True}} for action in again]
            return _log.entry(now, actions, "RESTORE", note, operationParameters={"version": str(version)})

        with self._versions.lock(name):
            return self._versions.commit(self._versions.found(name), entry)

    def compact(self, name: str, *, metadata: Mapping[str, str] | None = None) -> int | None:
        versions, note = self._versions, _log.pack_metadata(metadata, f"table {name}")
        with versions.lock(name):
            log = versions.found(name)
            state = log.readable()
            runs = _compaction.runs(versions.place, name, state)
            if not runs:
                return None
            written: list[Written] = []

            def undo() -> None:
                discard(versions.place, name, [new.path for new in written])

            def entry(now: Log) -> bytes:
                files = now.snapshot().files
                if any(file.path not in files for run in runs for file in run):
                    raise RetryableError(
                        "the files that a compaction joins must stay in the table meanwhile",
                        where=f"table {name}",
                        remedy="Another writer replaced them. Compact again",
                        got="other files",
                    )
                return _log.entry(now, _compaction.replaced(runs, written), "OPTIMIZE", note, operationParameters={})

            try:
                for run in runs:
                    written.append(_compaction.joined(versions.place, name, run, state.schema))  # noqa: PERF401 - undo sees it
            except BaseException:
                undo()
                raise
            return versions.commit(log, entry, undo)

    def vacuum(self, name: str, *, keep: Collection[int], dry_run: bool = False) -> VacuumReport:
        versions = self._versions
        with versions.lock(name):
            log = versions.found(name)
            report = _vacuum.plan(versions.place, log, keep)
            if dry_run:
                return report

            def entry(now: Log) -> bytes:
                nonlocal report
                report = _vacuum.plan(versions.place, now, keep)
                notes = {"vacuumed": list(report.versions), "operationParameters": {"kept": str(report.retained)}}
                return _log.entry(now, [], "VACUUM", "{}", **notes)

            if report.versions:
                versions.commit(log, entry)
            with mapping(f"table {name}"):
                versions.place.remove(name, [file.path for file in report.files])
            return report

    def rewrite(
        self,
        name: str,
        belongs: Belongs,
        *,
        columns: Sequence[str],
        spare: Collection[int] = (),
        metadata: Mapping[str, str] | None = None,
    ) -> int | None:
        versions, note = self._versions, _log.pack_metadata(metadata, f"table {name}")
        with versions.lock(name):
            log = versions.found(name)
            replaced: dict[str, _log.Action] = {}

            def undo() -> None:
                discard(versions.place, name, [str(action["path"]) for action in replaced.values()])

            def entry(now: Log) -> bytes:
                if len(now.commits) != len(log.commits):
                    raise RetryableError("nobody must change a table while its files are replaced",
                                         where=f"table {name}", got="another version", remedy="Try again")  # fmt: skip
                return _log.entry(now, _rewrite.actions(now, replaced), "REWRITE", note, replaced=replaced)

            try:
                for old, new in _rewrite.shortened(versions.place, log, belongs, columns, spare):
                    replaced[old] = new  # noqa: PERF403 - undo sees it
            except BaseException:
                undo()
                raise
            return versions.commit(log, entry, undo) if replaced else None

    def _check_still_there(self, name: str, written: list[Written]) -> None:
        sizes = self._versions.place.sizes(name, [new.path for new in written])
        if any(sizes.get(new.path) != new.size for new in written):
            raise RetryableError(
                "the files of a write must stay until it is committed",
                where=f"table {name}",
                remedy="A vacuum took them for orphans. Write again, in parts of less than an hour",
                got="files that are gone",
            )

    # reading ------------------------------------------------------------------------------------------------

    def read(self, name: str, version: int | None = None, *, columns: Sequence[str] | None = None) -> pa.Table:
        return self.batches(name, version, columns=columns).read_all()

    def batches(
        self, name: str, version: int | None = None, *, columns: Sequence[str] | None = None, start: int = 0
    ) -> pa.RecordBatchReader:
        state = self._versions.found(name).readable(version)
        schema = state.schema
        for column in columns or ():
            check_known(column, schema.names, "the table must have the column", where=f"table {name}", what="column")
        selected = schema if columns is None else pa.schema([schema.field(column) for column in columns])
        return pa.RecordBatchReader.from_batches(selected, self._rows(name, state, selected.names, start))

    def _rows(self, name: str, state: Snapshot, columns: Sequence[str], start: int) -> Iterator[pa.RecordBatch]:
        try:
            files = list(state.ordered())
            while files and start >= (count := described(self._versions.place, name, files[0]).rows):
                files, start = files[1:], start - count
            check_sizes(self._versions.place, name, files)
            for batch in batches_of(self._versions.place, name, files, state.schema, columns):
                rows = batch.slice(min(start, batch.num_rows))
                start -= batch.num_rows - rows.num_rows
                if rows.num_rows:
                    yield rows
        except IntegrityError as error:
            # Files that go while they are read were vacuumed or replaced, not damaged.
            if self._versions.found(name).readable(state.version).files.keys() != state.files.keys():
                raise RetryableError("a version must not be rewritten while it is read", where=f"table {name}",
                                     got=f"version {state.version}", remedy="Read it again") from error  # fmt: skip
            raise

    def dataset(self, name: str, version: int | None = None, *, paths: Sequence[str] | None = None) -> ds.Dataset:
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
        return self._versions.found(name).snapshot(version).schema

    def history(self, name: str) -> list[TableVersion]:
        log = self._versions.log(name)
        rewritten = _rewrite.rewritten_by(log) if log.replaced else {}
        return [
            replace(commit.info, vacuumed=version in log.vacuumed, rewritten=rewritten.get(version, ()))
            for version, commit in enumerate(log.commits)
        ]

    def files(self, name: str, version: int | None = None) -> list[TableFile]:
        state = self._versions.found(name).snapshot(version)
        files = [described(self._versions.place, name, file) for file in state.files.values()]
        return sorted(files, key=lambda file: file.path)

    def file_digest(self, path: str) -> str:
        name, _, inside = path.partition("/")
        check_name(name)
        if not inside or ".." in Path(inside).parts or Path(inside).is_absolute():
            raise InputError(
                "a data file must be named by table/path",
                where="tables",
                got=path,
                remedy="Ask files for those there are",
            )
        place, where = self._versions.place, f"table {name}"
        with mapping(where):
            try:
                (info,) = place.filesystem.get_file_info([place.path(name, inside)])
                if info.type in (pafs.FileType.Directory, pafs.FileType.Unknown):  # a FIFO would be waited for
                    raise OSError(errno.EINVAL, "Not a regular file")
                with place.filesystem.open_input_stream(info.path, compression=None) as stream:
                    return hashlib.file_digest(stream, "sha256").hexdigest()
            except FileNotFoundError as error:
                raise NotFoundError(
                    "the table must have the file", where=where, got=inside, remedy="Ask files for those it has"
                ) from error

    def log_entries(self, name: str) -> list[LogEntry]:
        commits = self._versions.everything(name).commits
        place = self._versions.place
        return [
            LogEntry(commit.info.version, commit.digest, tuple(file.path for file in commit.added),
                     {old: described(place, name, new) for old, new in commit.replaced.items()})
            for commit in commits
        ]  # fmt: skip

    def names(self, *, every: bool = False) -> list[str]:
        return self._versions.names(every=every)


def _check_new(log: Log, *, create_only: bool) -> None:
    if create_only and log.newest is not None:
        raise InputError(
            "the table must not exist yet",
            where=f"table {log.table}",
            got=f"version {log.newest.version}",
            remedy="Choose another name, or write without create_only",
        )


def _schema_after(log: Log, rows: pa.Schema, mode: Mode, *, evolve: bool) -> pa.Schema:
    schema = None if log.newest is None or mode == "overwrite" else log.snapshot().schema
    return table_schema(rows, schema, evolve=evolve, where=f"table {log.table}")


def _write_actions(log: Log, written: list[Written], schema: pa.Schema, mode: Mode) -> list[Action]:
    added = [_log.add(new.path, new.size, new.rows) for new in written]
    if log.newest is None:
        return [*_log.begin(schema), *added]
    removed = [_log.remove(file) for file in log.newest.ordered()] if mode == "overwrite" else []
    return [*_log.redefine(log.newest, _log.schema_text(schema)), *removed, *added]
