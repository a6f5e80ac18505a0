"""``audit verify``: recompute everything the ledger names and say what was altered, removed or cut off."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy.exc import DBAPIError

from retrodict.core.display import Block, Facts, Grid, Shown
from retrodict.core.durations import SECOND
from retrodict.core.errors import RetrodictError
from retrodict.ledger._evidence import (
    OpenSegment,
    check_files,
    check_heads,
    check_objects,
    check_records,
    check_seals,
    check_segment,
    check_versions,
    deleted_by,
    read_each,
    sealed_by,
)
from retrodict.ledger._replay import AuditFinding, Chain
from retrodict.ledger._signature_evidence import ask_witnesses, check_end, check_keys, check_statements
from retrodict.ledger.checkpoints import size_of
from retrodict.ledger.heads import scan_heads
from retrodict.ledger.ledger import Ledger, signed_ends
from retrodict.ledger.segments import SEALED_STREAMS, select_seals
from retrodict.ledger.table_versions import select_versions
from retrodict.stores.objects.base import ObjectStore
from retrodict.stores.streams.base import StreamStore

if TYPE_CHECKING:  # importing it loads Arrow
    from retrodict.stores.tables.base import TableStore

__all__ = ["AuditReport", "AuditFinding", "verify"]


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
        names = ("findings", "public_key", "signed", "signatures", "open", "witnesses")
        findings, key, signed, signatures, unsealed, witnesses = (counts.pop(name) for name in names)
        return {"verified": self.verified, "checked": counts,
                "signed": {"entry": signed, "public_key": key, "signatures": signatures},
                "witnesses": witnesses, "open": unsealed, "findings": findings}  # fmt: skip

    @property
    def ok(self) -> bool:
        """Whether everything is as it was written."""
        return self.verified

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


def verify(
    ledger: Ledger,
    *,
    objects: ObjectStore,
    streams: StreamStore,
    data: TableStore,
    tables: Collection[str] = (),
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
    report, deleted = AuditReport(), set[str]()
    with Chain() as chain:
        try:
            # One state for all of it: what is appended meanwhile belongs to the next audit.
            place = checkpoints or ledger.checkpoint_folder
            # What is not in a head any more is in the chain, and what lies there is in one of both: hence this order.
            listed_segments, unreadable = read_each("stream", streams.names(SEALED_STREAMS), streams.segments)
            report.findings += unreadable
            logs, unreadable = read_each("table", data.names(every=True), data.log_entries)
            report.findings += unreadable
            report.findings += [AuditFinding("altered", "records", fault) for fault in ledger.records.faults()]
            heads = scan_heads(ledger.checkpoint_folder)
            size = size_of(place)
            with ledger.records.read() as connection:
                chain.read(connection)
                report.entries, report.edges = chain.rows, chain.edges
                report.findings += chain.findings + chain.lineage
                if chain.error is not None:
                    raise chain.error  # noqa: TRY301  # what could be read of it is in the report already
                report.findings += check_records(connection, chain.claims, tables)
                listed, announced = select_seals(connection), select_versions(connection)
                report.findings += check_keys(chain, public_key)
                statements = check_statements(chain, place, size, every=every_signature)
                report.checkpoints, report.signatures = statements.count, statements.signatures
                check_end(chain, statements, signed_ends(connection))
                report.findings += statements.findings
                report.findings += chain.check_spelling(connection)
            report.signed, report.public_key = statements.signed, str(chain.keys[-1][1]) if chain.keys else ""
            deleted = deleted_by(chain.claims(trusted=True))
            report.findings += check_versions(logs, chain.claims(trusted=True), announced, chain.key_times)
            for name, entry, finding in ask_witnesses(chain, ledger.witnesses, report.findings):
                report.witnesses[name] = entry
                report.findings += [finding] if finding else []
            sealed = sealed_by(chain.claims())
            report.segments = len(sealed)
            report.findings += check_seals(listed, sealed)
            for claim in chain.claims():
                report.findings += check_segment(streams, claim)
            places = {(seal.stream, seal.segment) for seal in sealed_by(chain.claims(trusted=True))}
            for result in check_heads(heads, listed_segments, places, chain.key_times, streams, ledger.now()):
                if isinstance(result, OpenSegment):
                    report.open.append(result)
                else:
                    report.findings.append(result)
        except Exception as error:  # noqa: BLE001  # whatever was planted, what is found stays and the rest is looked at
            report.findings.append(_unreadable(error))
        try:
            seen: set[str] = set()
            report.findings += check_objects(chain.claims(), objects, seen)
            report.objects = len(seen)
            for finding in check_files(chain.claims(), deleted, data.file_digest):
                report.files += 1
                report.findings += [finding] if finding else []
        except Exception as error:  # noqa: BLE001  # as above
            report.findings.append(_unreadable(error))
    return report


def _unreadable(error: Exception) -> AuditFinding:
    expected = isinstance(error, RetrodictError | DBAPIError | OSError)
    detail = str(error).partition("\n")[0] if expected else f"what is stored cannot be read ({type(error).__name__})"
    return AuditFinding("unreadable", "ledger", detail)
