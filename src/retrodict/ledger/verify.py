"""``audit verify``: recompute everything the ledger names and say what was altered, removed or cut off."""

from __future__ import annotations

import bisect
from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy.exc import DBAPIError

from retrodict.core.display import Block, Facts, Grid, Shown
from retrodict.core.durations import SECOND
from retrodict.core.errors import RetrodictError
from retrodict.ledger._evidence import (
    Chain,
    check_edges,
    check_files,
    check_keys,
    check_objects,
    check_records,
    check_versions,
    read_chain,
    read_logs,
)
from retrodict.ledger._findings import AuditFinding
from retrodict.ledger._stream_evidence import (
    OpenSegment,
    check_heads,
    check_seals,
    check_segment,
    list_segments,
    sealed_by,
)
from retrodict.ledger.chain import Entry
from retrodict.ledger.checkpoints import Checkpoint, scan_checkpoints
from retrodict.ledger.heads import scan_heads
from retrodict.ledger.ledger import Ledger, signed_ends
from retrodict.ledger.segments import seal_of, select_seals
from retrodict.ledger.table_versions import select_versions
from retrodict.ledger.witnesses import Witness
from retrodict.stores.objects.base import ObjectStore
from retrodict.stores.streams.base import StreamStore

if TYPE_CHECKING:  # importing it loads Arrow
    from retrodict.stores.tables.base import TableStore

__all__ = ["AuditReport", "AuditFinding", "verify"]


@dataclass(slots=True, repr=False)
class AuditReport(Shown):
    """What was checked, and every finding; ``verified`` is True when there is none.

    ``signed`` is the last entry that a signature covers, ``public_key`` the key whose signatures count; ``witnesses``
    are the other places of checkpoints, with the last entry that each has a statement on; ``open`` are the segments
    that are not sealed yet, with the records that signatures cover.
    """

    entries: int = 0
    edges: int = 0
    checkpoints: int = 0
    segments: int = 0
    objects: int = 0
    files: int = 0
    signed: int = 0
    public_key: str = ""
    witnesses: dict[str, int] = field(default_factory=dict)
    open: list[OpenSegment] = field(default_factory=list)
    findings: list[AuditFinding] = field(default_factory=list)

    @property
    def verified(self) -> bool:
        """Whether everything is as it was written."""
        return not self.findings

    def to_dict(self) -> dict[str, Any]:
        """Plain form for ``--json``."""
        counts = asdict(self)
        names = ("findings", "public_key", "signed", "open", "witnesses")
        findings, key, signed, unsealed, witnesses = (counts.pop(name) for name in names)
        return {"verified": self.verified, "checked": counts, "signed": {"entry": signed, "public_key": key},
                "witnesses": witnesses, "open": unsealed, "findings": findings}  # fmt: skip

    @property
    def ok(self) -> bool:
        """Whether everything is as it was written."""
        return self.verified

    def blocks(self) -> Sequence[Block | None]:
        """Verdict, counts and findings."""
        signed = f"up to entry {self.signed}, by key {self.public_key}" if self.public_key else "nothing"
        witnesses = [f"{name} up to entry {entry}" if entry else f"{name}: nothing yet"
                     for name, entry in self.witnesses.items()]  # fmt: skip
        counts = Facts(self.to_dict()["checked"] | {"signed": signed, "witnesses": witnesses or None})
        unsealed = Grid(
            ("open segment", "signed>", "not yet>", "signed ago"),
            [
                (f"{one.stream}/{one.segment}", one.signed, one.unsigned, f"{one.age_us / SECOND:.1f} s")
                for one in self.open
            ],
        )
        if self.verified:
            return ["Verified: everything is as it was written.", counts, unsealed if self.open else None]
        rows = [(finding.kind, finding.where, finding.detail) for finding in self.findings]
        verdict = f"NOT verified: {len(rows)} finding{'s' if len(rows) > 1 else ''}."
        return [verdict, counts, unsealed if self.open else None, Grid(("finding", "where", "what"), rows)]


def verify(
    ledger: Ledger,
    *,
    objects: ObjectStore,
    streams: StreamStore,
    data: TableStore,
    tables: Collection[str] = (),
    checkpoints: Path | None = None,
    public_key: str | None = None,
) -> AuditReport:
    """Recompute chain, lineage, checkpoints, sealed segments, and every content hash the entries name.

    Parameters
    ----------
    ledger : Ledger
        The chain.
    objects, streams : ObjectStore, StreamStore
        Where the named objects and sealed segments are.
    data : TableStore
        Where the tables are whose versions and files entries name.
    tables : collection of str
        Tables of the records every row of which an entry must vouch for.
    checkpoints : Path, optional
        File or folder of checkpoints, such as the copy of a witness. None: the project's own.
    public_key : str, optional
        Key that the chain must begin with, 64 hex digits. None: whichever it names.

    Returns
    -------
    AuditReport
        Damage is reported, never raised: an auditor wants the whole list.
    """
    report = AuditReport()
    items: list[Entry] = []
    trusted: list[Entry] = []
    try:
        # One state for all of it: what is appended meanwhile belongs to the next audit.
        place = checkpoints or ledger.checkpoint_folder
        # What is not in a head any more is in the chain, and what lies there is in one of both: hence this order.
        listed_segments, unreadable = list_segments(streams)
        report.findings += unreadable
        logs, unreadable = read_logs(data)
        report.findings += unreadable
        heads = scan_heads(ledger.checkpoint_folder)
        statements, damaged = scan_checkpoints(place)
        with ledger.records.read() as connection:
            chain = read_chain(connection)
            items, report.entries = chain.entries, chain.rows
            report.findings += chain.findings
            report.edges, edge_findings = check_edges(connection, items)
            report.findings += edge_findings
            report.findings += check_records(connection, items, tables)
            listed = select_seals(connection)
            announced = select_versions(connection)
            stored = [end for end in signed_ends(connection) if end not in statements]
        report.checkpoints = len(statements)
        report.findings += check_keys(items, public_key)
        report.findings += _check_checkpoints(place, chain, statements, damaged)
        trusted = chain.trusted(_check_signed(report, chain, statements, stored))
        report.findings += check_versions(logs, trusted, announced, chain.key_times)
        _ask_witnesses(report, chain, ledger.witnesses)
        sealed = sealed_by(items)
        report.segments = len(sealed)
        report.findings += check_seals(listed, sealed)
        for entry in items:
            report.findings += check_segment(streams, entry) if seal_of(entry) is not None else []
        places = {(seal.stream, seal.segment) for seal in sealed_by(trusted)}
        for result in check_heads(heads, listed_segments, places, chain.key_times, streams, ledger.now()):
            if isinstance(result, OpenSegment):
                report.open.append(result)
            else:
                report.findings.append(result)
    except (RetrodictError, DBAPIError, OSError) as error:
        report.findings.append(AuditFinding("unreadable", "ledger", str(error).partition("\n")[0]))
    seen: set[str] = set()
    report.findings += check_objects(items, objects, seen)
    report.objects = len(seen)
    for _, finding in check_files(items, trusted, data.file_digest):
        report.files += 1
        report.findings += [finding] if finding else []
    return report


def _check_checkpoints(
    place: Path, chain: Chain, checkpoints: list[Checkpoint], damaged: list[int]
) -> Iterable[AuditFinding]:
    for number in damaged:
        yield AuditFinding("altered", f"checkpoints, line {number}", "it is no signed statement any more")
    if chain.rows and not checkpoints:
        detail = f"no signed checkpoint in {place.name!r}: a cut-off end could not be seen"
        yield AuditFinding("removed", "checkpoints", detail)
    # Where the chain is not what it was, the tree cannot be either: that is said once.
    signed = [checkpoint for checkpoint in checkpoints if checkpoint.root and not chain.findings]
    roots = chain.roots({checkpoint.sequence for checkpoint in signed})
    for checkpoint in checkpoints:
        if (finding := _check_checkpoint(chain, checkpoint)) is not None:
            yield finding
        elif checkpoint.root and roots.get(checkpoint.sequence, checkpoint.root) != checkpoint.root:
            where = f"checkpoint of entry {checkpoint.sequence}"
            yield AuditFinding("altered", where, "the entries do not give the root of the tree that was signed")


def _check_checkpoint(chain: Chain, checkpoint: Checkpoint) -> AuditFinding | None:
    where, entry = f"checkpoint of entry {checkpoint.sequence}", f"entry {checkpoint.sequence}"
    hash_ = chain.hashes.get(checkpoint.sequence)
    at = bisect.bisect_right(chain.keys, checkpoint.sequence, key=lambda key: key[0])
    trusted = chain.keys[at - 1][1] if at else None  # None: the chain is gone, or does not begin as ours do
    if not checkpoint.is_valid() or (trusted is not None and checkpoint.public_key != trusted):
        return AuditFinding("altered", where, "the signature is not by the ledger's key over this statement")
    if checkpoint.sequence > max(chain.hashes, default=0):
        return AuditFinding("cut off", entry, "it was signed, and the chain no longer reaches it")
    if hash_ != checkpoint.hash:
        return AuditFinding("altered", entry, "its hash is not the one that was signed")
    if checkpoint.log and checkpoint.log != chain.hashes.get(1):
        return AuditFinding("altered", where, "it is a statement on another ledger")
    if trusted is None:
        return AuditFinding("altered", where, "the chain does not say whose signature counts")
    return None


def _ask_witnesses(report: AuditReport, chain: Chain, witnesses: Sequence[Witness]) -> None:
    """Hold the chain against the newest statement that each witness has."""
    for witness in witnesses:
        report.witnesses[witness.name] = 0
        try:
            statement = witness.newest([str(key) for _, key in chain.keys])
        except (RetrodictError, OSError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            report.findings.append(
                AuditFinding("unreadable", f"witness {witness.name}", f"it did not answer: {reason}")
            )
            continue
        if statement is None:
            continue
        report.witnesses[witness.name] = statement.sequence
        finding = _check_checkpoint(chain, statement)
        if finding is not None and finding not in report.findings:
            report.findings.append(replace(finding, detail=f"{finding.detail}, says witness {witness.name}"))


def _check_signed(
    report: AuditReport, chain: Chain, checkpoints: list[Checkpoint], stored: list[Checkpoint]
) -> set[int]:
    """How far signatures reach: what comes after them was appended without the key. Return which ends were signed."""
    signed = {one.sequence for one in (*checkpoints, *stored) if _check_checkpoint(chain, one) is None}
    report.signed = max(signed, default=0)
    report.public_key = str(chain.keys[-1][1]) if chain.keys else ""
    last = max(chain.hashes, default=0)
    if report.signed and last > report.signed:
        which = f"entry {report.signed + 1}" + (f" to {last}" if last > report.signed + 1 else "")
        report.findings.append(AuditFinding("unsigned", which, "it was appended without the key that signs"))
    for end in stored:
        if (finding := _check_checkpoint(chain, end)) is not None:
            report.findings.append(finding)
    return signed
