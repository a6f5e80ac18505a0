"""``ingest`` and the group ``data``: batches become versions, or say why not."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from retrodict.cli._command import Answer, Session, command, group
from retrodict.cli._root import cli
from retrodict.cli._text import count, number, table
from retrodict.cli._types import complete, tables

if TYPE_CHECKING:
    from retrodict.data.ingest import IngestReport
    from retrodict.data.validation import CheckResult

data = group(cli, "data", "Versions of tables: what is in them, whether it is good, and what was set aside.")

_FORMATS = click.Choice(["csv", "jsonl", "parquet", "arrow"])


def ingest_files(
    session: Session,
    name: str,
    files: tuple[str, ...],
    *,
    replace: bool,
    fill_missing: bool,
    format_: str | None,
    sql: str | None,
) -> Answer:
    """Check files and publish them as one new version of a table.

    CSV, Parquet, JSON lines, Arrow; a folder, a glob in quotes, "-" for standard input, or the rows of a query: --sql,
    with the URL of a database as FILE, in which ${NAME} stands for a variable of the environment. Rows in = accepted +
    quarantined; the same batch twice changes nothing.
    """
    from retrodict.data.ingest import ingest

    with session.progress(f"ingest {name}"):
        report = ingest(
            session.project.workspace,
            name,
            _source(files, sql),
            mode="overwrite" if replace else "append",
            format=format_,
            fill_missing=fill_missing,
        )
    return Answer(report.to_dict(), _ingested(report))


def _source(files: tuple[str, ...], sql: str | None) -> Any:
    from retrodict.core.errors import InputError
    from retrodict.data.readers import SqlQuery

    if sql is not None:
        if len(files) != 1:
            raise InputError("a query goes to one database", where="--sql", got=f"{len(files)} URLs", remedy="Name one")
        return SqlQuery(files[0], sql)
    return files[0] if len(files) == 1 else list(files)


def _add_ingest(parent: click.Group, prefix: str) -> None:
    """Add the command under its short name and to the group: it is one command."""

    def ingest_into(session: Session, **values: Any) -> Answer:
        return ingest_files(session, **values)

    ingest_into.__doc__ = ingest_files.__doc__
    made: Any = ingest_into
    for option in (
        click.option("--sql", metavar="QUERY", help="Ingest the rows of a query."),
        click.option("--format", "format_", type=_FORMATS, help="Format of standard input, or of unusual names."),
        click.option("--fill-missing", is_flag=True, help="Columns of the table that the batch lacks become null."),
        click.option("--replace", is_flag=True, help="Replace the table's content; older versions stay readable."),
        click.argument("files", metavar="FILE...", nargs=-1, required=True),
        click.argument("name", metavar="TABLE", shell_complete=complete(tables)),
    ):
        made = option(made)
    examples = [
        f"{prefix} ingest flights data/flights.csv.gz",
        f"{prefix} ingest planes planes.parquet --replace",
        f"zcat events.jsonl.gz | {prefix} ingest events - --format jsonl",
        f"{prefix} ingest sales sqlite:///shop.db --sql 'SELECT * FROM sales'",
    ]
    command(parent, "ingest", examples=examples)(made)


_add_ingest(cli, "retrodict")
_add_ingest(data, "retrodict data")


def _ingested(report: IngestReport) -> list[Any]:
    name = f"{report.table}@{report.version}"
    if report.already:
        return [f"{name} holds this batch already; nothing was written."]
    split = f"{count(report.accepted)} accepted + {count(report.quarantined)} quarantined"
    said: list[Any] = [f"{name}: {count(report.rows_in)} rows in = {split}"]
    said += [f"new column {column} ({kind}), null in earlier rows" for column, kind in report.added.items()]
    said += [f"column {column} widened from {kinds}" for column, kinds in report.widened.items()]
    worth = [result for result in report.checks if result.status != "pass" or result.failed]
    return [*said, results_table(worth)] if worth else said


def results_table(results: list[CheckResult]) -> Any:
    """Results of checks, for people."""
    words = {"pass": "pass", "fail": "FAIL", "not_evaluable": "not evaluable"}
    return table(
        ("check", "layer", "severity", "result", "failed>", "value>", "why"),
        [
            (r.check, r.layer, r.severity, words[r.status], r.failed or None, number(r.value), r.reason or None)
            for r in results
        ],
    )


@command(
    data,
    "validate",
    examples=["retrodict data validate flights new.parquet", "retrodict data validate flights new.csv --all --json"],
)
@click.argument("name", metavar="TABLE", shell_complete=complete(tables))
@click.argument("files", metavar="FILE...", nargs=-1, required=True)
@click.option("--format", "format_", type=_FORMATS, help="Format of standard input, or of unusual names.")
@click.option("--sql", metavar="QUERY", help="Check the rows of a query.")
@click.option("--all", "every", is_flag=True, help="Show the checks that pass, too.")
def validate_files(
    session: Session, name: str, files: tuple[str, ...], format_: str | None, sql: str | None, every: bool
) -> Answer:
    """Check files as an ingest would, and write nothing.

    Exits with 1 if the batch would not be published.
    """
    from retrodict.data.context import WorkspaceContext
    from retrodict.data.definitions import Table
    from retrodict.data.ingest import staging_folder
    from retrodict.data.readers import open_batch
    from retrodict.data.validation import check_batch

    project = session.project.workspace
    definition = project.definitions.get(Table, name)
    with (
        session.progress(f"validate {name}"),
        staging_folder(project) as staging,
        open_batch(_source(files, sql), staging=Path(staging), format=format_) as batch,
    ):
        known = name if project.tables.history(name) else None
        found = check_batch(
            batch, definition, context=WorkspaceContext(project, name), staging=staging, known_keys=known
        )
        rows, accepted = batch.num_rows, found.accepted_rows
    publishes = not found.halted and accepted > 0
    counts = {word: sum(r.status == word for r in found.results) for word in ("pass", "fail", "not_evaluable")}
    answer = {
        "table": name,
        "rows_in": rows,
        "accepted": accepted,
        "quarantined": rows - accepted,
        "publishes": publishes,
        "checks": [result.to_dict() for result in found.results],
    }
    shown = found.results if every else [r for r in found.results if r.status != "pass" or r.failed]
    text: list[Any] = [
        (
            f"{count(rows)} rows: {count(accepted)} would be accepted, {count(rows - accepted)} set aside; "
            f"{counts['pass']} checks pass, {counts['fail']} fail, {counts['not_evaluable']} are not evaluable"
        )
    ]
    if shown:
        text.append(results_table(shown))
    if not publishes:
        text.append("The batch would not be published.")
    return Answer(answer, text, passed=publishes)
