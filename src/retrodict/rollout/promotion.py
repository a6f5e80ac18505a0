"""The end of a challenger's way: a canary of a rollout where the policy has one, and the champion at once where not."""

from __future__ import annotations

from retrodict.core.errors import RefusedError, check_reason
from retrodict.registry import Revision, current
from retrodict.rollout.candidacy import check_way, enter_promotion, find_candidacy
from retrodict.rollout.changes import promote
from retrodict.rollout.definitions import Rollout
from retrodict.rollout.ladder import start
from retrodict.rollout.rescore import champion_of
from retrodict.rollout.shadows import stop_shadow
from retrodict.workspace import Workspace

__all__ = ["promote_challenger"]


def promote_challenger(
    workspace: Workspace, policy: str, name: str, *, reason: str, emergency: bool = False
) -> Revision:
    """Let a reviewed challenger decide: the first share of the units, by the rollout that is defined for its policy.

    Without a rollout, and in an emergency, it decides everything at once; what decided is what a rollback goes back to.

    Raises
    ------
    RefusedError
        If a review is not granted, the evidence shows more disagreement than the policy allows or none at all, the
        challenger decides by another policy than is in force, or the policy has several rollouts. An emergency passes
        over reviews and disagreement.
    """
    one, where = find_candidacy(workspace, policy, name), f"challenger:{policy}/{name}"
    reason = check_reason(reason, "a promotion must have a reason", where=where)
    champion = champion_of(workspace, policy)
    if one.challenger.policy_version != champion.policy_version or one.challenger.policy != policy:
        raise RefusedError("a challenger must decide by the policy in force to be promoted", where=where,
                           got=f"policy:{one.challenger.policy}",
                           remedy=f"Write its rules into {policy}, and deploy that")  # fmt: skip
    if not emergency:
        check_way(workspace, one)
        rollouts = [rollout.name for rollout in workspace.definitions.of(Rollout)
                    if rollout.policy is not None and rollout.policy.name == policy]  # fmt: skip
        if len(rollouts) > 1:
            raise RefusedError("a promotion must name one of the rollouts of its policy", where=where, got=rollouts,
                               remedy=f"Start one with: retrodict rollout start {rollouts[0]} {one.challenger.model} "
                               f"--policy {policy} --reason WHY")  # fmt: skip
        if rollouts:
            return start(workspace, rollouts[0], one.challenger.model, policy=policy, reason=reason)
    revision = promote(workspace, policy, one.challenger.model, reason=reason)
    enter_promotion(workspace, one, revision.revision, reason=reason, emergency=emergency)
    if any(shadow["name"] == name for shadow in revision.deployment.shadows):
        stop_shadow(workspace, policy, name, reason=f"promoted: {reason}")
    return current(workspace)[policy]
