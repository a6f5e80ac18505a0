"""Removes one subject from source tables, kept training frames and online state; and says where it still is.

A table version is immutable, so the newest one is written again without the subject's rows. Older ones stay until they
are vacuumed or, where something was made from them, rewritten for a reason. Streams and logs are sealed and are not
rewritten here: what remains in them is counted, so that nobody takes silence for absence. The ledger gets a keyed
digest of the subject, never its key: with the project's erasure secret one can prove later that this subject was
erased, and without it the digest says nothing.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pyarrow as pa

from retrodict.core.errors import InputError
from retrodict.core.identity import short
from retrodict.data.definitions import quarantine_name
from retrodict.data.versions.refs import added_digests
from retrodict.data.versions.retention import references
from retrodict.data.versions.retention import vacuum as delete_versions
from retrodict.data.versions.rewrites import rewrite
from retrodict.features.definitions import Entity
from retrodict.features.facts.columns import pick
from retrodict.features.facts.keys import KeyIndex, encode_key
from retrodict.features.offline.event_index import EventIndexes
from retrodict.features.offline.kept_frame import NOTE
from retrodict.features.online import OnlineState, online_state
from retrodict.features.online.state.entries import TablePlace
from retrodict.features.online.stream.upkeep import follow_tables, hold_state
from retrodict.features.operations.erasure_report import Erasure, TableErasure
from retrodict.features.operations.remains import find_remains
from retrodict.features.operations.subjects import ORIGINAL, belonging, find_subjects, set_aside
from retrodict.features.plan import FeatureSet, ViewPlan
from retrodict.stores._durable import place_file
from retrodict.stores.tables.base import Belongs, files_id
from retrodict.workspace import Workspace

__all__ = ["erase", "subject_digest"]

_MODE, _WRITTEN = "retrodict.mode", "erase"
_KEY_FILE = "erasure.key"


@dataclass(frozen=True, slots=True)
class _Target:
    """A table to write without the rows that belong to the subjects; ``base`` is the one whose writers write it."""

    base: str
    name: str
    columns: Sequence[str]
    belongs: Belongs


def erase(  # noqa: PLR0913  # as many as there are options
    workspace: Workspace,
    entity: Entity,
    keys: pa.Table,
    sets: Sequence[FeatureSet],
    *,
    dry_run: bool,
    reason: str = "erasure",
    vacuum: bool = False,
    pinned: bool = False,
    more: Mapping[str, tuple[Sequence[str], Belongs]] = MappingProxyType({}),
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
    vacuum : bool
        Whether to delete the older versions that nothing refers to.
    pinned : bool
        Whether to take the rows out of those that something does, too; but not those under a legal hold.
    more : mapping of str to (sequence of str, callable)
        Further tables, with the columns that tell whose a row is, and what says so of a batch.

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
        targets = _targets(workspace, tables, entity, keys.select(entity.keys), subjects)
        targets += [_Target(name, name, names, belongs) for name, (names, belongs) in more.items()]
        report.tables = [_table(workspace, target, dry_run=dry_run) for target in targets]
        report.states = _states(workspace, plans, entries, dry_run=dry_run)
        if not dry_run:
            _advance(workspace, every, {erased.table: erased for erased in report.tables if erased.rows})
    if not dry_run and (vacuum or pinned):
        _clear_older(workspace, targets, report, reason if pinned else None)
    report.tables = [_older(workspace, t, erased) for t, erased in zip(targets, report.tables, strict=True)]
    keys_at = workspace.config["stores.keys"]
    if any(report.states.values()) and "://" not in keys_at:
        report.freed_pages = keys_at
    report.remaining = find_subjects(workspace, tables, entity, keys.select(entity.keys), subjects)
    if len(entity.keys) == 1:
        report.remains, report.unseen = find_remains(workspace, columns[0].to_pylist())
    else:
        report.unseen = ["files: the key has several parts, which only together name a subject"]
    if not dry_run:
        _record(workspace, entity, columns, report, reason)
    return report


# tables ---------------------------------------------------------------------------------------------------------------


def _frames(workspace: Workspace, entity: Entity) -> set[str]:
    """Kept training frames with the keys of an entity; one that was erased from before holds nothing else."""
    tables, keys = workspace.tables, set(entity.keys)
    frames = [name for name in tables.names() if any(NOTE in version.metadata for version in tables.history(name))]
    return {name for name in frames if keys <= set(tables.schema(name).names)}


def _targets(
    workspace: Workspace, tables: Sequence[str], entity: Entity, keys: pa.Table, subjects: KeyIndex
) -> list[_Target]:
    targets = []
    for name in tables:
        targets.append(_Target(name, name, entity.keys, partial(belonging, entity=entity, subjects=subjects)))
        if workspace.tables.history(quarantine := quarantine_name(name)):
            targets.append(_Target(name, quarantine, ORIGINAL, partial(set_aside, keys=keys)))
    return targets


def _table(workspace: Workspace, target: _Target, *, dry_run: bool) -> TableErasure:
    name, belongs = target.name, target.belongs
    with workspace.lock(f"ingest/{target.base}"):
        batches = workspace.tables.batches(name, columns=list(target.columns))
        rows = sum(int(belongs(batch).sum()) for batch in batches if batch.num_rows)
        if rows and not dry_run:
            others = (batch.filter(pa.array(~belongs(batch))) for batch in workspace.tables.batches(name) if len(batch))
            reader = pa.RecordBatchReader.from_batches(workspace.tables.schema(name), others)
            workspace.tables.write(name, reader, mode="overwrite", metadata={_MODE: _WRITTEN})
        if not dry_run:  # also after an erasure that was killed between the table and its indexes
            EventIndexes.of(workspace).clear()
        _complete_ledger(workspace, name)
    return TableErasure(name, rows, workspace.tables.history(name)[-1].version, 0, [])


def _clear_older(workspace: Workspace, targets: Sequence[_Target], report: Erasure, why: str | None) -> None:
    """Delete the older versions that nothing refers to; and take the rows out of the others where there is a reason."""
    for target in targets:
        report.vacuum[target.name] = delete_versions(workspace, target.name, dry_run=False, older_than="0s").to_dict()
        if why is not None:
            report.rewritten[target.name] = rewrite(
                workspace, target.name, target.belongs, columns=target.columns, reason=why, lock=target.base
            )
    EventIndexes.of(workspace).clear()  # one of an older version may have been made meanwhile


def _older(workspace: Workspace, target: _Target, erased: TableErasure) -> TableErasure:
    """The erasure with the older versions that hold rows of the subjects; each file of them is read once."""
    tables, name = workspace.tables, target.name
    history, rows, versions = tables.history(name), dict[str, int](), list[int]()
    for version in (one.version for one in history[:-1] if not one.vacuumed):
        if not set(target.columns) <= set(tables.schema(name, version).names):
            continue
        paths = [file.path for file in tables.files(name, version)]
        for path in (path for path in paths if path not in rows):
            batches = tables.dataset(name, version, paths=[path]).to_batches(columns=list(target.columns))
            rows[path] = sum(int(target.belongs(batch).sum()) for batch in batches if batch.num_rows)
        if any(rows[path] for path in paths):
            versions.append(version)
    holders = references(workspace, name)
    reasons = sorted({holder for version in versions for holder in holders.get(version, ())})
    return replace(erased, version=history[-1].version, older=len(versions), kept_for=reasons)


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
    hits: dict[str, int] = {}
    for one in report.remains:  # by kind: the name of a file may be that of a subject
        hits[one.kind] = hits.get(one.kind, 0) + one.hits
    facts = {
        "subjects": sorted(subjects),
        "reason": reason,
        "tables": {erased.table: {"version": erased.version, "rows": erased.rows} for erased in report.tables},
        "rewritten": {
            name: {"versions": list(one.versions), "rows": one.rows} for name, one in report.rewritten.items()
        },
        "states": report.states,
        "counted_in": report.counted_in,
        "remaining": report.remaining,
        "remains": hits,
    }
    with workspace.ledger.transaction() as tx:
        # No lineage: an edge would keep the versions it names from being vacuumed.
        tx.append("features.erase", f"entity:{entity.name}", facts)
