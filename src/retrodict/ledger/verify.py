"""``audit verify``: recompute everything the ledger names and say what was altered, removed or cut off."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import MetaData
from sqlalchemy.exc import DBAPIError

from retrodict.core.clock import SystemClock
from retrodict.core.display import Block, Facts, Grid, Shown
from retrodict.core.durations import DAY, SECOND
from retrodict.core.errors import RetrodictError
from retrodict.ledger._evidence import (
    Claims,
    OpenSegment,
    check_files,
    check_heads,
    check_objects,
    check_records,
    check_seals,
    check_segment,
    check_versions,
    read_each,
)
from retrodict.ledger._replay import AuditFinding, Chain
from retrodict.ledger._signature_evidence import ask_witnesses, check_end, check_keys, check_statements
from retrodict.ledger.checkpoints import size_of
from retrodict.ledger.ends import ahead, signed_ends
from retrodict.ledger.heads import SignedHead, scan_heads
from retrodict.ledger.ledger import Ledger
from retrodict.ledger.segments import SEALED_STREAMS, Seal, seal_of, select_seals, vouched_removals
from retrodict.ledger.table_versions import select_versions
from retrodict.stores.objects.base import ObjectStore
from retrodict.stores.streams.base import Segment, StreamStore

if TYPE_CHECKING:  # importing it loads Arrow
    from retrodict.stores.tables.base import TableStore

__all__ = ["AuditFinding", "AuditReport", "altered_segments", "verify"]


@dataclass(slots=True, repr=False)
class AuditReport(Shown):
    """What was checked, and every finding; ``verified`` is True when there is none.

    ``signed`` is the last entry that a signature covers, ``public_key`` the key whose signatures count,
    ``signatures`` how many of those of ``checkpoints`` were checked; ``witnesses``
    are the other places of checkpoints, with the last entry that each has a statement on; ``open`` are the segments
    that are not sealed yet, with the records that signatures cover.
    """

    entries: int = 0
    edges: int = 0
    checkpoints: int = 0
    signatures: int = 0
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
        rest = {name: counts.pop(name) for name in ("witnesses", "open", "findings")}
        signed = {"entry": "signed", "public_key": "public_key", "signatures": "signatures"}
        return {"verified": self.verified, "checked": counts,
                "signed": {title: counts.pop(name) for title, name in signed.items()}, **rest}  # fmt: skip

    ok = verified

    def blocks(self) -> Sequence[Block | None]:
        """Verdict, counts and findings."""
        signed = f"up to entry {self.signed}, by key {self.public_key}" if self.public_key else "nothing"
        if self.signatures < self.checkpoints:
            signed += f"; {self.signatures:,} of {self.checkpoints:,} signatures checked"
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


def verify(  # noqa: PLR0913  # what to hold against what
    ledger: Ledger,
    *,
    objects: ObjectStore,
    streams: StreamStore,
    data: TableStore,
    tables: Collection[str] = (),
    schema: Collection[MetaData] | None = None,
    checkpoints: Path | None = None,
    public_key: str | None = None,
    every_signature: bool = False,
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
    schema : collection of sqlalchemy.MetaData, optional
        All that there may be in the records. None: of other tables nothing is said.
    checkpoints : Path, optional
        File or folder of checkpoints, such as the copy of a witness. None: the project's own.
    public_key : str, optional
        Key that the chain must begin with, 64 hex digits. None: whichever it names.
    every_signature : bool, default False
        Whether the signatures of more than 10,000 checkpoints are all checked: the newest 1,000 and 1,000 at random
        otherwise, unless anything is wrong.

    Returns
    -------
    AuditReport
        Damage is reported, never raised: an auditor wants the whole list.
    """
    with Chain() as chain, ThreadPoolExecutor(1) as beside:
        audit = _Audit(ledger, objects, streams, data, chain)
        # It reads every page of the records, in a state of its own and without holding up the reading of the chain.
        faults = beside.submit(ledger.records.faults, schema)
        for check in (
            partial(audit.check_chain, tables, checkpoints, public_key, every=every_signature),
            audit.check_streams,
            lambda: [AuditFinding("altered", "records", fault) for fault in faults.result()],
            audit.check_content,
        ):
            try:
                for finding in check():
                    audit.report.findings.append(finding)
            except Exception as error:  # noqa: BLE001  # whatever was planted, what is found stays, the rest is looked at
                if (finding := _unreadable(error)) not in audit.report.findings:
                    audit.report.findings.append(finding)
    return audit.report


def altered_segments(ledger: Ledger, streams: StreamStore) -> Iterator[AuditFinding]:
    """Findings on the records of sealed segments, and of open ones as far as they are signed."""
    seals = [(e, seal) for e in ledger.vouched(f"segment:{SEALED_STREAMS}") if (seal := seal_of(e)) is not None]
    removed = {(removal.stream, removal.segment) for removal in vouched_removals(ledger)}
    for entry, seal in seals:
        yield from check_segment(streams, entry, seal, removed)
    heads, sealed = scan_heads(ledger.heads), {(seal.stream, seal.segment) for _, seal in seals}
    results = check_heads(heads, {}, {}, sealed, ledger.reach()[1], streams, ledger.now())
    yield from (one for one in results if isinstance(one, AuditFinding))


class _Audit:
    """One audit: what was read of streams and tables before the chain was, and the checks, each after those before."""

    def __init__(
        self, ledger: Ledger, objects: ObjectStore, streams: StreamStore, data: TableStore, chain: Chain
    ) -> None:
        self.report = AuditReport()
        self._ledger, self._objects, self._streams, self._data, self._chain = ledger, objects, streams, data, chain
        self._files: dict[str, list[str]] = {}
        self._segments: dict[str, list[Segment]] = {}
        self._heads: dict[str, SignedHead | None] = {}
        self._seals: list[Seal] = []
        self._claims = Claims()

    def check_chain(
        self, tables: Collection[str], checkpoints: Path | None, public_key: str | None, *, every: bool
    ) -> Iterator[AuditFinding]:
        """Everything in the records, by one state of them: what is appended meanwhile belongs to the next audit."""
        ledger, chain, report = self._ledger, self._chain, self.report
        place, complete = checkpoints or ledger.checkpoint_folder, checkpoints is None
        # What is not in a head any more is in the chain, and what lies there is in one of both: hence this order.
        names = self._streams.names(SEALED_STREAMS)
        self._files = {name: self._streams.files(name) for name in names}
        self._segments, unreadable = read_each("stream", names, self._streams.segments)
        yield from unreadable
        logs, unreadable = read_each("table", self._data.names(every=True), self._data.log_entries)
        yield from unreadable
        self._heads, size = scan_heads(ledger.heads), size_of(place)
        with ledger.records.read() as connection:
            chain.read(connection)
            report.entries, report.edges = chain.rows, chain.edges
            yield from chain.findings + chain.lineage
            if chain.error is not None:
                raise chain.error
            # The machine's clock too: a simulated one that stands in the past accuses nobody.
            now = max(ledger.clock.now(), SystemClock().now())
            if (span := ahead(connection, now)) is not None:
                first, last, distance = span
                where, far = f"entry {first}" + (f" to {last}" if last > first else ""), distance / DAY
                yield AuditFinding("ahead", where, f"dated {far:,.2f} days after the clock of this machine")
            self._seals, announced = select_seals(connection), select_versions(connection)
            yield from check_keys(chain, public_key)
            statements = check_statements(chain, place, size, every=every, complete=complete)
            report.checkpoints, report.signatures = statements.count, statements.signatures
            check_end(chain, statements, signed_ends(connection), place if complete else None)
            yield from statements.findings
            claims = self._claims.gather(chain.claims(), chain.is_trusted)
            yield from check_records(connection, chain.claims(), claims, tables)
            yield from chain.check_spelling(connection)
            if statements.newest is not None and statements.newest.root and not chain.findings:
                yield from chain.check_nodes(connection, statements.signed)
        report.signed, report.public_key = statements.signed, str(chain.keys[-1][1]) if chain.keys else ""
        yield from check_versions(logs, claims.versions, announced, chain.key_times)
        for name, entry, finding in ask_witnesses(
            chain, ledger.witnesses, report.signed, report.findings, ledger.checkpoint_folder
        ):
            report.witnesses[name] = entry
            yield from [finding] if finding else []
        for kind, fault in ledger.key_faults().items():
            if kind == "altered" or public_key is None:  # who states the key needs no file of it
                yield AuditFinding(kind, "signing key", fault)

    def check_streams(self) -> Iterator[AuditFinding]:
        """Sealed segments, what signed heads say of open ones, and what nobody vouches for."""
        claims, now, keys = self._claims, self._ledger.now(), self._chain.key_times
        self.report.segments = len(claims.seals)
        yield from check_seals(self._seals, (seal for _, seal in claims.seals))
        for entry, seal in claims.seals:
            yield from check_segment(self._streams, entry, seal, claims.removed)
        for result in check_heads(self._heads, self._files, self._segments, claims.sealed, keys, self._streams, now):
            if isinstance(result, OpenSegment):
                self.report.open.append(result)
            else:
                yield result

    def check_content(self) -> Iterator[AuditFinding]:
        """Every object and file that entries name."""
        seen: set[str] = set()
        for entry in self._chain.claims():
            yield from check_objects(entry, self._objects, seen)
            self.report.objects = len(seen)
            for finding in check_files(entry, self._claims.deleted, self._data.file_digest):
                self.report.files += 1
                yield from [finding] if finding else []


def _unreadable(error: Exception) -> AuditFinding:
    expected = isinstance(error, RetrodictError | DBAPIError | OSError)
    detail = str(error).partition("\n")[0] if expected else f"what is stored cannot be read ({type(error).__name__})"
    return AuditFinding("unreadable", "ledger", detail)
