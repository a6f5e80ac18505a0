"""``project.ledger``: who did what, and that nobody touched it since."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from retrodict import decisions
from retrodict.core.display import Listing, short_hash, shorten, when
from retrodict.core.errors import NotFoundError
from retrodict.core.lazy import lazy_modules
from retrodict.project.namespace import Namespace

if TYPE_CHECKING:
    from retrodict import ledger
    from retrodict.decisions.seals import DecisionProof, SealReport
    from retrodict.ledger import AuditReport
    from retrodict.ledger.chain import Entry
else:
    (ledger,) = lazy_modules("retrodict", "ledger")

__all__ = ["Ledger"]

# Tables every row of which is written with an entry that vouches for it.
_VOUCHED = ("dataset_tags", "deployments", "model_approvals", "model_versions")


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

    def verify(self, *, checkpoints: str | Path | None = None, public_key: str | None = None) -> AuditReport:
        """Verify that nothing was altered, removed, cut off or added.

        Recomputes the chain, its signatures, the lineage, the sealed segments and every content hash. Exit code 1 if
        anything is not as it was written.

        Parameters
        ----------
        checkpoints : str or Path, optional
            File of signed checkpoints to trust instead of the project's own: the copy of a witness.
        public_key : str, optional
            Key that the ledger must begin with, 64 hex digits: as it was noted outside the project.
        """
        if checkpoints is not None and not Path(checkpoints).exists():
            raise NotFoundError("the checkpoints must exist", where="audit verify", got=str(checkpoints),
                                remedy="Name the file, or the folder it is in")  # fmt: skip
        workspace = self._workspace
        return ledger.verify(
            workspace.ledger, objects=workspace.objects, streams=workspace.streams,
            file_digest=workspace.tables.file_digest, tables=_VOUCHED,
            checkpoints=None if checkpoints is None else Path(checkpoints), public_key=public_key,
        )  # fmt: skip

    def log(self, *, object: str | None = None, limit: int = 20) -> Listing[Entry]:  # noqa: A002  # the option's name
        """Read the ledger: who did what, the newest entry last.

        Parameters
        ----------
        object : str, optional
            Only entries on this object.
        limit : int
            Newest entries to show.
        """
        entries = self._workspace.ledger.entries(object_id=object)
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

    def proof(self, decision: str) -> DecisionProof:
        """Prove that a decision is in the sealed log.

        Parameters
        ----------
        decision : str
            ``decision:ULID``.
        """
        return decisions.prove_decision(self._workspace, decision)
