"""Outcomes from outside the label's table: a file of decision or key, label and known-at becomes a versioned table.

The order of the steps is the recovery plan, as in ``data/ingest.py``: quarantine, rows, ledger entry, each looking
first whether it was already done. Rows are never updated; which of several outcomes of a decision counts is decided
when they are read (the last known one), so that yesterday's report can be computed again.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from retrodict.core.clock import from_micros
from retrodict.core.display import Block, Facts, Grid, Shown, count
from retrodict.core.errors import InputError, NotFoundError, RefusedError
from retrodict.core.identity import short
from retrodict.core.tasks import Target
from retrodict.data.definitions import Check, Table, quarantine_name
from retrodict.data.ingest import quarantine_version
from retrodict.data.readers import Batch, read_batch
from retrodict.data.validation import Validation, validate
from retrodict.data.versions.refs import added_digests
from retrodict.decisions.definitions import find_policy
from retrodict.decisions.log import read_decisions
from retrodict.models.artifact import ModelArtifact
from retrodict.outcomes.keys import join_key_sql
from retrodict.registry import current
from retrodict.stores.sql import query, quote
from retrodict.workspace import Workspace

__all__ = ["ARRIVED", "OutcomesReport", "ingest_outcomes", "outcomes_name"]

_BATCH = "retrodict.batch"
_COUNTS = ("rows_in", "accepted", "repeated", "quarantined", "revised", "unmatched")
ARRIVED = pa.schema(
    {"decision_id": pa.string(), "key": pa.string(), "label": pa.bool_(), "known_at": pa.timestamp("us", "UTC")}
)
"""Columns of the table of ingested outcomes of a yes or no."""
_LARGEST = 1e30
_Moments = tuple[dict[str, int], dict[str | None, int]]


@dataclass(frozen=True, slots=True, repr=False)
class OutcomesReport(Shown):
    """What one ingest of outcomes did.

    Attributes
    ----------
    policy : str
    version : int
        Version of the outcomes table that holds the batch.
    batch : str
        Id of the batch: SHA-256 of its content.
    rows_in, accepted, repeated, quarantined : int
        ``rows_in = accepted + repeated + quarantined``; a repeated row was there before, word for word.
    revised : int
        Decisions of the batch whose outcomes disagree, among themselves or with earlier ones; the last known counts.
    unmatched : int
        Accepted rows without a decision in the log; they are kept.
    reasons : dict of str to int
        Rows per check that failed.
    already : bool
        True if nothing was written, since everything was there before.
    """

    policy: str
    version: int
    batch: str
    rows_in: int
    accepted: int
    repeated: int
    quarantined: int
    revised: int
    unmatched: int
    reasons: dict[str, int]
    already: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Plain form for ``--json``."""
        return {"dataset": f"dataset:{outcomes_name(self.policy)}@{self.version}", **asdict(self)}

    def blocks(self) -> Sequence[Block | None]:
        """Rows in and what became of them."""
        notes = {"decisions with outcomes that disagree": self.revised or None,
                 "outcomes without a decision": self.unmatched or None}  # fmt: skip
        rows = (
            f"dataset:{outcomes_name(self.policy)}@{self.version}: {count(self.rows_in)} rows in = "
            f"{count(self.accepted)} accepted + {count(self.repeated)} known before + "
            f"{count(self.quarantined)} quarantined"
        )
        return [
            rows,
            Facts(notes) if any(notes.values()) else None,
            Grid(("check", "failed>"), self.reasons.items()) if self.reasons else None,
        ]


def outcomes_name(policy: str) -> str:
    """Name of the table that keeps a policy's ingested outcomes; no defined table can have it."""
    return f"{policy}__outcomes"


def ingest_outcomes(
    workspace: Workspace, policy: str, source: pa.Table | str | Path | Sequence[str | Path]
) -> OutcomesReport:
    """Take in outcomes that are not in the label's table.

    Parameters
    ----------
    workspace : Workspace
    policy : str
        Name of the policy that decided.
    source : pyarrow.Table, path, glob, or list of paths
        Columns ``decision_id``, or ``key``, or the key columns of the label's table; ``label`` (1 or 0, a class or a
        number, as the task has it; empty: there will never be one); ``known_at`` (a time with its zone). Further
        columns are not kept.

    Returns
    -------
    OutcomesReport
        The same batch once more changes nothing.

    Raises
    ------
    InputError
        If the file cannot be read or lacks a column. Nothing is written.
    RefusedError
        If no row passes the checks; the rows are in quarantine.
    """
    model = find_policy(workspace.definitions, policy).model
    table = model.label.table
    deployed = None if model.known_target is not None else current(workspace).get(policy)
    trained = ModelArtifact.target_of(workspace.objects, deployed.deployment.artifact) if deployed else None
    target = trained or model.known_target or Target()
    batch = read_batch(source)
    report = _find(workspace, policy, batch)
    if report is None:
        moments = _moments(workspace, policy)
        rows, definition = _prepare(batch.rows, table, target, moments, where=f"outcomes of {policy}")
        checked = validate(rows, definition)
        _quarantine(workspace, policy, batch, checked)
        report = _publish(workspace, policy, table, batch, checked, _schema(target), moments)
    _record(workspace, report)
    return report


def _schema(target: Target) -> pa.Schema:
    """Columns of the stored outcomes of a task: labels as they come, truth values of a yes or no."""
    if target.task == "binary":
        return ARRIVED
    textual = any(isinstance(name, str) for name in target.classes)
    return ARRIVED.set(2, pa.field("label", pa.string() if textual else pa.float64()))


def _label_check(target: Target) -> Check:
    """What a label of a task must be."""
    match target.task:
        case "binary":
            return Check.in_set("label", (0, 1))
        case "multiclass":
            return Check.in_set("label", target.classes)
        case "count" | "ranking":
            return Check.between("label", 0, _LARGEST)
        case _:
            return Check.between("label", -_LARGEST, _LARGEST)


def _find(workspace: Workspace, policy: str, batch: Batch) -> OutcomesReport | None:
    for version in reversed(workspace.tables.history(outcomes_name(policy))):
        if version.metadata.get(_BATCH) == batch.id:
            counts = {name: int(version.metadata[f"retrodict.{name}"]) for name in _COUNTS}
            reasons = json.loads(version.metadata["retrodict.reasons"])
            return OutcomesReport(policy, version.version, batch.id, reasons=reasons, already=True, **counts)
    return None


def _prepare(rows: pa.Table, table: Table, target: Target, moments: _Moments, *, where: str) -> tuple[pa.Table, Table]:
    """Columns that are used, with a subject that says whose outcome a row is, and the definition they must meet."""
    names = set(rows.column_names)
    missing = [name for name in ("label", "known_at") if name not in names]
    keys = list(table.key) if names.issuperset(table.key) else []
    if not missing and not (names & {"decision_id", "key"} or keys):
        missing = ["decision_id"]
    if missing:
        raise InputError("outcomes must have label, known_at, and decision_id, key or the label table's key columns",
                         where=where, got={"missing": missing}, remedy="Add the columns, or rename yours")  # fmt: skip
    texts = {
        name: f"NULLIF(CAST({name if name in names else 'NULL'} AS VARCHAR), '')" for name in ("decision_id", "key")
    }
    texts["decision_id"] = f"regexp_replace({texts['decision_id']}, '^decision:', '')"
    composite = " || ".join(f"CAST({quote(column)} AS VARCHAR)" for column in keys) or "NULL"
    kind = _schema(target).field("label").type
    label = "CAST(label AS TINYINT)" if pa.types.is_boolean(rows.schema.field("label").type) else "label"
    label = "NULLIF(CAST(label AS VARCHAR), '')" if kind == pa.string() else label
    rest = "".join(f", {quote(column)}" for column in keys if column not in ("decision_id", "key"))
    sql = (
        f"SELECT row_number() OVER () - 1 AS outcome_row, {texts['decision_id']} AS decision_id, {texts['key']} AS key,"
        f" COALESCE({texts['decision_id']}, {texts['key']}, {composite}) AS subject, {label} AS label, known_at{rest}"
        " FROM rows"
    )
    prepared = query(sql, rows=rows)
    by_id, by_key = moments
    pairs = zip(prepared.column("decision_id").to_pylist(), prepared.column("subject").to_pylist(), strict=True)
    decided = [by_key.get(subject) if name is None else by_id.get(name) for name, subject in pairs]
    prepared = prepared.append_column("decided_at", pa.array(decided, pa.timestamp("us", "UTC")))
    types = {column: table.columns[column] for column in keys if column in table.columns}
    columns = {**types, "decision_id": "string", "key": "string", "known_at": "time", "decided_at": "time",
               "label": {pa.bool_(): "int", pa.string(): "string"}.get(kind, "float")}  # fmt: skip
    checks = [Check.not_null("subject", "known_at"), Check.compare("known_at", ">=", "decided_at"),
              _label_check(target)]  # fmt: skip
    return prepared, Table("outcomes", key="outcome_row", columns=columns, checks=checks)


def _quarantine(workspace: Workspace, policy: str, batch: Batch, checked: Validation) -> None:
    name, rows = quarantine_name(outcomes_name(policy)), checked.quarantined
    if rows.num_rows == 0 or any(v.metadata.get(_BATCH) == batch.id for v in workspace.tables.history(name)):
        return
    about = {
        "batch": pa.array([batch.id] * rows.num_rows),
        "origin": pa.array([batch.origin] * rows.num_rows),
        "time": pa.array([from_micros(workspace.clock.now())] * rows.num_rows, pa.timestamp("us", "UTC")),
    }
    workspace.tables.write(
        name, pa.table({**about, **{c: rows.column(c) for c in rows.column_names}}), metadata={_BATCH: batch.id}
    )


def _publish(
    workspace: Workspace,
    policy: str,
    table: Table,
    batch: Batch,
    checked: Validation,
    schema: pa.Schema,
    moments: _Moments,
) -> OutcomesReport:
    name, total = outcomes_name(policy), batch.rows.num_rows
    if checked.accepted.num_rows == 0:
        raise RefusedError(
            "at least one row of a batch must pass its checks",
            where=f"table {name}, batch {short(batch.id)}",
            got=f"0 of {total} rows",
            remedy=f"See {quarantine_name(name)} for the reasons",
        )
    try:
        stored = workspace.tables.read(name, columns=ARRIVED.names)
    except NotFoundError:
        stored = schema.empty_table()
    new = _new_rows(checked.accepted, table, stored, schema)
    counts = {
        "rows_in": total,
        "accepted": new.num_rows,
        "repeated": checked.accepted.num_rows - new.num_rows,
        "quarantined": checked.quarantined.num_rows,
        "revised": _revised(new, stored),
        "unmatched": _unmatched(moments, new),
    }
    reasons = {result.check: result.failed for result in checked.results if result.failed}
    if new.num_rows == 0:
        version = workspace.tables.history(name)[-1].version
        return OutcomesReport(policy, version, batch.id, reasons=reasons, already=True, **counts)
    facts = {f"retrodict.{count}": str(value) for count, value in counts.items()}
    facts |= {_BATCH: batch.id, "retrodict.origin": batch.origin, "retrodict.reasons": json.dumps(reasons)}
    version = workspace.tables.write(name, new, metadata=facts)
    return OutcomesReport(policy, version, batch.id, reasons=reasons, already=False, **counts)


def _new_rows(accepted: pa.Table, table: Table, stored: pa.Table, schema: pa.Schema) -> pa.Table:
    """Return accepted rows as they are stored, without those that are there already."""
    key = "key"
    if set(table.key) <= set(accepted.column_names):
        key = f"COALESCE(key, {join_key_sql(table, accepted.schema)})"
    columns = ", ".join(ARRIVED.names)
    label = "label = 1 AS label" if schema.equals(ARRIVED) else "label"
    same = " AND ".join(f"s.{column} IS NOT DISTINCT FROM t.{column}" for column in ARRIVED.names)
    sql = (
        f"WITH t AS (SELECT outcome_row, decision_id, CASE WHEN decision_id IS NULL THEN {key} END AS key, "
        f"{label}, known_at FROM accepted), "
        f"u AS (SELECT min(outcome_row) AS turn, {columns} FROM t GROUP BY ALL) "
        f"SELECT {columns} FROM u t WHERE NOT EXISTS (SELECT 1 FROM stored s WHERE {same}) ORDER BY turn"
    )
    return query(sql, accepted=accepted, stored=stored).cast(schema)


def _revised(new: pa.Table, stored: pa.Table) -> int:
    """Decisions of the new rows that have two different outcomes by now."""
    counts = query(
        "WITH every AS (SELECT * FROM stored UNION ALL SELECT * FROM new), torn AS (SELECT decision_id, key FROM every "
        "GROUP BY ALL HAVING count(DISTINCT COALESCE('=' || CAST(label AS VARCHAR), 'none')) > 1) "
        "SELECT count(*) AS n FROM torn t WHERE EXISTS (SELECT 1 FROM new n "
        "WHERE n.decision_id IS NOT DISTINCT FROM t.decision_id AND n.key IS NOT DISTINCT FROM t.key)",
        new=new,
        stored=stored,
    )
    return int(counts.column("n")[0].as_py())


def _moments(workspace: Workspace, policy: str) -> _Moments:
    """When it was decided, by id, and first of each key."""
    by_id, by_key = dict[str, int](), dict[str | None, int]()
    for logged in read_decisions(workspace, policy=policy):
        record = logged.record
        by_id[record.id] = record.time
        by_key[record.key] = min(record.time, by_key.get(record.key, record.time))
    return by_id, by_key


def _unmatched(moments: _Moments, new: pa.Table) -> int:
    by_id, by_key = moments
    rows = zip(new.column("decision_id").to_pylist(), new.column("key").to_pylist(), strict=True)
    return sum((key not in by_key) if decision is None else (decision not in by_id) for decision, key in rows)


def _record(workspace: Workspace, report: OutcomesReport) -> None:
    """Append the ledger entry of a version, once."""
    table = outcomes_name(report.policy)
    name = f"dataset:{table}@{report.version}"
    if workspace.ledger.entries(object_id=name, action="outcomes.ingest"):
        return
    tables, quarantine = workspace.tables, quarantine_name(table)
    files = added_digests(tables, table, report.version)
    files |= added_digests(tables, quarantine, quarantine_version(tables, quarantine, report.batch))
    payload = {
        "batch": report.batch,
        "reasons": report.reasons,
        "files": files,
        **{count: getattr(report, count) for count in _COUNTS},
    }
    inputs = [(f"batch:{report.batch}", "rows")]
    if report.version:
        inputs.append((f"dataset:{table}@{report.version - 1}", "previous version"))
    with workspace.ledger.transaction() as tx:
        tx.append("outcomes.ingest", name, payload, inputs=inputs)
