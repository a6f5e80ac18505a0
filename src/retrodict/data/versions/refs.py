"""What ``flights@golden`` means: a name, a version, a tag or a time becomes one version of one table.

The three are told apart by their form alone (digits; a date; anything else is a tag, which starts with a letter), so a
reference never changes its meaning because somebody made a tag.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from retrodict.core.clock import format_time, parse_time
from retrodict.core.errors import InputError, IntegrityError, NotFoundError, near
from retrodict.data.versions._tag_rows import list_tags, log_digest
from retrodict.stores.tables.base import TableStore, TableVersion
from retrodict.workspace import Workspace

__all__ = ["DatasetRef", "resolve", "table_history"]

_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")


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
    tags = {tag.tag: tag for tag in list_tags(workspace, name)}
    if text not in tags:
        raise NotFoundError(
            "the table must have this tag", where=f"dataset:{name}", got=text, remedy=near(text, tags, what="tag")
        )
    tag = tags[text]
    if log_digest(store, name, tag.version) != tag.log:
        raise IntegrityError(
            "the version of a tag must be the one that was tagged",
            where=f"dataset:{name}, tag {text}",
            got=tag.version,
            remedy="The log of the table was altered, or the table was made anew: restore it from a copy",
        )
    return DatasetRef(name, tag.version)
