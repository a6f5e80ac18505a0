"""Versions that stay although rows had to leave them: what was trained on them keeps its reference, and says so.

A version that runs, frames or tags refer to cannot be deleted without taking that away, and cannot keep the rows of
somebody who has the right to be erased. So its files are replaced by such without those rows; the ledger names both by
their hash, who did it and why.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from retrodict.core.clock import format_time
from retrodict.core.errors import check_reason
from retrodict.data.versions.refs import list_tags, table_history
from retrodict.data.versions.rollback import MODE, REASON, complete_ledger
from retrodict.data.versions.tags import tag_lock
from retrodict.ledger.chain import Entry
from retrodict.stores.tables.base import Belongs
from retrodict.workspace import Workspace

__all__ = ["Rewriting", "loss_of", "rewrite"]


@dataclass(frozen=True, slots=True)
class Rewriting:
    """Versions without rows that they had.

    Attributes
    ----------
    table : str
    versions : tuple of int
        Those that rows were taken out of.
    rows : int
        Rows taken out of files; versions share files, so each counts once for all of them.
    holds : tuple of int
        Versions under a legal hold, which were not looked at.
    """

    table: str
    versions: tuple[int, ...]
    rows: int
    holds: tuple[int, ...]


def rewrite(
    workspace: Workspace, table: str, belongs: Belongs, *, columns: Sequence[str], reason: str, lock: str | None = None
) -> Rewriting:
    """Take rows out of every version that can be read and is under no legal hold, then delete the files that had them.

    The ledger gets an entry that names each file before and after by its hash, before any is deleted; what was killed
    is completed by the same call.

    Parameters
    ----------
    workspace : Workspace
    table : str
    belongs : callable
        Which rows of a batch go.
    columns : sequence of str
        What it looks at.
    reason : str
        Why, for the ledger; replays of what was made from the versions repeat it.
    lock : str, optional
        Table whose writers write this one; by default its own.

    Raises
    ------
    NotFoundError
        If there is no such table.
    BusyError
        If another process writes the table or its tags for longer than a minute.
    """
    text = check_reason(reason, "rewriting a version must have a reason", where=f"dataset:{table}")
    table_history(workspace.tables, table)
    with workspace.lock(f"ingest/{lock or table}"), tag_lock(workspace, table):
        complete_ledger(workspace, table)
        holds = sorted({tag.version for tag in list_tags(workspace, table) if tag.hold})
        metadata = {MODE: "rewrite", REASON: text}
        number = workspace.tables.rewrite(table, belongs, columns=columns, spare=holds, metadata=metadata)
        complete_ledger(workspace, table)
        history = workspace.tables.history(table)
        readable = [version.version for version in history if not version.vacuumed]
        workspace.tables.vacuum(table, keep=readable)  # the replaced files, which no version needs
    versions = tuple(version.version for version in history if number in version.rewritten)
    entry = None if number is None else _entry(workspace, table, number)
    replaced = {} if entry is None else entry.payload["rewritten"]
    rows = sum(file["rows"][0] - file["rows"][1] for file in replaced.values())
    return Rewriting(table, versions, rows, tuple(holds))


def _entry(workspace: Workspace, table: str, version: int) -> Entry | None:
    entries = workspace.ledger.entries(object_id=f"dataset:{table}@{version}", action="dataset.rewrite")
    return entries[0] if entries else None


def loss_of(workspace: Workspace, table: str, version: int) -> str:
    """What a version of a table does not hold any more, by whom and why; empty if it is as it was written."""
    history = workspace.tables.history(table)
    if not 0 <= version < len(history):
        return ""
    if history[version].vacuumed:
        return _deletion(workspace, table, version)
    losses = []
    for number in history[version].rewritten:
        entry = _entry(workspace, table, number)
        details = "" if entry is None else f" (entry {entry.sequence}, {entry.actor})"
        reason = history[number].metadata.get(REASON, "no reason was noted")
        losses.append(f"{table}@{version}, which was read, was rewritten without a subject on "
                      f"{format_time(history[number].time)} because: {reason}{details}")  # fmt: skip
    return "; ".join(losses)


def _deletion(workspace: Workspace, table: str, version: int) -> str:
    entries = workspace.ledger.entries(object_id=f"dataset:{table}", action="dataset.vacuum")
    entry = next((entry for entry in entries if version in _numbers(entry.payload.get("versions"))), None)
    details = "" if entry is None else f" (entry {entry.sequence}, {entry.actor}, {format_time(entry.time)})"
    erasures = [e.sequence for e in workspace.ledger.entries(action="dataset.erase")
                if e.object_id.startswith(f"dataset:{table}@")]  # fmt: skip
    subjects = f"; subjects were erased from the table (entry {max(erasures)})" if erasures else ""
    return f"{table}@{version}, which was read, was deleted by a vacuum{details}{subjects}"


def _numbers(value: Any) -> list[int]:
    return value if isinstance(value, list) else []
