"""What makes a version: write, restore, compact, vacuum. Each stores its files first and names them in one commit."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from typing import Literal

import pyarrow as pa

from retrodict.core.errors import InputError, RetryableError
from retrodict.stores.tables import _compaction, _log, _vacuum
from retrodict.stores.tables._file_writer import Written, discard, store_rows
from retrodict.stores.tables._log import Action, Log
from retrodict.stores.tables._places import mapping
from retrodict.stores.tables._types import table_schema
from retrodict.stores.tables._versions import Versions
from retrodict.stores.tables.base import VacuumReport

Mode = Literal["append", "overwrite"]
# Half of what makes a file nobody names an orphan: no lock keeps a vacuum off in a bucket.
_LONG_S = 1_800


def write(
    versions: Versions,
    name: str,
    rows: pa.Table | pa.RecordBatchReader,
    mode: Mode,
    note: str,
    *,
    create_only: bool,
    evolve: bool,
) -> int:
    """Store rows and commit them; see ``DeltaTables.write``."""
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
                _check_still_there(versions, name, written)
            return _log.entry(
                now,
                _write_actions(now, written, after, mode),
                "WRITE" if now.newest else "CREATE TABLE",
                note,
                operationParameters={"mode": mode.capitalize()},
            )

        return versions.commit(log, entry, lambda: discard(versions.place, name, [new.path for new in written]))


def restore(versions: Versions, name: str, version: int, note: str) -> int:
    """Commit the content of an older version as the newest."""
    with versions.lock(name):

        def entry(now: Log) -> bytes:
            old, state = now.readable(version), now.snapshot()
            actions = _log.redefine(state, str(old.definition["schemaString"]))
            actions += [_log.remove(file) for file in state.ordered() if file.path not in old.files]
            actions += [_log.add_again(file) for file in old.ordered() if file.path not in state.files]
            return _log.entry(now, actions, "RESTORE", note, operationParameters={"version": str(version)})

        return versions.commit(versions.found(name), entry)


def compact(versions: Versions, name: str, note: str) -> int | None:
    """Join small files and commit; None if there are none."""
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
            actions = _compaction.replaced(runs, written)
            return _log.entry(now, actions, "OPTIMIZE", note, operationParameters={})

        try:
            for run in runs:
                written.append(_compaction.joined(versions.place, name, run, state.schema))  # noqa: PERF401 - undo sees it
        except BaseException:
            undo()
            raise
        return versions.commit(log, entry, undo)


def vacuum(versions: Versions, name: str, keep: Collection[int], *, dry_run: bool) -> VacuumReport:
    """Say in the log which versions end, then delete what only they needed."""
    with versions.lock(name):
        log = versions.found(name)
        report = VacuumReport((), (), ())

        def entry(now: Log) -> bytes:
            nonlocal report
            report = _plan(versions, now, keep)
            return _log.entry(
                now,
                [],
                "VACUUM",
                "{}",
                vacuumed=list(report.versions),
                operationParameters={"kept": str(report.retained)},
            )

        report = _plan(versions, log, keep)
        if dry_run:
            return report
        if report.versions:
            versions.commit(log, entry)
        with mapping(f"table {name}"):
            versions.place.remove(name, [file.path for file in report.files])
        return report


def _plan(versions: Versions, log: Log, keep: Collection[int]) -> VacuumReport:
    with mapping(f"table {log.table}"):
        return _vacuum.plan(versions.place, log, keep)


def _check_still_there(versions: Versions, name: str, written: list[Written]) -> None:
    sizes = versions.place.sizes(name, [new.path for new in written])
    if any(sizes.get(new.path) != new.size for new in written):
        raise RetryableError(
            "the files of a write must stay until it is committed",
            where=f"table {name}",
            remedy="A vacuum took them for orphans. Write again, in parts of less than an hour",
            got="files that are gone",
        )


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


def pack(metadata: Mapping[str, str] | None, name: str) -> str:
    """Return what a writer said, as the log keeps it."""
    return _log.pack_metadata(metadata or {}, f"table {name}")
