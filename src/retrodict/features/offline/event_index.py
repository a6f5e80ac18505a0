"""Indexes of events: the sorted events of a table version, on disk, so that no later frame reads or sorts them again.

An index belongs to the data files of one version and to what a view reads of them, and is named by both; a version
with the same files, or another view that reads alike, finds it. When a table grew by appended files only those are
read, and merged with the sorted events that are there. Nothing here is a source of truth: the folder may be deleted at
any time, an index that is missing, cut off or damaged is made anew, and where none can be written events are sorted in
memory.

Rejected: keeping the table itself sorted (a table has several keys, and its order is the order of arrival), and a
sorted Parquet copy (a frame of a few rows would still decode all of it).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import pyarrow as pa

from retrodict.core.errors import IntegrityError
from retrodict.core.identity import content_hash, short
from retrodict.features.offline._arrays import ArrayFolder
from retrodict.features.offline._layout import merge_prepared, read_prepared, write_prepared
from retrodict.features.offline.frame import Rows
from retrodict.features.offline.prepared import EventSource, Prepared, prepare, reading_id
from retrodict.features.plan import FeatureSet, ViewPlan
from retrodict.stores._durable import make_folder, sync_folder
from retrodict.stores._locks import FileLock
from retrodict.stores.tables.base import TableFile, TableStore, files_id
from retrodict.workspace import Workspace

__all__ = ["EventIndexes", "IndexedEvents"]

T = TypeVar("T")

_FORMAT = 2
_KEPT = 2  # indexes of older files of the same reading that stay
_WAIT_S = 3600.0


class EventIndexes:
    """Indexes of the tables of a store.

    Promises: an index appears whole or not at all, also after ``kill -9``; of two processes that need the same one,
    one makes it and the other waits; damage is found before a value is used.

    Parameters
    ----------
    tables : TableStore
        Where the rows are.
    folder : Path
        Where indexes lie; it may be emptied at any time.
    tell : callable, optional
        Called with a sentence when an index is about to be made. None: silent.

    Examples
    --------
    >>> indexes = EventIndexes.of(workspace)  # doctest: +SKIP
    >>> training_frame(spine, "at", features, indexes.sources(features))  # doctest: +SKIP
    """

    def __init__(self, tables: TableStore, folder: Path, *, tell: Callable[[str], None] | None = None) -> None:
        self.tables, self._folder = tables, Path(folder)
        self._tell = tell or (lambda _: None)

    @classmethod
    def of(cls, workspace: Workspace, *, tell: Callable[[str], None] | None = None) -> EventIndexes:
        """Indexes of a project's tables, in its folder ``state/indexes``."""
        return cls(workspace.tables, workspace.root / "state" / "indexes", tell=tell)

    def sources(self, features: FeatureSet, versions: Mapping[str, int] | None = None) -> dict[str, IndexedEvents]:
        """Events of every source of a feature set, as :func:`~retrodict.features.offline.training_frame` takes them.

        Parameters
        ----------
        features : FeatureSet
            Whose sources.
        versions : mapping of str to int, optional
            Version of each table by name. None, or a table that is not named: the newest.
        """
        sources = {}
        for name, source in features.sources.items():
            table = source.table.name
            version = (versions or {}).get(table)
            number = self.tables.history(table)[-1].version if version is None else version
            sources[name] = IndexedEvents(self, table, number)
        return sources

    def gather(
        self, make: Callable[[Mapping[str, Rows]], T], features: FeatureSet, versions: Mapping[str, int] | None = None
    ) -> T:
        """What ``make`` makes of the sources; of the tables themselves where an index turns out to be damaged.

        Damage shows when an array is first looked at, in the middle of a frame, so ``make`` may be called twice. The
        index is gone then, and the next frame makes it anew.
        """
        sources = self.sources(features, versions)
        try:
            return make(sources)
        except (IntegrityError, OSError):  # an OSError: what is damaged lies where nothing can be removed
            self._tell("an index is damaged: reading the tables instead")
            return make({name: self.tables.read(events.table, events.version) for name, events in sources.items()})

    def build(self, features: FeatureSet, versions: Mapping[str, int] | None = None) -> None:
        """Make every index that frames of these features need, where it is not there yet."""
        sources = self.sources(features, versions)
        for plan in features.views:
            sources[plan.source.name].prepared(plan, ignore_known_at=False)

    def clear(self) -> None:
        """Delete every index: they hold copies of rows, so whoever erases rows of a table calls this."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def open(self, plan: ViewPlan, table: str, version: int) -> Prepared:
        """Return the events of a table version from their index, which is made if need be.

        Where it cannot be written (a read-only folder, a full disk) they are sorted for this call only.
        """
        self.tables.dataset(table, version)  # a vacuumed version is not served from a copy of it
        files = self.tables.files(table, version)
        family = self._folder / short(content_hash({"format": _FORMAT, "table": table, "reading": reading_id(plan)}))
        folder = family / short(files_id(files))
        prepared = _opened(plan, folder)
        if prepared is not None:
            return prepared
        try:
            with FileLock(family.with_suffix(".lock"), where=f"index of table {table}", timeout_s=_WAIT_S):
                prepared = _opened(plan, folder)  # another process may have made it meanwhile
                if prepared is None:
                    self._tell(f"making the index of table {table} for {plan.where}; later frames find it")
                    self._make(plan, table, version, files, folder)
                    prepared = _opened(plan, folder)
        except OSError as error:
            self._tell(
                f"the index of table {table} cannot be written ({type(error).__name__}): sorting for this call only"
            )
            prepared = prepare(
                plan, self.tables.read(table, version, columns=plan.source_columns), ignore_known_at=False
            )
        if prepared is None:
            raise IntegrityError("an index must be readable once it was written", where=f"index of table {table}")
        return prepared

    def _make(self, plan: ViewPlan, table: str, version: int, files: Sequence[TableFile], folder: Path) -> None:
        family = folder.parent
        make_folder(family)
        for left in family.glob(".*"):  # of a process that was killed: only the holder of the lock writes here
            shutil.rmtree(left)
        schema = str(self.tables.schema(table, version))
        count, paths = sum(file.rows for file in files), [file.path for file in files]
        draft = family / f".{folder.name}.{os.getpid()}"
        draft.mkdir()
        note = {"files": paths, "rows": count, "schema": schema}
        try:
            write_prepared(draft, plan, self._events(plan, table, version, paths, family, schema), note)
        except OSError:  # a full disk does not stay full of half an index
            shutil.rmtree(draft, ignore_errors=True)
            raise
        shutil.rmtree(folder, ignore_errors=True)  # what is there could not be opened
        draft.rename(folder)
        sync_folder(family)
        for old in _newest_first(family)[_KEPT:]:
            shutil.rmtree(old, ignore_errors=True)

    def _events(
        self, plan: ViewPlan, table: str, version: int, paths: Sequence[str], family: Path, schema: str
    ) -> Prepared:
        """Events of an older index and of the files that came since, or all anew.

        Revisions and ids that are text need every row that ever was: those are always made anew.
        """
        for folder in _newest_first(family):
            try:
                old = ArrayFolder(folder)
                old_paths = old.note["files"]
                appended = len(old_paths) < len(paths) and old_paths == paths[: len(old_paths)]
                if not appended or old.note["schema"] != schema or not old.note["extends"]:
                    continue
                fresh = [self.tables.dataset(table, version, paths=[path]) for path in paths[len(old_paths) :]]
                rows = pa.concat_tables(part.to_table(columns=list(plan.source_columns)) for part in fresh)
                return merge_prepared(plan, old, rows)
            except IntegrityError:
                continue
        rows = self.tables.read(table, version, columns=plan.source_columns)
        return prepare(plan, rows, ignore_known_at=False)


class IndexedEvents(EventSource):
    """Rows of one table version, read through their index; without the second clock they are sorted anew."""

    def __init__(self, indexes: EventIndexes, table: str, version: int) -> None:
        super().__init__()
        self.table, self.version = table, version
        self._indexes = indexes

    def _prepare(self, plan: ViewPlan, *, ignore_known_at: bool) -> Prepared:
        if not ignore_known_at:
            return self._indexes.open(plan, self.table, self.version)
        rows = self._indexes.tables.read(self.table, self.version, columns=plan.source_columns)
        return prepare(plan, rows, ignore_known_at=True)


def _opened(plan: ViewPlan, folder: Path) -> Prepared | None:
    """Events of an index; None if there is none, or what is there is damaged."""
    try:
        return read_prepared(plan, ArrayFolder(folder)) if folder.is_dir() else None
    except IntegrityError:
        return None


def _newest_first(family: Path) -> list[Path]:
    folders = [folder for folder in family.iterdir() if not folder.name.startswith(".")] if family.is_dir() else []
    return sorted(folders, key=lambda folder: folder.stat().st_mtime_ns, reverse=True)
