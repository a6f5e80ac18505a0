"""The versions of a table as people ask about them: how each was made, what it holds, what changed."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from retrodict.core.clock import format_time
from retrodict.core.errors import NotFoundError
from retrodict.data.versions._columns import pair_columns
from retrodict.data.versions.refs import list_tags, resolve
from retrodict.stores.tables.base import TableVersion
from retrodict.workspace import Workspace

__all__ = ["VersionSummary", "version_history"]

_MODES = {"OPTIMIZE": "compact", "VACUUM": "vacuum", "RESTORE": "restore", "REWRITE": "rewrite"}


@dataclass(frozen=True, slots=True)
class VersionSummary:
    """One version of a table.

    Attributes
    ----------
    version : int
    time : int
        When it was written, microseconds since 1970-01-01 UTC.
    mode : str
        How it was made: append, overwrite, restore, compact, vacuum, rewrite or write.
    vacuumed : bool
        Whether its rows are deleted.
    rows : int
        Rows of the whole table.
    rows_in, accepted, quarantined : int or None
        Of the batch that it added.
    tags : tuple of str
        Names that mean it, a legal hold with "(hold)" after it.
    checks_failed : tuple of str
    schema : tuple of str
        Changes against the version before: ``+added``, ``-removed``, ``column: int32 > int64``.
    batch, origin : str or None
        Id of its batch, and where that came from.
    restored : int or None
        Version whose content it put back.
    reason : str or None
    """

    version: int
    time: int
    mode: str
    vacuumed: bool
    rows: int
    rows_in: int | None
    accepted: int | None
    quarantined: int | None
    tags: tuple[str, ...]
    checks_failed: tuple[str, ...]
    schema: tuple[str, ...]
    batch: str | None
    origin: str | None
    restored: int | None
    reason: str | None

    def to_dict(self) -> dict[str, Any]:
        """Plain form for ``--json``."""
        return {**asdict(self), "time": format_time(self.time)}


def version_history(workspace: Workspace, table: str, *, limit: int) -> tuple[list[VersionSummary], int]:
    """Newest versions of a table, oldest first, and how many there are in all.

    Raises
    ------
    NotFoundError
        If there is no such table.
    """
    resolve(workspace, table)
    versions = workspace.tables.history(table)
    tags: dict[int, list[str]] = {}
    for tag in list_tags(workspace, table):
        tags.setdefault(tag.version, []).append(f"{tag.tag} (hold)" if tag.hold else tag.tag)
    newest = versions[max(len(versions) - limit, 0) :]
    return [_summary(workspace, table, version, tags.get(version.version, [])) for version in newest], len(versions)


def _summary(workspace: Workspace, table: str, version: TableVersion, tags: list[str]) -> VersionSummary:
    notes = {key.removeprefix("retrodict."): value for key, value in version.metadata.items()}
    restored = notes.get("restored", "")
    return VersionSummary(
        version=version.version,
        time=version.time,
        mode=notes.get("mode") or _MODES.get(version.operation, "write"),
        vacuumed=version.vacuumed,
        rows=sum(file.rows for file in workspace.tables.files(table, version.version)),
        **{name: int(notes[name]) if name in notes else None for name in ("rows_in", "accepted", "quarantined")},
        tags=tuple(tags),
        checks_failed=_failed_checks(notes.get("checks", "[]")),
        schema=_schema_changes(workspace, table, version.version),
        batch=notes.get("batch"),
        origin=notes.get("origin"),
        restored=int(restored) if restored.isdecimal() else None,
        reason=notes.get("reason"),
    )


def _failed_checks(text: str) -> tuple[str, ...]:
    try:
        results = json.loads(text)
    except ValueError:  # written by other hands
        return ()
    return tuple(r["check"] for r in results if isinstance(r, dict) and r.get("status") == "fail")


def _schema_changes(workspace: Workspace, table: str, version: int) -> tuple[str, ...]:
    if version == 0:
        return ()
    try:
        before = workspace.tables.schema(table, version - 1)
    except NotFoundError:  # vacuumed
        return ()
    signs = {"added": "+", "removed": "-"}
    return tuple(
        signs[change.change] + change.column
        if change.change in signs
        else f"{change.column}: {change.before} > {change.after}"
        for change in pair_columns(before, workspace.tables.schema(table, version)).changes
    )
