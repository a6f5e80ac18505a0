"""Holds the streams that the ledger seals against what their seals and signed heads say."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

from retrodict.core.errors import NotFoundError, RetrodictError
from retrodict.core.identity import digest
from retrodict.ledger._replay import AuditFinding
from retrodict.ledger.chain import Entry
from retrodict.ledger.heads import Prefix, SignedHead
from retrodict.ledger.ledger import Keys
from retrodict.ledger.merkle import merkle_root
from retrodict.ledger.segments import SEALED_STREAMS, Seal, leaves_of, seal_of
from retrodict.stores.streams.base import Segment, StreamStore


@dataclass(frozen=True, slots=True)
class OpenSegment:
    """A segment that is not sealed yet: records that are signed, those that are not, and the age of the signature."""

    stream: str
    segment: str
    signed: int
    unsigned: int
    age_us: int


def list_segments(streams: StreamStore) -> tuple[dict[str, list[Segment]], list[AuditFinding]]:
    """Segments of every stream that is to be sealed, and the streams whose files are not in order."""
    listed, findings = {}, []
    for stream in streams.names(SEALED_STREAMS):
        try:
            listed[stream] = streams.segments(stream)
        except (RetrodictError, OSError) as error:
            findings.append(AuditFinding("altered", f"stream {stream}", str(error)))
    return listed, findings


def sealed_by(items: Iterable[Entry]) -> list[Seal]:
    """Seals that the chain holds; an entry that was altered beyond reading is reported as such already."""
    return [seal for entry in items if (seal := seal_of(entry)) is not None]


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


def check_segment(streams: StreamStore, entry: Entry) -> Iterator[AuditFinding]:
    """Recompute hash and Merkle root of a segment that an entry seals, and of what was signed before."""
    seal = seal_of(entry)
    if seal is None:
        return
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
    listed: Mapping[str, Iterable[Segment]],
    sealed: Collection[tuple[str, str]],
    keys: Keys,
    streams: StreamStore,
    now: int,
) -> Iterator[AuditFinding | OpenSegment]:
    """Compare what is not sealed with the signed heads, and name what neither names; and how far signatures reach.

    Parameters
    ----------
    heads : mapping of stream to SignedHead
        Statements as they were before the chain was read.
    listed : mapping of stream to segments
        Segments as they were before the statements were read.
    sealed : collection of (stream, segment)
        Those of signed entries.
    keys : list of (time, public key)
        As the chain names them.
    streams : StreamStore
    now : int
        Microseconds since 1970-01-01 UTC.
    """
    for stream in sorted({*heads, *listed}):
        head = heads.get(stream)
        if stream in heads and (head is None or not head.is_valid(keys)):
            yield AuditFinding("altered", f"head of {stream}", "the ledger's key of its time did not sign it")
            head = None
        prefixes = {} if head is None else {one.segment: one for one in head.prefixes}
        for prefix in prefixes.values():
            if (stream, prefix.segment) not in sealed:
                yield from _check_open(streams, stream, prefix)
        for segment in listed.get(stream, ()):
            if (stream, segment.name) in sealed:
                continue
            where, prefix_ = f"segment {stream}/{segment.name}", prefixes.get(segment.name)
            if prefix_ is None:
                detail = f"neither a seal nor a signed head names it: its {segment.count} records are not read"
                yield AuditFinding("unsigned", where, detail)
            elif head is not None:
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
