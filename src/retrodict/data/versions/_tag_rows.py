"""Reading what tags mean and meant; the changes are in ``tags``, which needs references, which need this."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, select

from retrodict.core.clock import format_time
from retrodict.core.display import Block, Shown
from retrodict.data.versions.schema import metadata, tags
from retrodict.stores.tables.base import TableStore
from retrodict.workspace import Workspace


@dataclass(frozen=True, slots=True, repr=False)
class Tag(Shown):
    """One change of a tag; the newest one says what it means.

    Attributes
    ----------
    dataset, tag : str
        Table and name.
    version : int
        What the tag means from ``time`` on; of a removal, what it meant before.
    hold : bool
        Whether it is a legal hold.
    action : {"set", "move", "hold", "release", "remove"}
    time : int
        By the project's clock: microseconds since 1970-01-01 UTC.
    actor, reason : str
    log : str
        SHA-256 of the log entry of the version.
    """

    dataset: str
    tag: str
    version: int
    hold: bool
    action: str
    time: int
    actor: str
    reason: str
    log: str

    def to_dict(self) -> dict[str, Any]:
        """Plain form for ``--json``."""
        return {
            "dataset": f"dataset:{self.dataset}@{self.version}",
            "tag": self.tag,
            "version": self.version,
            "hold": self.hold,
            "action": self.action,
            "time": format_time(self.time),
            "actor": self.actor,
            "reason": self.reason,
            "log": self.log,
        }

    def blocks(self) -> Sequence[Block | None]:
        """What the tag means now."""
        if self.action == "remove":
            return [f"{self.dataset}@{self.tag} is no tag any more; it meant {self.version}."]
        verb = "is a legal hold on" if self.hold else "means"
        return [f"{self.dataset}@{self.tag} {verb} {self.dataset}@{self.version}."]


def list_tags(workspace: Workspace, dataset: str | None = None, *, at: int | None = None) -> list[Tag]:
    """Tags of a table or of all, by name, as they are or as they were.

    Parameters
    ----------
    workspace : Workspace
    dataset : str, optional
        Name of the table.
    at : int, optional
        Microseconds since 1970-01-01 UTC: what the tags meant then.
    """
    workspace.records.ensure(metadata)
    query = every_change(dataset)
    if at is not None:
        query = query.where(tags.c.time <= at)
    with workspace.records.read() as connection:
        return current(connection.execute(query))


def tag_history(workspace: Workspace, dataset: str, tag: str) -> list[Tag]:
    """Every change of a tag, oldest first; empty for a name that never was one."""
    workspace.records.ensure(metadata)
    with workspace.records.read() as connection:
        return [read_row(row) for row in connection.execute(every_change(dataset).where(tags.c.tag == tag))]


def log_path(name: str, version: int) -> str:
    """Path of the log entry of a version, as ``file_digest`` and the ledger name it."""
    return f"{name}/_delta_log/{version:020d}.json"


def log_digest(tables: TableStore, name: str, version: int) -> str:
    """SHA-256 of the log entry of a version."""
    return tables.file_digest(log_path(name, version))


def every_change(dataset: str | None) -> Any:
    query = select(tags).order_by(tags.c.dataset, tags.c.tag, tags.c.position)
    return query if dataset is None else query.where(tags.c.dataset == dataset)


def current(rows: Any) -> list[Tag]:
    newest = {(row.dataset, row.tag): read_row(row) for row in rows}
    return [tag for tag in newest.values() if tag.action != "remove"]


def read_row(row: Row[Any]) -> Tag:
    return Tag(row.dataset, row.tag, row.version, bool(row.hold), row.action, row.time, row.actor, row.reason, row.log)
