"""``project.models``: registered versions, and the judgement of somebody else than their author."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from retrodict.core.display import Block, Grid, Listing, number, when
from retrodict.project.namespace import Namespace

if TYPE_CHECKING:
    from retrodict.registry import ModelVersion

__all__ = ["Models"]


class Models(Namespace):
    """Model versions of a project.

    Examples
    --------
    >>> project.models.approve("late_arrival@1", reason="pilot")  # doctest: +SKIP
    """

    def list(self, model: str | None = None) -> Listing[ModelVersion]:
        """List model versions with their gates and approvals.

        Parameters
        ----------
        model : str, optional
            Only versions of this model.
        """
        from retrodict.registry import list_versions

        versions = list_versions(self._workspace, model)

        def blocks() -> Sequence[Block | None]:
            rows = [
                (v.ref, when(v.time), v.author, number(v.metrics.get("auc")), v.gates_passed, v.approved,
                 v.approvals[-1].approver if v.approvals else "")
                for v in versions
            ]  # fmt: skip
            columns = ("model", "registered?", "by", "test auc>", "gates passed", "approved", "judged by")
            return [Grid(columns, rows) if rows else "There is no model version yet."]

        return Listing("models", versions, blocks)

    def get(self, ref: str) -> ModelVersion:
        """Show one model version: gates, metrics, judgements.

        Parameters
        ----------
        ref : str
            ``name@version``, or a name for its newest version.
        """
        from retrodict.registry import get_version

        return get_version(self._workspace, ref)

    def approve(self, ref: str, *, reason: str) -> ModelVersion:
        """Approve a version, by somebody else than its author; every gate must have passed.

        Parameters
        ----------
        ref : str
            ``name@version``.
        reason : str
            Why, for the ledger.
        """
        from retrodict.registry import approve

        return approve(self._workspace, ref, reason=reason, granted=True)

    def reject(self, ref: str, *, reason: str) -> ModelVersion:
        """Reject a version; this also takes back an earlier approval.

        Parameters
        ----------
        ref : str
            ``name@version``.
        reason : str
            Why, for the ledger.
        """
        from retrodict.registry import approve

        return approve(self._workspace, ref, reason=reason, granted=False)
