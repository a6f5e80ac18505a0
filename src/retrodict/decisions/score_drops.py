"""Marks that cached scores are to be forgotten: entries of the ledger, which every server and process looks for.

A mark is of one policy, of all whose model reads a feature, or of both. Scores are kept by the newest mark that is
theirs, so nobody has to reach the caches: what was kept before is not found any more, in a process or in Redis.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from retrodict.core.display import Block, Facts, Shown
from retrodict.core.errors import InputError, check_known, check_reason
from retrodict.evaluation.reference import feature_column
from retrodict.ledger import Entry, Transaction
from retrodict.models.artifact import ModelArtifact
from retrodict.registry import current
from retrodict.workspace import Workspace

__all__ = ["ScoreDrop", "append_drop", "drop_scores", "newest_drop", "read_drops"]

_DROP = "scores.drop"


@dataclass(frozen=True, slots=True, repr=False)
class ScoreDrop(Shown):
    """Cached scores that count no longer: of these policies, all or by a feature that their models read."""

    policies: tuple[str, ...]
    feature: str | None
    reason: str

    def blocks(self) -> Sequence[Block | None]:
        """Whose scores."""
        return [Facts({"dropped for": list(self.policies) or "no policy in force", "feature": self.feature}),
                "Running servers follow within a second."]  # fmt: skip


def append_drop(tx: Transaction, *, policy: str | None, features: Sequence[str], reason: str) -> None:
    """Mark scores of a policy (None: of every one) whose model reads one of the features (none: any) as forgotten."""
    name = "all" if policy is None else f"policy:{policy}"
    tx.append(_DROP, f"scores:{name}", {"policy": policy, "features": sorted(features), "reason": reason})


def read_drops(workspace: Workspace) -> list[Entry]:
    """All marks, oldest first."""
    return workspace.ledger.entries(action=_DROP)


def newest_drop(drops: Sequence[Entry], policy: str, inputs: Collection[str]) -> tuple[int, int]:
    """Number and time of the newest mark for a policy whose model reads these features; zeros if there is none."""
    names = {*inputs, *map(feature_column, inputs)}
    for entry in reversed(drops):
        features = entry.payload["features"]
        if entry.payload["policy"] in (None, policy) and (not features or not names.isdisjoint(features)):
            return entry.sequence, entry.time
    return 0, 0


def drop_scores(workspace: Workspace, policy: str | None, feature: str | None, *, reason: str) -> ScoreDrop:
    """Forget cached scores, in every process that decides.

    Raises
    ------
    InputError
        If neither policy nor feature is named, no model in force reads the feature, or there is no reason.
    NotFoundError
        If the policy is not deployed.
    """
    where = "cached scores"
    check_reason(reason, "a drop of scores must have a reason", where=where)
    if policy is None and feature is None:
        raise InputError("a drop of scores must be of a policy or a feature", where=where, got="neither",
                         remedy="Name a policy, --feature, or both")  # fmt: skip
    revisions = current(workspace)
    if policy is not None:
        check_known(policy, revisions, "the policy must be deployed", where=where, what="policy")
    inputs = {name: ModelArtifact.load(workspace.objects, revision.deployment.artifact).inputs.names
              for name, revision in revisions.items() if policy in (None, name)}  # fmt: skip
    if feature is not None:
        features = {name for names in inputs.values() for name in names}
        rule = "the feature must be read by a model in force"
        check_known(feature, features, rule, where=where, what="feature", error=InputError)
    with workspace.ledger.transaction() as tx:
        append_drop(tx, policy=policy, features=[] if feature is None else [feature], reason=reason)
    policies = tuple(sorted(name for name, names in inputs.items() if feature is None or feature in names))
    return ScoreDrop(policies, feature, reason)
