"""Ingest: one batch becomes exactly one new version of a table, or none.

The order of the steps is the recovery plan. Everything that can be refused is refused first; then come quarantine,
rows, ledger entry. Each of the three carries the batch id, and each step begins by looking whether it was already done.
So a run killed anywhere is completed by the same call, and the same call once more changes nothing.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from retrodict.core.clock import from_micros
from retrodict.core.errors import InputError, RefusedError
from retrodict.core.identity import short
from retrodict.data.definitions import Table
from retrodict.data.reading import Batch, read_batch
from retrodict.data.validation import CheckResult, Validation, validate
from retrodict.project import Project
from retrodict.stores.tables._types import conform, storable
from retrodict.stores.tables.base import TableStore, TableVersion
from retrodict.stores.tables.content import table_digest

__all__ = ["IngestReport", "ingest", "quarantine_name"]

_BATCH, _MODE, _CHECKS, _CONTENT = "retrodict.batch", "retrodict.mode", "retrodict.checks", "retrodict.content"

Mode = Literal["append", "overwrite"]


@dataclass(slots=True)
class IngestReport:
    """What one ingest did.

    Attributes
    ----------
    table : str
    version : int
        Version that holds the batch.
    batch : str
        Id of the batch.
    rows_in, accepted, quarantined : int
        ``rows_in = accepted + quarantined``, always.
    checks : list of CheckResult
    already : bool
        True if the batch was there before and no row was written.
    """

    table: str
    version: int
    batch: str
    rows_in: int
    accepted: int
    quarantined: int
    checks: list[CheckResult] = field(default_factory=list)
    already: bool = False

    @property
    def reasons(self) -> dict[str, int]:
        """Failed rows per check, without the checks that nothing failed."""
        return {result.check: result.failed for result in self.checks if result.failed}

    def to_dict(self) -> dict[str, Any]:
        """Plain form for ``--json``."""
        return {
            "dataset": f"dataset:{self.table}@{self.version}",
            "batch": self.batch,
            "rows_in": self.rows_in,
            "accepted": self.accepted,
            "quarantined": self.quarantined,
            "reasons": self.reasons,
            "already": self.already,
        }


def quarantine_name(table: str) -> str:
    """Name of the table that keeps the rows which were set aside."""
    return f"{table}__quarantine"


def ingest(
    project: Project,
    table: str,
    source: pa.Table | str | Path | Sequence[str | Path],
    *,
    mode: Mode = "append",
) -> IngestReport:
    """Validate a batch and publish it as one new version of a table.

    Parameters
    ----------
    project : Project
    table : str
        Name of a defined :class:`~retrodict.Table`.
    source : pyarrow.Table, path, glob, or list of paths
        The batch.
    mode : {"append", "overwrite"}, default "append"
        Add to the newest version, or replace its content by the batch (older versions stay readable).

    Returns
    -------
    IngestReport

    Raises
    ------
    InputError
        If the batch cannot be read or does not fit the table's columns. Nothing is written.
    RefusedError
        If a critical or high check fails beyond its tolerance, or no row passes: no version is made, the failing rows
        are in quarantine, and the ledger says so.
    BusyError
        If another process ingests into the table for longer than a minute.
    """
    definition = project.definitions.get(Table, table)
    batch = read_batch(source)
    if batch.rows.num_rows == 0:
        raise InputError(
            "a batch has at least one row", where=f"table {table}", got=batch.origin, remedy="Nothing was written"
        )
    # One at a time from looking what is there to writing: otherwise two could publish one batch, or one key, twice.
    with project.lock(f"ingest/{definition.name}"):
        done = _find(project.tables, definition, batch, mode)
        if done is None:
            known = _known_keys(project.tables, definition) if mode == "append" else None
            checked = validate(batch.rows, definition, known_keys=known)
            named = _named(batch, checked)
            _check_fit(project.tables, definition.name, named, mode)
            _quarantine(project, definition, batch, checked)
            _refuse_if_nothing_to_publish(project, definition, batch, checked)
            done = _publish(project, definition, batch, checked, named, mode)
        _record(project, definition, done)
        return done


def _find(tables: TableStore, definition: Table, batch: Batch, mode: Mode) -> IngestReport | None:
    """Report of a batch that is in the newest version already; None if it is not.

    What was replaced since does not count, and replacing is done only if the batch is all there is.
    """
    live: list[TableVersion] = []
    for version in reversed(tables.history(definition.name)):
        live.append(version)
        if version.metadata.get(_MODE) == "overwrite":
            break
    found = next((version for version in live if version.metadata.get(_BATCH) == batch.id), None)
    if found is None or (mode == "overwrite" and len(live) > 1):
        return None
    facts: dict[str, Any] = {
        name: int(found.metadata[f"retrodict.{name}"]) for name in ("rows_in", "accepted", "quarantined")
    }
    checks = [CheckResult(*row) for row in json.loads(found.metadata[_CHECKS])]
    return IngestReport(definition.name, found.version, batch.id, **facts, checks=checks, already=True)


def _known_keys(tables: TableStore, definition: Table) -> pa.Table | None:
    if not tables.history(definition.name):
        return None
    missing = sorted(set(definition.key) - set(tables.schema(definition.name).names))
    if missing:
        raise InputError(
            "the table has the key columns of its definition",
            where=f"table {definition.name}",
            got={"missing": missing},
            remedy="Replace the table with --replace",
        )
    return tables.read(definition.name, columns=list(definition.key))


def _named(batch: Batch, checked: Validation) -> pa.Table:
    """Accepted rows as they are stored: with the batch they came from."""
    count = checked.accepted.num_rows
    return checked.accepted.append_column("_batch", pa.array([batch.id] * count, pa.string()))


def _check_fit(tables: TableStore, name: str, rows: pa.Table, mode: Mode) -> None:
    """Refuse, before anything is written, rows that the table could not take."""
    where = f"table {name}"
    known = tables.schema(name) if mode == "append" and tables.history(name) else None
    if known is not None:
        missing = sorted(set(known.names) - set(rows.schema.names))
        added = sorted(set(rows.schema.names) - set(known.names))
        if missing or added:
            raise InputError(
                "a batch has the columns of its table",
                where=where,
                got={"missing": missing, "added": added},
                remedy="Correct the file, or replace the table with --replace",
            )
    kept = storable(rows, where=where, known=known)
    if known is not None:
        conform(kept, known, where=where)


def _quarantine(project: Project, definition: Table, batch: Batch, checked: Validation) -> None:
    name, rows = quarantine_name(definition.name), checked.quarantined
    # By content too: the same batch judged by other checks has other rows to set aside.
    content = table_digest(rows)
    if rows.num_rows == 0 or _quarantine_version(project.tables, name, batch.id, content) is not None:
        return
    count = rows.num_rows
    full = pa.table(
        {
            "batch": pa.array([batch.id] * count, pa.string()),
            "origin": pa.array([batch.origin] * count, pa.string()),
            "time": pa.array([from_micros(project.clock.now())] * count, pa.timestamp("us", "UTC")),
            **{column: rows.column(column) for column in rows.column_names},
        }
    )
    project.tables.write(name, full, metadata={_BATCH: batch.id, _CONTENT: content})


def _quarantine_version(tables: TableStore, name: str, batch: str, content: str | None = None) -> int | None:
    """Newest version of a quarantine that was written for a batch."""
    for version in reversed(tables.history(name)):
        if version.metadata.get(_BATCH) == batch and content in (None, version.metadata.get(_CONTENT)):
            return version.version
    return None


def _refuse_if_nothing_to_publish(project: Project, definition: Table, batch: Batch, checked: Validation) -> None:
    empty = checked.accepted.num_rows == 0
    if not checked.halted and not empty:
        return
    where, kept = f"table {definition.name}, batch {short(batch.id)}", quarantine_name(definition.name)
    failed = {r.check: r.failed for r in (checked.halted or checked.results) if r.failed}
    object_id = f"dataset:{definition.name}"
    facts = {"batch": batch.id, "failed": failed, "definition": definition.version}
    told = project.ledger.entries(object_id=object_id, action="dataset.refuse")
    if not any({**facts, **entry.payload} == entry.payload for entry in told):
        files = _written_files(project.tables, kept, _quarantine_version(project.tables, kept, batch.id))
        with project.ledger.transaction() as tx:
            tx.append("dataset.refuse", object_id, {**facts, "files": files})
    if checked.halted:
        worst = max(checked.halted, key=lambda result: result.failed)
        raise RefusedError(
            f"check {worst.check} ({worst.severity}) fails on no more rows than its tolerance",
            where=where,
            got=f"{worst.failed} of {worst.rows} rows",
            remedy=f"No version was made; see the rows in {kept}, correct the batch and ingest it again",
        )
    raise RefusedError(
        "at least one row of a batch passes its checks",
        where=where,
        got=f"0 of {batch.rows.num_rows} rows",
        remedy=f"No version was made; see the reasons in {kept}",
    )


def _publish(
    project: Project, definition: Table, batch: Batch, checked: Validation, named: pa.Table, mode: Mode
) -> IngestReport:
    counts = {
        "rows_in": batch.rows.num_rows,
        "accepted": named.num_rows,
        "quarantined": checked.quarantined.num_rows,
    }
    results = [[r.check, r.severity, r.failed, r.rows, r.halted] for r in checked.results]
    metadata = {
        _BATCH: batch.id,
        _MODE: mode,
        _CHECKS: json.dumps(results),
        "retrodict.origin": batch.origin,
        **{f"retrodict.{name}": str(count) for name, count in counts.items()},
    }
    version = project.tables.write(definition.name, named, mode=mode, metadata=metadata)
    return IngestReport(definition.name, version, batch.id, **counts, checks=checked.results)


def _record(project: Project, definition: Table, report: IngestReport) -> None:
    """Append the ledger entry of a version, once."""
    name = f"dataset:{definition.name}@{report.version}"
    if project.ledger.entries(object_id=name, action="dataset.version"):
        project.ledger.sign_end()
        return
    tables, kept = project.tables, quarantine_name(definition.name)
    mode = tables.history(definition.name)[report.version].metadata[_MODE]
    files = _written_files(tables, definition.name, report.version)
    if report.quarantined:
        files |= _written_files(tables, kept, _quarantine_version(tables, kept, report.batch))
    payload = {
        "batch": report.batch,
        "mode": mode,
        "rows_in": report.rows_in,
        "accepted": report.accepted,
        "quarantined": report.quarantined,
        "reasons": report.reasons,
        "definition": definition.version,
        "files": files,
    }
    inputs = [(f"batch:{report.batch}", "rows")]
    if report.version > 0 and mode == "append":
        inputs.append((f"dataset:{definition.name}@{report.version - 1}", "previous version"))
    with project.ledger.transaction() as tx:
        if not tx.has("dataset.version", name):
            tx.append("dataset.version", name, payload, inputs=inputs)


def _written_files(tables: TableStore, name: str, version: int | None) -> dict[str, str]:
    """SHA-256 of what a version added, by path: its data files, and the log entry that says which they are."""
    if version is None:
        return {}
    now = {file.path for file in tables.files(name, version)}
    before = {file.path for file in tables.files(name, version - 1)} if version > 0 else set()
    paths = [f"{name}/{path}" for path in sorted(now - before)]
    # Every twin of the table store is Delta, whose log entries never change once they are written.
    paths.append(f"{name}/_delta_log/{version:020d}.json")
    return {path: tables.file_digest(path) for path in paths}
