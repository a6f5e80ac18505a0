"""Indexes of events: the sorted events of a table version, on disk, so that no later frame reads or sorts them again.

An index belongs to the data files of one version and to what a view reads of them, and is named by both; a version
with the same files, or another view that reads alike, finds it. Nothing here is a source of truth: the folder may be
deleted at any time, and an index that is missing, cut off or damaged is made anew.

When a table grew by appended files only those are read. The index of the new version is a small piece that lies over
the whole one: it holds all events of the keys that any row touched since. So an append costs in proportion to the
history of its keys, not to the table; once that is more than an eighth of the whole, both are merged into a new whole
one, which no answer waits for. Rejected: room for growth behind each key in place, since then no file is ever whole
before it is written again, and a reader would have to be told which part of it belongs to its version.

Whoever comes first does not wait for the index: events are sorted in memory, which an answer needs anyway, and a thread
of low priority writes them down once no frame is being computed. The process ends when they are written.

Rejected: keeping the table itself sorted (a table has several keys, and its order is the order of arrival), and a
sorted Parquet copy (a frame of a few rows would still decode all of it).
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa

from retrodict.core.errors import IntegrityError, RetrodictError
from retrodict.core.identity import content_hash, short
from retrodict.features.offline._arrays import ArrayFolder, FolderKey
from retrodict.features.offline._layout import grow_prepared, merge_pieces, read_prepared, write_prepared
from retrodict.features.offline.frame import Rows
from retrodict.features.offline.prepared import FRAMES, EventSource, Prepared, prepare, reading_id
from retrodict.features.plan import FeatureSet, ViewPlan
from retrodict.stores._durable import make_folder, read_file, sync_folder
from retrodict.stores._locks import FileLock
from retrodict.stores.tables.base import TableStore, files_id
from retrodict.workspace import Workspace

__all__ = ["EventIndexes", "IndexedEvents", "altered_indexes"]

T = TypeVar("T")

_FORMAT = 5
_KEPT = 2  # indexes of one reading that stay, with those that they lie over: those that were used last
_SMALL = 8  # a piece with more than this part of the events that it lies over is merged with them
_UNUSED_NS = 30 * 86_400 * 10**9  # a reading that nothing asked for this long goes
_WAIT_S = 3600.0
_PATIENCE_S = 30.0  # how long writing waits for frames, which may follow one another without end

_WRITING: dict[Path, tuple[Prepared, threading.Thread]] = {}
"""Indexes that this process is about to write, and their events for whoever asks meanwhile."""
_GUARD = threading.Lock()
os.register_at_fork(after_in_child=_WRITING.clear)  # no thread survives a fork


class EventIndexes:
    """Indexes of the tables of a store.

    Promises: an index appears whole or not at all, also after ``kill -9``; no answer waits until one is written;
    damage is found before a value is used.

    Parameters
    ----------
    tables : TableStore
        Where the rows are.
    folder : Path
        Where indexes lie; it may be emptied at any time.
    key : FolderKey, optional
        Seals the indexes: those that another key sealed are made anew. None: damage is found, and not who made them.
    tell : callable, optional
        Called with a sentence when an index is about to be made. None: silent.

    Examples
    --------
    >>> indexes = EventIndexes.of(workspace)  # doctest: +SKIP
    >>> training_frame(spine, "at", features, indexes.sources(features))  # doctest: +SKIP
    """

    def __init__(
        self,
        tables: TableStore,
        folder: Path,
        *,
        key: FolderKey = FolderKey(),  # noqa: B008  # it never changes
        tell: Callable[[str], None] | None = None,
    ) -> None:
        self.tables, self._folder, self._key = tables, Path(folder), key
        self._tell = tell or (lambda _: None)

    @classmethod
    def of(cls, workspace: Workspace, *, tell: Callable[[str], None] | None = None) -> EventIndexes:
        """Indexes of a project's tables, in its folder ``state/indexes``; closing it waits for those being written."""
        indexes = cls(workspace.tables, workspace.root / "state" / "indexes", key=index_key(workspace), tell=tell)
        workspace.at_close("indexes", indexes.settle)
        return indexes

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
        """Make every index that frames of these features need, where it is not there yet, and wait for them."""
        sources = self.sources(features, versions)
        for plan in features.views:
            sources[plan.source.name].prepared(plan, ignore_known_at=False)
        self.settle()

    def settle(self) -> None:
        """Wait for the indexes that this process is writing."""
        with _GUARD:
            threads = [thread for folder, (_, thread) in _WRITING.items() if self._folder in folder.parents]
        for thread in threads:
            thread.join()

    def clear(self) -> None:
        """Delete every index: they hold copies of rows, so whoever erases rows of a table calls this."""
        self.settle()
        shutil.rmtree(self._folder, ignore_errors=True)

    def open(self, plan: ViewPlan, table: str, version: int) -> Prepared:
        """Return the events of a table version from their index, or as they are about to be written into one.

        Where it cannot be written (a read-only folder, a full disk) they are sorted for this call only.
        """
        self.tables.dataset(table, version)  # a vacuumed version is not served from a copy of it
        files = self.tables.files(table, version)
        reading = short(content_hash({"format": _FORMAT, "table": table, "reading": reading_id(plan)}))
        family = self._folder / f"{_FORMAT}-{reading}"
        folder = family / short(files_id(files))
        with _GUARD:
            if folder in _WRITING:
                return _WRITING[folder][0]
        prepared = _opened(plan, folder, self._key)
        if prepared is None:
            paths, schema = [file.path for file in files], str(self.tables.schema(table, version))
            prepared, over = self._events(plan, table, version, paths, family, schema)
            note = {"files": paths, "rows": sum(file.rows for file in files), "schema": schema, "over": over}
            self._begin(plan, table, prepared, note, folder)
        return prepared

    def _begin(self, plan: ViewPlan, table: str, state: Prepared, note: Mapping[str, Any], folder: Path) -> None:
        try:
            make_folder(folder.parent)
        except OSError as error:
            self._tell_unwritten(table, error)
            return
        thread = threading.Thread(target=self._write, args=(plan, table, state, note, folder))
        with _GUARD:
            if folder in _WRITING:
                return
            _WRITING[folder] = state, thread
            thread.start()
        self._tell(f"making the index of table {table} for {plan.where}; later frames find it")

    def _write(self, plan: ViewPlan, table: str, state: Prepared, note: Mapping[str, Any], folder: Path) -> None:
        FRAMES.wait(_PATIENCE_S)  # a low priority is not enough: who holds the interpreter is waited for by all
        if sys.platform == "linux":  # where a thread has a priority of its own: what comes after the frame comes first
            with suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 10)
        try:
            with FileLock(folder.parent.with_suffix(".lock"), where=f"index of table {table}", timeout_s=_WAIT_S):
                if _opened(plan, folder, self._key) is None:  # another process may have made it meanwhile
                    self._make(plan, state, note, folder)
        except (OSError, RetrodictError) as error:  # what is wrong with the rows the answer says, too
            self._tell_unwritten(table, error)
        finally:
            with _GUARD:
                _WRITING.pop(folder, None)

    def _tell_unwritten(self, table: str, error: Exception) -> None:
        self._tell(
            f"the index of table {table} cannot be written ({type(error).__name__}): each frame sorts its events"
        )

    def _make(self, plan: ViewPlan, state: Prepared, note: Mapping[str, Any], folder: Path) -> None:
        family = folder.parent
        for left in family.glob(".*"):  # of a process that was killed: only the holder of the lock writes here
            shutil.rmtree(left)
        merged = None
        if state.newer is not None and _SMALL * len(state.newer.line.packed_event) > len(state.line.packed_event):
            merged, note, state = note["over"], {**note, "over": None}, merge_pieces(plan, state)
        elif state.newer is not None:
            # Gone where another process has merged it: the next frame goes on there.
            ArrayFolder(family / note["over"], self._key)
            state = state.newer
        draft = family / f".{folder.name}.{os.getpid()}"
        draft.mkdir()
        try:
            write_prepared(draft, plan, state, note, self._key)
        except OSError:  # a full disk does not stay full of half an index
            shutil.rmtree(draft, ignore_errors=True)
            raise
        shutil.rmtree(folder, ignore_errors=True)  # what is there could not be opened
        draft.rename(folder)
        os.utime(folder)  # others may have been used while it was written
        sync_folder(family)
        self._sweep(folder, merged)

    def _sweep(self, newest: Path, merged: str | None) -> None:
        """Delete what is not used any more, what is no index, and what was merged into the newest."""
        over = {index.folder: index.note["over"] for index in _indexes(newest.parent, self._key)}
        recent = [folder for folder, base in over.items() if merged is None or merged not in {folder.name, base}][
            :_KEPT
        ]
        names = {*(folder.name for folder in recent), *(over[folder] for folder in recent)}
        unnamed = [folder for folder in _newest_first(newest.parent) if folder.name not in names]
        for old in [*unnamed, *self._unused(newest)]:
            shutil.rmtree(old, ignore_errors=True)

    def _unused(self, newest: Path) -> list[Path]:
        """Folders of earlier formats, and of readings that nothing asked for in a month."""
        oldest = newest.stat().st_mtime_ns - _UNUSED_NS
        return [
            family
            for family in self._folder.iterdir()
            if family.is_dir()
            and (
                not family.name.startswith(f"{_FORMAT}-")
                or max(folder.stat().st_mtime_ns for folder in [family, *_newest_first(family)[:1]]) < oldest
            )
        ]

    def _events(
        self, plan: ViewPlan, table: str, version: int, paths: Sequence[str], family: Path, schema: str
    ) -> tuple[Prepared, str | None]:
        """Events of an older index and of the files that came since, and which one they lie over; or all anew.

        Revisions and ids that are text need every row that ever was: those are always made anew.
        """
        shorter = [
            old
            for old in _indexes(family, self._key)
            if len(files := old.note["files"]) < len(paths)
            and files == paths[: len(files)]
            and old.note["schema"] == schema
            and old.note["extends"]
        ]
        for old in sorted(shorter, key=lambda old: -len(old.note["files"])):
            with suppress(IntegrityError):
                state, appended = read_prepared(plan, old), paths[len(old.note["files"]) :]
                fresh = [self.tables.dataset(table, version, paths=[path]) for path in appended]
                rows = pa.concat_tables(part.to_table(columns=list(plan.source_columns)) for part in fresh)
                events = grow_prepared(plan, state, rows, first_position=old.note["rows"])
                return events, old.note["over"] or old.folder.name
        rows = self.tables.read(table, version, columns=plan.source_columns)
        return prepare(plan, rows, ignore_known_at=False), None


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


def _opened(plan: ViewPlan, folder: Path, key: FolderKey) -> Prepared | None:
    """Events of an index; None if there is none, or what is there is damaged."""
    if not folder.is_dir():
        return None
    with suppress(OSError):  # when it was used last; where nothing can be written nothing is swept, either
        os.utime(folder)
    try:
        return read_prepared(plan, ArrayFolder(folder, key))
    except IntegrityError:
        return None


def _newest_first(family: Path) -> list[Path]:
    folders = [folder for folder in family.iterdir() if not folder.name.startswith(".")] if family.is_dir() else []
    return sorted(folders, key=lambda folder: folder.stat().st_mtime_ns, reverse=True)


def _indexes(family: Path, key: FolderKey) -> list[ArrayFolder]:
    """Indexes of a reading whose files are there, those used last first."""
    indexes = []
    for folder in _newest_first(family):
        with suppress(IntegrityError):
            indexes.append(ArrayFolder(folder, key))
    return indexes


def index_key(workspace: Workspace) -> FolderKey:
    """Key of a project's indexes, made of the one that signs its ledger; none where that is not at hand."""
    return FolderKey(*workspace.ledger.secret("indexes"))


def altered_indexes(workspace: Workspace) -> Iterator[tuple[str, str]]:
    """Name of each index of a project that the key sealed and that is not what it sealed, and what is wrong."""
    key, folder = index_key(workspace), workspace.root / "state" / "indexes"
    for manifest in sorted(folder.glob(f"{_FORMAT}-*/[!.]*/**/manifest.json")) if key.name else ():
        place, name = manifest.parent, key.name
        with suppress(OSError, ValueError, TypeError, KeyError, RecursionError):
            name = json.loads(read_file(manifest))["key"]
        if name != key.name:  # a retired key's: nobody reads it
            continue
        inside = len(place.relative_to(folder).parts) > 2  # the sums of an index
        try:
            ArrayFolder(place, key.below(place.parent) if inside else key).check()
        except IntegrityError as error:
            yield place.relative_to(folder).as_posix(), str(error)
