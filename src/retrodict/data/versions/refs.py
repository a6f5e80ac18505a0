"""What ``flights@golden`` means: a name, a version, a tag or a time becomes one version of one table.

The three are told apart by their form alone (digits; a date; anything else is a tag, which starts with a letter), so a
reference never changes its meaning because somebody made a tag. Tags are read here and changed in ``tags``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import BigInteger, Column, Integer, MetaData, Row, String, Table, Text, select

from retrodict.core.clock import format_time, parse_time
from retrodict.core.display import Block, Shown
from retrodict.core.errors import InputError, IntegrityError, NotFoundError, check_known, near
from retrodict.stores.tables.base import TableStore, TableVersion
from retrodict.workspace import Workspace

__all__ = ["DatasetRef", "Tag", "list_tags", "resolve", "table_history", "tag_history"]

_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")

metadata = MetaData()

# Every row is one change of one tag and is never updated, so what a tag meant at any time is a query. ``log`` is the
# SHA-256 of the log entry of that version: a table that was deleted and made anew has the numbers, but not the hashes.
tags = Table(
    "dataset_tags",
    metadata,
    Column("dataset", String(200), primary_key=True),
    Column("tag", String(63), primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("action", String(20), nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("log", String(64), nullable=False),
    Column("hold", Integer, nullable=False),
    Column("time", BigInteger, nullable=False),
    Column("actor", String(200), nullable=False),
    Column("reason", Text, nullable=False),
)


@dataclass(frozen=True, slots=True)
class DatasetRef:
    """One version of one table; its text is ``dataset:name@version``.

    Examples
    --------
    >>> str(DatasetRef("flights", 12))
    'dataset:flights@12'
    """

    name: str
    version: int

    def __str__(self) -> str:
        return f"dataset:{self.name}@{self.version}"

    @property
    def short(self) -> str:
        """``name@version``, as people type it."""
        return f"{self.name}@{self.version}"


def resolve(workspace: Workspace, text: str, *, tables: TableStore | None = None) -> DatasetRef:
    """Version that a reference means now.

    Parameters
    ----------
    workspace : Workspace
    text : str
        ``name``: the newest version. ``name@12``: that version. ``name@golden``: what the tag means now.
        ``name@2024-03-01T08:00Z``: the newest version committed at or before that time, by the clock of the store; a
        day alone is its first instant in UTC. ``dataset:`` may stand before each.
    tables : TableStore, optional
        Where the tables are; those of the project by default.

    Returns
    -------
    DatasetRef
        Of a version that was written; whether a vacuum left its files is for the read to say.

    Raises
    ------
    NotFoundError
        If there is no such table, version or tag, or nothing was committed by that time; what there is, is named.
    InputError
        If the text is no reference.
    IntegrityError
        If the version that a tag names is not the one that was tagged.
    """
    name, selector = _split(text)
    store = workspace.tables if tables is None else tables
    history = table_history(store, name)
    if selector is None:
        return DatasetRef(name, history[-1].version)
    if selector.isdecimal():
        return _by_number(name, int(selector), history)
    if _DAY.match(selector):
        return _by_time(name, selector, history)
    return _by_tag(workspace, store, name, selector)


def table_history(store: TableStore, name: str) -> list[TableVersion]:
    """Versions of a table that must have one; NotFoundError names near tables."""
    history = store.history(name)
    if not history:
        raise NotFoundError(
            "the table must have a version", where="data", got=name, remedy=near(name, store.names(), what="table")
        )
    return history


def _split(text: str) -> tuple[str, str | None]:
    name, at, selector = text.removeprefix("dataset:").partition("@")
    if not name or ":" in name or (at and not selector):
        raise InputError(
            "a reference to data must read name, name@version, name@tag or name@time",
            where="data",
            got=text,
            remedy="Write it like 'flights@12', 'flights@golden' or 'flights@2024-03-01T00:00Z'",
        )
    return name, selector or None


def _by_number(name: str, number: int, history: list[TableVersion]) -> DatasetRef:
    numbers = {version.version for version in history}
    if number not in numbers:
        raise NotFoundError(
            "the table must have this version",
            where=f"dataset:{name}",
            got=number,
            remedy=f"Known: {min(numbers)} to {max(numbers)}",
        )
    return DatasetRef(name, number)


def _by_time(name: str, text: str, history: list[TableVersion]) -> DatasetRef:
    where = f"dataset:{name}"
    instant = parse_time(f"{text}T00:00Z" if _DAY.fullmatch(text) else text, where=where)
    # By number: the clock of a host may have gone back between two commits.
    numbers = [version.version for version in history if version.time <= instant]
    if not numbers:
        raise NotFoundError(
            "a version must have been committed by that time",
            where=where,
            got=text,
            remedy=f"The first one is from {format_time(history[0].time)}",
        )
    return DatasetRef(name, max(numbers))


def _by_tag(workspace: Workspace, store: TableStore, name: str, text: str) -> DatasetRef:
    means = {tag.tag: tag for tag in list_tags(workspace, name)}
    tag = means[check_known(text, means, "the table must have this tag", where=f"dataset:{name}", what="tag")]
    if log_digest(store, name, tag.version) != tag.log:
        raise IntegrityError(
            "the version of a tag must be the one that was tagged",
            where=f"dataset:{name}, tag {text}",
            got=tag.version,
            remedy="The log of the table was altered, or the table was made anew: restore it from a copy",
        )
    return DatasetRef(name, tag.version)


# tags ---------------------------------------------------------------------------------------------------------


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
        dataset = f"dataset:{self.dataset}@{self.version}"
        return Shown.to_dict(self) | {"dataset": dataset, "time": format_time(self.time)}

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
    rows = _changes(workspace)
    return current(row for row in rows if (dataset in (None, row.dataset)) and (at is None or row.time <= at))


def tag_history(workspace: Workspace, dataset: str, tag: str) -> list[Tag]:
    """Every change of a tag, oldest first; empty for a name that never was one."""
    return [read_row(row) for row in _changes(workspace) if (row.dataset, row.tag) == (dataset, tag)]


def _changes(workspace: Workspace) -> list[Row[Any]]:
    """Every change of a tag that an entry vouches for, by table, name and order."""
    workspace.records.ensure(metadata)
    rows = workspace.ledger.read_vouched(tags, "tag:")
    return sorted(rows, key=lambda row: (row.dataset, row.tag, row.position))


def log_path(name: str, version: int) -> str:
    """Path of the log entry of a version, as ``file_digest`` and the ledger name it."""
    # Every twin of the table store is Delta, whose log entries never change once they are written.
    return f"{name}/_delta_log/{version:020d}.json"


def log_digest(tables: TableStore, name: str, version: int) -> str:
    """SHA-256 of the log entry of a version."""
    return tables.file_digest(log_path(name, version))


def added_files(tables: TableStore, name: str, version: int) -> list[str]:
    """Paths of the data files that a version has and the one before it has not."""
    before = {file.path for file in tables.files(name, version - 1)} if version > 0 else set()
    return sorted({file.path for file in tables.files(name, version)} - before)


def added_digests(tables: TableStore, name: str, version: int | None) -> dict[str, str]:
    """SHA-256 of what a version added, by path: its data files, and the log entry that says which they are."""
    if version is None:
        return {}
    paths = [*(f"{name}/{path}" for path in added_files(tables, name, version)), log_path(name, version)]
    return {path: tables.file_digest(path) for path in paths}


def every_change(dataset: str | None) -> Any:
    query = select(tags).order_by(tags.c.dataset, tags.c.tag, tags.c.position)
    return query if dataset is None else query.where(tags.c.dataset == dataset)


def current(rows: Any) -> list[Tag]:
    newest = {(row.dataset, row.tag): read_row(row) for row in rows}
    return [tag for tag in newest.values() if tag.action != "remove"]


def read_row(row: Row[Any]) -> Tag:
    return Tag(row.dataset, row.tag, row.version, bool(row.hold), row.action, row.time, row.actor, row.reason, row.log)
