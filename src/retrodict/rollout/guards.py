"""What is done about a version in force, without anybody: a guard looks at its decisions, and acts once.

The controller of rollouts looks on. Conditions, metrics, least counts and verdicts are those of rollouts; what a guard
compares with is of another time, though, so a busy hour is in one arm and not in the other: where that matters, bring
versions in by a rollout. Guards are those of the last deployment or promotion, whatever is in force since: every
controller on every machine reads the same ones, and going back leaves nothing unguarded.

What comes of a look is one revision, worked out from the one that decides: it holds the action and the guard's state.
A controller that is killed has acted whole or not at all, and one that looks again sees that it has.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from retrodict.core.clock import format_time
from retrodict.core.display import Record
from retrodict.core.durations import parse_duration
from retrodict.core.errors import BusyError, IntegrityError, NotFoundError, RefusedError
from retrodict.decisions.split import CANARY
from retrodict.registry import Revision, change, current, get_version, history
from retrodict.registry.feature_sets import feature_set_of
from retrodict.rollout.changes import find_current, restored, rollback_targets
from retrodict.rollout.definitions import EVENTS, QUALITY, Guard
from retrodict.rollout.evidence import ArmVerdict, compare_arms
from retrodict.rollout.ladder import first_step
from retrodict.rollout.rescore import Challenger
from retrodict.workspace import Workspace, definitions_of

__all__ = ["GuardMove", "guard_on", "guards_of", "watched"]

_log = logging.getLogger(__name__)
_GUARDS: dict[str, tuple[Guard, ...]] = {}  # by the hash of the code


@dataclass(frozen=True, slots=True)
class GuardMove(Record):
    """What a guard has done, and why.

    Attributes
    ----------
    policy, guard : str
    move : {"wait", "rollback", "halt", "shadow", "gradual", "alert"}
    reason : str
    verdicts : tuple of ArmVerdict
        ``failure``: what it acts on is shown. Baselines stand in the place of a rollout's control.
    """

    policy: str
    guard: str
    move: str
    reason: str
    verdicts: tuple[ArmVerdict, ...] = ()

    @property
    def done(self) -> bool:
        """Whether something was changed."""
        return self.move != "wait"


@dataclass(frozen=True, slots=True)
class _Term:
    """Since when what decides has decided, and the window of a guard that is being judged."""

    first: int
    start: int
    window: int

    @classmethod
    def of(cls, revisions: Sequence[Revision], guard: Guard, now: int) -> _Term:
        present = first = revisions[-1]
        for one in reversed(revisions):  # decisions of a halt, and before it, are no evidence
            if one.deployment.target != present.deployment.target or one.deployment.halted is not None:
                break
            first = one
        length = parse_duration(guard.window)
        return cls(first.revision, first.time, first.time + max(now - first.time, 0) // length * length)


def guards_of(workspace: Workspace, policy: str) -> tuple[Guard, ...]:
    """Guards of a policy as they were defined at its last deployment or promotion; an error if that cannot be read."""
    codes = [one.deployment.code for one in history(workspace, policy) if one.action in ("deploy", "promote")]
    if not codes:
        return ()
    if codes[-1] not in _GUARDS:
        _GUARDS[codes[-1]] = tuple(definitions_of(workspace, codes[-1]).of(Guard))
    return tuple(one for one in _GUARDS[codes[-1]] if one.policy is not None and one.policy.name == policy)


def watched(workspace: Workspace) -> list[tuple[str, Guard | Exception]]:
    """Policies that are in force and score, with their guards, or with why these cannot be read."""
    rows: list[tuple[str, Guard | Exception]] = []
    for policy, revision in current(workspace).items():
        try:
            rows += [(policy, one) for one in guards_of(workspace, policy) if revision.deployment.halted is None]
        except Exception as error:  # noqa: BLE001  # no reason to leave the others alone; the look says it
            rows.append((policy, error))
    return rows


def guard_on(
    workspace: Workspace, policy: str, guard: Guard | Exception, *, now: int | None = None, act: bool = True
) -> GuardMove:
    """Look once, and do what is declared if it is shown; with ``act`` False say only what would be done."""
    if isinstance(guard, Exception):
        _log.error("guards of %s cannot be read, so that none acts: %s", policy, guard)
        return GuardMove(policy, "", "wait", f"its guards cannot be read, so that none acts: {guard}")
    now = workspace.clock.now() if now is None else now
    try:
        revisions = history(workspace, policy)
        term, revision = _Term.of(revisions, guard, now), find_current(workspace, policy)
        state, split = revision.deployment.guards.get(guard.name, {}), revision.deployment.split
        if revision.deployment.halted is not None:
            return GuardMove(policy, guard.name, "wait", f"the policy is halted already: {revision.deployment.halted}")
        if state.get("window") == term.window:
            reason = f"it has acted in this window: {state['move']} at {format_time(state['time'])}"
            return GuardMove(policy, guard.name, "wait", reason)
        if split is not None and ("back" in split or guard.then == "gradual"):
            return GuardMove(policy, guard.name, "wait", "until the steps that are under way are over")
        measured, outages = _verdicts(workspace, policy, guard, term, now)
        verdicts = (*_events(workspace, guard, term, revision), *measured)
        if not (broken := [one for one in verdicts if one.verdict == "failure"]):
            move, reason = _say(workspace, guard, revision, term, now, outages, act=act)
            return GuardMove(policy, guard.name, move, reason, verdicts)
        reason = f"guard {guard.name}: {'; '.join(f'{one.condition}: {one.reason}' for one in broken)}"
        state = {"window": term.window, "time": now, "verdicts": [asdict(one) for one in verdicts]}
        move, reason = _act(workspace, guard, revision, state, reason[:1_800], act=act)
        return GuardMove(policy, guard.name, move, reason, verdicts)
    except BusyError:
        return GuardMove(policy, guard.name, "wait", "somebody changes it just now")
    except Exception as error:  # noqa: BLE001  # the others look on all the same
        _log.exception("guard %s of %s has failed, and is tried again", guard.name, policy)
        return GuardMove(policy, guard.name, "wait", f"it has failed, and is tried again: {error!r}")


def _events(workspace: Workspace, guard: Guard, term: _Term, revision: Revision) -> list[ArmVerdict]:
    """Verdicts on what is no condition: entries of the ledger that came after the one that brought in what decides."""
    ledger, deployed, policy = workspace.ledger, revision.deployment, revision.deployment.policy
    began = ledger.entries(object_id=f"policy:{policy}#{term.first}")[0].sequence
    reasons: dict[str, list[str]] = {name: [] for name in EVENTS}
    if "approval revoked" in guard.when and not get_version(workspace, deployed.model).approved:
        reasons["approval revoked"] = [f"the approval of {deployed.model} was taken back"]
    if "drift" in guard.when:
        reasons["drift"] = [f"{one.object_id} fired: {one.payload['reason']}" for one in ledger.vouched("trigger:")
                            if one.sequence > began and one.action == "trigger.fire"
                            and one.payload["policy"] == policy and "psi" in one.payload["on"]]  # fmt: skip
    if "data quality" in guard.when:
        features = feature_set_of(workspace, deployed.model_code, deployed.model.partition("@")[0])
        reasons["data quality"] = [f"a batch of {name} was refused" for name in features.tables
                                   for one in ledger.vouched(f"dataset:{name}")
                                   if one.sequence > began and one.object_id == f"dataset:{name}"
                                   and one.action == "dataset.refuse"]  # fmt: skip
    sizes = (None, None, None, None, 0, 0)
    return [ArmVerdict(name, "hold", "failure" if reasons[name] else "success",
                       reasons[name][-1] if reasons[name] else "it has not come", "absolute", *sizes)
            for name in EVENTS if name in guard.when]  # fmt: skip


def _say(
    workspace: Workspace, guard: Guard, revision: Revision, term: _Term, now: int, outages: list[str], *, act: bool
) -> tuple[str, str]:
    """Alert, once in a window, where only failures of stores or servers break what it acts on.

    Nothing decides beside the version, so nobody can tell an outage from a version that asks a server wrongly.
    """
    reason, name, before = "nothing it acts on is shown", f"{guard.name}, servers", revision.deployment
    if not outages:
        return "wait", reason
    reason = f"guard {guard.name}: {reason}, but by failures of stores or servers: {'; '.join(outages)}"[:1_800]
    if before.guards.get(name, {}).get("window") == term.window:
        return "wait", reason
    if act:
        state = {"window": term.window, "time": now, "verdicts": [], "move": "alert"}
        deployment = replace(before, guards={**before.guards, name: state})
        change(workspace, deployment, action="alert", reason=reason, after=revision.revision)
    return "alert", reason


def _verdicts(
    workspace: Workspace, policy: str, guard: Guard, term: _Term, now: int
) -> tuple[list[ArmVerdict], list[str]]:
    """Verdicts on the conditions; those on outcomes are of all decisions since the version came in force.

    And what breaks a condition on errors only where those of stores and servers count.
    """
    outages: list[str] = []
    conditions, length = guard.conditions, parse_duration(guard.baseline)
    verdicts: list[ArmVerdict] = []
    for late in (False, True):
        part = [one for one in conditions if (one.metric in QUALITY) == late]
        if not part:
            continue
        compares = any(one.scale != "absolute" for one in part)
        begin = term.start if late else term.window

        def in_arms(
            table: pa.Table, begin: int = begin, compares: bool = compares
        ) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
            names = {name: table.column(name).to_numpy(zero_copy_only=False) for name in
                     ("time", "revision", "record__arm", "record__error")}  # fmt: skip
            scores = (names["record__arm"] != CANARY) & (names["record__error"] != "HaltedError")
            present = scores & (names["revision"] >= term.first)
            before = scores & (names["revision"] < term.first) & compares
            if compares and not before.any():  # of a first version
                until = term.start + length
                before, present = present & (names["time"] < until), present & (names["time"] >= until)
            return before | (present & (names["time"] >= begin)), present

        span = term.start - length * compares, now + 1
        try:
            data = compare_arms(workspace, policy, in_arms, span, guard.unit, outcomes_count=late)
        except NotFoundError:  # retention has removed some of the baseline
            data = compare_arms(workspace, policy, in_arms, (term.start, now + 1), guard.unit, outcomes_count=late)
        level = guard.alpha / len(conditions), guard.min_units
        verdicts += [data.verdict_on(one, "hold", *level) for one in part]
        counted = [replace(data, counts_away=True).verdict_on(one, "hold", *level) for one in part
                   if one.metric == "error_rate" and data.away.any()]  # fmt: skip
        counts = data.away_counts(data.canary)
        outages += [f"{one.condition}: {counts} decisions: {one.reason}" for one in counted if one.verdict == "failure"]
    return verdicts, outages


def _act(
    workspace: Workspace, guard: Guard, revision: Revision, state: dict[str, Any], reason: str, *, act: bool
) -> tuple[str, str]:
    """Do what is declared, as one revision; what was done, and why."""
    before, move = revision.deployment, guard.then
    target: Revision | None = None
    deployment = before
    if move in ("rollback", "shadow", "gradual"):
        try:
            target, deployment = _way_back(workspace, revision)
        except (RefusedError, IntegrityError, NotFoundError) as error:
            move, reason = guard.otherwise, f"{reason}; {guard.then} was not possible: {error}"[:2_000]
    if move == "shadow":
        name = {"name": guard.name, "policy": before.policy}
        others = [one for one in before.shadows if one["name"] != guard.name]
        deployment = replace(deployment, shadows=[*others, Challenger(**name, **before.target).to_dict()])
    elif move == "gradual" and target is not None:
        code = next(one.deployment.code for one in reversed(history(workspace, before.policy))
                    if one.action in ("deploy", "promote"))  # fmt: skip
        split = first_step(guard.way_back, revision, target.deployment, code, state["time"])
        deployment = replace(before, split={**split, "back": target.revision}, restores=None)
    elif move == "halt":
        deployment = replace(before, halted=reason)
    action: Any = {"shadow": "rollback", "gradual": "rollout"}.get(move, move)
    if act:
        guards = {**deployment.guards, guard.name: {**state, "move": move}}
        change(workspace, replace(deployment, guards=guards), action=action, reason=reason, after=revision.revision)
    return move, reason


def _way_back(workspace: Workspace, revision: Revision) -> tuple[Revision, Any]:
    """Nearest earlier version whose model is as it was approved."""
    targets = rollback_targets(workspace, revision.deployment.policy)
    for target in targets[:-1]:
        try:
            return target, restored(workspace, revision.deployment, target)
        except (IntegrityError, NotFoundError) as error:
            _log.error("going back from %s: %s", revision.deployment.model, error)
    return targets[-1], restored(workspace, revision.deployment, targets[-1])
