"""``data quarantine`` and ``data unpublished``: rows and batches that checks held back, and the way on from there."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from retrodict.cli._command import Answer, Session, command, group
from retrodict.cli._text import count, short_hash, table
from retrodict.cli._types import complete, tables
from retrodict.cli.data import _ingested as ingested
from retrodict.cli.data import data

if TYPE_CHECKING:
    import pyarrow as pa

quarantine = group(data, "quarantine", "Rows that checks set aside: look, repair, resubmit.")
_TABLE = click.argument("name", metavar="TABLE", shell_complete=complete(tables))


@command(quarantine, "list", examples=["retrodict data quarantine list flights"])
@_TABLE
def list_batches(session: Session, name: str) -> Answer:
    """List the batches that have rows in quarantine, and why."""
    from dataclasses import asdict

    from retrodict.data.quarantine import quarantined_batches

    found = quarantined_batches(session.project.workspace, name)
    answer: dict[str, Any] = {
        "table": name,
        "rows": sum(each.rows for each in found),
        "waiting": sum(each.waiting for each in found),
        "batches": [asdict(each) for each in found],
    }
    if not found:
        return Answer(answer, f"No row of {name} was ever set aside.")
    shown = table(
        ("batch", "set aside", "rows>", "waiting>", "checks", "from"),
        [
            (
                short_hash(each.batch),
                each.time,
                each.rows,
                each.waiting,
                [f"{check}: {count(rows)}" for check, rows in each.reasons.items()],
                each.origin,
            )
            for each in found
        ],
    )
    return Answer(answer, [f"{count(answer['waiting'])} rows of {name} are waiting in quarantine", shown])


@command(
    quarantine,
    "show",
    examples=[
        "retrodict data quarantine show flights --limit 5",
        "retrodict data quarantine show flights --check 'not_null(origin)' --output repair.jsonl",
    ],
)
@_TABLE
@click.option("--batch", metavar="ID", help="Only rows of this batch; the beginning of its id is enough.")
@click.option("--check", metavar="TITLE", help="Only rows that failed this check.")
@click.option("--limit", type=click.IntRange(1), default=10, show_default=True, help="Rows to show.")
@click.option(
    "--output", type=click.Path(dir_okay=False, path_type=Path), help="Write all of them as JSON lines to repair."
)
def show_rows(
    session: Session, name: str, batch: str | None, check: str | None, limit: int, output: Path | None
) -> Answer:
    """Show rows that are waiting in quarantine, with the values they came with.

    With --output they are written as JSON lines: correct the values, keep _batch and _row, and resubmit the file.
    """
    from retrodict.data.definitions import Table
    from retrodict.data.quarantine import quarantined_rows

    session.project.workspace.definitions.get(Table, name)
    rows = quarantined_rows(session.project.workspace, name, batch=batch, check=check)
    if output is not None:
        _write(rows, output)
    head = [_plain(row) for row in rows.slice(max(0, rows.num_rows - limit)).to_pylist()]
    answer: dict[str, Any] = {"table": name, "rows": rows.num_rows, "head": head}
    if output is not None:
        answer["output"] = str(output)
        return Answer(answer, f"{count(rows.num_rows)} rows are in {output}; repair them, then: "
                      f"retrodict data quarantine resubmit {name} {output}")  # fmt: skip
    if not rows.num_rows:
        return Answer(answer, f"No row of {name} is waiting in quarantine.")
    shown = table(
        ("from", "row>", "checks", "original"),
        [(each["origin"], each["row"], each["checks"], each["original"]) for each in head],
        title=f"last {len(head)} of {count(rows.num_rows)} rows",
    )
    return Answer(answer, shown)


def _write(rows: pa.Table, output: Path) -> None:
    import json

    with output.open("w", encoding="utf-8") as stream:
        for row in rows.to_pylist():
            marks = {"_batch": row["batch"], "_row": row["row"], "_checks": row["checks"]}
            stream.write(json.dumps({**marks, **json.loads(row["original"])}, ensure_ascii=False) + "\n")


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    return {**row, "time": row["time"].isoformat().replace("+00:00", "Z")}


@command(
    quarantine,
    "resubmit",
    examples=["retrodict data quarantine resubmit flights repair.jsonl", "retrodict data quarantine resubmit flights"],
)
@_TABLE
@click.argument("file", metavar="[FILE]", required=False)
@click.option("--batch", metavar="ID", help="Without a file: only the rows of this batch.")
def resubmit_rows(session: Session, name: str, file: str | None, batch: str | None) -> Answer:
    """Take repaired rows through the checks again, or the originals after a check was changed.

    What fails again is set aside again, under the new batch.
    """
    from retrodict.core.errors import InputError
    from retrodict.data.quarantine import resubmit

    if file is not None and batch is not None:
        raise InputError("a file says itself which rows it repairs", where="--batch", remedy="Leave one of the two out")
    report = resubmit(session.project.workspace, name, file, batch=batch)
    return Answer(report.to_dict(), ingested(report))


@command(data, "unpublished", examples=["retrodict data unpublished flights"])
@_TABLE
def list_unpublished(session: Session, name: str) -> Answer:
    """List the batches that a critical or high check halted.

    Their rows can be looked at with: retrodict data show TABLE__unpublished@V
    """
    from retrodict.data.definitions import Table
    from retrodict.data.unpublished import unpublished_batches

    session.project.workspace.definitions.get(Table, name)
    found = unpublished_batches(session.project.workspace, name)
    answer = {"table": name, "batches": [each.to_dict() for each in found]}
    if not found:
        return Answer(answer, f"No batch of {name} was ever halted.")
    shown = table(
        ("version>", "state", "rows>", "batch", "from", "halted by"),
        [
            (each.version, each.state, each.rows, short_hash(each.batch), each.origin,
             [f"{check}: {why}" for check, why in each.failed.items()])
            for each in found
        ],
    )  # fmt: skip
    return Answer(answer, shown)


_VERSION = click.argument("version", metavar="V", type=click.IntRange(0))


@command(data, "release", examples=["retrodict data release flights 3 --reason 'the airport was closed, checked'"])
@_TABLE
@_VERSION
@click.option("--reason", required=True, help="Why it is published in spite of its checks; kept in the ledger.")
def release_batch(session: Session, name: str, version: int, reason: str) -> Answer:
    """Publish a halted batch (V of 'data unpublished') in spite of its checks."""
    from retrodict.data.unpublished import release

    report = release(session.project.workspace, name, version, reason=reason)
    return Answer(report.to_dict(), ingested(report))


@command(data, "drop", examples=["retrodict data drop flights 3 --reason 'a test file'"])
@_TABLE
@_VERSION
@click.option("--reason", required=True, help="Why it will not be published; kept in the ledger.")
def drop_batch(session: Session, name: str, version: int, reason: str) -> Answer:
    """Decide that a halted batch (V of 'data unpublished') will not be published."""
    from retrodict.data.unpublished import drop

    found = drop(session.project.workspace, name, version, reason=reason)
    return Answer(found.to_dict(), f"{name}__unpublished@{version} is dropped; its rows stay until a vacuum.")
