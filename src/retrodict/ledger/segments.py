"""Sealing of high-volume facts: one ledger entry per closed stream segment, one inclusion proof per record.

Decisions and events are too many to chain one by one. A closed segment's file hash and the Merkle root over its
records go into one entry; afterwards any single record can be shown to have been in it with about twenty hashes.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import Connection, insert, select

from retrodict.core.errors import IntegrityError, NotFoundError
from retrodict.core.identity import digest
from retrodict.ledger.ledger import Ledger
from retrodict.ledger.merkle import inclusion_proof, leaf_hash, merkle_root
from retrodict.ledger.schema import seals
from retrodict.stores.streams.base import Segment, StreamStore

__all__ = ["Proof", "Seal", "prove", "read_seals", "seal_closed"]


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

    @property
    def facts(self) -> dict[str, Any]:
        """What the payload of the entry holds."""
        return {name: value for name, value in asdict(self).items() if name != "sequence"}


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


def seal_closed(ledger: Ledger, streams: StreamStore, prefix: str) -> list[Seal]:
    """Seal every closed segment under a prefix that is not sealed yet; idempotent."""
    sealed_already = {(seal.stream, seal.segment) for seal in read_seals(ledger)}
    added = []
    for stream in streams.names(prefix):
        for segment in streams.segments(stream):
            if not segment.closed or (stream, segment.name) in sealed_already:
                continue
            file_digest = digest(streams.read_segment(stream, segment.name))
            root = merkle_root(leaves_of(streams, stream, segment)).hex()
            with ledger.transaction() as tx:
                sequence = tx.connection.execute(
                    select(seals.c.sequence).where(seals.c.stream == stream, seals.c.segment == segment.name)
                ).scalar()
                if sequence is not None:  # another process sealed it between our look and our turn
                    continue
                facts = {"stream": stream, "segment": segment.name, "first": segment.first, "count": segment.count,
                         "digest": file_digest, "root": root}  # fmt: skip
                entry = tx.append("segment.seal", f"segment:{stream}/{segment.name}", facts)
                tx.connection.execute(insert(seals).values(**facts, sequence=entry.sequence))
                added.append(Seal(**facts, sequence=entry.sequence))  # type: ignore[arg-type]  # one value each, by name
    return added


def prove(ledger: Ledger, streams: StreamStore, stream: str, offset: int) -> Proof:
    """Inclusion proof of one record of a sealed segment.

    Raises
    ------
    NotFoundError
        If the record is not in a sealed segment (yet).
    IntegrityError
        If the segment no longer has the root that its ledger entry holds.
    """
    for seal in read_seals(ledger):
        if seal.stream == stream and seal.first <= offset < seal.first + seal.count:
            leaves = leaves_of(streams, stream, seal)
            # The chain says what was sealed; the table of seals is an index that alone proves nothing.
            entries = ledger.entries(object_id=f"segment:{stream}/{seal.segment}", action="segment.seal")
            sealed = [entry for entry in entries if entry.sequence == seal.sequence and entry.payload == seal.facts]
            if not sealed or merkle_root(leaves).hex() != seal.root:
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
        remedy="Segments are sealed when they are full, when the server stops, or by 'retrodict audit seal'",
        got="an offset in none",
    )
