"""``ingest`` and ``data``: batches become versions or say why not; versions are read, compared, put back, deleted."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal

import click

from retrodict.cli._command import CommandContext, Parameter, command, expose, group
from retrodict.cli._root import cli
from retrodict.cli._types import complete, tables
from retrodict.project import Shown
from retrodict.project.data import Data

if TYPE_CHECKING:
    from retrodict.project import Project

data = group(cli, "data", "Versions of tables: what is in them, whether it is good, and what was set aside.")


def table_refs(project: Project) -> Iterable[str]:
    """Stored tables, and their tags as ``table@tag``."""
    return [*project.workspace.tables.names(), *(f"{tag.dataset}@{tag.tag}" for tag in project.data.tags())]


def tag_names(project: Project) -> Iterable[str]:
    """Tags of all tables."""
    return [tag.tag for tag in project.data.tags()]


_FILES = Parameter("FILE...", more={"nargs": -1})
_REF = Parameter("TABLE[@REF]", table_refs)
_ROWS = Parameter("TABLE[@REF]|FILE...", tables)
_SQL = Parameter("QUERY")
_VERSION = Parameter("V", type=click.IntRange(0))

for _parent, _prefix in ((cli, "retrodict"), (data, "retrodict data")):  # one command under two names
    expose(_parent, "ingest", "data.ingest", rows=_FILES, sql=_SQL, examples=[
        f"{_prefix} ingest flights data/flights.csv.gz",
        f"{_prefix} ingest planes planes.parquet --replace",
        f"zcat events.jsonl.gz | {_prefix} ingest events - --format jsonl",
        f"{_prefix} ingest sales sqlite:///shop.db --sql 'SELECT * FROM sales'",
    ])  # fmt: skip
expose(data, "validate", "data.validate", rows=_FILES, sql=_SQL, examples=[
    "retrodict data validate flights new.parquet", "retrodict data validate flights new.csv --all --json",
])  # fmt: skip
expose(data, "history", "data.history",
       examples=["retrodict data history flights", "retrodict data history flights --limit 100"])  # fmt: skip
expose(data, "show", "data.show", ref=_REF, source=Parameter("NAME"), examples=[
    "retrodict data show flights", "retrodict data show flights@golden --limit 5",
    "retrodict data show flights --known-at 2024-03-01T08:00Z",
])  # fmt: skip
expose(data, "diff", "data.diff", hidden=["key"], before=Parameter("A", table_refs), after=Parameter("B", table_refs),
       rows=Parameter(type=click.IntRange(1)), examples=[
           "retrodict data diff flights@12 flights",
           "retrodict data diff flights@golden flights --output changes.parquet",
       ])  # fmt: skip
expose(data, "tag", "data.tag", ref=_REF, tag=Parameter("NAME", tag_names), examples=[
    "retrodict data tag flights@12 golden", "retrodict data tag flights@12 case-7 --hold",
    'retrodict data tag flights golden --remove --reason "wrong month"',
])  # fmt: skip
expose(data, "tags", "data.tags", table=Parameter("[TABLE]", tables), tag=Parameter("[NAME]", tag_names), examples=[
    "retrodict data tags", "retrodict data tags flights --at 2024-03-01T00:00Z", "retrodict data tags flights golden",
])  # fmt: skip
expose(data, "rollback", "data.rollback", to=Parameter("REF"), examples=[
    'retrodict data rollback flights --to 12 --reason "broken feed"',
    'retrodict data rollback flights --to golden --reason "as approved"',
])  # fmt: skip
expose(data, "compact", "data.compact", examples=["retrodict data compact flights"])


@command(data, "vacuum", examples=["retrodict data vacuum flights --dry-run",
                                   "retrodict data vacuum flights --older-than 30d --yes"])  # fmt: skip
@click.argument("table", metavar="TABLE", shell_complete=complete(tables))
@click.option("--older-than", default="7d", show_default=True, help="Age below which a version is kept in any case.")
@click.option("--dry-run", is_flag=True, help="Only say what would be deleted, and what keeps the rest.")
@click.option("--yes", is_flag=True, help="Delete without asking.")
def vacuum(session: CommandContext, table: str, older_than: str, dry_run: bool, yes: bool) -> Shown:
    """Delete the versions that no tag, hold, run, model or other thing refers to."""
    plan = session.project.data.vacuum(table, dry_run=True, older_than=older_than)
    if dry_run or not plan.files:
        return plan
    if not yes:
        if session.as_json or not sys.stdin.isatty():
            raise click.UsageError("Deleting versions is final: say --yes, or --dry-run to see what would go.")
        session.note(f"{len(plan.deleted)} versions of {table} can no longer be read afterwards.")
        click.confirm(f"Delete {plan.files:,} files?", abort=True, err=True)
    return session.project.data.vacuum(table, dry_run=False, older_than=older_than)


expose(data, "profile", "data.profile", lazy=True, rows=_ROWS, top=Parameter(type=click.IntRange(1)), examples=[
    "retrodict data profile flights", "retrodict data profile flights@3 --html flights.html",
    "retrodict data profile deliveries/*.csv --json",
])  # fmt: skip
expose(data, "suggest", "data.suggest", lazy=True, rows=_ROWS, examples=[
    "retrodict data suggest flights", "retrodict data suggest flights.csv.gz --output flights.py",
])  # fmt: skip
expose(data, "health", "data.health", examples=[
    "retrodict data health flights", "retrodict data health flights --history --html health.html",
])  # fmt: skip

quarantine = group(data, "quarantine", "Rows that checks set aside: look, repair, resubmit.")
expose(quarantine, "list", "data.quarantine.list", examples=["retrodict data quarantine list flights"])
expose(quarantine, "show", "data.quarantine.show", batch=Parameter("ID"), check=Parameter("TITLE"), examples=[
    "retrodict data quarantine show flights --limit 5",
    "retrodict data quarantine show flights --check 'not_null(origin)' --output repair.jsonl",
])  # fmt: skip
expose(quarantine, "resubmit", "data.quarantine.resubmit", rows=Parameter("[FILE]"), batch=Parameter("ID"), examples=[
    "retrodict data quarantine resubmit flights repair.jsonl", "retrodict data quarantine resubmit flights",
])  # fmt: skip
expose(data, "unpublished", "data.unpublished", examples=["retrodict data unpublished flights"])
expose(data, "release", "data.release", version=_VERSION,
       examples=["retrodict data release flights 3 --reason 'the airport was closed, checked'"])  # fmt: skip
expose(data, "drop", "data.drop", version=_VERSION,
       examples=["retrodict data drop flights 3 --reason 'a test file'"])  # fmt: skip


@command(data, "import-checks", project=False, examples=[
    "retrodict data import-checks suite.json",
    "retrodict data import-checks schema.yaml --table flights >> definitions.py",
])  # fmt: skip
@click.argument("file", metavar="FILE", type=click.Path(dir_okay=False))
@click.option("--format", "kind", type=click.Choice(["great-expectations", "pandera"]),
              help="What wrote it.  [default: seen from the file]")  # fmt: skip
@click.option("--table", metavar="NAME", help="Name of the table.  [default: the file's]")
def import_checks(
    session: CommandContext, file: str, kind: Literal["great-expectations", "pandera"] | None, table: str | None
) -> Shown:
    """Read a suite of Great Expectations or a schema of Pandera and print the table it defines.

    Definitions to paste go to standard output, what has no counterpart (and why) to standard error.
    """
    definition = Data.import_checks(file, format=kind, table=table)
    for remark in [] if session.as_json else definition.remarks():
        session.note(remark)
    return definition
