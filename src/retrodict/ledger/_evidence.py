"""Holds the things that entries name against what is stored: segments, objects, data files, rows of other rooms."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

from sqlalchemy import Connection, column, func, select
from sqlalchemy import table as named_table
from sqlalchemy.exc import DBAPIError

from retrodict.core.errors import NotFoundError, RetrodictError
from retrodict.core.identity import digest
from retrodict.ledger._chain_rows import AuditFinding
from retrodict.ledger.chain import Entry
from retrodict.ledger.ledger import row_digest
from retrodict.ledger.merkle import merkle_root
from retrodict.ledger.segments import Seal, leaves_of
from retrodict.stores.objects.base import ObjectStore
from retrodict.stores.streams.base import StreamStore

_DIGEST = re.compile(r"[0-9a-f]{64}")


# segments -----------------------------------------------------------------------------------------------------


def sealed_by(items: list[Entry]) -> list[Seal]:
    """Seals that the chain holds; an entry that was altered beyond reading is reported as such already."""
    seals = []
    for entry in items:
        if entry.action == "segment.seal":
            try:
                seals.append(Seal(**entry.payload, sequence=entry.sequence))
            except TypeError:
                continue
    return seals


def check_seals(listed: list[Seal], sealed: list[Seal]) -> Iterator[AuditFinding]:
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


def check_segment(streams: StreamStore, seal: Seal) -> Iterator[AuditFinding]:
    """Recompute the file hash and the Merkle root of a sealed segment."""
    where = f"segment {seal.stream}/{seal.segment} (entry {seal.sequence})"
    try:
        if digest(streams.read_segment(seal.stream, seal.segment)) != seal.digest:
            yield AuditFinding("altered", where, "the file does not have the hash that was sealed")
        elif merkle_root(leaves_of(streams, seal.stream, seal)).hex() != seal.root:
            yield AuditFinding("altered", where, "its records do not have the root that was sealed")
    except NotFoundError as error:
        yield AuditFinding("removed", where, str(error))
    except (RetrodictError, OSError, TypeError) as error:
        yield AuditFinding("altered", where, str(error))


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


def check_files(items: list[Entry], file_digest: Callable[[str], str]) -> Iterator[tuple[str, AuditFinding | None]]:
    """(path, finding or None) of every data file that entries name; one that a vacuum deleted may be gone."""
    vacuumed = {
        path for entry in items if entry.action == "dataset.vacuum" for path in _texts(entry.payload.get("deleted"))
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


# rows of other rooms ------------------------------------------------------------------------------------------


def check_records(connection: Connection, items: list[Entry]) -> Iterator[AuditFinding]:
    """Compare rows that entries vouch for (:meth:`Transaction.insert`) with what their tables hold."""
    vouched: dict[str, int] = {}
    for entry in items:
        where = f"{entry.object_id} (entry {entry.sequence})"
        records = entry.payload.get("records")
        for record in records if isinstance(records, list) else ():
            try:
                vouched[record["table"]] = vouched.get(record["table"], 0) + 1
                yield from _check_record(connection, record, where)
            except (KeyError, TypeError, AttributeError):
                continue  # the entry was altered, and is reported as such
    for name, count in vouched.items():
        try:
            rows = connection.execute(select(func.count()).select_from(named_table(name))).scalar_one()
        except DBAPIError:
            continue  # every row of it is reported
        if rows > count:
            detail = f"{rows - count} rows were added that no entry vouches for"
            yield AuditFinding("altered", f"table {name}", detail)


def _check_record(connection: Connection, record: dict[str, Any], where: str) -> Iterator[AuditFinding]:
    key, columns = record["key"], record["columns"]
    title = f"row {', '.join(str(value) for value in key.values())} of {record['table']}"
    query: Any = select(*(column(name) for name in columns)).select_from(named_table(record["table"]))
    for name, value in key.items():
        query = query.where(column(name) == value)
    try:
        row = connection.execute(query).mappings().first()
        if row is None:
            yield AuditFinding("removed", where, f"{title} is gone")
        elif row_digest(columns, dict(row)) != record["digest"]:
            yield AuditFinding("altered", where, f"{title} is not what was written")
    except DBAPIError:
        yield AuditFinding("removed", where, f"{title} is gone")
    except RetrodictError:
        yield AuditFinding("altered", where, f"{title} is not what was written")
