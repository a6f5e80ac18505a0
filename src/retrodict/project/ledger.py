"""``project.ledger``: who did what, and that nobody touched it since."""

from __future__ import annotations

import json
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retrodict import decisions
from retrodict.core.display import Listing, short_hash, shorten, when
from retrodict.core.errors import InputError, IntegrityError, NotFoundError, RetrodictError
from retrodict.core.files import write_text
from retrodict.core.identity import digest_file
from retrodict.core.lazy import lazy_modules
from retrodict.project.damage import names_damage
from retrodict.project.namespace import Namespace

if TYPE_CHECKING:
    from sqlalchemy import MetaData

    from retrodict import ledger
    from retrodict.data import versions
    from retrodict.decisions.seals import SealReport
    from retrodict.features.offline import event_index
    from retrodict.learning.runs import store
    from retrodict.ledger import AuditReport, LedgerProof
    from retrodict.ledger.chain import Entry
    from retrodict.workspace import Workspace
else:
    (ledger,) = lazy_modules("retrodict", "ledger")
    (versions,) = lazy_modules("retrodict.data", "versions")
    (event_index,) = lazy_modules("retrodict.features.offline", "event_index")
    (store,) = lazy_modules("retrodict.learning.runs", "store")

__all__ = ["VOUCHED", "Ledger", "audit"]

# Tables every row of which is written with an entry that vouches for it.
VOUCHED = (
    "dataset_tags", "deployments", "model_approvals", "model_versions", "run_artifacts", "run_metrics", "run_tags",
    "runs",
)  # fmt: skip

# Where the rooms declare what is in the records.
_SCHEMAS = (
    "ledger.schema", "data.versions.refs", "learning.pipeline.leases", "learning.runs.mlflow.schema",
    "learning.runs.schema", "registry.deployments", "registry.versions",
)  # fmt: skip


def audit(workspace: Workspace, **options: Any) -> AuditReport:
    """Hold everything stored against the ledger, and the records against what the rooms declare."""
    return ledger.verify(
        workspace.ledger, objects=workspace.objects, streams=workspace.streams, data=workspace.tables, tables=VOUCHED,
        schema=_schema(), **options,
    )  # fmt: skip


def _schema() -> list[MetaData]:
    return [import_module(f"retrodict.{name}").metadata for name in _SCHEMAS]


def _listing(entries: list[Entry], total: int | None = None) -> Listing[Entry]:
    def row(e: Entry) -> tuple[Any, ...]:
        return f"{e.sequence}", when(e.time), e.actor, e.action, shorten(e.object_id), short_hash(e.hash)

    columns, more = ("entry>", "time", "by", "action", "object", "hash?"), {"total": total or len(entries)}
    return Listing.table("entries", entries, columns, row, empty="The ledger has no such entry.", more=more)


class Ledger(Namespace):
    """The ledger of a project.

    Examples
    --------
    >>> project.ledger.verify().ok  # doctest: +SKIP
    True
    """

    def verify(
        self, *, checkpoints: str | Path | None = None, public_key: str | None = None, every_signature: bool = False
    ) -> AuditReport:
        """Verify that nothing was altered, removed, cut off or added.

        Recomputes the chain, its signatures, the lineage, the sealed segments and every content hash. Exit code 1 if
        anything is not as it was written.

        Parameters
        ----------
        checkpoints : str or Path, optional
            File of signed checkpoints to trust instead of the project's own: the copy of a witness.
        public_key : str, optional
            Key that the ledger must begin with, 64 hex digits: as it was noted outside the project.
        every_signature : bool, default False
            Check the signature of every checkpoint, however many there are. Of more than 10,000 otherwise those of the
            newest 1,000 and of 1,000 at random, unless anything is wrong; the report says how many.
        """
        if checkpoints is not None and not Path(checkpoints).exists():
            raise NotFoundError("the checkpoints must exist", where="audit verify", got=str(checkpoints),
                                remedy="Name the file, or the folder it is in")  # fmt: skip
        workspace, report = self._workspace, ledger.AuditReport()
        try:
            report = audit(
                workspace, every_signature=every_signature, public_key=public_key and public_key.lower(),
                checkpoints=None if checkpoints is None else Path(checkpoints),
            )  # fmt: skip
            report.findings += [ledger.AuditFinding("altered", f"index {name}", reason)
                                for name, reason in event_index.altered_indexes(workspace)]  # fmt: skip
            report.findings += [ledger.AuditFinding("altered", f"what searches read of {ref}", "not what the run says")
                                for ref in store.altered_indexes(workspace)]  # fmt: skip
        except IntegrityError as error:  # nothing can be said of what they name
            report.findings.append(ledger.AuditFinding("unreadable", "records", str(error)))
            with suppress(RetrodictError):
                faults = workspace.records.faults(_schema())
                report.findings += [ledger.AuditFinding("altered", "records", fault) for fault in faults]
        return report

    @names_damage
    def log(
        self,
        *,
        object: str | None = None,  # noqa: A002  # the option's name
        file: str | Path | None = None,
        limit: int = 20,
    ) -> Listing[Entry]:
        """Read the ledger: who did what, the newest entry last.

        Parameters
        ----------
        object : str, optional
            Only entries on this object.
        file : path, optional
            Only entries that name the contents of this file, such as one of scores: none, if it was altered.
        limit : int
            Newest entries to show.
        """
        if file is not None and not Path(file).is_file():
            raise NotFoundError("the file must exist", where="audit log", got=str(file),
                                remedy="Name one file; of a folder of scores, a part")  # fmt: skip
        content = None if file is None else digest_file(Path(file))
        entries = self._workspace.ledger.entries(object_id=object, content=content)
        return _listing(entries[max(len(entries) - limit, 0) :], len(entries))

    def accept(self, *, reason: str) -> Listing[Entry]:
        """Go on from an end of the ledger that is not the one signed last, because you know why.

        Needed after an older backup was restored: until then every command that writes is refused. ``audit verify``
        names the entry, and what was signed and is gone, from then on.

        Parameters
        ----------
        reason : str
            For the ledger.
        """
        return _listing([self._workspace.ledger.accept_end(reason)])

    def adopt(self, table: str, *, reason: str) -> Listing[Entry]:
        """Take in versions of a table that the ledger does not name: you know whose they are.

        Versions that another program wrote into the folder of a table are not read until then, and nothing is written
        on top of them. The entry says who took in what, and why.

        Parameters
        ----------
        table : str
            Name of the table.
        reason : str
            For the ledger.
        """
        return _listing([versions.adopt(self._workspace, table, reason=reason)])

    def renew_key(self, *, reason: str, unendorsed: bool = False) -> Listing[Entry]:
        """Go on with a new signing key, endorsed by the old one.

        Parameters
        ----------
        reason : str
            For the ledger.
        unendorsed : bool, default False
            The old key is gone; ``audit verify`` names the renewal that nobody endorsed from then on.
        """
        return _listing([self._workspace.ledger.renew_key(reason, unendorsed=unendorsed)])

    def seal(self) -> SealReport:
        """Seal the decision log, so that each decision can be proved.

        Who writes it does it by itself, while it writes and when it stops; this is for after a crash.
        """
        return decisions.seal_decisions(self._workspace)

    def proof(
        self,
        ref: str | None = None,
        *,
        since: int | None = None,
        record: bool = False,
        output: str | Path | None = None,
    ) -> LedgerProof:
        """Prove a decision or an entry to somebody who has nothing but the public key.

        The proof holds one entry of the ledger and about twenty hashes that lead to a root which is signed (RFC 6962).
        Its signature reaches as far as that of the newest entry.

        Parameters
        ----------
        ref : str, optional
            ``decision:ULID`` of the sealed log, or ``entry:N``.
        since : int, optional
            Instead: that the ledger still begins with what was signed up to this entry.
        record : bool
            Hand over what was decided as well, with the personal data in it; without, only its hash.
        output : path, optional
            JSON file to hand over.
        """
        if output is not None and not Path(output).parent.is_dir():
            raise InputError("a proof must go to a file in a folder that exists", where="output", got=str(output),
                             remedy="Write it like 'proof.json'")  # fmt: skip
        if (ref is None) == (since is None):
            raise InputError("a proof must be of one thing", where="audit proof", got="none or two",
                             remedy="Pass decision:ULID, entry:N, or --since N")  # fmt: skip
        if record and (since is not None or str(ref).startswith("entry:")):
            raise InputError("only the proof of a decision must hold a record", where="audit proof, --record",
                             got=ref or f"--since {since}",
                             remedy="Pass decision:ULID, or leave --record out")  # fmt: skip
        chain = self._workspace.ledger
        if since is not None:
            proof = ledger.LedgerProof.of(chain, ledger.prove_growth(chain, since))
        elif isinstance(ref, str) and ref.startswith("entry:") and ref[6:].isdecimal():
            proof = ledger.LedgerProof.of(chain, ledger.prove_entry(chain, int(ref[6:])))
        else:
            assert ref is not None
            proof = decisions.prove_decision(self._workspace, ref, record=record)
        if output is not None:
            write_text(output, json.dumps(proof.document, indent=1) + "\n")
        return proof

    @staticmethod
    def check(proof: str | Path, *, public_key: str) -> LedgerProof:
        """Check a proof that was handed over; needs no project. Exit code 1 if it does not hold.

        Parameters
        ----------
        proof : path
            JSON file that `audit proof` wrote.
        public_key : str
            Key of the ledger, 64 hex digits, as `audit verify` shows it: not taken from the proof.
        """
        try:
            document = json.loads(Path(proof).read_bytes())
        except (OSError, ValueError, RecursionError) as error:
            raise InputError("a proof must be a JSON file", where=str(proof), got=type(error).__name__,
                             remedy="Make it with: retrodict audit proof REF --output FILE") from error  # fmt: skip
        return decisions.read_proof(document, public_key.lower())
