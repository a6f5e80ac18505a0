"""Batches that were halted: kept as written, looked at, and then released in spite of their checks, or dropped.

``<table>__unpublished`` has one version per halted batch, holding exactly the rows that would have been published.
What became of each is said by the ledger alone, with who decided it and why.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import polars as pl
import pyarrow as pa

from retrodict.core.display import Block, Shown, count
from retrodict.core.errors import NotFoundError, RefusedError, check_reason
from retrodict.data._records import BATCH, MODE, IngestReport, unpublished_name
from retrodict.data.context import OVERRIDE
from retrodict.data.definitions import Table
from retrodict.data.evolution import SchemaChange, merge_schemas
from retrodict.data.ingest import record_version
from retrodict.data.update import write_batch
from retrodict.data.validation._others import rows_found_in
from retrodict.data.versions import live_batches
from retrodict.stores.tables.base import TableVersion
from retrodict.workspace import Workspace

__all__ = ["Unpublished", "drop", "release", "unpublished_batches"]

State = Literal["waiting", "released", "dropped"]

_REASON = "a decision about a halted batch must have a reason"


@dataclass(frozen=True, slots=True, repr=False)
class Unpublished(Shown):
    """A halted batch.

    Attributes
    ----------
    table : str
    version : int
        Its version in ``<table>__unpublished``.
    batch : str
    origin : str
    rows : int
        Rows that would be published.
    failed : dict of str to str
        Why each check that halted it failed.
    state : {"waiting", "released", "dropped"}
    """

    table: str
    version: int
    batch: str
    origin: str
    rows: int
    failed: dict[str, str]
    state: State

    def to_dict(self) -> dict[str, Any]:
        """Plain form for ``--json``."""
        return {
            "dataset": f"dataset:{unpublished_name(self.table)}@{self.version}",
            "batch": self.batch,
            "origin": self.origin,
            "rows": self.rows,
            "failed": self.failed,
            "state": self.state,
        }

    def blocks(self) -> Sequence[Block | None]:
        """One sentence, and the checks that halted it."""
        name = f"{unpublished_name(self.table)}@{self.version}"
        if self.state == "dropped":
            return [f"{name} is dropped; its {count(self.rows)} rows stay until a vacuum."]
        return [f"{name} is {self.state}: {count(self.rows)} rows", *(f"{c}: {why}" for c, why in self.failed.items())]


def unpublished_batches(workspace: Workspace, table: str) -> list[Unpublished]:
    """Batches of a table that were halted, oldest first."""
    return [_described(workspace, table, version) for version in _halted_versions(workspace, table)]


def release(workspace: Workspace, table: str, version: int, *, reason: str) -> IngestReport:
    """Publish a halted batch in spite of its checks.

    Parameters
    ----------
    workspace : Workspace
    table : str
    version : int
        Version in ``<table>__unpublished``.
    reason : str
        Why; kept in the ledger and with the version.

    Returns
    -------
    IngestReport
        The same call once more changes nothing.

    Raises
    ------
    InputError
        If there is no reason, or the rows no longer fit the table's columns.
    RefusedError
        If the batch was dropped, or the table has got some of its keys meanwhile.
    """
    definition, text = workspace.definitions.get(Table, table), check_reason(reason, _REASON, where="reason")
    with workspace.lock(f"ingest/{table}"):
        stored = _version(workspace, table, version)
        batch = _described(workspace, table, stored)
        where = f"{unpublished_name(table)}@{version}"
        if batch.state == "dropped":
            raise RefusedError(
                "a batch to release must not be dropped", where=where, got=batch.state, remedy="Ingest it again"
            )
        live = live_batches(workspace.tables, table)
        if batch.batch in live:
            done = workspace.tables.history(table)[live[batch.batch]]
            report = IngestReport.of_version(table, done)
            text = done.metadata.get(OVERRIDE, text)
        else:
            report = _publish(workspace, definition, stored, text)
        record_version(workspace, definition, report, override=text, released=f"dataset:{where}")
        return report


def _publish(workspace: Workspace, definition: Table, stored: TableVersion, reason: str) -> IngestReport:
    tables, name, aside = workspace.tables, definition.name, unpublished_name(definition.name)
    mode = stored.metadata[MODE]
    rows = tables.batches(aside, stored.version)
    change, exists = SchemaChange(rows.schema), mode != "overwrite" and bool(tables.history(name))
    if exists:
        # Columns that the table has got since are null in the rows, as in all earlier ones.
        change = merge_schemas(tables.schema(name), rows.schema, fill=True, where=f"table {name}")
        if mode == "append":
            _refuse_known_keys(workspace, definition, stored.version)
    chunks = (part for chunk in rows for part in change.fit(pa.Table.from_batches([chunk]), where=name).to_batches())
    fitted, notes = pa.RecordBatchReader.from_batches(change.schema, chunks), {**stored.metadata, OVERRIDE: reason}
    keys = tables.batches(aside, stored.version, columns=list(definition.key))
    version, updated = write_batch(tables, definition, change, fitted, keys, notes)
    return replace(IngestReport.of_version(name, stored), version=version, already=False, updated=updated)


def _refuse_known_keys(workspace: Workspace, definition: Table, version: int) -> None:
    tables, key = workspace.tables, list(definition.key)
    if not key:
        return
    aside = tables.dataset(unpublished_name(definition.name), version)
    rows = pl.scan_pyarrow_dataset(aside).select(key).with_row_index("_row")
    total = len(rows_found_in(rows, key, tables.dataset(definition.name), key, where=f"table {definition.name}"))
    if total:
        raise RefusedError(
            "no key of a released batch must be in the table",
            where=f"{unpublished_name(definition.name)}@{version}",
            got=f"{total} keys that came with another batch since",
            remedy="Drop it, and ingest the batch again: those rows go to quarantine",
        )


def drop(workspace: Workspace, table: str, version: int, *, reason: str) -> Unpublished:
    """Decide that a halted batch will not be published; its rows stay until they are vacuumed.

    Raises
    ------
    RefusedError
        If it was released already.
    """
    workspace.definitions.get(Table, table)
    text = check_reason(reason, _REASON, where="reason")
    with workspace.lock(f"ingest/{table}"):
        batch = _described(workspace, table, _version(workspace, table, version))
        if batch.state == "released":
            raise RefusedError(
                "a batch to drop must not be released",
                where=f"{unpublished_name(table)}@{version}",
                got=batch.state,
                remedy=f"Roll the table back with: retrodict data rollback {table}",
            )
        if batch.state == "waiting":
            with workspace.ledger.transaction() as tx:
                name = f"dataset:{unpublished_name(table)}@{version}"
                tx.append("dataset.drop", name, {"batch": batch.batch, "reason": text})
        return replace(batch, state="dropped")


def _halted_versions(workspace: Workspace, table: str) -> list[TableVersion]:
    return [v for v in workspace.tables.history(unpublished_name(table)) if BATCH in v.metadata]


def _version(workspace: Workspace, table: str, version: int) -> TableVersion:
    versions = {stored.version: stored for stored in _halted_versions(workspace, table)}
    if version not in versions:
        raise NotFoundError(
            "the table must have a halted batch with this version",
            where=unpublished_name(table),
            got=version,
            remedy=f"Known: {', '.join(map(str, versions))}" if versions else "No batch was ever halted",
        )
    return versions[version]


def _described(workspace: Workspace, table: str, version: TableVersion) -> Unpublished:
    checks = IngestReport.of_version(table, version).checks
    state: State = "waiting"
    name = f"dataset:{unpublished_name(table)}@{version.version}"
    if workspace.ledger.entries(object_id=name, action="dataset.drop"):
        state = "dropped"
    elif any(
        later.metadata.get(BATCH) == version.metadata[BATCH] and OVERRIDE in later.metadata
        for later in workspace.tables.history(table)
    ):
        state = "released"
    return Unpublished(
        table,
        version.version,
        version.metadata[BATCH],
        version.metadata.get("retrodict.origin", ""),
        int(version.metadata["retrodict.accepted"]),
        {result.check: result.reason for result in checks if result.halted},
        state,
    )
