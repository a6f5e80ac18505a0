"""Reads the chain once, as an auditor does: every hash, link and time, and what entries say of lineage and keys.

An entry leaves 32 bytes behind, its hash. Entries that name bytes or rows elsewhere go to a temporary file for the
checks that come after: reading all files of all tables takes long, and no state of the records is held for it.

Rows are read with nothing in them trusted to have the type, form or place it should.
"""

from __future__ import annotations

import bisect
import json
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass
from functools import cached_property
from tempfile import SpooledTemporaryFile
from typing import Any
from uuid import uuid4

import msgspec
from sqlalchemy import Connection, func, select
from sqlalchemy.exc import DBAPIError

from retrodict.core.errors import RetrodictError
from retrodict.core.identity import canonical_json
from retrodict.ledger.chain import GENESIS, Entry, entry_hash, parsed, read_entry, row_hashes
from retrodict.ledger.ends import ACCEPT, KEY_ACTIONS, WITNESSES
from retrodict.ledger.keys import Keys
from retrodict.ledger.merkle import complete_levels, leaf_hash, root_of_span
from retrodict.ledger.schema import entries, nodes
from retrodict.ledger.table_versions import ADOPT
from retrodict.stores._ownership import Closing

_STREAMED = {"yield_per": 1000}
_AT_ONCE, _EDGES_AT_ONCE = 250, 2000  # rows that fit the processor's cache: four times as many take a third longer
_IN_MEMORY = 1 << 20

# Actions of entries that claim something about what is outside the chain, whatever their payload names.
_CLAIMS = frozenset({"segment.seal", "segment.remove", "run.finish", ADOPT, *KEY_ACTIONS, ACCEPT, WITNESSES})

Row = tuple[Any, ...]
Link = Row  # an edge, as it is stored


@dataclass(frozen=True, slots=True)
class AuditFinding:
    """One thing that is not as the ledger says: what kind, where (entry, segment, object, file), in words."""

    kind: str
    where: str
    detail: str


class Chain(Closing):
    """What reading the chain leaves: hashes, faults, keys, and the entries that claim something about bytes or rows."""

    def __init__(self) -> None:
        self.rows = self.edges = self.last = 0  # entries and edges there are; highest number of a readable entry
        self.findings: list[AuditFinding] = []
        self.lineage: list[AuditFinding] = []
        self.error: Exception | None = None  # what kept edges from being read
        self.turns: list[Entry] = []  # where keys are named, or an unsigned end was accepted
        self.keys: list[tuple[int, Any]] = []  # from which entry on which key signs
        self.witnesses: list[tuple[int, list[str]]] = []  # from which entry on who is told of checkpoints
        self._end, self._expected, self._time = GENESIS, 1, 0
        self._digests = bytearray()  # hash of each entry in its place
        self._others: dict[int, object] = {}  # stored hashes of entries that are at fault, or not in their place
        self._faulty: set[int] = set()
        self._breaks: list[int] = []  # where a stretch without a fault begins
        self._reach: dict[int, int] = {}  # last signed entry of a stretch
        self._claims = SpooledTemporaryFile(_IN_MEMORY)  # noqa: SIM115  # closed below

    def close(self) -> None:
        """Remove the temporary file."""
        self._claims.close()

    def read(self, connection: Connection) -> None:
        """Read every entry, recompute its hash and its place, and compare its lineage with the table of edges."""
        after, last, links = None, None, list[Link]()
        for rows in batches_of(connection, str(select(entries).order_by(entries.c.sequence))):
            if not self._follow(rows, links):
                for row in rows:
                    links += self._take(row)
            last = rows[-1][0]
            if len(links) >= _EDGES_AT_ONCE:
                self._check_edges(connection, links, after, last)
                after, links = last, []
        self._check_edges(connection, links, after, None)

    def _follow(self, rows: list[Row], links: list[Link]) -> bool:
        """Take entries that continue the chain without a fault; False, and nothing taken, where one is to be looked at.

        All of a batch at once and no call of ours per entry, which would cost as much as its hash.
        """
        sequences, times, _, _, objects, texts, before, hashes = zip(*rows, strict=True)
        in_place = sequences == tuple(range(self._expected, self._expected + len(rows)))
        if not in_place or len(self._digests) != 32 * self._expected - 32 or before != (self._end, *hashes[:-1]):
            return False
        try:
            if {*map(type, times)} != {int} or [self._time, *times] != sorted([self._time, *times]):
                return False
            computed = row_hashes(rows, bytes.fromhex(self._end))
            if computed.hex(" ", 32) != " ".join(hashes):
                return False
            payloads = [*map(_facts_of, texts)]
            claims = [
                (row, parsed(row[5]))
                for row, facts in zip(rows, payloads, strict=True)
                if row[3] in _CLAIMS or facts.files or facts.objects or facts.records or facts.deleted
            ]
        except (TypeError, ValueError, msgspec.MsgspecError, RecursionError):
            return False
        links += [(sequence, position, source, role, object_id)
                  for sequence, object_id, facts in zip(sequences, objects, payloads, strict=True)
                  for position, (source, role) in enumerate(facts.inputs)]  # fmt: skip
        for row, payload in claims:
            self._sort(row, payload)
        self._digests += computed
        self.rows += len(rows)
        self.last, self._end, self._time = sequences[-1], hashes[-1], times[-1]
        self._expected = self.last + 1
        return True

    def _take(self, row: Row) -> list[Link]:
        """Look at the next entry, and return the edges that it names."""
        sequence, time, _, _, object_id, _, previous, hash_ = row
        faults: list[str] = []
        if sequence != self._expected:
            self._note_gap(sequence, self._expected, faults)
        elif previous != self._end:
            faults.append("it does not continue the entry before it")
        payload = _read(row, faults)
        if payload is not None:
            self.last = sequence
            self._sort(row, payload)
            if isinstance(time, int):
                faults += ["its time is before that of the entry before it"] if time < self._time else []
                self._time = max(time, self._time)
        in_place = 32 * sequence == len(self._digests) + 32
        if in_place:
            self._digests += bytes(32) if faults else bytes.fromhex(hash_)
        if faults or not in_place:
            self._others[sequence] = hash_
        if faults:
            self.findings += [AuditFinding("altered", f"entry {sequence}", text) for text in faults]
            self._faulty.add(sequence)
            self._breaks += sequence, sequence + 1
        self.rows += 1
        self._end, self._expected = hash_, max(self._expected, sequence + 1)
        return [] if payload is None else links_of(sequence, object_id, payload.get("inputs"))

    def _check_edges(self, connection: Connection, links: list[Link], after: int | None, until: int | None) -> None:
        """Compare the stored edges of some entries, which are an index, with those that they name."""
        query = "SELECT sequence, position, source, role, target FROM ledger_edges"
        places = ([] if after is None else [f"sequence > {after:d}"]) + (
            [] if until is None else [f"sequence <= {until:d}"]
        )
        query += f" WHERE {' AND '.join(places)}" if places else ""
        try:
            with attempt(connection):
                result: Any = connection.exec_driver_sql(f"{query} ORDER BY sequence, position")
                stored: list[Link] = result.cursor.fetchall()
        except DBAPIError as error:  # the chain is read on
            self.error = error
            return
        self.edges += len(stored)
        if links == stored:
            return
        expected, present = {*links}, {*stored}
        for kind, detail, faulty in (
            ("removed", "is gone", expected - present),
            ("altered", "is not in the chain", present - expected),
        ):
            for sequence, _, source, role, target in sorted(faulty, key=repr):
                text = f"lineage edge {source} → {target} ({role}) {detail}"
                self.lineage.append(AuditFinding(kind, f"entry {sequence}", text))

    def _note_gap(self, sequence: int, expected: int, faults: list[str]) -> None:
        if sequence < expected:
            faults.append("a chain has no entry of this number")
            return
        last = f" to {sequence - 1}" if sequence - 1 > expected else ""
        detail = f"the chain goes on with entry {sequence}"
        self.findings.append(AuditFinding("removed", f"entry {expected}{last}", detail))
        self._breaks.append(sequence)

    def _sort(self, row: Row, payload: dict[str, Any]) -> None:
        """Keep an entry for the checks that need it."""
        sequence, time, actor, action, object_id, text, previous, hash_ = row
        if action in KEY_ACTIONS or action == ACCEPT:
            self.turns.append(Entry(sequence, time, actor, action, object_id, payload, previous, hash_))
            self.keys += [(sequence, payload.get("public_key"))] if action in KEY_ACTIONS else []
        get = payload.get
        if action == WITNESSES and isinstance(names := get("witnesses"), list):
            self.witnesses.append((sequence, [str(name) for name in names]))
        if get("files") or get("objects") or get("records") or get("deleted") or action in _CLAIMS:
            text = text if isinstance(text, str) else str(text, "utf-8", "replace")
            line = [sequence, time, actor, action, object_id, text, previous, hash_]
            self._claims.write(msgspec.json.encode(line) + b"\n")

    def claims(self) -> Iterator[Entry]:
        """Entries that name bytes or rows, in order."""
        self._claims.seek(0)
        for line in self._claims:
            entry = read_entry(dict(zip(Entry.__slots__, msgspec.json.decode(line), strict=True)))
            if entry is not None:
                yield entry

    def hash_of(self, sequence: int) -> object:
        """Stored hash of an entry; None if there is none of this number."""
        digest = self._digests[32 * sequence - 32 : 32 * sequence] if sequence > 0 else b""
        return self._others.get(sequence, digest.hex() or None)

    @cached_property
    def _levels(self) -> list[bytes]:
        """Nodes of the Merkle tree over the entries of a chain without a fault, level by level from the first on."""
        return complete_levels(self._digests)

    def root(self, size: int) -> str:
        """Root of the tree over the first so many entries of a chain without a fault."""

        def node(level: int, place: int) -> bytes:
            source = self._levels[level - 1] if level else self._digests
            piece = bytes(source[32 * place : 32 * place + 32])
            return piece if level else leaf_hash(piece)

        return root_of_span(0, size, node).hex()

    def check_nodes(self, connection: Connection, size: int) -> Iterator[AuditFinding]:
        """Compare the stored nodes over signed entries, which are an index, with those of a chain without a fault."""
        count = 0
        for level, expected in enumerate(self._levels, 1):
            query = f"SELECT position, hash FROM ledger_nodes WHERE level = {level} ORDER BY position"
            at, end = 0, size >> level
            for rows in batches_of(connection, query):
                positions, hashes = zip(*rows, strict=True)
                computed = expected[32 * at : 32 * (at + len(rows))].hex(" ", 32)
                if positions != tuple(range(at, at + len(rows))) or " ".join(map(str, hashes)) != computed:
                    detail = f"nodes of level {level} are not what entries give"
                    yield AuditFinding("altered", "tree of entries", detail)
                    return
                at += len(rows)
            if at != end:
                kind, what = (
                    ("removed", "are gone") if at < end else ("altered", "are over more entries than are signed")
                )
                yield AuditFinding(kind, "tree of entries", f"nodes of level {level} {what}")
                return
            count += at
        if connection.execute(select(func.count()).select_from(nodes)).scalar_one() != count:
            yield AuditFinding("altered", "tree of entries", "it has nodes over more entries than there are")

    @property
    def key_times(self) -> Keys:
        """Public keys, each from which time on it signs."""
        keys = [(e.time, str(e.payload.get("public_key"))) for e in self.turns if e.action in KEY_ACTIONS]
        return [(time, key) for time, key in keys if type(time) is int]

    def trust(self, sequence: int) -> None:
        """Take note that the end of the chain was signed at an entry."""
        stretch = bisect.bisect_right(self._breaks, sequence)
        self._reach[stretch] = max(sequence, self._reach.get(stretch, 0))

    def is_trusted(self, sequence: int) -> bool:
        """Whether the chain goes on from an entry without a fault to one whose end was signed."""
        stretch = bisect.bisect_right(self._breaks, sequence)
        return sequence <= self._reach.get(stretch, 0) and sequence not in self._faulty

    def check_spelling(self, connection: Connection) -> Iterator[AuditFinding]:
        """Hold entries that no signature covers to canonical JSON.

        Their hash is that of their text; where it is signed, we wrote it, and elsewhere anybody can have.
        """
        if not self._breaks and self.is_trusted(self.last):
            return
        query = select(entries.c.sequence, entries.c.action, entries.c.object_id, entries.c.payload)
        for sequence, action, object_id, text in connection.execute(query, execution_options=_STREAMED):
            if not self.is_trusted(sequence) and sequence not in self._faulty:
                try:
                    canonical = canonical_json(json.loads(text)).decode()
                except (RetrodictError, ValueError, RecursionError):
                    canonical = ""
                if canonical != text:
                    yield AuditFinding("altered", f"entry {sequence}", _other_content(action, object_id))


def batches_of(connection: Connection, query: str) -> Iterator[list[Row]]:
    """Rows of a query straight from the driver, a few at once: those of SQLAlchemy would cost as much as their hashes.

    A server gives them as they are fetched.
    """
    result: Any = connection.exec_driver_sql(query) if connection.dialect.name == "sqlite" else None
    with closing(connection.connection.cursor(f"audit_{uuid4().hex}") if result is None else result.cursor) as cursor:
        if result is None:
            cursor.execute(query)
        while rows := list(cursor.fetchmany(_AT_ONCE)):
            yield rows


def attempt(connection: Connection) -> AbstractContextManager[object]:
    """Block that may fail where a table was taken away: a server would refuse whatever follows in the transaction."""
    return nullcontext() if connection.dialect.name == "sqlite" else connection.begin_nested()


def _other_content(action: object, object_id: object) -> str:
    return f"{action} of {object_id}: its content does not give its hash"


def _read(row: Row, faults: list[str]) -> dict[str, Any] | None:
    """Payload of a row; what is wrong with it is added to ``faults``."""
    sequence, time, actor, action, object_id, text, previous, hash_ = row
    try:
        payload = parsed(text)
        usual = [*map(type, row[:5])] == [int, int, str, str, str]
        if not usual or row_hashes([row], bytes.fromhex(previous)).hex() != hash_:
            # Other types, or another spelling of the same facts.
            computed = entry_hash(sequence=sequence, time=time, actor=actor, action=action, object_id=object_id,
                                  payload=payload, previous=previous)  # fmt: skip
            if computed != hash_ or text != canonical_json(payload).decode():
                faults.append(_other_content(action, object_id))
    except (RetrodictError, ValueError, TypeError, RecursionError):
        faults.append("it cannot be read as an entry")
        return None
    if not isinstance(payload, dict):
        faults.append("its payload is no mapping")
        return None
    return payload


class _Facts(msgspec.Struct):
    """What a payload names outside of it; the rest of its text is passed over, and not made into values."""

    inputs: list[tuple[str, str]] = []
    files: Any = None
    objects: Any = None
    records: Any = None
    deleted: Any = None


_facts_of = msgspec.json.Decoder(_Facts).decode


def links_of(sequence: int, object_id: str, inputs: object) -> list[Link]:
    """Lineage edges that an entry names by the inputs of its payload, as they are stored."""
    return [
        (sequence, position, edge[0], edge[1], object_id)
        for position, edge in enumerate(inputs if isinstance(inputs, list) else ())
        if type(edge) is list and len(edge) == 2 and type(edge[0]) is type(edge[1]) is str
    ]
