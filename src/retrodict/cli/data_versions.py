"""``retrodict data history, show, diff, tag, tags, rollback, compact, vacuum``: the versions of tables."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from retrodict.cli._command import Answer, Session, command
from retrodict.cli._text import count, facts, number, short_hash, table, when
from retrodict.cli._types import complete, instant, tables
from retrodict.cli.data import data

if TYPE_CHECKING:
    from retrodict.data.versions import Diff, VacuumResult
    from retrodict.stores.tables.base import TableVersion
    from retrodict.workspace import Workspace

_MODES = {"OPTIMIZE": "compact", "VACUUM": "vacuum", "RESTORE": "restore"}


def table_refs(project: Workspace) -> Iterable[str]:
    """Stored tables, and their tags as ``table@tag``."""
    from retrodict.data.versions import list_tags

    return [*project.tables.names(), *(f"{tag.dataset}@{tag.tag}" for tag in list_tags(project))]


def tag_names(project: Workspace) -> Iterable[str]:
    """Tags of all tables."""
    from retrodict.data.versions import list_tags

    return [tag.tag for tag in list_tags(project)]


@command(data, "history", examples=["retrodict data history flights", "retrodict data history flights --limit 100"])
@click.argument("name", metavar="TABLE", shell_complete=complete(tables))
@click.option("--limit", type=click.IntRange(1), default=20, show_default=True, help="Newest versions to list.")
def history(session: Session, name: str, limit: int) -> Answer:
    """List the versions of a table: how each was made, its tags, failed checks."""
    from retrodict.data.versions import list_tags, resolve

    project = session.project.workspace
    resolve(project, name)
    every = project.tables.history(name)
    tags: dict[int, list[str]] = {}
    for tag in list_tags(project, name):
        tags.setdefault(tag.version, []).append(f"{tag.tag} (hold)" if tag.hold else tag.tag)
    shown = every[-limit:]
    rows = [_version(project, name, version, tags.get(version.version, [])) for version in shown]
    listed = [
        (r["version"], when(v.time), r["mode"], r["rows_in"], r["accepted"], r["quarantined"], r["rows"],
         r["tags"], r["checks_failed"], r["schema"], short_hash(r["batch"]), r["origin"])
        for r, v in zip(rows, shown, strict=True)
    ]  # fmt: skip
    counted = ("rows in>", "accepted>", "quarantined>", "total>")
    columns = ("version>", "written", "mode", *counted, "tags", "failed checks", "schema", "batch", "from")
    text: list[Any] = [table(columns, listed)]
    if len(every) > limit:
        text.append(f"{count(len(every) - limit)} older versions are not listed; --limit shows more.")
    return Answer({"table": name, "total": len(every), "versions": rows}, text)


def _version(project: Workspace, name: str, version: TableVersion, tags: list[str]) -> dict[str, Any]:
    from retrodict.core.clock import format_time

    said = {key.removeprefix("retrodict."): value for key, value in version.metadata.items()}
    counts = {key: int(said[key]) if key in said else None for key in ("rows_in", "accepted", "quarantined")}
    rows = sum(file.rows for file in project.tables.files(name, version.version))
    return {
        "version": version.version,
        "time": format_time(version.time),
        "mode": said.get("mode") or _MODES.get(version.operation, "write"),
        "vacuumed": version.vacuumed,
        "rows": rows,
        **counts,
        "tags": tags,
        "checks_failed": _failed(said.get("checks", "[]")),
        "schema": _schema_changes(project, name, version.version),
        "batch": said.get("batch"),
        "origin": said.get("origin"),
        "restored": int(said["restored"]) if said.get("restored", "").isdecimal() else None,
        "reason": said.get("reason"),
    }


def _failed(text: str) -> list[str]:
    try:
        found = json.loads(text)
    except ValueError:
        return []
    return [one["check"] for one in found if isinstance(one, dict) and one.get("status") == "fail"]


def _schema_changes(project: Workspace, name: str, version: int) -> list[str]:
    """Changes against the version before it, as ``+added``, ``-removed``, ``column: int32 > int64``."""
    from retrodict.core.errors import NotFoundError
    from retrodict.data.versions.diff import schema_changes

    if version == 0:
        return []
    try:
        before = project.tables.schema(name, version - 1)
    except NotFoundError:
        return []
    signs = {"added": "+", "removed": "-"}
    return [
        signs[change.change] + change.column
        if change.change in signs
        else f"{change.column}: {change.before} > {change.after}"
        for change in schema_changes(before, project.tables.schema(name, version))
    ]


@command(data, "show", examples=["retrodict data show flights", "retrodict data show flights@golden --limit 5",
                                 "retrodict data show flights --known-at 2024-03-01T08:00Z"])  # fmt: skip
@click.argument("ref", metavar="TABLE[@REF]", shell_complete=complete(table_refs))
@click.option("--limit", type=click.IntRange(1), default=10, show_default=True, help="Rows to show.")
@click.option("--known-at", metavar="TIME", callback=instant, help="Only rows that were known before this time.")
@click.option("--source", metavar="NAME", help="Source whose clock --known-at uses, where a table has several.")
def show(session: Session, ref: str, limit: int, known_at: int | None, source: str | None) -> Answer:
    """Show the columns and first rows of a table; REF is a version, a tag, or a time."""
    import pyarrow as pa

    from retrodict.data.versions import read_batches, resolve

    project = session.project.workspace
    found = resolve(project, ref)
    reader = read_batches(project, str(found), known_at=known_at, source=source)
    kept, head = 0, []
    for batch in reader:
        if kept < limit:
            head.append(batch.slice(0, limit - kept))
        kept += batch.num_rows
        if known_at is None and kept >= limit:
            break
    if known_at is None:
        kept = sum(file.rows for file in project.tables.files(found.name, found.version))
    columns = {field.name: str(field.type) for field in reader.schema}
    first = _plain_rows(pa.Table.from_batches(head, schema=reader.schema))
    shown = [
        facts({"table": found.short, "rows": kept}),
        table(("column", "type"), columns.items()),
        table(list(columns), [list(row.values()) for row in first], title=f"first {len(first)} rows"),
    ]
    answer = {"table": found.name, "version": found.version, "rows": kept, "columns": columns, "head": first}
    return Answer(answer, shown)


def _plain_rows(rows: Any) -> list[dict[str, Any]]:
    """Rows as JSON would have them: times as ISO 8601."""
    found: list[dict[str, Any]] = rows.to_pylist()
    return [{name: _cell(value) for name, value in row.items()} for row in found]


def _cell(value: Any) -> Any:
    return value.isoformat().replace("+00:00", "Z") if hasattr(value, "isoformat") else value


@command(data, "diff", examples=["retrodict data diff flights@12 flights",
                                 "retrodict data diff flights@golden flights --output changes.parquet"])  # fmt: skip
@click.argument("before", metavar="A", shell_complete=complete(table_refs))
@click.argument("after", metavar="B", shell_complete=complete(table_refs))
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
              help="Write the differences to a .parquet or .csv file.")  # fmt: skip
@click.option("--rows", type=click.IntRange(1), help="Most differences that the file gets; all by default.")
@click.option("--memory", default="1.5GB", show_default=True, help="Limit of memory; beyond it, files are used.")
def show_diff(session: Session, before: str, after: str, output: Path | None, rows: int | None, memory: str) -> Answer:
    """Compare two versions: schema, rows added, removed, changed by key, statistics."""
    from retrodict.data.versions import diff

    with session.progress(f"diff {before} {after}"):
        found = diff(session.project.workspace, before, after, output=output, rows=rows, memory=memory)
    answer = found.to_dict()
    answer["sample"] = [_plain_sample(one) for one in answer["sample"]]
    return Answer(answer, _differences(found))


def _plain_sample(one: dict[str, Any]) -> dict[str, Any]:
    return {name: {k: _cell(v) for k, v in value.items()} if isinstance(value, dict) else value
            for name, value in one.items()}  # fmt: skip


def _differences(found: Diff) -> list[Any]:
    head = f"{found.before.short} -> {found.after.short}"
    if found.same:
        return [f"{head}: the same {count(found.rows[0])} rows, {found.by}."]
    shown: list[Any] = [
        f"{head}, {found.by}",
        facts({
            "rows": f"{count(found.rows[0])} -> {count(found.rows[1])}",
            "added": found.added, "removed": found.removed, "changed": found.changed,
            "repeated keys": found.repeated_keys or None,
            "not compared": ", ".join(found.not_compared) or None,
            "written to": found.output,
        }),
    ]  # fmt: skip
    if found.schema:
        rows = [(c.column, c.change, c.before, c.after) for c in found.schema]
        shown += ["", table(("column", "change", "before", "after"), rows, title="schema")]
    by_column = {name: n for name, n in found.changed_by_column.items() if n}
    if by_column:
        ranked = sorted(by_column.items(), key=lambda item: -item[1])
        shown += ["", table(("column", "changed rows>"), ranked, title="changes by column")]
    if found.moved:
        shown += ["", _moved(found)]
    if found.sample:
        rows = [_sampled(_plain_sample(one)) for one in found.sample]
        shown += ["", table(("change", "row", "columns"), rows, title="first differences")]
    return shown


def _moved(found: Diff) -> Any:
    def pair(values: tuple[float | None, float | None] | tuple[int, int] | None) -> str:
        return "-" if values is None else " -> ".join(
            count(value) if isinstance(value, int) else number(value) for value in values
        )  # fmt: skip

    rows = [
        (one.column, one.moved, pair(one.nulls), pair(one.mean), pair(one.std), pair(one.distinct), one.psi)
        for one in found.moved
    ]
    return table(("column", "moved", "nulls", "mean", "std", "distinct", "psi>"), rows, title="statistics that moved")


def _sampled(one: dict[str, Any]) -> tuple[Any, ...]:
    named = one.get("key") or one.get("row") or {}
    text = ", ".join(f"{name}={'null' if value is None else value}" for name, value in named.items())
    return one["change"], text if one.get("count", 1) == 1 else f"{text} ({one['count']} times)", one.get("columns")


@command(data, "tag", examples=["retrodict data tag flights@12 golden", "retrodict data tag flights@12 case-7 --hold",
                                'retrodict data tag flights golden --remove --reason "wrong month"'])  # fmt: skip
@click.argument("ref", metavar="TABLE[@REF]", shell_complete=complete(table_refs))
@click.argument("tag", metavar="NAME", shell_complete=complete(tag_names))
@click.option("--hold", is_flag=True, help="Make it a legal hold: not moved or removed without --release.")
@click.option("--remove", is_flag=True, help="Let the name mean nothing from now on.")
@click.option("--release", is_flag=True, help="Give up the legal hold that the tag is.")
@click.option("--reason", default="", help="Why, for the ledger; needed to remove a tag and to release a hold.")
def tag_version(session: Session, ref: str, tag: str, hold: bool, remove: bool, release: bool, reason: str) -> Answer:
    """Name a version; a tag is moved by naming another one, and no vacuum deletes it."""
    from retrodict.data.versions import remove_tag, resolve, set_tag

    if remove and hold:
        raise click.UsageError("--remove and --hold exclude each other.")
    project = session.project.workspace
    if remove:
        change = remove_tag(project, resolve(project, ref).name, tag, reason=reason, release=release)
        return Answer(change.to_dict(), f"{change.dataset}@{tag} is no tag any more; it meant {change.version}.")
    change = set_tag(project, ref, tag, hold=hold, release=release, reason=reason)
    kind = "is a legal hold on" if change.hold else "means"
    return Answer(change.to_dict(), f"{change.dataset}@{tag} {kind} {change.dataset}@{change.version}.")


@command(data, "tags", examples=["retrodict data tags", "retrodict data tags flights --at 2024-03-01T00:00Z",
                                 "retrodict data tags flights golden"])  # fmt: skip
@click.argument("name", metavar="[TABLE]", required=False, shell_complete=complete(tables))
@click.argument("tag", metavar="[NAME]", required=False, shell_complete=complete(tag_names))
@click.option("--at", metavar="TIME", callback=instant, help="What the tags meant at this time.")
def tags(session: Session, name: str | None, tag: str | None, at: int | None) -> Answer:
    """List tags and legal holds, as they are or were; with NAME, every change of one."""
    from retrodict.data.versions import list_tags, tag_history

    if name is not None and tag is not None:
        found = [one for one in tag_history(session.project.workspace, name, tag) if at is None or one.time <= at]
    else:
        found = list_tags(session.project.workspace, name, at=at)
    rows = [(f"{t.dataset}@{t.tag}", t.version, t.hold, t.action, when(t.time), t.actor, t.reason) for t in found]
    shown = (
        table(("tag", "version>", "hold", "change", "since", "by", "reason"), rows) if rows else "There are no tags."
    )
    return Answer({"tags": [one.to_dict() for one in found]}, shown)


@command(data, "rollback", examples=['retrodict data rollback flights --to 12 --reason "broken feed"',
                                     'retrodict data rollback flights --to golden --reason "as approved"'])  # fmt: skip
@click.argument("name", metavar="TABLE", shell_complete=complete(tables))
@click.option("--to", metavar="REF", required=True, help="Older version, tag, or time.")
@click.option("--reason", required=True, help="Why, for the ledger.")
def roll_back(session: Session, name: str, to: str, reason: str) -> Answer:
    """Make a new version with the content of an older one; nothing is deleted."""
    from retrodict.data.versions import rollback

    report = rollback(session.project.workspace, name, to, reason)
    rows = f"the {count(report.rows)} rows of {name}@{report.to}"
    if report.already:
        return Answer(report.to_dict(), f"{name}@{report.version} has {rows} already; nothing was written.")
    return Answer(report.to_dict(), f"{name}@{report.version} has {rows}.")


@command(data, "compact", examples=["retrodict data compact flights"])
@click.argument("name", metavar="TABLE", shell_complete=complete(tables))
def compact_table(session: Session, name: str) -> Answer:
    """Write the newest rows into fewer files; older versions stay readable."""
    from retrodict.data.versions import compact

    with session.progress(f"compact {name}"):
        report = compact(session.project.workspace, name)
    if report.version is None:
        return Answer(report.to_dict(), f"{name} has {report.files_before} files: there is nothing to gain.")
    files = f"{report.files_before} -> {report.files_after} files"
    return Answer(report.to_dict(), f"{name}@{report.version}: {count(report.rows)} rows, {files}.")


@command(data, "vacuum", examples=["retrodict data vacuum flights --dry-run",
                                   "retrodict data vacuum flights --older-than 30d --yes"])  # fmt: skip
@click.argument("name", metavar="TABLE", shell_complete=complete(tables))
@click.option("--older-than", default="7d", show_default=True, help="Age below which a version is kept in any case.")
@click.option("--dry-run", is_flag=True, help="Only say what would be deleted, and what keeps the rest.")
@click.option("--yes", is_flag=True, help="Delete without asking.")
def vacuum_table(session: Session, name: str, older_than: str, dry_run: bool, yes: bool) -> Answer:
    """Delete the versions that no tag, hold, run, model or other thing refers to."""
    from retrodict.data.versions import vacuum

    project = session.project.workspace
    plan = vacuum(project, name, dry_run=True, older_than=older_than)
    if dry_run or not plan.files:
        return Answer(plan.to_dict(), _vacuumed(plan))
    if not yes:
        if session.as_json or not sys.stdin.isatty():
            raise click.UsageError("Deleting versions is final: say --yes, or --dry-run to see what would go.")
        session.note(f"{len(plan.deleted)} versions of {name} can no longer be read afterwards.")
        click.confirm(f"Delete {count(plan.files)} files?", abort=True, err=True)
    done = vacuum(project, name, dry_run=False, older_than=older_than)
    return Answer(done.to_dict(), _vacuumed(done))


def _vacuumed(found: VacuumResult) -> list[Any]:
    word = "would be deleted" if found.dry_run else "deleted"
    if not found.files:
        head = f"{found.table}: every version is kept; there is nothing to delete."
    else:
        size = f"{count(found.files)} files, {found.bytes / 1e6:,.1f} MB"
        head = f"{found.table}: {len(found.deleted)} versions, {size} {word}."
    rows = [(use.version, "kept" if use.retained else "ended", use.holders) for use in found.versions]
    return [head, table(("version>", "state", "because of"), rows)]
