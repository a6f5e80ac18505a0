"""Holds entries and what they name against what is stored: the chain, objects, files, rows of other rooms.

Rows are read as an auditor does: nothing in them is trusted to have the type, form or place it should.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, func, select
from sqlalchemy import table as named_table
from sqlalchemy.exc import DBAPIError

from retrodict.core.errors import NotFoundError, RetrodictError
from retrodict.core.identity import canonical_json
from retrodict.ledger._findings import AuditFinding
from retrodict.ledger.chain import GENESIS, Entry, entry_hash
from retrodict.ledger.checkpoints import is_endorsed
from retrodict.ledger.ledger import ACCEPT, KEY_ACTIONS, Keys, read_rows, row_digest, rows_digest
from retrodict.ledger.merkle import Frontier, leaf_hash
from retrodict.ledger.schema import edges, entries
from retrodict.ledger.table_versions import NamedVersions, SignedVersion, announced_by
from retrodict.stores.objects.base import ObjectStore

if TYPE_CHECKING:  # importing it loads Arrow
    from retrodict.stores.tables.base import LogEntry, TableStore

_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass
class Chain:
    """The entries that could be read, in order, and what is wrong with them and with those that could not."""

    entries: list[Entry] = field(default_factory=list)
    rows: int = 0
    findings: list[AuditFinding] = field(default_factory=list)
    faulty: set[int] = field(default_factory=set)

    @cached_property
    def hashes(self) -> dict[int, str]:
        """Hash of each entry by its number."""
        return {entry.sequence: entry.hash for entry in self.entries}

    def trusted(self, signed: Collection[int]) -> list[Entry]:
        """Entries from which the chain goes on without a fault to one whose end was signed: what others may rest on."""
        entries, intact = [], False
        for entry in reversed(self.entries):
            intact = (intact or entry.sequence in signed) and entry.sequence not in self.faulty
            entries += [entry] if intact else []
        return entries[::-1]

    @cached_property
    def key_times(self) -> Keys:
        """Public keys, each from which time on it signs."""
        keys = [(e.time, str(e.payload.get("public_key"))) for e in self.entries if e.action in KEY_ACTIONS]
        return [(time, key) for time, key in keys if type(time) is int]

    def roots(self, sizes: Collection[int]) -> dict[int, str]:
        """Root of the Merkle tree over the first so many entries, for some sizes."""
        tree, roots = Frontier(), {}
        for sequence in range(1, max(sizes, default=0) + 1):
            if sequence not in self.hashes:
                break
            tree.add(leaf_hash(bytes.fromhex(self.hashes[sequence])))
            if sequence in sizes:
                roots[sequence] = tree.root().hex()
        return roots

    @cached_property
    def keys(self) -> list[tuple[int, Any]]:
        """From which entry on which key signs."""
        return [(e.sequence, e.payload.get("public_key")) for e in self.entries if e.action in KEY_ACTIONS]


def read_chain(connection: Connection) -> Chain:
    """Read every entry and recompute its hash and its place."""
    chain, previous, expected, time = Chain(), GENESIS, 1, 0
    for row in connection.execute(select(entries).order_by(entries.c.sequence)):
        chain.rows += 1
        faults, in_place = [], row.sequence == expected
        if row.sequence > expected:
            last = f" to {row.sequence - 1}" if row.sequence - 1 > expected else ""
            detail = f"the chain goes on with entry {row.sequence}"
            chain.findings.append(AuditFinding("removed", f"entry {expected}{last}", detail))
        elif not in_place:
            faults.append("a chain has no entry of this number")
        entry = _read(row, faults)
        if in_place and row.previous != previous:
            faults.append("it does not continue the entry before it")
        if entry is not None:
            chain.entries.append(entry)
            moment: object = entry.time
            if isinstance(moment, int) and moment < time:
                faults.append("its time is before that of the entry before it")
            elif isinstance(moment, int):
                time = moment
        chain.findings += [AuditFinding("altered", f"entry {row.sequence}", text) for text in faults]
        chain.faulty |= {row.sequence} if faults else set()
        previous, expected = row.hash, max(expected, row.sequence + 1)
    return chain


def _read(row: Any, faults: list[str]) -> Entry | None:
    """Entry of a row; what is wrong with it is added to ``faults``."""
    try:
        payload = json.loads(row.payload)
        computed = entry_hash(
            sequence=row.sequence,
            time=row.time,
            actor=row.actor,
            action=row.action,
            object_id=row.object_id,
            payload=payload,
            previous=row.previous,
        )
        # Another spelling of the same facts would give the same hash: the text itself is held to the canonical one.
        as_written = row.payload == canonical_json(payload).decode()
    except (RetrodictError, ValueError, TypeError, RecursionError):
        faults.append("it cannot be read as an entry")
        return None
    if computed != row.hash or not as_written:
        faults.append(f"{row.action} of {row.object_id}: its content does not give its hash")
    if not isinstance(payload, dict):
        faults.append("its payload is no mapping")
        return None
    return Entry(row.sequence, row.time, row.actor, row.action, row.object_id, payload, row.previous, row.hash)


def check_keys(items: list[Entry], public_key: str | None) -> Iterator[AuditFinding]:
    """Whose signatures count: each key endorsed by the one before it, the first one as an auditor knows it."""
    before = public_key
    for entry in items:
        if entry.action in KEY_ACTIONS:
            key = str(entry.payload.get("public_key"))
            if entry.action == KEY_ACTIONS[0] and key != (public_key or key):
                yield AuditFinding("altered", f"entry {entry.sequence}", "it names another key than the one given")
            elif entry.action != KEY_ACTIONS[0] and not is_endorsed(
                key, entry.payload.get("endorsement"), before or ""
            ):
                signed = entry.payload.get("signed")
                detail = "another key signs from here on, and the one before it did not endorse it"
                detail += f"; that one signed up to entry {signed}" if isinstance(signed, int) else ""
                yield AuditFinding("renewed", f"entry {entry.sequence}", detail)
            before = key
        elif entry.action == ACCEPT:
            detail = (
                f"{entry.actor} went on from an end that was not the one signed last: {entry.payload.get('reason')}"
            )
            yield AuditFinding("accepted", f"entry {entry.sequence}", detail)


Link = tuple[int, int, str, str, str]


def check_edges(connection: Connection, items: list[Entry]) -> tuple[int, list[AuditFinding]]:
    """Compare the stored lineage edges with those that the entries name; return how many are stored, and findings."""
    query = select(edges.c.sequence, edges.c.position, edges.c.source, edges.c.role, edges.c.target)
    stored: set[Link] = {tuple(row) for row in connection.execute(query)}
    links = {link for entry in items for link in links_of(entry)}
    findings = [
        AuditFinding(kind, f"entry {sequence}", f"lineage edge {source} → {target} ({role}) {detail}")
        for kind, detail, faulty in (
            ("removed", "is gone", links - stored),
            ("altered", "is not in the chain", stored - links),
        )
        for sequence, _, source, role, target in sorted(faulty, key=repr)
    ]
    return len(stored), findings


def links_of(entry: Entry) -> Iterator[Link]:
    """Lineage edges that an entry names."""
    inputs = entry.payload.get("inputs", [])
    for position, edge in enumerate(inputs if isinstance(inputs, list) else []):
        if isinstance(edge, list) and len(edge) == 2 and all(isinstance(part, str) for part in edge):
            yield entry.sequence, position, edge[0], edge[1], entry.object_id


# objects and files --------------------------------------------------------------------------------------------


def check_objects(items: list[Entry], objects: ObjectStore, seen: set[str]) -> Iterator[AuditFinding]:
    """Read every object that entries name, and the parts that a manifest among them names."""
    for entry in items:
        where = f"{entry.object_id} (entry {entry.sequence})"
        waiting = _texts(entry.payload.get("objects"))
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
    items: list[Entry], trusted: list[Entry], file_digest: Callable[[str], str]
) -> Iterator[tuple[str, AuditFinding | None]]:
    """(path, finding or None) of every file that entries name; one that a trusted entry deleted may be gone."""
    vacuumed = {
        path for entry in trusted if entry.action == "dataset.vacuum" for path in _texts(entry.payload.get("deleted"))
    }
    for entry in items:
        where = f"{entry.object_id} (entry {entry.sequence})"
        files = entry.payload.get("files")
        for path, sha in files.items() if isinstance(files, dict) else ():
            try:
                same = file_digest(path) == sha
            except NotFoundError:
                finding = AuditFinding("removed", where, f"data file {path} is gone")
                yield path, None if path in vacuumed else finding
            except (RetrodictError, OSError) as error:
                yield path, AuditFinding("altered", where, f"data file {path}: {error}")
            else:
                detail = f"data file {path} does not have the hash that was written"
                yield path, None if same else AuditFinding("altered", where, detail)


def read_logs(store: TableStore) -> tuple[dict[str, list[LogEntry]], list[AuditFinding]]:
    """Log of every table, and the tables whose logs are not in order."""
    logs, findings = {}, []
    for name in store.names(every=True):
        try:
            logs[name] = store.log_entries(name)
        except (RetrodictError, OSError) as error:
            findings.append(AuditFinding("altered", f"table {name}", str(error)))
    return logs, findings


def check_versions(
    logs: Mapping[str, list[LogEntry]], trusted: list[Entry], statements: list[SignedVersion], keys: Keys
) -> Iterator[AuditFinding]:
    """Name the versions in the logs of tables that neither a trusted entry nor a signed statement names.

    ``logs`` are those of all tables as they were before the chain was read.
    """
    entered = NamedVersions()
    entered.add(trusted)
    for name, log in logs.items():
        waiting = (one for one in statements if one.name == name and one.version not in entered.of(name))
        announced = announced_by(waiting, keys)
        for entry in log:
            # Of a version that the chain names otherwise, the files of its entry say so.
            if entry.version not in entered.of(name) and entry.digest not in announced.get(entry.version, ()):
                detail = "no signed entry names it: neither it nor what follows is read"
                yield AuditFinding("unsigned", f"table {name}, version {entry.version}", detail)


# rows of other rooms ------------------------------------------------------------------------------------------


def check_records(connection: Connection, items: list[Entry], tables: Collection[str]) -> Iterator[AuditFinding]:
    """Compare rows that entries vouch for (:meth:`Transaction.insert`, ``vouch``) with what their tables hold.

    Of several entries on the same rows the last counts. In ``tables`` no row may be that nothing vouches for, also
    where nothing does for any; but for runs that were recorded before entries vouched for them.
    """
    newest: dict[tuple[str, bytes], tuple[dict[str, Any], str]] = {}
    for entry in items:
        records = entry.payload.get("records")
        for record in records if isinstance(records, list) else ():
            try:
                place = str(record["table"]), canonical_json(record["key"])
            except (KeyError, TypeError, RetrodictError):
                continue  # the entry was altered, and is reported as such
            newest[place] = record, f"{entry.object_id} (entry {entry.sequence})"
    vouched = dict.fromkeys(tables, 0)
    for (name, _), (record, where) in newest.items():
        rows = record.get("rows", 1)
        vouched[name] = vouched.get(name, 0) + (rows if isinstance(rows, int) else 0)
        with suppress(KeyError, TypeError, AttributeError):
            yield from _check_record(connection, record, where)
    earlier = sum(entry.action == "run.finish" and "records" not in entry.payload for entry in items)
    for name, count in vouched.items():
        try:
            present = connection.execute(select(func.count()).select_from(named_table(name))).scalar_one()
        except DBAPIError:
            continue  # it was never made, or every row of it is reported
        if present > count and not (earlier and name.startswith("run")):
            detail = f"{present - count} rows were added that no entry vouches for"
            yield AuditFinding("altered", f"table {name}", detail)


def _check_record(connection: Connection, record: dict[str, Any], where: str) -> Iterator[AuditFinding]:
    key, columns, count = record["key"], record["columns"], record.get("rows")
    title = f"row {', '.join(str(value) for value in key.values())} of {record['table']}"
    try:
        rows = read_rows(connection, record["table"], key, columns)
        if len(rows) < (1 if count is None else count):
            yield AuditFinding("removed", where, f"{title} is gone")
        elif (rows_digest(rows) if count is not None else row_digest(columns, rows[0])) != record["digest"]:
            yield AuditFinding("altered", where, f"{title} is not what was written")
    except DBAPIError:
        yield AuditFinding("removed", where, f"{title} is gone")
    except RetrodictError:
        yield AuditFinding("altered", where, f"{title} is not what was written")
