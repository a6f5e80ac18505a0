"""``project.policies``: what decides, since when, and who put it in force."""

from __future__ import annotations

from typing import TYPE_CHECKING

from retrodict.core.display import Listing, short_hash, when
from retrodict.core.lazy import lazy_modules
from retrodict.project.arguments import Time, instant
from retrodict.project.damage import names_damage
from retrodict.project.namespace import Namespace

if TYPE_CHECKING:
    from retrodict import registry
    from retrodict.registry import Revision
else:
    (registry,) = lazy_modules("retrodict", "registry")

__all__ = ["Policies"]


class Policies(Namespace):
    """Deployments of a project's policies.

    Examples
    --------
    >>> project.policies.deployments("warn_early", at="2013-09-01T00:00Z")  # doctest: +SKIP
    """

    @names_damage
    def deployments(self, policy: str | None = None, *, at: Time | None = None) -> Listing[Revision]:
        """List what is in force since when, or was at a time.

        Parameters
        ----------
        policy : str, optional
            Only this policy.
        at : Time, optional
            Only what was in force at this time (ISO 8601 with a zone).
        """
        moment = instant(at, "at")
        if moment is None:
            revisions = registry.history(self._workspace, policy)
        elif policy is not None:
            revisions = [registry.in_force(self._workspace, policy, moment)]
        else:
            newest = {r.deployment.policy: r for r in registry.history(self._workspace) if r.time <= moment}
            revisions = sorted(newest.values(), key=lambda revision: revision.revision)

        def row(r: Revision) -> tuple[object, ...]:
            ref, version = f"{r.deployment.policy}#{r.revision}", short_hash(r.deployment.policy_version)
            return ref, when(r.time), r.action, r.deployment.model, version, r.actor, r.reason

        columns = ("revision", "since", "change", "model", "policy hash?", "by", "reason")
        return Listing.table("deployments", revisions, columns, row, empty="Nothing is deployed yet.")
