"""A rollout under way: start, look, go on, stop. Its whole state is the ``split`` of the deployment that is in force.

So verdict and weights are one row, written in one transaction: a controller that is killed anywhere has done a step
whole or not at all, and another one that looks at the same data decides the same. Two controllers at once are harmless:
the second one's change was worked out from a revision that no longer decides, and is refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from retrodict.core.clock import format_time
from retrodict.core.durations import format_duration, parse_duration
from retrodict.core.errors import (
    BusyError,
    InputError,
    NotFoundError,
    RefusedError,
    RetrodictError,
    RetryableError,
    check_known,
    check_reason,
)
from retrodict.core.identity import content_hash
from retrodict.decisions.definitions import find_policy
from retrodict.decisions.loader import Loader
from retrodict.decisions.servant import Servant
from retrodict.registry import Deployment, Revision, change, current, get_version, history, mark_of, rolled_back
from retrodict.rollout.candidacy import check_reviewed
from retrodict.rollout.changes import (
    check_candidate,
    check_deployable,
    check_no_rollout,
    find_current,
    restored,
    without_split,
)
from retrodict.rollout.definitions import Guard, Rollout
from retrodict.rollout.evidence import ArmVerdict, gather
from retrodict.workspace import Workspace, definitions_of

__all__ = [
    "Move",
    "abort",
    "first_step",
    "halt",
    "judge",
    "next_move",
    "pause",
    "promote_now",
    "release",
    "resume",
    "rollout_of",
    "running",
    "start",
    "step_on",
    "under_way",
]

What = Literal["wait", "raise", "promote", "rollback", "pause"]


@dataclass(frozen=True, slots=True)
class Move:
    """What comes next, and why."""

    what: What
    reason: str


def start(workspace: Workspace, name: str, to: str, *, policy: str | None = None, reason: str,
          force: str | None = None) -> Revision:  # fmt: skip
    """Let a version of the policy's model, with the policy as it is defined now, decide the first share of the units.

    Parameters
    ----------
    workspace : Workspace
    name : str
        Name of a defined rollout.
    to : str
        Model version, ``name@version``.
    policy : str, optional
        Needed where the rollout names none.
    reason : str
        For the ledger.
    force : str, optional
        As for a deployment.

    Raises
    ------
    RefusedError
        If the version may not be deployed, decides already, was rolled back from, is a challenger that lacks a review,
        another rollout is under way, or the new version needs to be asked otherwise than the old one.
    """
    rollout = workspace.definitions.get(Rollout, name)
    policy_name = _policy_of(rollout, policy)
    with workspace.lock(f"rollout/{policy_name}"):
        before = find_current(workspace, policy_name)
        where = f"policy:{policy_name}"
        check_no_rollout(before, "another rollout")
        definition = find_policy(workspace.definitions, policy_name)
        candidate, overrides = check_deployable(workspace, definition, to, force=force)
        if candidate.target == before.deployment.target:
            raise RefusedError("a rollout must change what decides", where=where, got=candidate.model,
                               remedy="It decides already")  # fmt: skip
        marks = rolled_back(history(workspace, policy_name))
        if mark := mark_of(marks, candidate.policy_version, candidate.model):
            raise RefusedError("a version that was rolled back from must not be brought in again", where=where,
                               got={candidate.model: f"rolled back from by revision {mark}"},
                               remedy="Train another one, or correct the policy; or deploy it by name, with a reason"
                               )  # fmt: skip
        check_reviewed(workspace, policy_name, candidate.target)
        loader = Loader(workspace)
        old = loader.load(replace(before, deployment=replace(before.deployment, split=None)))
        new = loader.load(Revision(0, 0, workspace.actor, "rollout", reason, candidate))
        _check_alike(old, new, rollout, where)
        now = workspace.clock.now()
        split = first_step(rollout, before, candidate, candidate.code, now)
        revision = change(workspace, replace(before.deployment, split=split, restores=None), action="rollout",
                          reason=reason, after=before.revision)  # fmt: skip
        overrides(candidate.model)
        return revision


def _policy_of(rollout: Rollout, policy: str | None) -> str:
    defined = None if rollout.policy is None else rollout.policy.name
    if defined is None and policy is None:
        raise InputError("a rollout must be for a policy", where=f"rollout:{rollout.name}", got="none",
                         remedy="Name it with --policy, or in the definition")  # fmt: skip
    if defined is not None and policy not in (None, defined):
        raise InputError("a rollout must be for the policy that it is defined for", where=f"rollout:{rollout.name}",
                         got=policy, remedy=f"Leave --policy out: it is for {defined}")  # fmt: skip
    return policy or defined or ""


def _check_alike(old: Servant, new: Servant, rollout: Rollout, where: str) -> None:
    """Refuse a version that callers of the old one would have to ask otherwise, or that is recorded otherwise."""
    schemas = [{**one.schema.entities, **one.schema.context} for one in (old, new)]
    if missing := sorted(name for name in schemas[1] if name not in schemas[0]):
        raise RefusedError("callers must not have to ask otherwise while two versions decide", where=where,
                           got={"needs": missing},
                           remedy="Let callers send it first; a deployment switches all at once")  # fmt: skip
    for name in rollout.unit:
        check_known(name, schemas[0], "a unit must be a value of requests", where=f"rollout:{rollout.name}, unit",
                    what="request value")  # fmt: skip
    old.schema.check_condition(rollout.where, where=f"rollout:{rollout.name}, where")
    policies = [one.policy.policy for one in (old, new)]
    for one in (one for every in rollout.conditions.values() for one in every):
        place = f"rollout:{rollout.name}, {one.text!r}"
        for name in {one.group, *one.of[:-1]} - {""}:
            check_known(name, [*schemas[0], *old.inputs], "groups must be of a value that records have", where=place,
                        what="request value or feature")  # fmt: skip
        for name in one.of[-1:]:
            check_known(name, policies[0].decide, "a condition must be of a decision of the policy", where=place,
                        what="decision")  # fmt: skip
    unlike = [name for name in ("record", "personal") if getattr(policies[0], name) != getattr(policies[1], name)]
    if unlike:
        raise RefusedError("both versions must be recorded alike", where=where, got=unlike,
                           remedy="Deploy the policy with the changed field first")  # fmt: skip


def first_step(rollout: Rollout, before: Revision, candidate: Deployment, code: str, now: int) -> dict[str, Any]:
    """Split that a rollout begins with, by a definition that ``code`` has."""
    return {
        "rollout": rollout.name, "rollout_version": rollout.version, "code": code,
        "seed": f"{rollout.name}/{candidate.policy}#{before.revision}", "unit": list(rollout.unit), "step": 0,
        "phase": "running", "from": before.revision, "started": now, "candidate": candidate.target, "verdicts": [],
        **_step(rollout, 0, now),
    }  # fmt: skip


def _step(rollout: Rollout, number: int, now: int) -> dict[str, Any]:
    share = rollout.steps[number] / 100
    return {"step": number, "share": share, "control": min(share, 1 - share), "since": now,
            "where": rollout.where if number == 0 else None}  # fmt: skip


def under_way(workspace: Workspace, policy: str) -> tuple[Revision, dict[str, Any]]:
    """Revision in force, and the rollout in it; NotFoundError if there is none."""
    revision = find_current(workspace, policy)
    split = revision.deployment.split
    if split is None:
        raise NotFoundError("a rollout must be under way", where=f"policy:{policy}", got="none",
                            remedy=f"Start one with: retrodict rollout start NAME MODEL --policy {policy}")  # fmt: skip
    return revision, split


def rollout_of(workspace: Workspace, split: Mapping[str, Any]) -> Rollout:
    """Definition that a rollout was started with, whatever is written in it by now."""
    definitions = definitions_of(workspace, split["code"])
    if "back" in split:  # a guard's way back
        rollout = definitions.get(Guard, split["rollout"]).way_back
    else:
        rollout = definitions.get(Rollout, split["rollout"])
    if content_hash(rollout) != split["rollout_version"]:
        raise InputError("the code of a rollout must define what was started", where=f"rollout:{rollout.name}",
                         got=rollout.version, remedy="Abort it and start it again")  # fmt: skip
    return rollout


def judge(
    workspace: Workspace, policy: str, *, now: int, answers: dict[str, str | None] | None = None
) -> tuple[Revision, Rollout, list[ArmVerdict], Move]:
    """What the data say of a rollout by now, and what would come next; nothing is changed.

    ``answers`` as for :func:`~retrodict.rollout.evidence.gather`.
    """
    revision, split = under_way(workspace, policy)
    rollout = rollout_of(workspace, split)
    shares = {"canary": split["share"], "control": split["control"]}
    verdicts = gather(workspace, revision, rollout, now, answers).judge(rollout, shares)
    return revision, rollout, verdicts, next_move(rollout, split, verdicts, now)


def next_move(rollout: Rollout, split: Mapping[str, Any], verdicts: Sequence[ArmVerdict], now: int) -> Move:
    """What comes of a step: a pure function of the definition, the state, what was measured, and the time.

    In this order: a broken condition ends it at once, in a paused rollout too. A paused one waits for people. A step
    lasts its bake. Then everything must hold and be shown; what is not is waited for, and after that it is a pause, or
    a rollback, as defined. Nothing measured is never a success.
    """
    broken = [one for one in verdicts if one.verdict == "failure"]
    if broken:
        reason = "; ".join(f"{one.condition}: {one.reason}" for one in broken)
        if rollout.on_fail == "rollback":
            return Move("rollback", reason)
        return Move("wait" if split["phase"] == "paused" else "pause", reason)
    if split["phase"] == "paused":
        return Move("wait", "it is paused: resume or abort it")
    bake, (patience, after) = parse_duration(rollout.bake), rollout.patience
    ends = split["since"] + bake
    if now < ends:
        return Move("wait", f"the step lasts until {format_time(ends)}")
    # A way back is by time: waiting for units would leave what was shown to be broken in place.
    open_ones = [one for one in verdicts if one.verdict == "inconclusive" and "back" not in split]
    if not open_ones:
        last = rollout.steps[split["step"] + 1] == 100 if split["step"] + 1 < len(rollout.steps) else True
        return Move("promote" if last else "raise", "every condition holds, and is shown")
    reason = "; ".join(f"{one.condition}: {one.reason}" for one in open_ones)
    if now < ends + patience:
        return Move("wait", f"waiting until {format_time(ends + patience)} for: {reason}")
    return Move("rollback" if after == "rollback" else "pause",
                f"inconclusive {format_duration(patience)} after the step's time was over: {reason}")  # fmt: skip


def step_on(
    workspace: Workspace, policy: str, *, now: int | None = None, answers: dict[str, str | None] | None = None
) -> tuple[Move, Revision]:
    """Look at a rollout once, and do what comes next: one new revision, or none.

    A candidate whose approval was taken back is rolled back. One that cannot be loaded gets no larger share: the
    rollout has failed. A challenger that lacks a review by now is paused. Only what may pass by itself, a server that
    is away, is tried again.
    """
    now = workspace.clock.now() if now is None else now
    revision, rollout, verdicts, move = judge(workspace, policy, now=now, answers=answers)
    split = revision.deployment.split
    assert split is not None
    version = get_version(workspace, split["candidate"]["model"])
    if not version.approved:
        move = Move("rollback", f"the approval of {version.ref} was taken back")
    elif move.what in ("raise", "promote"):
        try:
            check_candidate(workspace, revision.deployment)
        except RetryableError:
            raise
        except RetrodictError as error:
            move = Move("rollback" if rollout.on_fail == "rollback" else "pause",
                        f"{version.ref} cannot be loaded: {error}")  # fmt: skip
        else:
            try:
                _check_reviews(workspace, revision)
            except RefusedError as error:  # people are waited for, and the version is not at fault
                move = Move("pause", str(error))
    if move.what == "wait":
        return move, revision
    state = {**split, "verdicts": [asdict(one) for one in verdicts]}
    with suppress(BusyError):  # somebody changed it meanwhile: what is in force now is looked at the next time
        return move, _do(workspace, revision, state, rollout, move, now)
    return Move("wait", "somebody has changed what decides meanwhile"), find_current(workspace, policy)


def _check_reviews(workspace: Workspace, revision: Revision) -> None:
    """Refuse a challenger that lacks a review; a guard's way back leads to what decided before."""
    deployment, split = revision.deployment, revision.deployment.split
    if split is not None and "back" not in split:
        check_reviewed(workspace, deployment.policy, split["candidate"])


def _do(
    workspace: Workspace, revision: Revision, state: dict[str, Any], rollout: Rollout, move: Move, now: int
) -> Revision:
    deployment, after = revision.deployment, revision.revision
    reason = f"{state['rollout']}, step {state['step'] + 1} of {len(rollout.steps)}: {move.reason}"[:2_000]
    if move.what == "raise":
        split = state | _step(rollout, state["step"] + 1, now)
        return change(workspace, replace(deployment, split=split), action="rollout", reason=reason, after=after)
    if move.what == "promote":
        return _promote(workspace, revision, reason)
    if move.what == "pause":
        split = {**state, "phase": "paused"}
        return change(workspace, replace(deployment, split=split), action="pause", reason=reason, after=after)
    return change(workspace, without_split(revision), action="rollback", reason=reason, after=after)


def _promote(workspace: Workspace, revision: Revision, reason: str) -> Revision:
    """Let the candidate decide everything; what decided stays warm, as what a rollback goes back to."""
    deployment, split = revision.deployment, revision.deployment.split
    assert split is not None
    if "back" in split:  # it decided before, and what is left is marked
        target = next(one for one in history(workspace, deployment.policy) if one.revision == split["back"])
        champion = restored(workspace, deployment, target)
        return change(workspace, champion, action="rollback", reason=reason, after=revision.revision)
    new = (deployment.policy, split["candidate"]["model"])
    shadows = [one for one in deployment.shadows if (one["policy"], one["model"]) != new]  # not compared with itself
    state: dict[str, Any] = {"split": None, "restores": None, "guards": {}, "shadows": shadows}
    champion = replace(deployment, **split["candidate"], previous=deployment.target, **state)
    return change(workspace, champion, action="promote", reason=reason, after=revision.revision)


def pause(workspace: Workspace, policy: str, *, reason: str) -> Revision:
    """Keep the shares as they are until somebody resumes; a broken condition still ends it."""
    return _change_phase(workspace, policy, "paused", "pause", reason)


def resume(workspace: Workspace, policy: str, *, reason: str) -> Revision:
    """Go on with the step, whose time begins anew."""
    return _change_phase(workspace, policy, "running", "resume", reason)


def _change_phase(
    workspace: Workspace, policy: str, phase: str, action: Literal["pause", "resume"], reason: str
) -> Revision:
    revision, split = under_way(workspace, policy)
    if split["phase"] == phase:
        raise RefusedError(f"a rollout must not be {phase} already", where=f"policy:{policy}", got=phase,
                           remedy="See: retrodict rollout status")  # fmt: skip
    begins = {"since": workspace.clock.now()} if phase == "running" else {}
    deployment = replace(revision.deployment, split={**split, "phase": phase, **begins})
    return change(workspace, deployment, action=action, reason=reason, after=revision.revision)


def abort(workspace: Workspace, policy: str, *, reason: str) -> Revision:
    """End a rollout: what decided before decides everything again. The version is not marked as bad."""
    revision, _ = under_way(workspace, policy)
    return change(workspace, without_split(revision), action="abort", reason=reason, after=revision.revision)


def promote_now(workspace: Workspace, policy: str, *, reason: str) -> Revision:
    """End a rollout by letting its version decide everything, whatever was shown; the reason stands in the ledger.

    Its approval must stand, it must be what was stored, as for a deployment, and a challenger needs its reviews.
    """
    revision, _ = under_way(workspace, policy)
    check_reason(reason, "a promotion before its time must have a reason", where=f"policy:{policy}")
    check_candidate(workspace, revision.deployment)
    _check_reviews(workspace, revision)
    return _promote(workspace, revision, reason)


def halt(workspace: Workspace, policy: str, *, reason: str) -> Revision:
    """Let nothing score for a policy: its rules or its fallback answer at once, and say so."""
    revision = find_current(workspace, policy)
    if revision.deployment.halted is not None:
        raise RefusedError("a policy must not be halted already", where=f"policy:{policy}",
                           got=revision.deployment.halted, remedy=f"See: retrodict policies show {policy}")  # fmt: skip
    check_reason(reason, "halting a policy must have a reason", where=f"policy:{policy}")
    return change(workspace, replace(revision.deployment, halted=reason), action="halt", reason=reason,
                  after=revision.revision)  # fmt: skip


def release(workspace: Workspace, policy: str, *, reason: str) -> Revision:
    """Let what is deployed score again."""
    revision = find_current(workspace, policy)
    if revision.deployment.halted is None:
        raise RefusedError("a policy must be halted to be released", where=f"policy:{policy}", got="it scores",
                           remedy=f"See: retrodict policies show {policy}")  # fmt: skip
    return change(workspace, replace(revision.deployment, halted=None), action="release", reason=reason,
                  after=revision.revision)  # fmt: skip


def running(workspace: Workspace) -> list[str]:
    """Policies with a rollout under way."""
    return [policy for policy, revision in current(workspace).items() if revision.deployment.split is not None]
