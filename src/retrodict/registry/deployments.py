"""What is in force since when: one revisioned record per policy, read by every server, changed by one insert."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from sqlalchemy import BigInteger, Column, Integer, MetaData, Row, String, Table, Text, func, select

from retrodict.core.clock import SystemClock, format_time
from retrodict.core.display import Block, Shown, when
from retrodict.core.errors import BusyError, NotFoundError, check_reason
from retrodict.core.identity import short
from retrodict.registry.versions import ModelVersion
from retrodict.workspace import Workspace

__all__ = [
    "TARGET",
    "Action",
    "Deployment",
    "Revision",
    "change",
    "current",
    "deployable",
    "earlier_targets",
    "history",
    "in_force",
    "mark_of",
    "passed_over",
    "rolled_back",
    "standing",
]

Action = Literal[
    "deploy",
    "promote",
    "rollback",
    "rollout",
    "pause",
    "resume",
    "abort",
    "halt",
    "release",
    "shadow",
    "experiment",
    "alert",
]

TARGET = ("policy_version", "code", "model", "artifact", "model_code")
"""Names of what decides in a deployment: policy and model, with the code of both."""

metadata = MetaData()

# One revisioned record: every row is the whole state of one policy from then on. Rows are never updated, so what was
# in force at any time is a query. ``time`` is by the project's clock, ``recorded`` by the host's.
deployments = Table(
    "deployments",
    metadata,
    Column("revision", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=False),
    Column("policy", String(63), nullable=False, index=True),
    Column("time", BigInteger, nullable=False),
    Column("recorded", BigInteger, nullable=False),
    Column("actor", String(200), nullable=False),
    Column("action", String(20), nullable=False),
    Column("content", Text, nullable=False),
    Column("reason", Text, nullable=False),
)


@dataclass(frozen=True, slots=True)
class Deployment:
    """Everything a server needs to decide for one policy.

    Attributes
    ----------
    policy : str
        Name of the policy.
    policy_version : str
        Content hash of its definition.
    code : str
        SHA-256 of the definitions the policy and its features come from, in the object store.
    model, artifact : str
        ``name@version`` that decides, and the SHA-256 of its manifest.
    model_code : str
        SHA-256 of the definitions the model was trained with.
    previous : dict, optional
        The fields above, except ``policy``, of what decided before: kept warm.
    restores : int, optional
        Of a rollback, the revision that it went back to.
    split : dict, optional
        The rollout under way, whole: what takes a share of the units, how much, since when, why, and what comes next.
    shadows : list of dict
        What scores the same requests after the answer, for comparison only.
    experiments : list of dict
        Experiments whose variants the answers name.
    halted : str, optional
        Why nothing scores: every answer is the policy's rules or fallback.
    guards : dict of str to dict
        By name what guards have done since this decides: when, in which window, and by which verdicts.
    """

    policy: str
    policy_version: str
    code: str
    model: str
    artifact: str
    model_code: str
    previous: dict[str, str] | None = None
    restores: int | None = None
    split: dict[str, Any] | None = None
    shadows: list[dict[str, Any]] = field(default_factory=list)
    experiments: list[dict[str, Any]] = field(default_factory=list)
    halted: str | None = None
    guards: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def target(self) -> dict[str, str]:
        """What decides, without what is around it."""
        return {name: getattr(self, name) for name in TARGET}

    def content(self) -> dict[str, Any]:
        """Plain form, as it is kept: without the fields that say nothing, which earlier releases do not know."""
        late = ("split", "shadows", "experiments", "halted", "guards")
        return {name: value for name, value in asdict(self).items() if value or name not in late}


@dataclass(frozen=True, slots=True, repr=False)
class Revision(Shown):
    """A deployment with its number and the change that made it; numbers count over all policies of a project."""

    revision: int
    time: int
    actor: str
    action: Action
    reason: str
    deployment: Deployment

    def to_dict(self) -> dict[str, Any]:
        """Plain form for ``--json``."""
        facts = Shown.to_dict(self) | {"time": format_time(self.time)} | self.deployment.content()
        del facts["deployment"]
        return facts

    def blocks(self) -> Sequence[Block | None]:
        """What decides now, and what decided before."""
        deployment = self.deployment
        before = f" (before: {deployment.previous['model']})" if deployment.previous else ""
        decides = f"{deployment.policy}#{self.revision}: {deployment.model} decides{before}."
        if deployment.halted is not None:
            decides = (f"{deployment.policy}#{self.revision}: halted ({deployment.halted}). Nothing scores; rules or "
                       f"fallback answer, until: retrodict release {deployment.policy} --reason WHY.")  # fmt: skip
        return [f"{decides} Running servers follow within a second."]


def change(
    workspace: Workspace, deployment: Deployment, *, action: Action, reason: str, after: int | None = None
) -> Revision:
    """Put a deployment in force from now on, as one atomic revision.

    Parameters
    ----------
    workspace : Workspace
    deployment : Deployment
        The whole new state of its policy.
    action : str
        "deploy", "promote", "rollback", or a change of what is around what decides: "rollout", "shadow" and others.
    reason : str
        For the ledger.
    after : int, optional
        Revision that must be the policy's newest: what the change was worked out from. None: any.

    Returns
    -------
    Revision

    Raises
    ------
    InputError
        If there is no reason.
    BusyError
        If another revision came meanwhile.
    """
    check_reason(reason, "a change of what decides must have a reason", where=f"policy:{deployment.policy}")
    workspace.records.ensure(metadata)
    with workspace.ledger.transaction() as tx:
        last = tx.connection.execute(select(func.max(deployments.c.revision))).scalar() or 0
        newest_of_policy = select(func.max(deployments.c.revision)).where(deployments.c.policy == deployment.policy)
        if after is not None and (newest := tx.connection.execute(newest_of_policy).scalar()) != after:
            raise BusyError(
                "what a change was worked out from must still decide",
                where=f"policy:{deployment.policy}",
                got=f"revision {newest} after {after}",
                remedy="See what decides now, and try again",
            )
        now = workspace.clock.now()
        row = {
            "revision": last + 1,
            "policy": deployment.policy,
            "time": now,
            "recorded": SystemClock().now(),
            "actor": workspace.actor,
            "action": action,
            "content": json.dumps(deployment.content()),
            "reason": reason,
        }
        tx.insert(deployments, row)
        tx.append(
            f"policy.{action}",
            f"policy:{deployment.policy}#{last + 1}",
            {
                "reason": reason,
                "artifact": deployment.artifact,
                "policy_version": deployment.policy_version,
                "objects": sorted(
                    {
                        deployment.artifact,
                        deployment.code,
                        deployment.model_code,
                        *(shadow[name] for shadow in deployment.shadows for name in ("artifact", "code", "model_code")),
                    }
                ),
            },
            inputs=[(f"model:{deployment.model}", "decides")],
        )
    return Revision(last + 1, now, workspace.actor, action, reason, deployment)


def _read(row: Row[Any]) -> Revision:
    return Revision(row.revision, row.time, row.actor, row.action, row.reason, Deployment(**json.loads(row.content)))


def history(workspace: Workspace, policy: str | None = None) -> list[Revision]:
    """All revisions, oldest first, of one policy or of all."""
    workspace.records.ensure(metadata)
    rows = sorted(workspace.ledger.read_vouched(deployments, "policy:"), key=lambda row: row.revision)
    return [_read(row) for row in rows if policy is None or row.policy == policy]


def current(workspace: Workspace) -> dict[str, Revision]:
    """Newest revision of every policy, by policy name: what servers poll."""
    workspace.records.ensure(metadata)
    rows = workspace.ledger.read_vouched(deployments, "policy:")
    newest = {row.policy: row for row in sorted(rows, key=lambda row: row.revision)}
    return {policy: _read(row) for policy, row in sorted(newest.items(), key=lambda item: item[1].revision)}


def standing(revisions: Sequence[Revision]) -> list[Revision]:
    """Revisions of a policy that no rollback has taken back, oldest first: the last one decides.

    A further rollback goes to the one before it, never forward to what was rolled back from.
    """
    stack: list[Revision] = []
    numbered = {revision.revision: revision for revision in revisions}
    for revision in revisions:
        restores = revision.deployment.restores
        if revision.action != "rollback":
            stack.append(revision)
        elif restores is None:  # from before revisions named what they go back to
            stack = stack[:-1] or stack
        elif restores in [earlier.revision for earlier in stack]:
            stack = [earlier for earlier in stack if earlier.revision <= restores]
        else:
            stack.append(numbered[restores])
    return stack


def earlier_targets(revisions: Sequence[Revision]) -> list[Revision]:
    """What a rollback of a policy may go back to, nearest first, each once.

    It decided before, no rollback has taken it back, and it was not rolled back from. One that deployed the same again
    is no other: going back to it would change nothing.
    """
    marks, targets = rolled_back(revisions), [revisions[-1].deployment.target]
    earlier = []
    for one in reversed(standing(revisions)[:-1]):
        deployed = one.deployment
        if deployed.target not in targets and not mark_of(marks, deployed.policy_version, deployed.model):
            targets.append(one.deployment.target)
            earlier.append(one)
    return earlier


def rolled_back(revisions: Sequence[Revision]) -> dict[tuple[str, str], int]:
    """What a policy was rolled back from and nobody has named since, with that rollback's number.

    Marks are pairs of a policy version and a model. A model that was left for another one is marked under every policy,
    as ``""``, since other rules do not mend it. Where only the policy was another one, the pair is, and no more: the
    model goes on deciding. The end of a guard's way back marks nothing: what was left is what decided well before.
    """
    marks: dict[tuple[str, str], int] = {}
    before: Revision | None = None
    for revision in revisions:
        now, split = revision.deployment, None if before is None else before.deployment.split
        stays = before is not None and split is not None and now.target == before.deployment.target
        if revision.action == "rollback" and before is not None and not (stays and split and "back" in split):
            left = split["candidate"] if stays and split else before.deployment.target
            if left["model"] != now.model:
                marks["", left["model"]] = revision.revision
            elif left["policy_version"] != now.policy_version:
                marks[left["policy_version"], left["model"]] = revision.revision
        if not stays:
            for policy_version in ("", now.policy_version):
                marks.pop((policy_version, now.model), None)
        before = revision
    return marks


def mark_of(marks: Mapping[tuple[str, str], int], policy_version: str, model: str) -> int | None:
    """Rollback that has left a model under a policy, of :func:`rolled_back`; None if none has."""
    return marks.get(("", model)) or marks.get((policy_version, model))


def deployable(
    workspace: Workspace, policy: str, policy_version: str, versions: Sequence[ModelVersion]
) -> list[ModelVersion]:
    """Those versions of a policy's model that it may take without being told to, oldest first.

    They are approved, passed their gates, and were not rolled back from. A policy that was rolled back from with a
    model takes no older one: the model was not at fault.
    """
    marks = rolled_back(history(workspace, policy))
    may = [version for version in versions if version.approved and version.gates_passed]
    first = max((place for place, one in enumerate(may, start=1) if (policy_version, one.ref) in marks), default=0)
    return [version for version in may[first:] if ("", version.ref) not in marks]


def passed_over(workspace: Workspace, policy: str, policy_version: str, versions: Sequence[ModelVersion]) -> list[str]:
    """Newer versions than the newest that is :func:`deployable`, which were rolled back from: a sentence for each."""
    revisions = {one.revision: one for one in history(workspace, policy)}
    marks, sentences = rolled_back([*revisions.values()]), list[str]()
    for version in reversed([one for one in versions if one.approved and one.gates_passed]):
        mark = mark_of(marks, policy_version, version.ref)
        if mark is None:
            break
        name = version.ref if ("", version.ref) in marks else f"{version.ref} by policy {short(policy_version)}"
        back = revisions[mark]
        sentences.insert(0, f"{name} was rolled back from on {when(back.time)} because: {back.reason[:200]}")
    return sentences


def in_force(workspace: Workspace, policy: str, at: int) -> Revision:
    """Revision of a policy that was in force at an instant (microseconds since 1970-01-01 UTC): the last one by then.

    Raises
    ------
    NotFoundError
        If the policy was not deployed then.
    """
    revisions = [revision for revision in history(workspace, policy) if revision.time <= at]
    if not revisions:
        raise NotFoundError("the policy must have been deployed at that time", where=f"policy:{policy}",
                            got=format_time(at), remedy="See its revisions with 'retrodict deployments'")  # fmt: skip
    return revisions[-1]
