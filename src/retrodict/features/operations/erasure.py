"""Removes one subject from source tables, kept training frames and online state; and says where it still is.

A table version is immutable, so the newest one is written again without the subject's rows, and the older ones stay
until they are vacuumed. Streams and logs are sealed and are not rewritten here: what remains in them is counted, so
that nobody takes silence for absence. The ledger gets a keyed digest of the subject, never its key: with the project's
erasure secret one can prove later that this subject was erased, and without it the digest says nothing.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from retrodict.core.display import Block, Facts, Grid, Shown, count, shorten
from retrodict.core.errors import InputError
from retrodict.core.identity import short
from retrodict.data.definitions import quarantine_name
from retrodict.data.versions.refs import added_digests
from retrodict.data.versions.retention import references
from retrodict.features.definitions import Entity
from retrodict.features.facts.columns import pick
from retrodict.features.facts.keys import KeyIndex, encode_key
from retrodict.features.offline.event_index import EventIndexes
from retrodict.features.offline.kept_frame import NOTE
from retrodict.features.online import OnlineState, online_state
from retrodict.features.online.state.entries import TablePlace
from retrodict.features.online.stream.upkeep import follow_tables, hold_state
from retrodict.features.operations.subjects import ORIGINAL, Belongs, belonging, find_subjects, set_aside
from retrodict.features.plan import FeatureSet, ViewPlan
from retrodict.stores._durable import place_file
from retrodict.stores.tables.base import files_id
from retrodict.workspace import Workspace

__all__ = ["Erasure", "TableErasure", "erase", "subject_digest"]

_MODE, _WRITTEN = "retrodict.mode", "erase"
_KEY_FILE = "erasure.key"


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
        Older versions that can still be read.
    kept_for : list of str
        Runs, tags and others that keep older versions from being vacuumed.
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
    vacuum : dict of str to dict
        By table, what a vacuum deleted.
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
    vacuum: dict[str, dict[str, Any]] = field(default_factory=dict)
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
            *self._counted(),
            *(text for table in self.tables for text in self._older_versions(table.table, table.older)),
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

    def _older_versions(self, table: str, older: int) -> list[str]:
        deleted = len(self.vacuum[table]["deleted"]) if table in self.vacuum else 0
        texts = [f"\n{table}: {count(deleted)} older versions deleted."] if deleted else []
        if older > deleted:
            reason = "are kept for what the table above names" if self.vacuum else "can be deleted with --vacuum"
            texts.append(f"\n{table}: {count(older - deleted)} older versions still hold the rows; they {reason}.")
        return texts


def erase(
    workspace: Workspace,
    entity: Entity,
    keys: pa.Table,
    sets: Sequence[FeatureSet],
    *,
    dry_run: bool,
    reason: str = "erasure",
) -> Erasure:
    """Remove subjects from the newest version of source tables and kept frames, and from online state.

    A kept frame without some of its rows is not extended any more: it is made anew from what its spine has left.

    Parameters
    ----------
    workspace : Workspace
    entity : Entity
        Whose keys they are. Views are found by its key columns, also those that have more of them.
    keys : pyarrow.Table
        One row per subject, with the entity's key columns, of the kinds that the tables have.
    sets : sequence of FeatureSet
        Everything that has online state: what is defined and what is in force.
    dry_run : bool
        Only look.
    reason : str
        For the ledger.

    Raises
    ------
    InputError
        If a key column is missing or a subject has a null key.
    BusyError
        If another process writes one of the tables for longer than a minute.
    """
    columns = [pick(keys, key, where=f"keys of entity {entity.name!r}") for key in entity.keys]
    if any(column.null_count for column in columns):
        raise InputError(
            "a subject must have every part of its key",
            where=f"keys of entity {entity.name!r}",
            got=f"{max(column.null_count for column in columns)} nulls",
            remedy="Leave those rows out",
        )
    every = [(features, plan) for features in sets for plan in features.views]
    plans = [(features, plan) for features, plan in every if set(entity.keys) <= set(plan.keys)]
    report = Erasure(entity.name, keys.num_rows, done=not dry_run)
    subjects = KeyIndex(columns, where=f"keys of entity {entity.name!r}")
    sources = {plan.source.table.name for _, plan in plans} & set(workspace.tables.names())
    tables = sorted(sources | _frames(workspace, entity))
    others = {plan.name for _, plan in every if plan.source.table.name in tables} - {plan.name for _, plan in plans}
    report.counted_in = sorted(others)
    entries = {plan.state_id: _entries(workspace, plan, entity, subjects, columns) for _, plan in plans}
    with ExitStack() as stack:
        if not dry_run and sets:  # a state that reads a table anew would take the subjects from the stream again
            stack.enter_context(hold_state(workspace, online_state(workspace, sets[0])))
            for features in sets:
                follow_tables(workspace, features, tables)
        for name in tables:
            belongs = partial(belonging, entity=entity, subjects=subjects)
            report.tables.append(_table(workspace, name, name, entity.keys, belongs, dry_run=dry_run))
            quarantine = quarantine_name(name)
            if workspace.tables.history(quarantine):
                aside = partial(set_aside, keys=keys.select(entity.keys))
                report.tables.append(_table(workspace, name, quarantine, ORIGINAL, aside, dry_run=dry_run))
        report.states = _states(workspace, plans, entries, dry_run=dry_run)
        if not dry_run:
            _advance(workspace, every, {erased.table: erased for erased in report.tables if erased.rows})
    keys_at = workspace.config["stores.keys"]
    if any(report.states.values()) and "://" not in keys_at:
        report.freed_pages = keys_at
    report.remaining = find_subjects(workspace, tables, entity, keys.select(entity.keys), subjects)
    if not dry_run:
        _record(workspace, entity, columns, report, reason)
    return report


# tables ---------------------------------------------------------------------------------------------------------------


def _frames(workspace: Workspace, entity: Entity) -> set[str]:
    """Kept training frames with the keys of an entity; one that was erased from before holds nothing else."""
    tables, keys = workspace.tables, set(entity.keys)
    frames = [name for name in tables.names() if any(NOTE in version.metadata for version in tables.history(name))]
    return {name for name in frames if keys <= set(tables.schema(name).names)}


def _table(
    workspace: Workspace, base: str, name: str, columns: Sequence[str], belongs: Belongs, *, dry_run: bool
) -> TableErasure:
    """Write a table anew without the rows that belong to the subjects; ``base`` is the one whose writers write it."""
    with workspace.lock(f"ingest/{base}"):
        batches = workspace.tables.batches(name, columns=list(columns))
        rows = sum(int(belongs(batch).sum()) for batch in batches if batch.num_rows)
        if rows and not dry_run:
            others = (batch.filter(pa.array(~belongs(batch))) for batch in workspace.tables.batches(name) if len(batch))
            reader = pa.RecordBatchReader.from_batches(workspace.tables.schema(name), others)
            workspace.tables.write(name, reader, mode="overwrite", metadata={_MODE: _WRITTEN})
        if not dry_run:  # also after an erasure that was killed between the table and its indexes
            EventIndexes.of(workspace).clear()
        _complete_ledger(workspace, name)
    history = workspace.tables.history(name)
    older = [version.version for version in history[:-1] if not version.vacuumed]
    holders = references(workspace, name)
    reasons = sorted({holder for version in older for holder in holders.get(version, ())})
    return TableErasure(name, rows, history[-1].version, len(older), reasons)


def _complete_ledger(workspace: Workspace, name: str) -> None:
    """Append the entries of versions without erased rows that have none: whoever wrote them may have been killed."""
    tables = workspace.tables
    for version in tables.history(name):
        object_id = f"dataset:{name}@{version.version}"
        if version.metadata.get(_MODE) != _WRITTEN or version.vacuumed:
            continue
        if workspace.ledger.entries(object_id=object_id, action="dataset.erase"):
            continue
        rows = sum(file.rows for file in tables.files(name, version.version))
        facts = {"rows": rows, "files": added_digests(tables, name, version.version)}
        with workspace.ledger.transaction() as tx:
            if not tx.has("dataset.erase", object_id):
                before = f"dataset:{name}@{version.version - 1}"
                tx.append("dataset.erase", object_id, facts, inputs=[(before, "previous version")])


# online state ---------------------------------------------------------------------------------------------------------


def _entries(
    workspace: Workspace, plan: ViewPlan, entity: Entity, subjects: KeyIndex, columns: Sequence[pa.Array[Any]]
) -> list[tuple[Any, ...]]:
    """Keys of a view that are the subjects': of a view with more key columns, those that its table pairs them with."""
    if plan.keys == tuple(entity.keys):
        return list(zip(*(column.to_pylist() for column in columns), strict=True))
    if plan.source.table.name not in workspace.tables.names():
        return []
    rows = workspace.tables.read(plan.source.table.name, columns=list(plan.keys))
    subject_rows = rows.filter(pa.array(belonging(rows, entity, subjects))).group_by(list(plan.keys)).aggregate([])
    return [tuple(row[key] for key in plan.keys) for row in subject_rows.to_pylist()]


def _states(
    workspace: Workspace,
    plans: Sequence[tuple[FeatureSet, ViewPlan]],
    entries: Mapping[str, Sequence[tuple[Any, ...]]],
    *,
    dry_run: bool,
) -> dict[str, int]:
    erased = dict.fromkeys([plan.name for _, plan in plans], 0)
    first = {plan.state_id: (features, plan) for features, plan in reversed(plans)}  # views may share one state
    for features, plan in () if dry_run else first.values():
        state = OnlineState(features, workspace.keys, partitions=workspace.config["features.partitions"])
        erased[plan.name] += sum(state.forget(plan.name, values) for values in entries[plan.state_id])
    return erased


def _advance(
    workspace: Workspace, plans: Sequence[tuple[FeatureSet, ViewPlan]], tables: Mapping[str, TableErasure]
) -> None:
    """Note in each state that held all of a table before that it holds all of it without the erased rows."""
    for features, plan in plans:
        erased = tables.get(plan.source.table.name)
        if erased is not None:
            files = workspace.tables.files(erased.table, erased.version)
            place = TablePlace(erased.version, sum(file.rows for file in files), short(files_id(files)))
            state = OnlineState(features, workspace.keys, partitions=workspace.config["features.partitions"])
            state.advance(plan, erased.version - 1, place)


# the ledger -----------------------------------------------------------------------------------------------------------


def subject_digest(workspace: Workspace, entity: Entity, values: Sequence[object]) -> str:
    """Keyed digest of a subject: equal for equal subjects of one project, and telling nothing without its secret."""
    key = encode_key(values, where=f"entity {entity.name!r}") or b""
    return hmac.new(_secret(workspace), entity.name.encode() + b"\0" + key, "sha256").hexdigest()


def _secret(workspace: Workspace) -> bytes:
    path: Path = workspace.root / "state" / _KEY_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    with workspace.lock("erasure"):
        if not path.exists():
            place_file(path, secrets.token_bytes(32), mode=0o600)
        return path.read_bytes()


def _record(
    workspace: Workspace, entity: Entity, columns: Sequence[pa.Array[Any]], report: Erasure, reason: str
) -> None:
    subjects = [subject_digest(workspace, entity, v) for v in zip(*(c.to_pylist() for c in columns), strict=True)]
    facts = {
        "subjects": sorted(subjects),
        "reason": reason,
        "tables": {erased.table: {"version": erased.version, "rows": erased.rows} for erased in report.tables},
        "states": report.states,
        "counted_in": report.counted_in,
        "remaining": report.remaining,
    }
    with workspace.ledger.transaction() as tx:
        # No lineage: an edge would keep the versions it names from being vacuumed.
        tx.append("features.erase", f"entity:{entity.name}", facts)
