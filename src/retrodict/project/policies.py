"""``project.policies``: what decides, since when, and who put it in force."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retrodict.core.clock import format_time
from retrodict.core.display import Block, Facts, Grid, Listing, Shown, short_hash, when
from retrodict.core.errors import IntegrityError, RefusedError
from retrodict.core.lazy import lazy_modules
from retrodict.decisions.definitions import Policy, find_policy
from retrodict.project.arguments import Time, instant
from retrodict.project.damage import names_damage
from retrodict.project.namespace import Namespace

if TYPE_CHECKING:
    from retrodict import decisions, registry
    from retrodict.decisions import requests, sessions
    from retrodict.decisions.sessions import SessionState
    from retrodict.models import artifact
    from retrodict.registry import Revision
    from retrodict.rollout import drill, guards, incident, ladder
    from retrodict.rollout.drill import DrillReport
    from retrodict.rollout.guards import GuardMove
    from retrodict.rollout.incident import Incident
else:
    decisions, registry = lazy_modules("retrodict", "decisions", "registry")
    requests, sessions = lazy_modules("retrodict.decisions", "requests", "sessions")
    (artifact,) = lazy_modules("retrodict.models", "artifact")
    drill, guards, incident, ladder = lazy_modules("retrodict.rollout", "drill", "guards", "incident", "ladder")

__all__ = ["Policies", "PolicySettings", "SessionView"]


@dataclass(frozen=True, repr=False)
class PolicySettings(Shown):
    """What a policy, or a model that is served without one, does with each request.

    Attributes
    ----------
    policy : Policy
        As it is in force, or as it is defined where it is not.
    revision : Revision, optional
        None where it is not deployed.
    changed : bool
        Whether the definitions say something else by now.
    """

    policy: Policy
    revision: Revision | None
    changed: bool

    def to_dict(self) -> dict[str, object]:
        """Plain form for ``--json``."""
        return {
            "policy": self.policy.name,
            "revision": None if self.revision is None else self.revision.revision,
            "model": self.policy.model.name if self.revision is None else self.revision.deployment.model,
            "halted": None if self.revision is None else self.revision.deployment.halted,
            "changed": self.changed,
            "deadline": self.policy.deadline,
            "fallback": list(self.policy.fallback),
            "stages": self.policy.stages,
        }

    def blocks(self) -> Sequence[Block | None]:
        """What is in force, and the stages in their order."""
        since = "no" if self.revision is None else f"#{self.revision.revision}, since {when(self.revision.time)}"
        facts = self.to_dict()
        about = {"policy": self.policy.name, "model": facts["model"], "in force": since,
                 "halted": facts["halted"], "deadline": self.policy.deadline,
                 "fallback": list(self.policy.fallback) or None,
                 "definition": "changed since it was deployed" if self.changed else None}  # fmt: skip
        return [Facts(about), Grid(("stage", "how"), list(self.policy.stages.items()))]


@dataclass(frozen=True, repr=False)
class SessionView(Shown):
    """What is kept of one session; ``state`` is None where nothing is."""

    policy: str
    state: SessionState | None
    dropped: bool

    def to_dict(self) -> dict[str, object]:
        """Plain form for ``--json``."""
        state = self.state
        facts = {} if state is None else {
            "decisions": state.count, "last": state.last, "began": format_time(state.began),
            "newest": format_time(state.seen), "ends": format_time(state.seen + state.ttl),
        }  # fmt: skip
        return {"policy": self.policy, **facts, "dropped": self.dropped}

    def blocks(self) -> Sequence[Block | None]:
        """How many decisions it has, since when and until when."""
        return [Facts(self.to_dict() if self.state is not None else {"policy": self.policy, "session": "none"})]


class Policies(Namespace):
    """Deployments of a project's policies.

    Examples
    --------
    >>> project.policies.deployments("warn_early", at="2013-09-01T00:00Z")  # doctest: +SKIP
    """

    @names_damage
    def show(self, policy: str) -> PolicySettings:
        """Show what is done to each request, stage by stage, and what of it is active.

        As it is in force; as it is defined, where it is not deployed.

        Parameters
        ----------
        policy : str
            Name of a policy, or of a model that is served without one.
        """
        revision = registry.current(self._workspace).get(policy)
        if revision is None:
            return PolicySettings(find_policy(self._workspace.definitions, policy), None, changed=False)
        deployed, defined = revision.deployment, self._workspace.definitions
        names = {one.name for one in defined if one.kind in ("policy", "model")}
        same = policy in names and find_policy(defined, policy).version == deployed.policy_version
        return PolicySettings(decisions.load_policy(self._workspace, deployed), revision, changed=not same)

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

    @names_damage
    def session(self, policy: str, unit: Mapping[str, Any], *, drop: bool = False) -> SessionView:
        """Show what a policy keeps of the session of a unit, or forget it.

        Parameters
        ----------
        policy : str
            Name of a deployed policy.
        unit : mapping
            The values that the session is by, each as in a request.
        drop : bool
            Forget it: the next decision begins a new one.
        """
        workspace = self._workspace
        deployed = registry.in_force(workspace, policy, workspace.clock.now()).deployment
        session = decisions.load_policy(workspace, deployed).session
        if session is None:
            raise RefusedError("the policy must have a Session", where=f"policy:{policy}", got="none",
                               remedy="Write session=Session('customer') and deploy it")  # fmt: skip
        kinds = artifact.ModelArtifact.metadata_of(workspace.objects, deployed.artifact)["request"]
        parts = [{name: kind for name, kind in kinds[part].items() if name in session.by}
                 for part in ("entities", "context")]  # fmt: skip
        entities, context = ({name: unit[name] for name in part if name in unit} for part in parts)
        entities, context = requests.RequestSchema(*parts).check(requests.DecisionRequest(entities, context))
        store = sessions.Sessions(workspace, policy, session)
        name = store.name({**entities, **context})
        state, is_damaged = None, False
        try:
            state = None if name is None else store.find(name)
        except IntegrityError:  # what cannot be read may be forgotten all the same
            if not drop:
                raise
            is_damaged = True
        if drop and name is not None:
            store.drop(name)
        return SessionView(policy, state, dropped=drop and (is_damaged or state is not None))

    @names_damage
    def halt(self, policy: str, *, reason: str) -> Revision:
        """Let nothing score for a policy: its rules, or its fallback, answer at once and say so.

        Parameters
        ----------
        policy : str
            Name of a deployed policy.
        reason : str
            Why, for the ledger and the records.
        """
        return ladder.halt(self._workspace, policy, reason=reason)

    @names_damage
    def release(self, policy: str, *, reason: str) -> Revision:
        """Let a halted policy score again.

        Parameters
        ----------
        policy : str
            Name of the policy.
        reason : str
            Why, for the ledger.
        """
        return ladder.release(self._workspace, policy, reason=reason)

    @names_damage
    def drill(self, policy: str, *, keep: int = 3, decisions: int = 100) -> DrillReport:
        """Try out a rollback: load each kept version in a fresh process and let it decide again.

        What decides and what a rollback may go back to must load, and give its recorded decisions bit for bit; nothing
        is switched. The report is in the ledger. Exit code 1 if a version could not decide at once.

        Parameters
        ----------
        policy : str
            Name of a deployed policy.
        keep : int
            Versions, the present one among them.
        decisions : int
            Newest recorded decisions of each version that are made again.
        """
        return drill.drill(self._workspace, policy, keep=keep, decisions=decisions)

    @names_damage
    def guards(self, policy: str) -> Listing[GuardMove]:
        """Show the guards of a policy in force: what each sees by now, and what it would do.

        Parameters
        ----------
        policy : str
            Name of a deployed policy.
        """
        moves = [guards.guard_on(self._workspace, policy, one, act=False)
                 for one in guards.guards_of(self._workspace, policy)]  # fmt: skip
        return Listing.table("guards", moves, ("guard", "would", "why"), lambda one: (one.guard, one.move, one.reason),
                             empty="No guard was defined when it was deployed.")  # fmt: skip

    @names_damage
    def incident(
        self, policy: str, *, revision: int | None = None, cause: str | None = None, action: Sequence[str] = (),
        output: str | Path | None = None,
    ) -> Incident:  # fmt: skip
        """Show the post-mortem of a rollback or a halt; say its cause, and what is to be done.

        What happened is read from the ledger: timeline, decisions made meanwhile, time to detect and to mitigate.

        Parameters
        ----------
        policy : str
            Name of a deployed policy.
        revision : int, optional
            Which rollback or halt.  [default: the newest]
        cause : str, optional
            Why it came about, for the ledger.
        action : list of str
            What is to be done, for the ledger; may be repeated.
        output : path, optional
            Also write it to this file: .html or .md.
        """
        result = incident.find_incident(self._workspace, policy, revision)
        if cause is not None or action:
            result = incident.note_incident(self._workspace, result, cause=cause, actions=list(action))
        if output is not None:
            result.write(output)
        return result
