"""Ingest: one batch becomes exactly one new version of a table, or none.

The order of the steps is the recovery plan. Everything that can be refused is refused first; then come quarantine,
rows, ledger entry. Each of the three carries the batch id, and each step begins by looking whether it was already done.
So a run killed anywhere is completed by the same call, and the same call once more changes nothing. Rows stream from
the source to the table: what is held at a time does not grow with the batch.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from retrodict.core.clock import from_micros
from retrodict.core.errors import ConfigurationError, InputError, RefusedError
from retrodict.core.identity import short
from retrodict.data._records import (
    BATCH,
    CONTENT,
    MODE,
    IngestReport,
    quarantine_name,
    unpublished_name,
    version_notes,
)
from retrodict.data.context import WorkspaceContext
from retrodict.data.definitions import Table
from retrodict.data.evolution import SchemaChange, merge_schemas
from retrodict.data.readers import Batch, open_batch
from retrodict.data.readers._stage import PREFIX, sweep
from retrodict.data.update import check_keys, check_update, stands, write_batch
from retrodict.data.validation import CheckResult, Findings, check_batch
from retrodict.data.versions import live_batches
from retrodict.data.versions.refs import added_digests
from retrodict.stores.tables._types import stored_schema
from retrodict.stores.tables.base import TableStore
from retrodict.stores.tables.content import table_digest
from retrodict.workspace import Workspace

__all__ = ["IngestReport", "ingest", "quarantine_name", "staging_folder", "unpublished_name"]

Mode = Literal["append", "overwrite", "update"]


def ingest(
    workspace: Workspace,
    table: str,
    source: Any,
    *,
    mode: Mode = "append",
    format: str | None = None,  # noqa: A002  (the word people look for)
    fill_missing: bool = False,
) -> IngestReport:
    """Validate a batch and publish it as one new version of a table.

    Parameters
    ----------
    workspace : Workspace
    table : str
        Name of a defined :class:`~retrodict.Table`.
    source : path, glob, folder, list of paths, "-", pyarrow.Table, DataFrame, SqlQuery, …
        The batch; see :func:`~retrodict.data.readers.open_batch`.
    mode : {"append", "overwrite", "update"}, default "append"
        Add to the newest version, replace its content by the batch, or let rows of the batch take the place of the rows
        that have their key and add the others. Older versions stay readable.
    format : str, optional
        Format of standard input, or of files whose names do not say it.
    fill_missing : bool, default False
        Whether columns of the table that the batch lacks are null in its rows; otherwise they refuse it.

    Returns
    -------
    IngestReport

    Raises
    ------
    InputError
        If the batch cannot be read or does not fit the table's columns, or the table to update has no key. Nothing is
        written.
    RefusedError
        If a critical or high check fails beyond its tolerance or cannot be evaluated (``on_unknown``), or no row
        passes: no version is made, failing rows are in quarantine, the others in ``<table>__unpublished``, and the
        ledger says so.
    BusyError
        If another process ingests into the table for longer than a minute.
    """
    definition = workspace.definitions.get(Table, table)
    if mode == "update":
        check_update(definition, fill_missing=fill_missing)
    with staging_folder(workspace) as staging, open_batch(source, staging=staging, format=format) as batch:
        return publish_batch(workspace, definition, batch, staging, mode=mode, fill_missing=fill_missing)


def publish_batch(
    workspace: Workspace,
    definition: Table,
    batch: Batch,
    staging: Path,
    *,
    mode: Mode = "append",
    notes: Mapping[str, str] | None = None,
    fill_missing: bool = False,
) -> IngestReport:
    """Take an opened batch through its checks into a version; the core of :func:`ingest`.

    ``notes`` are kept with the version beside what an ingest says of it.
    """
    if batch.num_rows == 0:
        raise InputError(
            "a batch must have at least one row",
            where=f"table {definition.name}",
            got=batch.origin,
            remedy="Nothing was written",
        )
    # One at a time from looking what is there to writing: otherwise two could publish one batch, or one key, twice.
    with workspace.lock(f"ingest/{definition.name}"):
        report = _find(workspace.tables, definition, batch, mode)
        if report is None:
            exists = mode != "overwrite" and bool(workspace.tables.history(definition.name))
            if exists:
                check_keys(workspace.tables, definition)
            findings = check_batch(
                batch,
                definition,
                context=WorkspaceContext(workspace, definition.name),
                staging=staging,
                known_keys=definition.name if exists and mode == "append" else None,
            )
            change = _fit(workspace.tables, definition.name, findings, exists=exists, fill=fill_missing)
            report = IngestReport(
                definition.name, -1, batch.id, batch.num_rows, findings.accepted_rows, len(findings.aside),
                findings.results,
                change.added, change.widened,
            )  # fmt: skip
            metadata = version_notes(report, mode=mode, origin=batch.origin, measures=findings.measures,
                                 definition=definition.version) | dict(notes or {})  # fmt: skip
            batch.check_unchanged()
            _quarantine(workspace, definition, batch, findings)
            rows = _stored_rows(batch, findings, change)
            if findings.halted or not findings.accepted_rows:
                aside = _keep_unpublished(workspace, definition, rows, metadata) if findings.accepted_rows else None
                _record_refusal(workspace, definition, batch, findings, aside)
                raise _refused(definition, batch, findings, aside)
            keys = (chunk.select(list(definition.key)) for chunk in findings.accepted())
            version, updated = write_batch(workspace.tables, definition, change, rows, keys, metadata)
            report = replace(report, version=version, updated=updated)
        record_version(workspace, definition, report)
        return report


@contextmanager
def staging_folder(workspace: Workspace) -> Iterator[Path]:
    """A folder for one ingest, on the disk of the project, removed at its end."""
    root = workspace.root / "state" / "staging"
    folder = root / f"{PREFIX}{workspace.new_id()}"
    try:
        folder.mkdir(parents=True)
        sweep(root)  # what killed processes left
    except OSError as error:
        raise ConfigurationError(
            "this process must be able to write into the folder of the project, with room on its disk",
            where="state/staging",
            got=error.strerror,
            remedy="Check its permissions, and whether the disk is read-only or full; nothing was changed",
        ) from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _find(tables: TableStore, definition: Table, batch: Batch, mode: Mode) -> IngestReport | None:
    """Report of a batch that is in the newest version already; None if it is not.

    What was replaced since does not count, and replacing is done only if the batch is all there is, and was read by the
    same definition: with other types or checks its rows are others.
    """
    live = live_batches(tables, definition.name)
    if batch.id not in live or (mode == "overwrite" and len(live) > 1):
        return None
    history = tables.history(definition.name)
    version = history[live[batch.id]]
    if mode != "append" and version.metadata.get("retrodict.definition") != definition.version:
        return None
    if mode == "update" and not stands(version, [history[number] for number in live.values()]):
        return None
    return IngestReport.of_version(definition.name, version)


def _fit(tables: TableStore, name: str, findings: Findings, *, exists: bool, fill: bool) -> SchemaChange:
    """Refuse, before anything is written, rows that the table could not take."""
    where = f"table {name}"
    schema = findings.accepted_schema.append(pa.field("_batch", pa.string()))
    before = tables.schema(name) if exists else None
    columns = stored_schema(schema, where=where, existing=before)
    return SchemaChange(columns) if before is None else merge_schemas(before, columns, fill=fill, where=where)


def _stored_rows(batch: Batch, findings: Findings, change: SchemaChange) -> pa.RecordBatchReader:
    """Accepted rows as they are stored: in the table's columns, with the batch they came from."""

    def rows() -> Iterator[pa.RecordBatch]:
        for chunk in findings.accepted():
            if not chunk.num_rows:
                continue
            name = pa.DictionaryArray.from_arrays(pa.array([0] * chunk.num_rows, pa.int32()), pa.array([batch.id]))
            columns = pa.table({**dict(zip(chunk.schema.names, chunk.columns, strict=True)), "_batch": name})
            yield from change.fit(columns, where=batch.origin).to_batches()

    return pa.RecordBatchReader.from_batches(change.schema, rows())


def _quarantine(workspace: Workspace, definition: Table, batch: Batch, findings: Findings) -> None:
    if not len(findings.aside):
        return
    name, rows = quarantine_name(definition.name), findings.quarantined()
    # By content too: the same batch judged by other checks has other rows to set aside.
    content = table_digest(rows)
    if quarantine_version(workspace.tables, name, batch.id, content) is not None:
        return
    count = rows.num_rows
    full = pa.table(
        {
            "batch": pa.array([batch.id] * count, pa.string()),
            "origin": pa.array([batch.origin] * count, pa.string()),
            "time": pa.array([from_micros(workspace.clock.now())] * count, pa.timestamp("us", "UTC")),
            **{column: rows.column(column) for column in rows.column_names},
        }
    )
    workspace.tables.write(name, full, metadata={BATCH: batch.id, CONTENT: content})


def quarantine_version(tables: TableStore, name: str, batch: str, content: str | None = None) -> int | None:
    """Newest version of a quarantine that was written for a batch."""
    for version in reversed(tables.history(name)):
        if version.metadata.get(BATCH) == batch and content in (None, version.metadata.get(CONTENT)):
            return version.version
    return None


def _refused(definition: Table, batch: Batch, findings: Findings, version: int | None) -> RefusedError:
    where, quarantine = f"table {definition.name}, batch {short(batch.id)}", quarantine_name(definition.name)
    if not findings.halted:
        repeated = any(result.rule == "new_key" and result.failed for result in findings.results)
        return RefusedError(
            "at least one row of a batch must pass its checks",
            where=where,
            got=f"0 of {batch.num_rows} rows, {_most_frequent(findings.results)}",
            remedy=f"No version was made; see why with: retrodict data quarantine show {definition.name}"
            + ("; to put rows in the place of those with their keys: --update" if repeated else ""),
        )
    worst = max(findings.halted, key=lambda result: result.failed)
    aside = unpublished_name(definition.name)
    unknown = worst.status == "not_evaluable"
    rule = "must be evaluable" if unknown else "must hold"
    return RefusedError(
        f"check {worst.check} ({worst.severity}) "
        + ("must fail on no more rows than its tolerance" if worst.failed else rule),
        where=where,
        got=f"{worst.failed} of {worst.rows} rows" if worst.failed else worst.reason,
        remedy="No version was made. "
        + (f"See the failing rows in {quarantine}. " if len(findings.aside) else "")
        + (f"Release or drop the others, {aside}@{version}, or correct" if version is not None else "Correct")
        + " the batch and ingest it again"
        + ("; Check(..., on_unknown='warn') publishes what it cannot judge" if unknown else ""),
    )


def _keep_unpublished(
    workspace: Workspace, definition: Table, rows: pa.RecordBatchReader, metadata: dict[str, str]
) -> int:
    """Keep the rows of a halted batch where nobody reads them by accident."""
    name = unpublished_name(definition.name)
    for version in reversed(workspace.tables.history(name)):
        same = (BATCH, MODE, "retrodict.definition")
        if all(version.metadata.get(key) == metadata[key] for key in same):
            return version.version
    return workspace.tables.write(name, rows, mode="overwrite", metadata=metadata)


def _most_frequent(results: Sequence[CheckResult]) -> str:
    """The check that most rows failed, in words."""
    worst = max(results, key=lambda result: result.failed)
    return f"most by {worst.check}" if worst.failed else "none by a check of its own"


def _record_refusal(
    workspace: Workspace, definition: Table, batch: Batch, findings: Findings, unpublished: int | None
) -> None:
    tables, name = workspace.tables, definition.name
    failed = {
        r.check: r.failed for r in (findings.halted or findings.results) if r.halted or r.status == "fail" or r.failed
    }
    object_id = f"dataset:{name}"
    facts: dict[str, Any] = {"batch": batch.id, "failed": failed, "definition": definition.version}
    if unpublished is not None:
        facts["unpublished"] = f"dataset:{unpublished_name(name)}@{unpublished}"
    entries = workspace.ledger.entries(object_id=object_id, action="dataset.refuse")
    if any({**facts, **entry.payload} == entry.payload for entry in entries):
        return
    files = added_digests(tables, unpublished_name(name), unpublished)
    if len(findings.aside):
        quarantine = quarantine_name(name)
        files |= added_digests(tables, quarantine, quarantine_version(tables, quarantine, batch.id))
    with workspace.ledger.transaction() as tx:
        tx.append("dataset.refuse", object_id, {**facts, "files": files})


def record_version(workspace: Workspace, definition: Table, report: IngestReport, **more: Any) -> None:
    """Append the ledger entry of a version that a batch made, once; ``more`` joins its payload."""
    tables, quarantine = workspace.tables, quarantine_name(definition.name)
    name = f"dataset:{definition.name}@{report.version}"
    if workspace.ledger.entries(object_id=name, action="dataset.version"):
        workspace.ledger.sign_end()
        return
    note = tables.history(definition.name)[report.version].metadata
    mode = note[MODE]
    files = added_digests(tables, definition.name, report.version)
    if report.quarantined:
        files |= added_digests(tables, quarantine, quarantine_version(tables, quarantine, report.batch))
    payload = {
        "batch": report.batch,
        "mode": mode,
        "rows_in": report.rows_in,
        "accepted": report.accepted,
        "quarantined": report.quarantined,
        "reasons": report.reasons,
        "definition": definition.version,
        "files": files,
        **more,
    }
    if report.updated is not None:
        payload |= {"updated": report.updated, "added": report.accepted - report.updated}
    if report.added or report.widened:
        payload["schema"] = {"added": report.added, "widened": report.widened}
    inputs = [(f"batch:{report.batch}", "rows")]
    if "retrodict.resubmits" in note:
        inputs += [(f"batch:{batch}", "repaired rows") for batch in json.loads(note["retrodict.resubmits"])]
    if report.version > 0 and mode != "overwrite":
        inputs.append((f"dataset:{definition.name}@{report.version - 1}", "previous version"))
    with workspace.ledger.transaction() as tx:
        if not tx.has("dataset.version", name):
            tx.append("dataset.version", name, payload, inputs=inputs)
