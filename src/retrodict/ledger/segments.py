"""Sealing of high-volume facts: one ledger entry per closed stream segment, one inclusion proof per record.

Decisions and events are too many to chain one by one. A closed segment's file hash and the Merkle root over its
records go into one entry; afterwards any single record can be shown to have been in it with about twenty hashes.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import Connection, insert, select

from retrodict.core.clock import format_time
from retrodict.core.errors import IntegrityError, NotFoundError, RetrodictError
from retrodict.core.identity import digest
from retrodict.ledger.chain import Entry
from retrodict.ledger.heads import Prefix, SignedHead, read_head
from retrodict.ledger.ledger import Ledger
from retrodict.ledger.merkle import inclusion_proof, leaf_hash, merkle_root
from retrodict.ledger.schema import entries, seals
from retrodict.stores.streams.base import Segment, StreamStore

__all__ = ["SEALED_STREAMS", "Proof", "Seal", "named_segments", "origin_of", "prove", "read_seals"]

SEALED_STREAMS = "decisions/"
"""What the names of streams begin with whose segments are signed and sealed; others are none of the ledger's."""

REMOVE = "segment.remove"
"""Action of the entry without which a sealed segment must not be missing."""

_log = logging.getLogger(__name__)


def origin_of(ledger: Ledger) -> str:
    """Hash of a ledger's first entry, which is another one in every project; empty before it."""
    with ledger.records.read() as connection:
        query = select(entries.c.hash).order_by(entries.c.sequence).limit(1)
        return str(connection.execute(query).scalar() or "")


@dataclass(frozen=True, slots=True)
class Seal:
    """What the ledger says of one closed segment; ``digest`` is of the file, ``root`` of the Merkle tree."""

    stream: str
    segment: str
    first: int
    count: int
    digest: str
    root: str
    sequence: int


@dataclass(frozen=True, slots=True)
class Proof:
    """That a record is leaf ``index`` of ``size`` under the root which entry ``sequence`` of the ledger holds."""

    stream: str
    offset: int
    index: int
    size: int
    path: list[str]
    root: str
    sequence: int


def read_seals(ledger: Ledger) -> list[Seal]:
    """All seals, by stream and first offset."""
    with ledger.records.read() as connection:
        return select_seals(connection)


def select_seals(connection: Connection) -> list[Seal]:
    """All seals of one state, by stream and first offset."""
    rows = connection.execute(select(seals).order_by(seals.c.stream, seals.c.first))
    return [Seal(**row) for row in rows.mappings()]


def leaves_of(streams: StreamStore, stream: str, segment: Segment | Seal) -> list[bytes]:
    """Leaf hashes of the records of a segment."""
    return [leaf_hash(record) for _, record in streams.read(stream, segment.first, segment.count)]


def append_seal(ledger: Ledger, stream: str, prefix: Prefix, *, signed: Mapping[str, Any] | None = None) -> Seal | None:
    """Seal a closed segment; None if it is sealed already.

    ``signed`` is what a head said of it, where it was closed by another process than the one that wrote it.
    """
    facts = {"stream": stream, **asdict(prefix)}
    del facts["size"]
    with ledger.transaction() as tx:
        place = seals.c.stream == stream, seals.c.segment == prefix.segment
        if tx.connection.execute(select(seals.c.sequence).where(*place)).first() is not None:
            return None
        payload = facts if signed is None else {**facts, "signed": dict(signed)}
        entry = tx.append("segment.seal", _object_id(stream, prefix.segment), payload)
        tx.connection.execute(insert(seals).values(**facts, sequence=entry.sequence))
    return seal_of(entry)


def seal_left(ledger: Ledger, streams: StreamStore, stream: str) -> tuple[list[Seal], list[Prefix]]:
    """Seal the closed segments that the head of a stream names, after its writer died; only for its next writer.

    Such an entry says what was signed, too: ``verify`` compares, so records that were altered after they were signed
    stay a finding. Nothing else in the folder is sealed, since nobody signed that it was ours.

    Returns
    -------
    list of Seal, list of Prefix
        What was sealed, and what could not be, as it is missing or damaged: the next head must go on naming that.
    """
    head = trusted_head(ledger, stream)
    closed = {segment.name: segment for segment in streams.segments(stream) if segment.closed}
    sealed = {seal.segment for seal in vouched_seals(ledger, stream)}
    added: list[Seal] = []
    unsealable: list[Prefix] = []
    for prefix in head.prefixes if head is not None else ():
        segment = closed.get(prefix.segment)
        if prefix.segment in sealed or (segment is None and not prefix.count):
            continue
        try:
            if segment is None:
                raise NotFoundError("a segment that was signed must exist", where=stream, got=prefix.segment,
                                    remedy="Restore it from a copy")  # fmt: skip
            data = streams.read_segment(stream, segment.name)
            root = merkle_root(leaves_of(streams, stream, segment)).hex()
        except (RetrodictError, OSError) as error:
            _log.error("what was signed of %s/%s cannot be sealed: %s", stream, prefix.segment, error)
            unsealable.append(prefix)
            continue
        content = Prefix(segment.name, segment.first, segment.count, len(data), digest(data), root)
        assert head is not None
        signed = {"count": prefix.count, "size": prefix.size, "digest": prefix.digest, "time": head.time}
        seal = append_seal(ledger, stream, content, signed=signed)
        added += [seal] if seal is not None else []
    return added, unsealable


def trusted_head(ledger: Ledger, stream: str) -> SignedHead | None:
    """Head of a stream that is signed by the key of its time; None if there is none."""
    head = read_head(ledger.heads, stream)
    return head if head is not None and head.is_valid(ledger.reach()[1]) else None


def vouched_seals(ledger: Ledger, stream: str) -> list[Seal]:
    """Seals of a stream by the entries themselves: the table of seals is an index that alone proves nothing."""
    entries = ledger.vouched(_object_id(stream, ""))
    return [seal for entry in entries if (seal := seal_of(entry)) is not None and seal.stream == stream]


def seal_of(entry: Entry) -> Seal | None:
    """Seal that an entry holds; None if it holds none that can be read."""
    if entry.action != "segment.seal":
        return None
    facts: dict[str, Any] = {name: entry.payload.get(name) for name in Seal.__slots__ if name != "sequence"}
    usual = [*map(type, facts.values())] == [str, str, int, int, str, str]
    return Seal(**facts, sequence=entry.sequence) if usual else None


@dataclass(frozen=True, slots=True)
class Removal:
    """What the ledger says of a sealed segment that was deleted on purpose: of which ids its records were, and when."""

    stream: str
    segment: str
    ids: tuple[str, str]
    until: int
    sequence: int
    time: int

    def __str__(self) -> str:
        return f"removed by retention on {format_time(self.time)[:10]}, entry {self.sequence}"


def append_removals(ledger: Ledger, facts: Sequence[tuple[Seal, tuple[str, str], int]], **payload: Any) -> None:
    """Say of sealed segments, each with its least and greatest id and newest moment, that they are going to be deleted.

    When it returns, that is signed: from here on they may be missing.
    """
    with ledger.transaction() as tx:
        for seal, ids, until in facts:
            about = {"stream": seal.stream, "segment": seal.segment, "root": seal.root, "sealed": seal.sequence}
            tx.append(
                REMOVE, _object_id(seal.stream, seal.segment), {**about, "ids": [*ids], "until": until, **payload}
            )
    ledger.sign_end()


def removal_of(entry: Entry) -> Removal | None:
    """Removal that an entry holds; None if it holds none that can be read."""
    stream, segment, ids, until = (entry.payload.get(name) for name in ("stream", "segment", "ids", "until"))
    usual = isinstance(ids, list) and [*map(type, ids), type(until)] == [str, str, int]
    if entry.action != REMOVE or not usual or entry.object_id != _object_id(str(stream), str(segment)):
        return None
    return Removal(str(stream), str(segment), tuple(ids), until, entry.sequence, entry.time)  # type: ignore[arg-type]  # as said


def vouched_removals(ledger: Ledger, stream: str = "") -> list[Removal]:
    """Removals of the segments of a stream, or of all, that trusted entries name."""
    entries = ledger.vouched(_object_id(stream, "") if stream else f"segment:{SEALED_STREAMS}")
    return [removal for entry in entries if (removal := removal_of(entry)) is not None]


def named_segments(ledger: Ledger, stream: str) -> set[str] | None:
    """Segments of a stream that a seal or its signed head names: others were put there by other hands.

    None, and so all of them, for streams that are not sealed, and where the ledger has no entry yet.
    """
    if not stream.startswith(SEALED_STREAMS) or not ledger.reach()[1]:
        return None
    head = trusted_head(ledger, stream)  # before the seals: what a head no longer names is sealed by then
    names = {prefix.segment for prefix in head.prefixes} if head is not None else set()
    return names | {seal.segment for seal in vouched_seals(ledger, stream)}


def _object_id(stream: str, segment: str) -> str:
    return f"segment:{stream}/{segment}"


def prove(ledger: Ledger, streams: StreamStore, stream: str, offset: int) -> Proof:
    """Inclusion proof of one record of a sealed segment.

    Raises
    ------
    NotFoundError
        If the record is not in a sealed segment (yet).
    IntegrityError
        If the segment no longer has the root that its ledger entry holds.
    """
    removals = {removal.segment: removal for removal in vouched_removals(ledger, stream)}
    for seal in vouched_seals(ledger, stream):
        if seal.first <= offset < seal.first + seal.count:
            if removal := removals.get(seal.segment):
                raise NotFoundError("the record must be in the log", where=f"{stream} at offset {offset}",
                                    got=str(removal), remedy="Proofs that were exported before still hold")  # fmt: skip
            leaves = leaves_of(streams, stream, seal)
            if merkle_root(leaves).hex() != seal.root:
                raise IntegrityError(
                    "a sealed segment must have the root that was sealed",
                    where=f"{stream}/{seal.segment}",
                    remedy="Run 'retrodict audit verify'",
                    got="another root",
                )
            index = offset - seal.first
            path = [node.hex() for node in inclusion_proof(leaves, index)]
            return Proof(stream, offset, index, seal.count, path, seal.root, seal.sequence)
    raise NotFoundError(
        "the record must be in a sealed segment",
        where=f"{stream} at offset {offset}",
        remedy="Segments are sealed when they are full, after ledger.seal_every, when the writer stops, or, after a "
        "crash, by 'retrodict audit seal'",
        got="an offset in none",
    )
