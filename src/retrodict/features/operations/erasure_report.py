"""What an erasure did, or would do, and every place that still holds the subjects, with what can be done about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from retrodict.core.display import Block, Facts, Grid, Shown, count, shorten
from retrodict.data.versions.rewrites import Rewriting
from retrodict.features.operations.remains import Remains

__all__ = ["Erasure", "TableErasure"]


@dataclass(frozen=True, slots=True)
class TableErasure:
    """A table that a view of the entity reads, or a kept training frame about it.

    Attributes
    ----------
    table : str
    rows : int
        Rows of the subjects in the newest version.
    version : int
        The newest version: after an erasure the one without them.
    older : int
        Older versions that can be read and hold rows of the subjects, after all that was done.
    kept_for : list of str
        Runs, tags and others that keep these from being vacuumed.
    """

    table: str
    rows: int
    version: int
    older: int
    kept_for: list[str]


@dataclass(repr=False)
class Erasure(Shown):
    """What was removed, or would be, and what remains.

    Attributes
    ----------
    entity : str
    subjects : int
    done : bool
        False: nothing was changed.
    tables : list of TableErasure
    states : dict of str to int
        By view, entries of online state that were removed; 0 where nothing was changed.
    counted_in : list of str
        Views about others that read the same rows: their online state has counted them and keeps the sums.
    remaining : dict of str to int or None
        Where else the subjects are: other tables with the entity's columns by rows, columns that hold the same value
        (a text of four letters or more, a number of five digits or more), event streams by records. None: the columns
        are of another kind and cannot be compared.
    remains : list of Remains
        Every place among the files of the project that still holds a key of one column, whatever it is.
    unseen : list of str
        What was not looked through for it, and why.
    vacuum : dict of str to dict
        By table, what a vacuum deleted.
    rewritten : dict of str to Rewriting
        By table, older versions that rows were taken out of.
    freed_pages : str
        Folder of an embedded key store, whose file keeps removed entries in free pages until these are used again.
        Empty where no state was removed, or a server has it.
    """

    entity: str
    subjects: int
    done: bool
    tables: list[TableErasure] = field(default_factory=list)
    states: dict[str, int] = field(default_factory=dict)
    counted_in: list[str] = field(default_factory=list)
    remaining: dict[str, int | None] = field(default_factory=dict)
    remains: list[Remains] = field(default_factory=list)
    unseen: list[str] = field(default_factory=list)
    vacuum: dict[str, dict[str, Any]] = field(default_factory=dict)
    rewritten: dict[str, Rewriting] = field(default_factory=dict)
    freed_pages: str = ""

    def blocks(self) -> Sequence[Block | None]:
        """Tables and states, then everything that still holds them."""
        verb = "removed" if self.done else "would be removed"
        tables = [(t.table, t.rows, t.version, t.older, [shorten(ref) for ref in t.kept_for]) for t in self.tables]
        states = [(view, entries if self.done else "everything of them") for view, entries in self.states.items()]
        remaining = [(name, "not comparable" if n is None else n) for name, n in self.remaining.items()]
        headings = ("table", f"rows {verb}>", "newest version>", "older versions>", "kept for?")
        return [
            Facts({"entity": self.entity, "subjects": self.subjects, "done": self.done}),
            Grid(headings, tables),
            Grid(("online state of", f"entries {verb}>"), states),
            Grid(("not rewritten", "rows or records of them>"), remaining) if remaining else None,
            Grid(
                ("found in the files of", "files>", "hits>", "what can be done"),
                [(one.place, one.files, one.hits, one.remedy) for one in self.remains],
            )
            if self.remains
            else None,
            f"\nNot looked through: {'; '.join(self.unseen)}." if self.unseen else None,
            *self._counted(),
            *(text for table in self.tables for text in self._older_versions(table)),
            f"\nThe file of the key store keeps removed entries in free pages until they are used again. To be rid of "
            f"them at once, stop every process, delete {self.freed_pages}, and run: retrodict features build"
            if self.freed_pages
            else None,
            None if self.done else "\nNothing was changed. Do it with --yes.",
        ]

    def _counted(self) -> list[str]:
        if not self.counted_in or not any(table.rows for table in self.tables):
            return []
        names = ", ".join(self.counted_in)
        return [f"\nViews about others read the same rows, and their online state keeps what it counted: {names}."]

    def _older_versions(self, table: TableErasure) -> list[str]:
        name, texts = table.table, []
        if deleted := self.vacuum.get(name, {}).get("deleted"):
            texts.append(f"\n{name}: {count(len(deleted))} older versions deleted.")
        rewritten = self.rewritten.get(name)
        if rewritten is not None and rewritten.versions:
            versions = ", ".join(map(str, rewritten.versions))
            texts.append(f"\n{name}: {count(rewritten.rows)} rows taken out of older versions: {versions}.")
        if table.older:
            remedy = "What nothing keeps can be deleted with --vacuum, the rest rewritten with --pinned --reason WHY."
            if rewritten is not None:
                remedy = "A legal hold keeps them: erase again when it is released."
            texts.append(f"\n{name}: {count(table.older)} older versions still hold the rows. {remedy}")
        return texts
