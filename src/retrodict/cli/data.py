"""``ingest`` and ``data``: batches become versions; versions and what was set aside can be looked at."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from retrodict.cli._command import Answer, Session, command, group
from retrodict.cli._root import cli
from retrodict.cli._text import count, facts, short_hash, table, when
from retrodict.cli._types import complete, tables

if TYPE_CHECKING:
    import pyarrow as pa

    from retrodict.data.ingest import IngestReport
    from retrodict.project import Project

data = group(cli, "data", "Look at tables: their versions, rows, and what was set aside.")


@command(
    cli,
    "ingest",
    examples=["retrodict ingest flights data/flights.csv.gz", "retrodict ingest planes planes.parquet --replace"],
)
@click.argument("name", metavar="TABLE", shell_complete=complete(tables))
@click.argument("files", nargs=-1, required=True)
@click.option("--replace", is_flag=True, help="Replace the table's content; older versions stay readable.")
def ingest_files(session: Session, name: str, files: tuple[str, ...], replace: bool) -> Answer:
    """Check files and publish them as one new version of a table.

    CSV (also .csv.gz), Parquet and JSON lines. Rows in = accepted + quarantined; the same batch twice changes nothing.
    """
    from retrodict.data.ingest import ingest

    with session.progress(f"ingest {name}"):
        report = ingest(session.project, name, list(files), mode="overwrite" if replace else "append")
    return Answer(report.to_dict(), _ingested(report))


def _ingested(report: IngestReport) -> list[Any]:
    name = f"{report.table}@{report.version}"
    if report.already:
        return [f"{name} holds this batch already; nothing was written."]
    split = f"{count(report.accepted)} accepted + {count(report.quarantined)} quarantined"
    said = f"{name}: {count(report.rows_in)} rows in = {split}"
    if not report.reasons:
        return [said]
    return [
        said,
        table(("check", "severity", "failed>"), [(r.check, r.severity, r.failed) for r in report.checks if r.failed]),
    ]


@command(data, "history", examples=["retrodict data history flights"])
@click.argument("name", metavar="TABLE", shell_complete=complete(tables))
def history(session: Session, name: str) -> Answer:
    """List the versions of a table."""
    from retrodict.core.clock import format_time
    from retrodict.core.errors import NotFoundError, near

    found = session.project.tables.history(name)
    if not found:
        raise NotFoundError(
            "the table has a version",
            where="data",
            got=name,
            remedy=near(name, session.project.tables.names(), what="table"),
        )
    rows = [_version(session.project, name, version) for version in found]
    shown = table(
        ("version>", "written", "rows in>", "accepted>", "quarantined>", "total>", "batch", "from"),
        [
            (
                r["version"],
                when(v.time),
                r["rows_in"],
                r["accepted"],
                r["quarantined"],
                r["rows"],
                short_hash(r["batch"]),
                r["origin"],
            )
            for r, v in zip(rows, found, strict=True)
        ],
    )
    for row, version in zip(rows, found, strict=True):
        row["time"] = format_time(version.time)
    return Answer({"table": name, "versions": rows}, shown)


def _version(project: Project, name: str, version: Any) -> dict[str, Any]:
    said = {key.removeprefix("retrodict."): value for key, value in version.metadata.items()}
    counts = {key: int(said[key]) if key in said else None for key in ("rows_in", "accepted", "quarantined")}
    rows = sum(file.rows for file in project.tables.files(name, version.version))
    return {
        "version": version.version,
        "rows": rows,
        **counts,
        "batch": said.get("batch"),
        "origin": said.get("origin"),
    }


@command(data, "show", examples=["retrodict data show flights", "retrodict data show flights@0 --limit 5"])
@click.argument("ref", metavar="TABLE[@V]", shell_complete=complete(tables))
@click.option("--limit", type=click.IntRange(1), default=10, show_default=True, help="Rows to show.")
def show(session: Session, ref: str, limit: int) -> Answer:
    """Show the columns and first rows of a table."""
    name, version = _reference(ref)
    rows = session.project.tables.read(name, version)
    columns = {field.name: str(field.type) for field in rows.schema}
    head = _plain_rows(rows.slice(0, limit))
    shown = [
        facts({"table": ref, "rows": rows.num_rows}),
        table(("column", "type"), columns.items()),
        table(list(columns), [list(row.values()) for row in head], title=f"first {min(limit, rows.num_rows)} rows"),
    ]
    return Answer({"table": name, "version": version, "rows": rows.num_rows, "columns": columns, "head": head}, shown)


def _reference(text: str) -> tuple[str, int | None]:
    from retrodict.core.errors import InputError
    from retrodict.core.identity import Ref

    ref = Ref.parse(text, kind="dataset")
    if ref.version is not None and not ref.version.isdigit():
        raise InputError(
            "a version of a table is a whole number",
            where=f"dataset:{ref.name}",
            got=ref.version,
            remedy=f"See them with: retrodict data history {ref.name}",
        )
    return ref.name, None if ref.version is None else int(ref.version)


@command(data, "quarantine", examples=["retrodict data quarantine flights --limit 5"])
@click.argument("name", metavar="TABLE", shell_complete=complete(tables))
@click.option("--limit", type=click.IntRange(1), default=10, show_default=True, help="Rows to show.")
def quarantine(session: Session, name: str, limit: int) -> Answer:
    """Show the rows that checks set aside, and why."""
    from retrodict.data.definitions import Table
    from retrodict.data.ingest import quarantine_name

    session.project.definitions.get(Table, name)
    kept = quarantine_name(name)
    if not session.project.tables.history(kept):
        return Answer({"table": name, "rows": 0, "reasons": {}, "head": []}, f"No row of {name} was ever set aside.")
    rows = session.project.tables.read(kept)
    reasons: dict[str, int] = {}
    for checks in rows.column("checks").to_pylist():
        for check in checks:
            reasons[check] = reasons.get(check, 0) + 1
    head = _plain_rows(rows.slice(max(0, rows.num_rows - limit)))
    shown = [
        f"{count(rows.num_rows)} rows of {name} are in quarantine",
        table(("check", "rows>"), sorted(reasons.items(), key=lambda item: -item[1])),
        table(
            ("from", "row>", "checks", "original"),
            [(r["origin"], r["row"], r["checks"], r["original"]) for r in head],
            title=f"last {len(head)} rows",
        ),
    ]
    return Answer({"table": name, "rows": rows.num_rows, "reasons": reasons, "head": head}, shown)


def _plain_rows(rows: pa.Table) -> list[dict[str, Any]]:
    """Rows as JSON would have them: times as ISO 8601."""

    def cell(value: Any) -> Any:
        return value.isoformat().replace("+00:00", "Z") if hasattr(value, "isoformat") else value

    found: list[dict[str, Any]] = rows.to_pylist()
    return [{name: cell(value) for name, value in row.items()} for row in found]
