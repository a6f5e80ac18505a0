"""What is kept: compaction loses nothing, and a vacuum deletes only what nothing refers to.

Who refers to a version is read in the ledger, where every room says what its things were made from, and in the tags.
This room knows no other by name: what was made from a version holds it, whatever it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select

from retrodict.core.clock import SystemClock
from retrodict.core.display import Block, Grid, Shown, count
from retrodict.core.durations import parse_duration
from retrodict.core.errors import RetryableError
from retrodict.data.versions.refs import list_tags, table_history
from retrodict.data.versions.rollback import MODE, complete_ledger
from retrodict.data.versions.tags import tag_lock
from retrodict.ledger.schema import edges
from retrodict.stores.tables.base import TableVersion, VacuumReport
from retrodict.workspace import Workspace

__all__ = ["CompactReport", "VacuumResult", "VersionUse", "compact", "references", "vacuum"]

_SHOWN = ("model:", "policy:")


@dataclass(frozen=True, slots=True, repr=False)
class CompactReport(Shown):
    """What a compaction did; ``version`` is None if there was nothing to gain."""

    table: str
    version: int | None
    rows: int
    files_before: int
    files_after: int
    bytes_before: int
    bytes_after: int

    def to_dict(self) -> dict[str, Any]:
        """Plain form for ``--json``."""
        return {
            "dataset": None if self.version is None else f"dataset:{self.table}@{self.version}",
            "table": self.table,
            "rows": self.rows,
            "files": {"before": self.files_before, "after": self.files_after},
            "bytes": {"before": self.bytes_before, "after": self.bytes_after},
        }

    def blocks(self) -> Sequence[Block | None]:
        """One sentence."""
        if self.version is None:
            return [f"{self.table} has {self.files_before} files: there is nothing to gain."]
        files = f"{self.files_before} -> {self.files_after} files"
        return [f"{self.table}@{self.version}: {count(self.rows)} rows, {files}."]


@dataclass(frozen=True, slots=True)
class VersionUse:
    """One version in a vacuum.

    Attributes
    ----------
    version : int
    retained : bool
        Whether it can be read afterwards.
    holders : tuple of str
        What keeps it: tags, holds, things made from it, its age; empty if nothing does.
    """

    version: int
    retained: bool
    holders: tuple[str, ...]


@dataclass(frozen=True, slots=True, repr=False)
class VacuumResult(Shown):
    """What a vacuum deleted, or would delete.

    Attributes
    ----------
    table : str
    dry_run : bool
    older_than : str
        Versions younger than this were kept.
    versions : tuple of VersionUse
        Every version of the table, oldest first.
    deleted : tuple of int
        Versions that this vacuum makes unreadable.
    files, bytes : int
        Deleted data files.
    """

    table: str
    dry_run: bool
    older_than: str
    versions: tuple[VersionUse, ...]
    deleted: tuple[int, ...]
    files: int
    bytes: int

    def to_dict(self) -> dict[str, Any]:
        """Plain form for ``--json``."""
        uses = [{"version": use.version, "kept": use.retained, "holders": list(use.holders)} for use in self.versions]
        return Shown.to_dict(self) | {"versions": uses}

    def blocks(self) -> Sequence[Block | None]:
        """What is deleted, and what keeps the rest."""
        word = "would be deleted" if self.dry_run else "deleted"
        size = f"{count(self.files)} files, {self.bytes / 1e6:,.1f} MB"
        head = f"{len(self.deleted)} versions, {size} {word}."
        if not self.files:
            head = "every version is kept; there is nothing to delete."
        rows = [(use.version, "kept" if use.retained else "ended", use.holders) for use in self.versions]
        return [f"{self.table}: {head}", Grid(("version>", "state", "because of"), rows)]


def compact(workspace: Workspace, table: str) -> CompactReport:
    """Write the rows of the newest version into fewer files, as a new version; older ones stay as they are.

    Raises
    ------
    NotFoundError
        If there is no such table.
    BusyError
        If another process writes the table for longer than a minute.
    """
    table_history(workspace.tables, table)
    with workspace.lock(f"ingest/{table}"):
        complete_ledger(workspace, table)
        before = workspace.tables.files(table)
        version = workspace.tables.compact(table, metadata={MODE: "compact"})
        after = before if version is None else workspace.tables.files(table, version)
        complete_ledger(workspace, table)
    return CompactReport(
        table,
        version,
        sum(file.rows for file in after),
        len(before),
        len(after),
        sum(file.size for file in before),
        sum(file.size for file in after),
    )


def references(workspace: Workspace, table: str) -> dict[int, tuple[str, ...]]:
    """What refers to the versions of a table: its tags and holds, and everything that was made from one.

    Later versions of the table itself do not count: they have their rows in files of their own, or share them.

    Returns
    -------
    dict of int to tuple of str
        Version to its holders, as people read them: ``"run:01J… (training data)"``, ``"legal hold case-7"``.
    """
    holders: dict[int, set[str]] = {}
    for tag in list_tags(workspace, table):
        holders.setdefault(tag.version, set()).add(f"{'legal hold' if tag.hold else 'tag'} {tag.tag}")
    prefix = f"dataset:{table}@"
    query = select(edges.c.source, edges.c.role, edges.c.target).where(
        edges.c.source.startswith(prefix, autoescape=True)
    )
    with workspace.records.read() as connection:
        rows = connection.execute(query).all()
    uses: dict[str, list[str]] = {}
    for source, role, target in rows:
        number = source.removeprefix(prefix)
        if target.startswith(prefix) or not number.isdecimal() or _is_vacuumed(workspace, target):
            continue
        if target not in uses:
            later = {thing for thing, _, _ in workspace.ledger.downstream(target) if thing.startswith(_SHOWN)}
            uses[target] = sorted(later - {target})
        holders.setdefault(int(number), set()).update([f"{target} ({role})", *uses[target]])
    return {version: tuple(sorted(names)) for version, names in sorted(holders.items())}


def _is_vacuumed(workspace: Workspace, reference: str) -> bool:
    """Whether a reference is to a table version that is gone itself, and so needs nothing any more."""
    name, _, number = reference.removeprefix("dataset:").partition("@")
    if not reference.startswith("dataset:") or not number.isdecimal() or name not in workspace.tables.names():
        return False
    history = workspace.tables.history(name)
    return int(number) < len(history) and history[int(number)].vacuumed


def vacuum(workspace: Workspace, table: str, *, dry_run: bool, older_than: str | None = None) -> VacuumResult:
    """Delete the data files that only unneeded versions have; those versions can no longer be read.

    Kept are the newest version, those younger than ``older_than``, and all that something refers to
    (:func:`references`). The ledger says what is deleted before it is, so ``audit verify`` does not miss it; a vacuum
    that was killed is completed by the same call.

    Parameters
    ----------
    workspace : Workspace
    table : str
        Name of the table.
    dry_run : bool
        Only say what would be deleted, and what keeps the rest.
    older_than : str, optional
        Age below which a version is kept in any case, like ``"30d"``; ``"7d"`` by default. Ages are by the clock of
        the host, as the times of versions are.

    Raises
    ------
    NotFoundError
        If there is no such table.
    RetryableError
        If something began to refer to a version meanwhile; nothing is deleted.
    BusyError
        If another process writes the table or its tags for longer than a minute.
    """
    age = "7d" if older_than is None else older_than
    youngest = parse_duration(age, where="older_than")
    table_history(workspace.tables, table)
    with workspace.lock(f"ingest/{table}"), tag_lock(workspace, table):
        complete_ledger(workspace, table)
        history = workspace.tables.history(table)
        holders = _holders(workspace, table, history, youngest, age)
        planned = workspace.tables.vacuum(table, keep=set(holders), dry_run=True)
        if not dry_run and planned.files:
            _record(workspace, table, planned, age)
            workspace.tables.vacuum(table, keep=set(holders))
            complete_ledger(workspace, table)
    return _result(table, age, history, holders, planned, dry_run=dry_run)


def _holders(
    workspace: Workspace, table: str, history: list[TableVersion], youngest: int, age: str
) -> dict[int, tuple[str, ...]]:
    """Versions that stay, with why."""
    holders = dict(references(workspace, table))
    border = SystemClock().now() - youngest
    for version in history:
        if version.time > border:
            holders[version.version] = (*holders.get(version.version, ()), f"younger than {age}")
    newest = history[-1].version
    holders[newest] = (*holders.get(newest, ()), "newest version")
    # What an earlier vacuum ended, nothing brings back.
    readable = {version.version for version in history if not version.vacuumed}
    return {version: names for version, names in sorted(holders.items()) if version in readable}


def _record(workspace: Workspace, table: str, planned: VacuumReport, age: str) -> None:
    deleted = sorted(f"{table}/{file.path}" for file in planned.files)
    object_id = f"dataset:{table}"
    entries = workspace.ledger.entries(object_id=object_id, action="dataset.vacuum")
    if entries and set(deleted) <= set(entries[-1].payload["deleted"]):
        workspace.ledger.sign_end()
        return
    with workspace.ledger.transaction() as tx:
        # Nobody can append in here: what refers to a version now, is seen; what comes later, finds it gone.
        new = sorted(set(references(workspace, table)) & set(planned.versions))
        if new:
            raise RetryableError(
                "nothing must begin to refer to a version while its files are deleted",
                where=object_id,
                got=new,
                remedy="Nothing was deleted; try again",
            )
        facts = {"deleted": deleted, "versions": list(planned.versions), "older_than": age}
        tx.append("dataset.vacuum", object_id, facts)


def _result(
    table: str,
    age: str,
    history: list[TableVersion],
    holders: dict[int, tuple[str, ...]],
    planned: VacuumReport,
    *,
    dry_run: bool,
) -> VacuumResult:
    uses = []
    for version in history:
        number = version.version
        retained = number in planned.retained or number in holders
        names = holders.get(number, ("its files are those of kept versions",) if retained else ())
        uses.append(VersionUse(number, retained, names))
    return VacuumResult(
        table,
        dry_run,
        age,
        tuple(uses),
        planned.versions,
        len(planned.files),
        sum(file.size for file in planned.files),
    )
