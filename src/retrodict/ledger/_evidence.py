"""Holds what entries claim against what is stored: objects, files, versions of tables, rows of other rooms, streams."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy import Connection, column, func, select
from sqlalchemy import table as named_table
from sqlalchemy.exc import DBAPIError

from retrodict.core.errors import NotFoundError, RetrodictError
from retrodict.core.identity import canonical_json, digest
from retrodict.ledger._replay import AuditFinding, attempt
from retrodict.ledger.chain import Entry
from retrodict.ledger.heads import Prefix, SignedHead
from retrodict.ledger.keys import Keys
from retrodict.ledger.merkle import merkle_root
from retrodict.ledger.rows import read_rows, row_digest, rows_digest
from retrodict.ledger.segments import Seal, leaves_of, removal_of, seal_of
from retrodict.ledger.table_versions import NamedVersions, SignedVersion, announced_by
from retrodict.stores.objects.base import ObjectStore
from retrodict.stores.streams.base import Segment, StreamStore

if TYPE_CHECKING:  # importing it loads Arrow
    from retrodict.stores.tables.base import LogEntry

T = TypeVar("T")

_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(slots=True)
class Claims:
    """What there is to know of all entries before each is looked at, gathered in one pass."""

    # By table and key of rows: the last entry that vouches for them, and the place in its records.
    newest: dict[tuple[str, bytes], tuple[int, int]] = field(default_factory=dict)
    earlier_runs: set[str] = field(default_factory=set)  # recorded before entries vouched for their rows
    seals: list[tuple[Entry, Seal]] = field(default_factory=list)
    # By entries that others may rest on: segments, files that a vacuum or a rewrite deleted, versions of tables.
    sealed: set[tuple[str, str]] = field(default_factory=set)
    removed: set[tuple[str, str]] = field(default_factory=set)
    deleted: set[str] = field(default_factory=set)
    versions: NamedVersions = field(default_factory=NamedVersions)

    def gather(self, entries: Iterable[Entry], is_trusted: Callable[[int], bool]) -> Claims:
        """Take in entries in their order."""
        for entry in entries:
            for at, place, _ in _records(entry):
                self.newest[place] = entry.sequence, at
            if entry.action == "run.finish" and "records" not in entry.payload:
                self.earlier_runs.add(entry.object_id.removeprefix("run:"))
            seal = seal_of(entry)
            self.seals += [(entry, seal)] if seal else []
            if is_trusted(entry.sequence):
                self.sealed |= {(seal.stream, seal.segment)} if seal else set()
                removal = removal_of(entry)
                self.removed |= {(removal.stream, removal.segment)} if removal else set()
                self.versions.add([entry])
                if entry.action in ("dataset.vacuum", "dataset.rewrite"):
                    self.deleted |= {*_texts(entry.payload.get("deleted"))}
        return self


# objects and files --------------------------------------------------------------------------------------------


def check_objects(entry: Entry, objects: ObjectStore, seen: set[str]) -> Iterator[AuditFinding]:
    """Read every object that an entry names first, and the parts that a manifest among them names."""
    where, waiting = f"{entry.object_id} (entry {entry.sequence})", _texts(entry.payload.get("objects"))
    while waiting:
        sha = waiting.pop()
        if sha in seen:
            continue
        seen.add(sha)
        try:
            waiting += _parts(objects.get(sha))
        except NotFoundError:
            yield AuditFinding("removed", where, f"object {sha} is gone")
        except (RetrodictError, OSError) as error:
            yield AuditFinding("altered", where, str(error))


def _texts(value: object) -> list[str]:
    return [part for part in value if isinstance(part, str)] if isinstance(value, list) else []


def _parts(data: bytes) -> list[str]:
    """Objects that a manifest (``{"parts": {name: SHA-256}}``) is made of."""
    if not data.startswith(b"{"):
        return []
    try:
        parts = json.loads(data).get("parts")
    except (ValueError, RecursionError):
        return []
    digests = parts.values() if isinstance(parts, dict) else []
    return [part for part in digests if isinstance(part, str) and _DIGEST.fullmatch(part)]


def check_files(
    entry: Entry, deleted: Collection[str], file_digest: Callable[[str], str]
) -> Iterator[AuditFinding | None]:
    """Finding or None of every file that an entry names; one that was deleted may be gone."""
    where, files = f"{entry.object_id} (entry {entry.sequence})", entry.payload.get("files")
    for path, sha in files.items() if isinstance(files, dict) else ():
        try:
            same = file_digest(path) == sha
        except NotFoundError:
            yield None if path in deleted else AuditFinding("removed", where, f"data file {path} is gone")
        except (RetrodictError, OSError) as error:
            yield AuditFinding("altered", where, f"data file {path}: {error}")
        else:
            detail = f"data file {path} does not have the hash that was written"
            yield None if same else AuditFinding("altered", where, detail)


def read_each(
    noun: str, names: Iterable[str], read: Callable[[str], list[T]]
) -> tuple[dict[str, list[T]], list[AuditFinding]]:
    """What is read of each stream or table, and those whose files are not in order."""
    contents, findings = {}, []
    for name in names:
        try:
            contents[name] = read(name)
        except (RetrodictError, OSError) as error:
            findings.append(AuditFinding("altered", f"{noun} {name}", str(error)))
    return contents, findings


def check_versions(
    logs: Mapping[str, list[LogEntry]], entered: NamedVersions, statements: list[SignedVersion], keys: Keys
) -> Iterator[AuditFinding]:
    """Name the versions in the logs of tables that neither was ``entered`` nor is in a signed statement.

    ``logs`` are those of all tables as they were before the chain was read.
    """
    for one in statements:  # of one that says what the chain says the signature is not looked at
        if entered.of(str(one.name)).get(one.version) != one.digest and not one.is_valid(keys):
            where = f"statement on table {one.name}, version {one.version}"
            yield AuditFinding("altered", where, "the ledger's key of its time did not sign it")
    for name, log in logs.items():
        waiting = (one for one in statements if one.name == name and one.version not in entered.of(name))
        announced = announced_by(waiting, keys)
        for entry in log:
            # Of a version that the chain names otherwise, the files of its entry say so.
            if entry.version not in entered.of(name) and entry.digest not in announced.get(entry.version, ()):
                detail = "no signed entry names it: neither it nor what follows is read"
                yield AuditFinding("unsigned", f"table {name}, version {entry.version}", detail)


# rows of other rooms ------------------------------------------------------------------------------------------


def check_records(
    connection: Connection, entries: Iterable[Entry], claims: Claims, tables: Collection[str] | None
) -> Iterator[AuditFinding]:
    """Compare rows that entries vouch for (:meth:`Transaction.insert`, ``vouch``) with what their tables hold.

    Of several entries on the same rows the last counts. In ``tables`` no row may be that nothing vouches for, also
    where nothing does for any; but for runs that were recorded before entries vouched for them. None: these are not
    all entries, so rows that none of them vouches for are no finding.
    """
    vouched, earlier = dict.fromkeys(tables or (), 0), claims.earlier_runs
    for entry in entries:
        for at, place, record in _records(entry):
            if claims.newest[place] == (entry.sequence, at):
                rows = record.get("rows", 1)
                vouched[place[0]] = vouched.get(place[0], 0) + (rows if isinstance(rows, int) else 0)
                with suppress(KeyError, TypeError, AttributeError):
                    yield from _check_record(connection, record, f"{entry.object_id} (entry {entry.sequence})")
    for name, count in vouched.items() if tables is not None else ():
        query = select(func.count()).select_from(named_table(name))
        if earlier and name.startswith("run"):
            query = query.where(column("id" if name == "runs" else "run").not_in(sorted(earlier)))
        try:
            with attempt(connection):
                present = connection.execute(query).scalar_one()
        except DBAPIError:
            continue  # it was never made, or every row of it is reported
        if present > count:
            detail = f"{present - count} rows were added that no entry vouches for"
            yield AuditFinding("altered", f"table {name}", detail)


def _records(entry: Entry) -> Iterator[tuple[int, tuple[str, bytes], dict[str, Any]]]:
    """(position, table and key, record) of what an entry vouches for; what was altered is reported as such already."""
    records = entry.payload.get("records")
    for at, record in enumerate(records if isinstance(records, list) else ()):
        with suppress(KeyError, TypeError, RetrodictError):
            yield at, (str(record["table"]), canonical_json(record["key"])), record


def _check_record(connection: Connection, record: dict[str, Any], where: str) -> Iterator[AuditFinding]:
    key, columns, count = record["key"], record["columns"], record.get("rows")
    title = f"row {', '.join(str(value) for value in key.values())} of {record['table']}"
    try:
        with attempt(connection):
            rows = read_rows(connection, record["table"], key, columns)
        if len(rows) < (1 if count is None else count):
            yield AuditFinding("removed", where, f"{title} is gone")
        elif (rows_digest(rows) if count is not None else row_digest(columns, rows[0])) != record["digest"]:
            yield AuditFinding("altered", where, f"{title} is not what was written")
    except DBAPIError:
        yield AuditFinding("removed", where, f"{title} is gone")
    except RetrodictError:
        yield AuditFinding("altered", where, f"{title} is not what was written")


# streams of records that are sealed ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class OpenSegment:
    """A segment that is not sealed yet: records that are signed, those that are not, and the age of the signature."""

    stream: str
    segment: str
    signed: int
    unsigned: int
    age_us: int


def check_seals(listed: Iterable[Seal], sealed: Iterable[Seal]) -> Iterator[AuditFinding]:
    """Compare the table of seals, which is an index, with the chain."""
    in_table = {(seal.stream, seal.segment): seal for seal in listed}
    in_chain = {(seal.stream, seal.segment): seal for seal in sealed}
    for (stream, segment), seal in in_chain.items():
        stored = in_table.get((stream, segment))
        if stored != seal:
            what, kind = ("says otherwise", "altered") if stored else ("is gone", "removed")
            detail = f"the table of seals {what}; entry {seal.sequence} holds the seal"
            yield AuditFinding(kind, f"seal of {stream}/{segment}", detail)
    for stream, segment in in_table.keys() - in_chain.keys():
        yield AuditFinding("altered", f"seal of {stream}/{segment}", "no entry of the chain made this seal")


def check_segment(
    streams: StreamStore, entry: Entry, seal: Seal, removed: Collection[tuple[str, str]]
) -> Iterator[AuditFinding]:
    """Recompute hash and Merkle root of a segment that an entry seals, and of what was signed before.

    One of those that trusted entries say were ``removed`` may be missing.
    """
    where = f"segment {seal.stream}/{seal.segment} (entry {seal.sequence})"
    try:
        data = streams.read_segment(seal.stream, seal.segment)
        if digest(data) != seal.digest:
            yield AuditFinding("altered", where, "the file does not have the hash that was sealed")
        elif merkle_root(leaves_of(streams, seal.stream, seal)).hex() != seal.root:
            yield AuditFinding("altered", where, "its records do not have the root that was sealed")
        elif (signed := entry.payload.get("signed")) is not None:
            yield from _check_prefix(data, signed, where)
    except NotFoundError as error:
        if (seal.stream, seal.segment) not in removed:
            yield AuditFinding("removed", where, str(error))
    except (RetrodictError, OSError, TypeError, KeyError) as error:
        yield AuditFinding("altered", where, str(error))


def _check_prefix(data: bytes, signed: Mapping[str, object], where: str) -> Iterator[AuditFinding]:
    """Compare the beginning of a segment with what a head said of it."""
    size, count = signed["size"], signed["count"]
    assert isinstance(size, int)
    if len(data) < size:
        yield AuditFinding("cut off", where, f"it no longer has the {count} records that were signed")
    elif digest(data[:size]) != signed["digest"]:
        yield AuditFinding("altered", where, f"its first {count} records are not those that were signed")


def check_heads(
    heads: Mapping[str, SignedHead | None],
    files: Mapping[str, Iterable[str]],
    listed: Mapping[str, Iterable[Segment]],
    sealed: Collection[tuple[str, str]],
    keys: Keys,
    streams: StreamStore,
    now: int,
) -> Iterator[AuditFinding | OpenSegment]:
    """Compare what is not sealed with the signed heads, and name what neither names; and how far signatures reach.

    The heads are as they were before the chain was read, files and segments as they were before the heads were; sealed
    are those of signed entries.
    """
    for stream in sorted({*heads, *files}):
        head = heads.get(stream)
        if stream in heads and (head is None or not head.is_valid(keys)):
            yield AuditFinding("altered", f"head of {stream}", "the ledger's key of its time did not sign it")
            head = None
        prefixes = {} if head is None else {one.segment: one for one in head.prefixes}
        for prefix in prefixes.values():
            if (stream, prefix.segment) not in sealed:
                yield from _check_open(streams, stream, prefix)
        for name in files.get(stream, ()):
            if name not in prefixes and (stream, name) not in sealed:
                detail = "neither a seal nor a signed head names it: it is not read"
                yield AuditFinding("unsigned", f"segment {stream}/{name}", detail)
        for segment in listed.get(stream, ()):
            prefix_ = prefixes.get(segment.name)
            if prefix_ is not None and head is not None and (stream, segment.name) not in sealed:
                rest = max(segment.count - prefix_.count, 0)
                yield OpenSegment(stream, segment.name, prefix_.count, rest, now - head.time)


def _check_open(streams: StreamStore, stream: str, prefix: Prefix) -> Iterator[AuditFinding]:
    where = f"segment {stream}/{prefix.segment}"
    if not prefix.count:
        return
    try:
        data = streams.read_segment(stream, prefix.segment)
        facts = {"count": prefix.count, "size": prefix.size, "digest": prefix.digest}
        yield from _check_prefix(data, facts, where)
    except NotFoundError:
        yield AuditFinding("removed", where, f"{prefix.count} records of it were signed, and it is gone")
    except (RetrodictError, OSError) as error:
        yield AuditFinding("altered", where, str(error))
