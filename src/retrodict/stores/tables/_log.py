"""The log of a table, read and built here: JSON entries of the Delta protocol, numbered from 0 without gaps.

The library's own snapshot was rejected for reading, because it trusts a checkpoint over the entries (an altered one
would change history unnoticed) and loads the log anew each time; and for writing, because it cannot change columns and
add files in one commit. Entries never change, so each is parsed once and kept in memory; its size and time of change
are compared on every use. Checkpoints are written for other readers only.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, cast
from urllib.parse import quote, unquote

import pyarrow as pa
from deltalake import Schema

from retrodict.core.clock import SystemClock, format_time
from retrodict.core.errors import InputError, IntegrityError, NotFoundError
from retrodict.core.identity import digest
from retrodict.stores.tables._types import stored_type_of
from retrodict.stores.tables.base import TableVersion

ORDER, PLANNED, REMOVED = "retrodict.order", "retrodict.planned", "retrodict.removed"
_FOREVER = "interval 36500 days"
_CONFIGURATION = {
    "delta.enableExpiredLogCleanup": "false",
    "delta.logRetentionDuration": _FOREVER,
    "delta.deletedFileRetentionDuration": _FOREVER,
}
Action = dict[str, Any]


@dataclass(frozen=True, slots=True)
class DataFile:
    """A data file as the log names it; ``order`` is its place among the files of any version that holds it."""

    path: str
    size: int
    rows: int | None
    order: tuple[int, int]
    action: Mapping[str, Any]

    @property
    def weight(self) -> int:
        """Bytes it counts for in a compaction: what it was made of, so that a second one finds nothing new."""
        return int((self.action.get("tags") or {}).get(PLANNED, self.size))

    @property
    def removed(self) -> int:
        """Rows that it had before it was rewritten, and has no more."""
        return int((self.action.get("tags") or {}).get(REMOVED, 0))


@dataclass(frozen=True, slots=True)
class Commit:
    """One entry of the log."""

    info: TableVersion
    added: tuple[DataFile, ...]
    removed: tuple[str, ...]
    definition: Mapping[str, Any] | None
    protocol: Mapping[str, Any] | None
    vacuumed: frozenset[int]
    digest: str
    replaced: Mapping[str, DataFile] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a version holds."""

    version: int
    files: Mapping[str, DataFile]
    definition: Mapping[str, Any]
    protocol: Mapping[str, Any]

    @property
    def schema(self) -> pa.Schema:
        """Columns in the types that tables keep."""
        return _schema(str(self.definition["schemaString"]))

    def ordered(self) -> list[DataFile]:
        """Files in the order their rows were written."""
        return sorted(self.files.values(), key=lambda file: file.order)


@dataclass(frozen=True)
class Log:
    """All entries of a table, oldest first; ``extended`` makes a longer one, nothing changes in place.

    Entries name files for good. One that was rewritten is another file by now in every version that names it:
    ``replaced`` says which, and no snapshot names the one that is gone.
    """

    table: str
    commits: tuple[Commit, ...] = ()
    newest: Snapshot | None = None
    firsts: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    vacuumed: Mapping[int, TableVersion] = field(default_factory=dict)
    replaced: Mapping[str, DataFile] = field(default_factory=dict)

    def extended(self, commits: Sequence[Commit]) -> Log:
        """Return the log with more entries."""
        if not commits:
            return self
        firsts, vacuumed, replaced = dict(self.firsts), dict(self.vacuumed), dict(self.replaced)
        for commit in commits:
            for added in commit.added:
                firsts.setdefault(added.path, added.order)
            for version in commit.vacuumed:
                vacuumed.setdefault(version, commit.info)
            for path, new in replaced.items():
                replaced[path] = commit.replaced.get(new.path, new)
            replaced |= commit.replaced
        longer = replace(self, commits=(*self.commits, *commits), firsts=firsts, vacuumed=vacuumed, replaced=replaced)
        return replace(longer, newest=longer.replayed(self.newest, commits))

    def lives(self) -> list[tuple[str, int, int]]:
        """Path of each file, as it is now, with the versions that hold it, from the first to before the end."""
        lives: list[tuple[str, int, int]] = []
        since: dict[str, int] = {}
        for commit in self.commits:
            ended = [path for path in commit.removed if path in since]
            lives += [(path, since.pop(path), commit.info.version) for path in ended]
            for file in commit.added:
                since.setdefault(file.path, commit.info.version)
        lives += [(path, first, len(self.commits)) for path, first in since.items()]
        return [(self.replaced[path].path if path in self.replaced else path, first, end) for path, first, end in lives]

    def snapshot(self, version: int | None = None) -> Snapshot:
        """State at a version (None: the newest) of a table that can be read."""
        assert self.newest is not None
        if version is not None and not 0 <= version <= self.newest.version:
            raise NotFoundError(
                "the table must have this version",
                where=f"table {self.table}",
                got=version,
                remedy=f"Known: 0 to {self.newest.version}",
            )
        state = self.newest
        if version is not None and version != state.version:
            state = self.replayed(None, self.commits[: version + 1])
        if state.protocol["minReaderVersion"] > 1 or state.definition.get("partitionColumns"):
            raise InputError(
                "the table must have neither partitions nor reader features (deletion vectors, column mapping)",
                where=f"table {self.table}",
                remedy="Copy it through another reader into a table of this store",
                got="one that has",
            )
        return state

    def readable(self, version: int | None = None) -> Snapshot:
        """State at a version whose data has not been vacuumed."""
        state = self.snapshot(version)
        if by := self.vacuumed.get(state.version):
            raise NotFoundError(
                f"a version must not be vacuumed to be read, and this one was vacuumed at {format_time(by.time)}",
                where=f"table {self.table}",
                got=state.version,
                remedy=f"It was done by version {by.version}, for good: restore the data folder from a copy of before",
            )
        return state

    def replayed(self, state: Snapshot | None, commits: Iterable[Commit]) -> Snapshot:
        """State after more entries of this log, on top of an earlier one."""
        files = dict(state.files) if state else {}
        definition, protocol = (state.definition, state.protocol) if state else (None, None)
        version = -1
        for commit in commits:
            version = commit.info.version
            definition, protocol = commit.definition or definition, commit.protocol or protocol
            for path in commit.removed:
                files.pop(path, None)
            for added in commit.added:
                # A file that was removed and came back (a restore) stays where it was first.
                order = self.firsts[added.path]
                files[added.path] = (
                    added if added.order == order else DataFile(added.path, added.size, added.rows, order, added.action)
                )
        if definition is None or protocol is None:
            raise damaged_log(self.table)
        if self.replaced:
            now = [self.replaced.get(path, file) for path, file in files.items()]
            files = {file.path: file for file in now}
        return Snapshot(version, files, definition, protocol)


def parse(table: str, version: int, data: bytes) -> Commit:
    """Entry from its bytes; IntegrityError if it is not one."""
    try:
        actions = [json.loads(line) for line in data.decode("utf-8").splitlines() if line.strip()]
        info: Action = next((action["commitInfo"] for action in actions if "commitInfo" in action), {})
        adds = [(place, action["add"]) for place, action in enumerate(actions) if "add" in action]
        if not actions:
            raise damaged_log(table)
        return Commit(
            TableVersion(
                version,
                int(info.get("timestamp", 0)) * 1_000,
                str(info.get("operation", "UNKNOWN")),
                _unpack_metadata(info.get("userMetadata")),
            ),
            tuple(_data_file(table, version, place, add) for place, add in adds),
            tuple(unquote(action["remove"]["path"]) for action in actions if "remove" in action),
            next((action["metaData"] for action in actions if "metaData" in action), None),
            next((action["protocol"] for action in actions if "protocol" in action), None),
            frozenset(info.get("vacuumed", ())),
            digest(data),
            {unquote(path): _data_file(table, version, 0, add) for path, add in info.get("replaced", {}).items()},
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise damaged_log(table) from error


def damaged_log(table: str) -> IntegrityError:
    """Error of a log with a hole, or an entry that is none."""
    return IntegrityError(
        "the log of the table must be readable",
        where=f"table {table}",
        remedy="Restore its folder _delta_log from a copy",
        got="a log that is damaged or cut off",
    )


# building -----------------------------------------------------------------------------------------------------


def entry(log: Log, actions: Sequence[Action], operation: str, note: str, **more: Any) -> bytes:
    """Bytes of the next entry. The id in it tells our commit from another one when the answer was lost."""
    now = SystemClock().now() // 1_000
    if log.commits:
        now = max(now, log.commits[-1].info.time // 1_000)  # the clock may have been set back
    info = {
        "timestamp": now,
        "operation": operation,
        "engineInfo": "retrodict",
        "txnId": str(uuid.uuid4()),
        "userMetadata": note,
        **more,
    }
    lines = [{"commitInfo": info}, *actions]
    return "".join(json.dumps(line, separators=(",", ":"), ensure_ascii=False) + "\n" for line in lines).encode()


def begin(schema: pa.Schema) -> list[Action]:
    """Actions that make a table."""
    definition = {
        "id": str(uuid.uuid4()),
        "format": {"provider": "parquet", "options": {}},
        "schemaString": schema_text(schema),
        "partitionColumns": [],
        "createdTime": SystemClock().now() // 1_000,
        "configuration": _CONFIGURATION,
    }
    return [{"protocol": {"minReaderVersion": 1, "minWriterVersion": 2}}, {"metaData": definition}]


def redefine(state: Snapshot, text: str) -> list[Action]:
    """Actions that give a table other columns; none if they are the same."""
    if _schema(text).equals(state.schema):
        return []
    return [{"metaData": {**state.definition, "schemaString": text}}]


def add(path: str, size: int, rows: int, *, tags: Mapping[str, str] | None = None, change: bool = True) -> Action:
    """Action that adds a data file."""
    action: Action = {
        "path": quote(path),
        "partitionValues": {},
        "size": size,
        "modificationTime": SystemClock().now() // 1_000,
        "dataChange": change,
        "stats": json.dumps({"numRecords": rows}),
    }
    return {"add": {**action, "tags": dict(tags)} if tags else action}


def remove(file: DataFile, *, change: bool = True) -> Action:
    """Action that takes a file out of the table; its bytes stay for older versions."""
    return {
        "remove": {
            "path": file.action["path"],
            "deletionTimestamp": SystemClock().now() // 1_000,
            "dataChange": change,
            "extendedFileMetadata": True,
            "partitionValues": {},
            "size": file.size,
        }
    }


def schema_text(schema: pa.Schema) -> str:
    """Columns as the log writes them."""
    return str(Schema.from_arrow(cast("Any", schema)).to_json())


def pack_metadata(metadata: Mapping[str, str] | None, where: str) -> str:
    """What a writer said, as text for the log."""
    plain: dict[Any, Any] = dict(metadata or {})
    if not all(isinstance(part, str) for item in plain.items() for part in item):
        raise InputError(
            "the metadata of a version must be text by text",
            where=where,
            got={str(key): type(value).__name__ for key, value in plain.items()},
            remedy="Use str(value)",
        )
    return json.dumps(plain, sort_keys=True)


def _unpack_metadata(text: object) -> dict[str, str]:
    if not isinstance(text, str):
        return {}
    try:
        value = json.loads(text)
    except ValueError:
        return {"userMetadata": text}  # another program's note
    return {str(k): str(v) for k, v in value.items()} if isinstance(value, dict) else {"userMetadata": text}


def _data_file(table: str, version: int, place: int, action: Action) -> DataFile:
    path = unquote(action["path"])
    if "://" in path or path.startswith("/") or ".." in path.split("/") or action.get("deletionVector"):
        raise InputError(
            "the files of a table must lie in its folder, each with all its rows",
            where=f"table {table}",
            remedy="Copy it through another reader into a table of this store",
            got="files elsewhere, or deleted rows",
        )
    stats = json.loads(action.get("stats") or "{}")
    rows = stats.get("numRecords")
    order = (version, place)
    if text := (action.get("tags") or {}).get(ORDER):
        first, _, second = text.partition("-")
        order = (int(first), int(second))
    return DataFile(path, int(action["size"]), None if rows is None else int(rows), order, action)


@lru_cache(maxsize=256)
def _schema(text: str) -> pa.Schema:
    schema = pa.schema(cast("Any", Schema.from_json(text).to_arrow()))  # by the Arrow interface, unknown to the stubs
    return pa.schema([pa.field(part.name, stored_type_of(part.type, f"column {part.name!r}")) for part in schema])
