"""``project.rollouts``: bring in a new version step by step, see what is shown of it, and stop it."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retrodict.core.clock import format_time
from retrodict.core.display import Block, Facts, Grid, Listing, Shown, number, when
from retrodict.core.durations import parse_duration
from retrodict.core.errors import BusyError, NotFoundError
from retrodict.core.lazy import lazy_modules
from retrodict.project.arguments import Time, instant
from retrodict.project.damage import names_damage
from retrodict.project.namespace import Namespace

if TYPE_CHECKING:
    from retrodict import registry
    from retrodict.registry import Revision
    from retrodict.rollout import guards, ladder
    from retrodict.rollout.evidence import ArmVerdict
    from retrodict.rollout.experiments import controller
    from retrodict.rollout.experiments.controller import ExperimentMove
    from retrodict.rollout.guards import GuardMove
else:
    (registry,) = lazy_modules("retrodict", "registry")
    guards, ladder = lazy_modules("retrodict.rollout", "guards", "ladder")
    (controller,) = lazy_modules("retrodict.rollout.experiments", "controller")

_log = logging.getLogger(__name__)

__all__ = ["RolloutStatus", "Rollouts", "UnitAssignment"]


@dataclass(frozen=True, repr=False)
class RolloutStatus(Shown):
    """A rollout under way, as of a time.

    Attributes
    ----------
    revision : Revision
        In force.
    steps : tuple of float
        Percent of the units.
    verdicts : list of ArmVerdict
    move, reason : str
        What comes next, or has just come: ``wait``, ``raise``, ``promote``, ``rollback`` or ``pause``; and why.
    done : bool
        Whether it was done.
    """

    revision: Revision
    policy: str
    split: Mapping[str, Any] | None
    steps: tuple[float, ...]
    verdicts: list[ArmVerdict]
    move: str
    reason: str
    done: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Plain form for ``--json``."""
        split = self.split or {}
        return {
            "policy": self.policy, "revision": self.revision.revision, "rollout": split.get("rollout"),
            "champion": self.revision.deployment.model,
            "candidate": split["candidate"]["model"] if split else None, "phase": split.get("phase", "over"),
            "step": split.get("step"), "steps": list(self.steps), "share": split.get("share"),
            "since": format_time(split["since"]) if split else None,
            "verdicts": [verdict.to_dict() for verdict in self.verdicts],
            "next": self.move, "reason": self.reason, "done": self.done,
        }  # fmt: skip

    def blocks(self) -> Sequence[Block | None]:
        """Where it stands, what each condition came to, and what comes next."""
        split, deployment = self.split, self.revision.deployment
        if split is None:
            return [f"{self.policy}: the rollout is over ({self.move}); {deployment.model} decides. {self.reason}"]
        at = " ".join(f"[{step:g} %]" if place == split["step"] else f"{step:g} %"
                      for place, step in enumerate(self.steps))  # fmt: skip
        name = f"{split['rollout']} ({split['phase']})"
        about = {"policy": f"{self.policy}#{self.revision.revision}", "rollout": name,
                 "new": split["candidate"]["model"], "old": deployment.model, "step": at, "since": when(split["since"]),
                 "only where": split["where"]}  # fmt: skip
        rows = [
            (v.condition, v.verdict, number(v.canary), number(v.control),
             "" if v.low is None or v.high is None else f"{number(v.low)} to {number(v.high)}",
             f"{v.units_canary}, {v.units_control}", v.reason)
            for v in self.verdicts
        ]  # fmt: skip
        columns = ("condition", "verdict", "new>", "old>", "interval", "units", "why?")
        last = f"{'Done' if self.done else 'Next'}: {self.move}. {self.reason}"
        return [Facts(about), Grid(columns, rows) if rows else None, last]


@dataclass(frozen=True, repr=False)
class UnitAssignment(Shown):
    """What decided, or decides, for one unit at a time; by which change, and who made it.

    Attributes
    ----------
    revision : Revision
        In force then.
    arm : str
        ``canary``, ``control``, or nothing.
    model : str
        ``name@version``.
    """

    revision: Revision
    arm: str
    model: str

    def to_dict(self) -> dict[str, Any]:
        """Plain form for ``--json``."""
        changed = self.revision.to_dict()
        facts = {name: changed[name] for name in ("revision", "policy", "action", "time", "actor", "reason")}
        return {**facts, "arm": self.arm or None, "model": self.model}

    def blocks(self) -> Sequence[Block | None]:
        """One fact a line."""
        return [Facts(self.to_dict())]


class Rollouts(Namespace):
    """Rollouts of a project's policies: one at a time for each.

    Examples
    --------
    >>> project.rollouts.start("careful", "late_arrival@2", reason="better on August")  # doctest: +SKIP
    >>> project.rollouts.run(once=True)  # doctest: +SKIP
    """

    @names_damage
    def start(
        self, name: str, to: str, *, reason: str, policy: str | None = None, force: str | None = None
    ) -> RolloutStatus:
        """Let a new version decide the first share of the units.

        Refused where a deployment would be, where the version was rolled back from, and where callers would have to
        ask otherwise. Something must look on from then on: `retrodict serve` does, or `retrodict rollout run`.

        Parameters
        ----------
        name : str
            Name of a defined rollout.
        to : str
            Version of the policy's model, as name@version; the policy is as it is defined now.
        reason : str
            Why, for the ledger.
        policy : str, optional
            Which policy, where the rollout is defined for none.
        force : str, optional
            Why views that are not verified or built may serve all the same.
        """
        revision = ladder.start(self._workspace, name, to, policy=policy, reason=reason, force=force)
        return self.status(revision.deployment.policy)

    @names_damage
    def status(self, policy: str, *, now: Time | None = None, html: str | Path | None = None) -> RolloutStatus:
        """Show where a rollout stands, what each condition came to so far, and what comes next.

        Parameters
        ----------
        policy : str
            Name of a deployed policy.
        now : Time, optional
            As of when decisions and outcomes are known.  [default: now]
        html : path, optional
            Also write it as a page of HTML to this file.
        """
        moment = instant(now, "now")
        at = self._workspace.clock.now() if moment is None else moment
        revision, rollout, verdicts, move = ladder.judge(self._workspace, policy, now=at)
        split = revision.deployment.split
        status = RolloutStatus(revision, policy, split, tuple(rollout.steps), verdicts, move.what, move.reason)
        if html is not None:
            from retrodict.core.files import write_text
            from retrodict.evaluation.plots.beside import plot_differences
            from retrodict.pages import document, plot

            spans = [one.drawn for one in verdicts if one.is_compared]
            title = f"Rollout {rollout.name} of {policy}, as of {when(at)}"
            figure = [plot(plot_differences, spans)] if spans else []
            write_text(Path(html), document(title, [*status.blocks(), *figure, *self.history(policy).blocks()]))
        return status

    @names_damage
    def pause(self, policy: str, *, reason: str) -> Revision:
        """Keep the shares as they are until it is resumed; a broken condition still ends it.

        Parameters
        ----------
        policy : str
            Name of the policy.
        reason : str
            Why, for the ledger.
        """
        return ladder.pause(self._workspace, policy, reason=reason)

    @names_damage
    def resume(self, policy: str, *, reason: str) -> Revision:
        """Go on with a paused rollout; the time of its step begins anew.

        Parameters
        ----------
        policy : str
            Name of the policy.
        reason : str
            Why, for the ledger.
        """
        return ladder.resume(self._workspace, policy, reason=reason)

    @names_damage
    def abort(self, policy: str, *, reason: str) -> Revision:
        """End a rollout: what decided before decides everything.

        The version is not marked as bad; a rollback marks it.

        Parameters
        ----------
        policy : str
            Name of the policy.
        reason : str
            Why, for the ledger.
        """
        return ladder.abort(self._workspace, policy, reason=reason)

    @names_damage
    def promote(self, policy: str, *, reason: str) -> Revision:
        """End a rollout before its time: the new version decides everything.

        Parameters
        ----------
        policy : str
            Name of the policy.
        reason : str
            Why that needs no more evidence, for the ledger.
        """
        return ladder.promote_now(self._workspace, policy, reason=reason)

    @names_damage
    def history(self, policy: str | None = None) -> Listing[Revision]:
        """List the changes that rollouts have made, with the verdicts that they were made by.

        Parameters
        ----------
        policy : str, optional
            Only this policy.
        """
        every = registry.history(self._workspace, policy)
        ends = {"promote", "rollback", "abort", "pause", "resume"}
        revisions: list[Revision] = []
        before: dict[str, Revision] = {}
        for one in every:
            former = before.get(one.deployment.policy)
            in_rollout = former is not None and former.deployment.split is not None
            if one.action == "rollout" or (one.action in ends and in_rollout):
                revisions.append(one)
            before[one.deployment.policy] = one

        def row(one: Revision) -> tuple[object, ...]:
            split = one.deployment.split
            share = "" if split is None else f"{split['share'] * 100:g} %"
            new = "" if split is None else split["candidate"]["model"]
            return (f"{one.deployment.policy}#{one.revision}", when(one.time), one.action, share, new,
                    one.deployment.model, one.actor, one.reason)  # fmt: skip

        columns = ("revision", "since", "change", "share>", "new", "old", "by", "reason")
        return Listing.table("rollouts", revisions, columns, row, empty="There was no rollout yet.")

    @names_damage
    def unit(self, policy: str, values: Mapping[str, Any], *, at: Time | None = None) -> UnitAssignment:
        """Show which version decides for one unit, or decided at a time, and by whose change.

        Parameters
        ----------
        policy : str
            Name of the policy.
        values : mapping
            What a request brings: the unit, and what the cohort is about.
        at : Time, optional
            When.  [default: now]
        """
        from retrodict.decisions.split import CANARY, TrafficSplit

        moment = instant(at, "at")
        now = self._workspace.clock.now() if moment is None else moment
        revision = registry.in_force(self._workspace, policy, now)
        deployment = revision.deployment
        if deployment.split is None or deployment.halted is not None:
            return UnitAssignment(revision, "", "" if deployment.halted is not None else deployment.model)
        split = TrafficSplit(deployment.split)
        if (fault := split.condition.fault(values)) is not None:
            raise fault
        arm = split.arm(values)
        return UnitAssignment(revision, arm, deployment.split["candidate"]["model"] if arm == CANARY
                              else deployment.model)  # fmt: skip

    @names_damage
    def run(
        self, policy: str | None = None, *, once: bool = False, every: str = "30s", parent: int | None = None
    ) -> Listing[RolloutStatus | ExperimentMove | GuardMove]:
        """Look at every rollout under way, and do what comes next; again and again, unless once.

        So with running experiments: one whose guardrail is shown to be exceeded ends, and all get control. So with
        guards of what is in force, which do what they declare. `serve` starts one while there is something to look at.
        Killed anywhere, it has done a step whole or not at all; if several run, one of them does each step.

        Parameters
        ----------
        policy : str, optional
            Only this policy.
        once : bool
            Look once.
        every : duration
            How often else.
        parent : int, optional
            Process that has started this one: end when it has ended, or nothing is under way any more.
        """
        pause_s = parse_duration(every, where="every") / 1e6
        answers: dict[str, dict[str, str | None]] = {}
        while True:
            began = time.monotonic()
            policies = [one for one in ladder.running(self._workspace) if policy in (None, one)]
            answers = {one: answers.get(one, {}) for one in policies}
            statuses: list[RolloutStatus | ExperimentMove | GuardMove] = [
                self._look(one, answers[one]) for one in policies]  # fmt: skip
            statuses += [controller.step_on(self._workspace, *one) for one in controller.watched(self._workspace)
                         if policy in (None, one[0])]  # fmt: skip
            statuses += [guards.guard_on(self._workspace, *one) for one in guards.watched(self._workspace)
                         if policy in (None, one[0])]  # fmt: skip
            if once or (parent is not None and (not statuses or os.getppid() != parent)):
                return Listing.table("rollouts", statuses, ("policy", "move", "why"),
                                     lambda one: (one.policy, one.move, one.reason),
                                     empty="Nothing is under way.")  # fmt: skip
            for status in statuses:
                if status.done:
                    _log.warning("rollout of %s: %s. %s", status.policy, status.move, status.reason)
            time.sleep(max(pause_s, 5 * (time.monotonic() - began)))  # a long log is no reason to read it all the time

    def any_under_way(self) -> bool:
        """Whether a rollout, a watched experiment or a guard is there, so that something has to look on."""
        workspace = self._workspace
        return bool(ladder.running(workspace) or controller.watched(workspace) or guards.watched(workspace))

    def _look(self, policy: str, answers: dict[str, str | None]) -> RolloutStatus:
        why = "somebody changes it just now"
        try:
            move, revision = ladder.step_on(self._workspace, policy, answers=answers)
            split = revision.deployment.split
            steps = () if split is None else tuple(ladder.rollout_of(self._workspace, split).steps)
            return RolloutStatus(revision, policy, split, steps, [], move.what, move.reason, done=move.what != "wait")
        except (BusyError, NotFoundError):
            pass
        except Exception as error:  # noqa: BLE001  # the others are looked at all the same
            _log.exception("rollout of %s has failed, and is tried again", policy)
            why = f"it has failed, and is tried again: {error!r}"
        revision = registry.current(self._workspace)[policy]
        return RolloutStatus(revision, policy, revision.deployment.split, (), [], "wait", why)
