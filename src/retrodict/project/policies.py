"""``project.policies``: what decides, since when, and who put it in force."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from retrodict.core.display import Block, Grid, Listing, short_hash, when
from retrodict.project.arguments import Time, instant
from retrodict.project.namespace import Namespace

if TYPE_CHECKING:
    from retrodict.registry import Revision

__all__ = ["Policies"]


class Policies(Namespace):
    """Deployments of a project's policies.

    Examples
    --------
    >>> project.policies.deployments("warn_early", at="2013-09-01T00:00Z")  # doctest: +SKIP
    """

    def deployments(self, policy: str | None = None, *, at: Time | None = None) -> Listing[Revision]:
        """List what is in force since when, or was at a time.

        Parameters
        ----------
        policy : str, optional
            Only this policy.
        at : Time, optional
            Only what was in force at this time (ISO 8601 with a zone).
        """
        from retrodict.registry import history, in_force

        moment = instant(at, "at")
        if moment is None:
            revisions = history(self._workspace, policy)
        elif policy is not None:
            revisions = [in_force(self._workspace, policy, moment)]
        else:
            newest = {r.deployment.policy: r for r in history(self._workspace) if r.time <= moment}
            revisions = sorted(newest.values(), key=lambda revision: revision.revision)

        def blocks() -> Sequence[Block | None]:
            rows = [
                (f"{r.deployment.policy}#{r.revision}", when(r.time), r.action, r.deployment.model,
                 short_hash(r.deployment.policy_version), r.actor, r.reason)
                for r in revisions
            ]  # fmt: skip
            columns = ("revision", "since", "change", "model", "policy hash?", "by", "reason")
            return [Grid(columns, rows) if rows else "Nothing is deployed yet."]

        return Listing("deployments", revisions, blocks)
