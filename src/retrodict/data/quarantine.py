"""Rows that checks set aside: what is waiting, why, and how repaired rows come back.

A repaired row names the row it replaces by ``_batch`` and ``_row``. It goes through all checks again, as part of a new
batch; ``<table>__resubmitted`` remembers which rows are settled, so that none is repaired twice.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from retrodict.core.display import Block, Grid, Shown, count, plain
from retrodict.core.errors import InputError, NotFoundError, near
from retrodict.core.kinds import KINDS, column_word
from retrodict.data._records import BATCH, IngestReport, quarantine_name
from retrodict.data.definitions import Table
from retrodict.data.ingest import publish_batch, quarantine_version, staging_folder
from retrodict.data.readers import open_batch
from retrodict.data.versions.refs import added_digests
from retrodict.stores.sql import query
from retrodict.workspace import Workspace

__all__ = [
    "QuarantinedBatch",
    "QuarantinedRows",
    "quarantined_batches",
    "quarantined_rows",
    "resubmit",
    "resubmitted_name",
]

_SETTLED = pa.schema([("batch", pa.string()), ("row", pa.int64())])
_QUARANTINED = pa.schema(
    [
        ("batch", pa.string()),
        ("origin", pa.string()),
        ("time", pa.timestamp("us", "UTC")),
        ("row", pa.int64()),
        ("checks", pa.list_(pa.string())),
        ("original", pa.string()),
    ]
)


@dataclass(frozen=True, slots=True)
class QuarantinedBatch:
    """Rows of one batch that were set aside.

    Attributes
    ----------
    batch : str
    origin : str
    time : str
        When, ISO 8601 UTC.
    rows, waiting : int
        Rows set aside, and those of them that were not resubmitted.
    reasons : dict of str to int
        Rows per check.
    """

    batch: str
    origin: str
    time: str
    rows: int
    waiting: int
    reasons: dict[str, int]


class QuarantinedRows(Shown):
    """Rows that wait in quarantine.

    Attributes
    ----------
    table : str
    rows : pyarrow.Table
        batch, origin, time, row, checks, original (JSON).
    output : path or None
        File they were written to.

    Examples
    --------
    >>> project.data.quarantine.show("flights", check="not_null(origin)").rows  # doctest: +SKIP
    """

    __slots__ = ("_limit", "output", "rows", "table")

    def __init__(self, table: str, rows: pa.Table, output: str | Path | None, limit: int) -> None:
        self.table, self.rows, self.output, self._limit = table, rows, output, limit

    def write(self, path: Path) -> None:
        """Write them as JSON lines to repair: the original columns, and ``_batch`` and ``_row`` to find them by."""
        _write_originals(path, self.rows.to_pylist(), ("batch", "row", "checks"))

    def _newest(self) -> list[dict[str, Any]]:
        newest: list[dict[str, Any]] = plain(self.rows.slice(max(0, len(self.rows) - self._limit)).to_pylist())
        return newest

    def to_dict(self) -> dict[str, Any]:
        """Plain form."""
        output = {} if self.output is None else {"output": str(self.output)}
        return {"table": self.table, "rows": self.rows.num_rows, "head": self._newest(), **output}

    def blocks(self) -> Sequence[Block | None]:
        """The newest ones, or where all were written and what to do next."""
        total = count(self.rows.num_rows)
        if self.output is not None:
            command = f"retrodict data quarantine resubmit {self.table} {self.output}"
            return [f"{total} rows are in {self.output}; repair them, then: {command}"]
        rows = [
            (row["origin"], row["row"], row["checks"], row["original"].replace(',"', ', "')) for row in self._newest()
        ]
        if not rows:
            return [f"No row of {self.table} is waiting in quarantine."]
        return [Grid(("from?", "row>", "checks", "original"), rows, f"last {len(rows)} of {total} rows")]


def _write_originals(path: Path, rows: Iterable[dict[str, Any]], marks: Sequence[str]) -> None:
    with path.open("w", encoding="utf-8") as stream:
        for row in rows:
            body = {**{f"_{name}": row[name] for name in marks}, **json.loads(row["original"])}
            stream.write(json.dumps(body, ensure_ascii=False) + "\n")


def resubmitted_name(table: str) -> str:
    """Name of the table that remembers which quarantined rows came back."""
    return f"{table}__resubmitted"


def quarantined_batches(workspace: Workspace, table: str) -> list[QuarantinedBatch]:
    """What is in a table's quarantine, batch by batch, oldest first."""
    workspace.definitions.get(Table, table)
    rows = quarantined_rows(workspace, table, settled=True)
    batches = query(
        "WITH each AS (SELECT batch, row, any_value(origin) AS origin, min(time) AS time, min(place) AS place, "
        "bool_or(settled) AS settled FROM t GROUP BY batch, row), "
        "reason AS (SELECT batch, cause, count(DISTINCT row) AS n FROM "
        "(SELECT batch, row, unnest(checks) AS cause FROM t) GROUP BY batch, cause) "
        "SELECT batch, any_value(origin) AS origin, strftime(min(time), '%Y-%m-%dT%H:%M:%SZ') AS time, "
        "count(*) AS rows, count(*) FILTER (NOT settled) AS waiting, "
        "(SELECT list({'check': cause, 'rows': n} ORDER BY n DESC, cause) FROM reason r WHERE r.batch = each.batch) "
        "AS reasons FROM each GROUP BY batch ORDER BY min(place)",
        t=rows.append_column("place", pa.array(range(rows.num_rows), pa.int64())),
    )
    return [
        QuarantinedBatch(**{**row, "reasons": {reason["check"]: reason["rows"] for reason in row["reasons"] or []}})
        for row in batches.to_pylist()
    ]


def quarantined_rows(
    workspace: Workspace, table: str, *, batch: str | None = None, check: str | None = None, settled: bool = False
) -> pa.Table:
    """Rows that were set aside: batch, origin, time, row, checks, original (JSON), settled.

    Parameters
    ----------
    workspace : Workspace
    table : str
    batch : str, optional
        Only those of one batch, by its id or the beginning of it.
    check : str, optional
        Only those that failed this check.
    settled : bool, default False
        Whether rows that were resubmitted are among them.

    Raises
    ------
    NotFoundError
        If no quarantined row is of such a batch, or failed such a check.
    """
    name = quarantine_name(table)
    quarantined = workspace.tables.read(name) if workspace.tables.history(name) else _QUARANTINED.empty_table()
    rows = query(
        "SELECT t.* EXCLUDE (place), "
        "EXISTS (SELECT 1 FROM done d WHERE d.batch = t.batch AND d.row = t.row) AS settled FROM t ORDER BY place",
        t=quarantined.append_column("place", pa.array(range(quarantined.num_rows), pa.int64())),
        done=_settled(workspace, table),
    )
    if batch is not None:
        rows = _narrow(
            rows, pc.starts_with(rows.column("batch"), batch), "batch", batch, set(rows["batch"].to_pylist())
        )
    if check is not None:
        titles = {title for titles in rows["checks"].to_pylist() for title in titles}
        failed = pa.array([check in titles for titles in rows["checks"].to_pylist()], pa.bool_())
        rows = _narrow(rows, failed, "check", check, titles)
    return rows if settled else rows.filter(pc.invert(rows.column("settled")))


def _narrow(rows: pa.Table, mask: Any, what: str, got: str, names: set[str]) -> pa.Table:
    matches = rows.filter(mask)
    if not matches.num_rows:
        raise NotFoundError(
            f"a quarantined row must be of such a {what}",
            where="quarantine",
            got=got,
            remedy=near(got, names, what=what),
        )
    return matches


def _settled(workspace: Workspace, table: str) -> pa.Table:
    name = resubmitted_name(table)
    return workspace.tables.read(name) if workspace.tables.history(name) else _SETTLED.empty_table()


def resubmit(workspace: Workspace, table: str, source: Any = None, *, batch: str | None = None) -> IngestReport:
    """Take repaired rows, or rows as they are after the checks were changed, through the checks again.

    Parameters
    ----------
    workspace : Workspace
    table : str
    source : path, pyarrow.Table, DataFrame, optional
        Repaired rows with ``_batch`` and ``_row`` of the rows they replace; columns whose names begin with an
        underscore are not stored. None: the original rows.
    batch : str, optional
        Without a source: only the rows of this batch.

    Returns
    -------
    IngestReport
        Of the new batch; rows that fail again are in quarantine again, under it.

    Raises
    ------
    InputError
        If a row names no quarantined row, one that came back already, or one that another row names too.
    RefusedError
        As in :func:`~retrodict.data.ingest.ingest`.
    """
    definition = workspace.definitions.get(Table, table)
    where = f"table {table}, resubmit"
    with staging_folder(workspace) as staging:
        if source is None:
            repaired = _originals(workspace, table, batch, staging, where)
        else:
            with open_batch(source, staging=staging) as opened:
                repaired = opened.rows
        marks = _marks(repaired, where)
        content = repaired.select([name for name in repaired.column_names if not name.startswith("_")])
        note = {"retrodict.resubmits": json.dumps(sorted(set(marks.column("batch").to_pylist())))}
        with open_batch(content, staging=staging) as opened:
            # The same rows once more: then their marks are settled, and that is right.
            if not _was_written(workspace, table, opened.id):
                _check_marks(workspace, table, marks, where)
            renamed = replace(opened, origin=f"resubmitted to {table}")
            report = publish_batch(workspace, _typed(workspace, definition), renamed, staging, notes=note)
        _settle(workspace, table, marks, report.batch)
        return report


def _was_written(workspace: Workspace, name: str, batch: str) -> bool:
    return any(version.metadata.get(BATCH) == batch for version in workspace.tables.history(name))


def _originals(workspace: Workspace, table: str, batch: str | None, staging: Path, where: str) -> pa.Table:
    rows = quarantined_rows(workspace, table, batch=batch)
    if not rows.num_rows:
        raise InputError(
            "a row must be waiting in quarantine", where=where, got=0, remedy="There is nothing to resubmit"
        )
    path = staging / "originals.jsonl"
    # A batch that was judged twice, by other checks, may have set a row aside twice.
    once = {(row["batch"], row["row"]): row for row in rows.select(["batch", "row", "original"]).to_pylist()}
    _write_originals(path, once.values(), ("batch", "row"))
    with open_batch(path, staging=staging) as opened:
        return opened.rows


def _marks(rows: pa.Table, where: str) -> pa.Table:
    missing = [name for name in ("_batch", "_row") if name not in rows.column_names]
    if missing:
        raise InputError(
            "a repaired row must say which row it replaces, by _batch and _row",
            where=where,
            got={"missing": missing},
            remedy="Begin with: retrodict data quarantine show TABLE --output FILE",
        )
    try:
        return pa.table({"batch": rows.column("_batch").cast(pa.string()), "row": rows.column("_row").cast(pa.int64())})
    except pa.ArrowInvalid as error:
        raise InputError(
            "_batch must be the id of a batch and _row a whole number",
            where=where,
            got=[str(rows.schema.field(name).type) for name in ("_batch", "_row")],
            remedy="Leave both as they were",
        ) from error


def _check_marks(workspace: Workspace, table: str, marks: pa.Table, where: str) -> None:
    counts = query(
        "SELECT count(*) FILTER (NOT EXISTS "
        "(SELECT 1 FROM kept k WHERE k.batch = m.batch AND k.row = m.row)) AS unknown, "
        "count(*) FILTER (EXISTS (SELECT 1 FROM done d WHERE d.batch = m.batch AND d.row = m.row)) AS settled, "
        "count(*) - count(DISTINCT (batch, row)) AS twice FROM marks m",
        marks=marks,
        done=_settled(workspace, table),
        kept=quarantined_rows(workspace, table, settled=True).select(["batch", "row"]),
    ).to_pylist()[0]
    wrong = {word: count for word, count in counts.items() if count}
    if wrong:
        raise InputError(
            "every repaired row must replace one row that is waiting in quarantine",
            where=where,
            got=wrong,
            remedy="Leave those rows out; see what waits with: retrodict data quarantine list",
        )


def _typed(workspace: Workspace, definition: Table) -> Table:
    """The definition with the types that the table's own columns have: JSON has no times and no dates."""
    if not workspace.tables.history(definition.name):
        return definition
    words = {kind.column_word for kind in KINDS.values()}
    types = {field.name: column_word(field.type) for field in workspace.tables.schema(definition.name)}
    columns = {name: word for name, word in types.items() if word in words and not name.startswith("_")}
    return replace(definition, columns=columns | dict(definition.columns))


def _settle(workspace: Workspace, table: str, marks: pa.Table, batch: str) -> None:
    name = resubmitted_name(table)
    if not _was_written(workspace, name, batch):
        workspace.tables.write(name, marks.cast(_SETTLED), metadata={BATCH: batch})
    version = quarantine_version(workspace.tables, name, batch)
    object_id = f"dataset:{name}@{version}"
    with workspace.ledger.transaction() as tx:
        if not tx.has("dataset.settle", object_id):
            facts = {"batch": batch, "files": added_digests(workspace.tables, name, version)}
            tx.append("dataset.settle", object_id, facts)
