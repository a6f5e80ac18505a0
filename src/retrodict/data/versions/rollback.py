"""Going back: the content of an older version becomes the newest one. Nothing is deleted, and the way is on record.

Which batches a table holds now follows from the modes of its versions, read backwards: an append or update adds
its batch, an overwrite is all there is, a restore goes on at the version it put back, and a compaction or vacuum
changes no row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from retrodict.core.display import Block, Shown, count
from retrodict.core.errors import InputError, IntegrityError, check_reason
from retrodict.data.versions.refs import added_digests, log_digest, log_path, resolve, table_history
from retrodict.stores.tables.base import TableStore, TableVersion
from retrodict.workspace import Workspace

__all__ = ["RollbackReport", "live_batches", "rollback"]

BATCH, MODE, REASON, RESTORED = "retrodict.batch", "retrodict.mode", "retrodict.reason", "retrodict.restored"

_SAME_ROWS, _SAME_ROWS_OPERATIONS = ("compact", "vacuum", "rewrite"), ("OPTIMIZE", "VACUUM", "REWRITE")
_ACTIONS = {"restore": "dataset.rollback", "compact": "dataset.compact", "vacuum": "dataset.vacuumed",
            "rewrite": "dataset.rewrite"}  # fmt: skip


@dataclass(frozen=True, slots=True, repr=False)
class RollbackReport(Shown):
    """What a rollback did.

    Attributes
    ----------
    table : str
    version : int
        The newest version now.
    to : int
        The version whose content it has.
    rows : int
    already : bool
        True if the newest version had that content before, and none was made.
    """

    table: str
    version: int
    to: int
    rows: int
    already: bool

    def to_dict(self) -> dict[str, Any]:
        """Plain form for ``--json``."""
        return {
            "dataset": f"dataset:{self.table}@{self.version}",
            "to": f"dataset:{self.table}@{self.to}",
            "rows": self.rows,
            "already": self.already,
        }

    def blocks(self) -> Sequence[Block | None]:
        """One sentence."""
        rows = f"{self.table}@{self.version} has the {count(self.rows)} rows of {self.table}@{self.to}"
        return [f"{rows} already; nothing was written." if self.already else f"{rows}."]


def live_batches(tables: TableStore, name: str) -> dict[str, int]:
    """Batches that the newest version holds, each with the version that brought it.

    Parameters
    ----------
    tables : TableStore
    name : str
        Name of the table; one that does not exist holds none.

    Returns
    -------
    dict of str to int
        Batch id to version, the newest first. A batch that was replaced or rolled back is not in it.

    Raises
    ------
    IntegrityError
        If a restored version does not say what it restored.
    """
    history = {version.version: version for version in tables.history(name)}
    batches: dict[str, int] = {}
    at: int | None = max(history, default=None)
    while at is not None and at in history:
        version, mode = history[at], history[at].metadata.get(MODE)
        if mode == "restore":
            at = _restored(name, version)
            continue
        if mode not in _SAME_ROWS and (batch := version.metadata.get(BATCH)) is not None:
            batches.setdefault(batch, version.version)
        at = None if mode == "overwrite" else version.version - 1
    return batches


def content_version(name: str, history: list[TableVersion], version: int) -> int:
    """Oldest version that is known to hold the same rows as a version, by what their writers said."""
    by_number = {one.version: one for one in history}
    while True:
        one = by_number[version]
        if one.metadata.get(MODE) == "restore":
            version = _restored(name, one)
        elif one.metadata.get(MODE) in _SAME_ROWS or one.operation in _SAME_ROWS_OPERATIONS:
            version -= 1
        else:
            return version


def _restored(name: str, version: TableVersion) -> int:
    text = version.metadata.get(RESTORED, "")
    if not text.isdecimal() or int(text) >= version.version:
        raise IntegrityError(
            "a restored version must say which older one it restored",
            where=f"dataset:{name}@{version.version}",
            got=text,
            remedy="Restore versions with: retrodict data rollback",
        )
    return int(text)


def rollback(workspace: Workspace, table: str, to: str | int, reason: str) -> RollbackReport:
    """Make a new version with the content of an older one.

    Parameters
    ----------
    workspace : Workspace
    table : str
        Name of the table.
    to : str or int
        The older version: a number, a tag, a time, or a whole reference like ``flights@golden``.
    reason : str
        Why, for the ledger; not empty.

    Returns
    -------
    RollbackReport
        ``already`` if the newest version has that content: nothing is written then.

    Raises
    ------
    NotFoundError
        If there is no such table or version, or it was vacuumed.
    BusyError
        If another process writes the table for longer than a minute.
    """
    text = check_reason(reason, "a rollback must have a reason", where=f"dataset:{table}")
    table_history(workspace.tables, table)
    with workspace.lock(f"ingest/{table}"):
        complete_ledger(workspace, table)
        history = workspace.tables.history(table)
        newest, target = history[-1].version, _wanted(workspace, table, to)
        already = content_version(table, history, newest) == content_version(table, history, target)
        if not already:
            workspace.tables.files(table, target)
            metadata = {MODE: "restore", RESTORED: str(target), REASON: text}
            newest = workspace.tables.restore(table, target, metadata=metadata)
            complete_ledger(workspace, table)
        rows = sum(file.rows for file in workspace.tables.files(table, newest))
        return RollbackReport(table, newest, target, rows, already)


def _wanted(workspace: Workspace, table: str, to: str | int) -> int:
    text = str(to)
    reference = text if "@" in text or text.startswith("dataset:") else f"{table}@{text}"
    ref = resolve(workspace, reference)
    if ref.name != table:
        raise InputError(
            "a table must be rolled back to a version of its own",
            where=f"dataset:{table}",
            got=text,
            remedy=f"Write it like '{table}@{ref.version}'",
        )
    return ref.version


def complete_ledger(workspace: Workspace, table: str) -> None:
    """Append the entries of versions that bring no rows and have none: whoever made them may have been killed."""
    history = workspace.tables.history(table)
    for version in history:
        mode = "vacuum" if version.operation == "VACUUM" else version.metadata.get(MODE, "")
        action = _ACTIONS.get(mode)
        name = f"dataset:{table}@{version.version}"
        if action is None or workspace.ledger.entries(object_id=name, action=action):
            continue
        payload, inputs = _facts(workspace, table, version)
        with workspace.ledger.transaction() as tx:
            if not tx.has(action, name):
                tx.append(action, name, payload, inputs=inputs)
    workspace.ledger.sign_end()


def _facts(workspace: Workspace, table: str, version: TableVersion) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    tables, number = workspace.tables, version.version
    facts: dict[str, Any] = {"rows": sum(file.rows for file in tables.files(table, number))}
    if version.metadata.get(MODE) == "restore":
        restored = _restored(table, version)
        facts |= {"to": f"dataset:{table}@{restored}", "reason": version.metadata.get(REASON, "")}
        facts["files"] = {log_path(table, number): log_digest(tables, table, number)}
        return facts, [(f"dataset:{table}@{restored}", "restored version")]
    facts["files"] = added_digests(tables, table, number)
    if version.metadata.get(MODE) == "rewrite":
        facts |= {"reason": version.metadata.get(REASON, ""), **_replaced_files(tables, table, number)}
        facts["files"] |= {file["file"]: file["is"] for file in facts["rewritten"].values()}
    return facts, [(f"dataset:{table}@{number - 1}", "previous version")]


def _replaced_files(tables: TableStore, table: str, number: int) -> dict[str, Any]:
    """Which versions a rewrite took rows out of, and each file before and after by its hash; both are still there."""
    history = tables.history(table)
    versions = [version.version for version in history if number in version.rewritten]
    log = tables.log_entries(table)
    earlier = {file.path: file.removed for entry in log[:number] for file in entry.replaced.values()}
    rewritten = {}
    for old, new in log[number].replaced.items():
        rows = [new.rows + new.removed - earlier.get(old, 0), new.rows]
        was, now = tables.file_digest(f"{table}/{old}"), tables.file_digest(f"{table}/{new.path}")
        rewritten[f"{table}/{old}"] = {"file": f"{table}/{new.path}", "was": was, "is": now, "rows": rows}
    return {"versions": versions, "rewritten": rewritten, "deleted": sorted(rewritten)}
