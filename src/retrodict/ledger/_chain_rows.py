"""Reads the ledger's rows as an auditor does: nothing in them is trusted to have the type, form or place it should."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, select

from retrodict.core.errors import RetrodictError
from retrodict.core.identity import canonical_json
from retrodict.ledger.chain import GENESIS, Entry, entry_hash
from retrodict.ledger.schema import edges, entries


@dataclass(frozen=True, slots=True)
class AuditFinding:
    """One thing that is not as the ledger says: what kind, where (entry, segment, object, file), in words."""

    kind: str
    where: str
    detail: str


@dataclass(slots=True)
class Chain:
    """The entries that could be read, in order, and what is wrong with them and with those that could not."""

    entries: list[Entry] = field(default_factory=list)
    rows: int = 0
    findings: list[AuditFinding] = field(default_factory=list)


def read_chain(connection: Connection) -> Chain:
    """Read every entry and recompute its hash and its place."""
    chain, previous, expected = Chain(), GENESIS, 1
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
        chain.findings += [AuditFinding("altered", f"entry {row.sequence}", text) for text in faults]
        if entry is not None:
            chain.entries.append(entry)
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


Link = tuple[int, int, str, str, str]


def check_edges(connection: Connection, items: list[Entry]) -> tuple[int, list[AuditFinding]]:
    """Compare the stored lineage edges with those that the entries name; return how many are stored, and findings."""
    query = select(edges.c.sequence, edges.c.position, edges.c.source, edges.c.role, edges.c.target)
    stored: set[Link] = {tuple(row) for row in connection.execute(query)}
    links = {link for entry in items for link in _links(entry)}
    removed = [
        AuditFinding("removed", f"entry {link[0]}", f"lineage edge {link[2]} → {link[4]} ({link[3]}) is gone")
        for link in sorted(links - stored, key=repr)
    ]
    added = [
        AuditFinding(
            "altered", f"entry {link[0]}", f"lineage edge {link[2]} → {link[4]} ({link[3]}) is not in the chain"
        )
        for link in sorted(stored - links, key=repr)
    ]
    return len(stored), removed + added


def _links(entry: Entry) -> Iterator[Link]:
    inputs = entry.payload.get("inputs", [])
    for position, edge in enumerate(inputs if isinstance(inputs, list) else []):
        if isinstance(edge, list) and len(edge) == 2 and all(isinstance(part, str) for part in edge):
            yield entry.sequence, position, edge[0], edge[1], entry.object_id
