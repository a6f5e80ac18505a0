"""``project.ledger``: who did what, and that nobody touched it since."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from retrodict import decisions
from retrodict.core.display import Listing, short_hash, shorten, when
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


class Ledger(Namespace):
    """The ledger of a project.

    Examples
    --------
    >>> project.ledger.verify().ok  # doctest: +SKIP
    True
    """

    def verify(self) -> AuditReport:
        """Verify that nothing was altered, removed or cut off.

        Recomputes the chain, its signatures, the lineage, the sealed segments and every content hash. Exit code 1 if
        anything is not as it was written.
        """
        workspace = self._workspace
        digest = workspace.tables.file_digest
        return ledger.verify(workspace.ledger, objects=workspace.objects, streams=workspace.streams, file_digest=digest)

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
        newest = entries[max(len(entries) - limit, 0) :]

        def row(e: Entry) -> tuple[Any, ...]:
            return f"{e.sequence}", when(e.time), e.actor, e.action, shorten(e.object_id), short_hash(e.hash)

        columns, more = ("entry>", "time", "by", "action", "object", "hash?"), {"total": len(entries)}
        return Listing.table("entries", newest, columns, row, empty="The ledger has no such entry.", more=more)

    def seal(self) -> SealReport:
        """Seal the decision log, so that each decision can be proved.

        Servers do it by themselves when they stop; this is for after a crash.
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
