"""Rows taken out of versions that are there: a new file in the place of each that had any, in every version at once.

Entries of the log are never altered, since the ledger names them by their hash: one more entry says which files have
others in their place. Writing the versions anew as versions was rejected: what runs and tags refer to would be the old
numbers, and those would have to be deleted. A process that dies before the entry leaves files that nobody names; one
that dies after it, files that no version needs: a vacuum deletes both.
"""

from __future__ import annotations

import bisect
from collections.abc import Collection, Iterator, Mapping, Sequence
from urllib.parse import quote

import pyarrow as pa

from retrodict.stores.tables._file_reader import batches_of, check_sizes
from retrodict.stores.tables._file_writer import file_name, row_groups, write_file
from retrodict.stores.tables._log import ORDER, PLANNED, REMOVED, Action, DataFile, Log, add, remove
from retrodict.stores.tables._places import Place
from retrodict.stores.tables.base import Belongs


def shortened(
    place: Place, log: Log, belongs: Belongs, columns: Sequence[str], spare: Collection[int]
) -> Iterator[tuple[str, Action]]:
    """Path of each file that has rows which go, with what adds the new file that has the others."""
    for file, version in _candidates(log, spare):
        schema = log.snapshot(version).schema
        if not set(columns) <= set(schema.names):
            continue
        check_sizes(place, log.table, [file])
        rows = sum(int(belongs(b).sum()) for b in batches_of(place, log.table, [file], schema, columns) if len(b))
        if not rows:
            continue
        batches = batches_of(place, log.table, [file], schema, schema.names)
        others = (batch.filter(pa.array(~belongs(batch))) for batch in batches if len(batch))
        new = write_file(place, log.table, file_name(*file.order), row_groups(others), schema)
        tags = {ORDER: "{}-{}".format(*file.order), PLANNED: str(file.weight), REMOVED: str(file.removed + rows)}
        yield quote(file.path), add(new.path, new.size, new.rows, tags=tags)["add"]


def _candidates(log: Log, spare: Collection[int]) -> list[tuple[DataFile, int]]:
    """Files of versions that can be read and no spared one holds, each with the first version that named it."""
    files = {file.path: file for commit in log.commits for file in (*commit.added, *commit.replaced.values())}
    readable = [commit.info.version for commit in log.commits if commit.info.version not in log.vacuumed]
    spared, firsts = sorted(spare), dict[str, int]()
    spared_paths = {path for path, first, end in log.lives() if _any(spared, first, end)}
    for path, first, end in log.lives():
        if path not in spared_paths and _any(readable, first, end):
            firsts[path] = min(first, firsts.get(path, first))
    return sorted(((files[path], first) for path, first in firsts.items()), key=lambda one: one[0].order)


def _any(versions: list[int], first: int, end: int) -> bool:
    return bisect.bisect_left(versions, first) < bisect.bisect_left(versions, end)


def actions(log: Log, replaced: Mapping[str, Action]) -> list[Action]:
    """Actions that exchange the files that the newest version has."""
    assert log.newest is not None
    old = [file for file in log.newest.ordered() if quote(file.path) in replaced]
    return [remove(file) for file in old] + [{"add": replaced[quote(file.path)]} for file in old]


def rewritten_by(log: Log) -> dict[int, tuple[int, ...]]:
    """Versions with rows taken out, each with the versions that say so."""
    versions: dict[int, list[int]] = {}
    lives: dict[str, list[tuple[int, int]]] = {}
    for path, first, end in log.lives():
        lives.setdefault(path, []).append((first, end))
    for commit in log.commits:
        now = {log.replaced[path].path for path in commit.replaced}
        for version in {v for path in now for first, end in lives.get(path, ()) for v in range(first, end)}:
            if version < commit.info.version:
                versions.setdefault(version, []).append(commit.info.version)
    return {version: tuple(sorted(by)) for version, by in versions.items()}
