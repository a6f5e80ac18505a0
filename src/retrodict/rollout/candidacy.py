"""The way of a challenger to become champion: evidence, business review, risk sign-off by different people, promotion.

Every step is an entry of the ledger on ``challenger:POLICY/NAME``, and only signed entries count. A review is of one
piece of evidence, by hash: newer evidence, or another challenger under the same name, needs reviews of its own. In an
emergency the way is shorter, and stays marked until the reviews are there. Who has become the champion, and who decides
as a canary, the revisions say: whatever brought a challenger in, its candidacy has ended, and missing reviews are due.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from retrodict.core.clock import format_time
from retrodict.core.definition import check_name
from retrodict.core.display import Block, Facts, Grid, Shown, number
from retrodict.core.errors import RefusedError, check_known, check_reason
from retrodict.core.identity import canonical_json, content_hash, short
from retrodict.decisions.loader import load_policy
from retrodict.ledger import Entry
from retrodict.registry import TARGET, Deployment, Revision, history, mark_of, rolled_back
from retrodict.rollout.report import ChallengerReport
from retrodict.rollout.rescore import Challenger, check_features, compared_policy
from retrodict.workspace import Workspace

__all__ = ["Candidacy", "add_challenger", "candidacies", "check_reviewed", "check_way", "enter_evidence",
           "enter_promotion", "find_candidacy", "review_challenger"]  # fmt: skip

Role = Literal["business", "risk"]

_COMPARED = 100
"""Decisions that must have been compared where a policy limits how many a challenger may change."""

_PREFIX = "challenger:"
_ROLES: tuple[Role, ...] = ("business", "risk")


@dataclass(frozen=True, slots=True, repr=False)
class Candidacy(Shown):
    """How far a challenger is.

    Attributes
    ----------
    policy : str
    challenger : Challenger
    added_by : str
    evidence : dict or None
        Newest evidence on this challenger: ``report`` (SHA-256 of the report, an object), ``verdict``, ``agreement``,
        ``decisions``, ``labelled``, ``source``.
    reviews : dict of str to dict
        By role, those of this evidence: ``by``, ``granted``, ``reason``, ``time``.
    promotion : dict or None
        ``by``, ``reason``, ``emergency``, ``evidence``, ``revision``.
    canary : str or None
        Rollout that lets it decide a share of the units now.
    rolled_back : int or None
        Revision that rolled it back, as a canary or as the champion, if nobody has brought it in again since.
    """

    policy: str
    challenger: Challenger
    added_by: str
    evidence: dict[str, Any] | None = None
    reviews: dict[str, dict[str, Any]] = field(default_factory=dict)
    promotion: dict[str, Any] | None = None
    canary: str | None = None
    rolled_back: int | None = None

    @property
    def due(self) -> list[str]:
        """Reviews that are not granted."""
        return [role for role in _ROLES if not self.reviews.get(role, {}).get("granted")]

    @property
    def stage(self) -> str:
        """What comes next, or how it ended."""
        if self.rolled_back is not None:
            return f"rolled back by revision {self.rolled_back}"
        if self.promotion is not None:
            late = self.promotion["emergency"] and self.due
            return f"promoted in an emergency: {' and '.join(self.due)} review due" if late else "promoted"
        if self.canary is not None:
            return f"canary of {self.canary}{f': {self.due[0]} review due' if self.due else ''}"
        refusals = [role for role, review in self.reviews.items() if not review["granted"]]
        if refusals:
            return f"refused by {' and '.join(refusals)} review"
        if self.evidence is None:
            return "evidence due"
        return f"{self.due[0]} review due" if self.due else "may be promoted"

    def to_dict(self) -> dict[str, Any]:
        """Plain form for ``--json``."""
        return {**Shown.to_dict(self), "stage": self.stage, "due": self.due}

    def blocks(self) -> Sequence[Block | None]:
        """Stage, evidence, reviews."""
        evidence = self.evidence or {}
        facts = {"challenger": self.challenger.name, "policy": self.policy, "model": self.challenger.model,
                 "stage": self.stage, "added by": self.added_by, "evidence": short(evidence.get("report", "")) or None,
                 "verdict": evidence.get("verdict"), "agreement": number(evidence["agreement"]) if evidence else None,
                 "known outcomes": evidence.get("labelled")}  # fmt: skip
        reviews = [(role, one["by"], "yes" if one["granted"] else "no", one["reason"])
                   for role, one in self.reviews.items()]  # fmt: skip
        return [Facts(facts), Grid(("review", "by", "granted", "reason"), reviews) if reviews else None]


def candidacies(workspace: Workspace, policy: str | None = None) -> list[Candidacy]:
    """Challengers that were added, of one policy or of all, as signed entries and revisions say."""
    states: dict[str, Candidacy] = {}
    added: dict[str, int] = {}
    entries = workspace.ledger.vouched(_PREFIX)
    events: list[Entry | Revision] = sorted(
        [*entries, *(history(workspace) if entries else [])], key=lambda event: event.time
    )
    for entry in events:
        if isinstance(entry, Revision):
            states.update({key: _after(one, entry) for key, one in states.items()})
            continue
        facts, key = entry.payload, entry.object_id
        if entry.action == "challenger.add":
            added[key] = entry.time
            states[key] = Candidacy(facts["policy"], Challenger(**facts["challenger"]), entry.actor)
        elif key in states:
            one = states[key]
            note = {"by": entry.actor, "time": format_time(entry.time)}
            if entry.action == "challenger.evidence" and facts["challenger"] == content_hash(one.challenger.to_dict()):
                same = one.evidence is not None and one.evidence["report"] == facts["report"]
                states[key] = replace(one, evidence={**facts, **note}, reviews=one.reviews if same else {})
            elif entry.action == "challenger.review" and one.evidence and facts["evidence"] == one.evidence["report"]:
                states[key] = replace(one, reviews={**one.reviews, facts["role"]: {**facts, **note}})
            elif entry.action == "challenger.promote":
                states[key] = replace(one, promotion={**facts, **note})
    revisions = [event for event in events if isinstance(event, Revision)]
    return [_marked(one, added[key], [event for event in revisions if event.deployment.policy == one.policy])
            for key, one in states.items() if policy in (None, one.policy)]  # fmt: skip


def _marked(one: Candidacy, added: int, revisions: Sequence[Revision]) -> Candidacy:
    """Candidacy with the rollback since it was added, if that stands."""
    mark = mark_of(rolled_back(revisions), one.challenger.policy_version, one.challenger.model)
    later = any(event.revision == mark and event.time > added for event in revisions)
    return replace(one, rolled_back=mark if later else None)


def _after(one: Candidacy, revision: Revision) -> Candidacy:
    """Candidacy after a revision: ended if the challenger decides everything, and a canary if it decides a share."""
    deployed = revision.deployment
    if deployed.policy != one.policy or one.promotion is not None:
        return one
    if _is_of(one, deployed.target):
        evidence = None if one.evidence is None else one.evidence["report"]
        return replace(one, canary=None, promotion={
            "by": revision.actor, "time": format_time(revision.time), "reason": revision.reason,
            "emergency": bool(one.due), "evidence": evidence, "revision": revision.revision, "review_due": one.due,
        })  # fmt: skip
    split = deployed.split
    return replace(one, canary=split["rollout"] if split and _is_of(one, split["candidate"]) else None)


def _is_of(one: Candidacy, target: Mapping[str, str]) -> bool:
    return (one.challenger.policy, one.challenger.model) == (one.policy, target["model"])


def find_candidacy(workspace: Workspace, policy: str, name: str) -> Candidacy:
    """Challenger of a name; NotFoundError if none was added."""
    states = {one.challenger.name: one for one in candidacies(workspace, policy)}
    return states[check_known(name, states, "a challenger of this name must have been added", where=f"policy:{policy}",
                              what="challenger")]  # fmt: skip


def add_challenger(workspace: Workspace, policy: str, challenger: Challenger, *, reason: str) -> Candidacy:
    """Name a challenger of a policy; what it needs must be there.

    Raises
    ------
    RefusedError
        If requests do not bring what it reads.
    """
    check_name(challenger.name, what="challenger")
    reason = check_reason(reason, "a challenger must have a reason", where=f"policy:{policy}")
    check_features(workspace, policy, challenger)
    facts = {"policy": policy, "challenger": challenger.to_dict(), "reason": reason,
             "objects": sorted({challenger.artifact, challenger.code, challenger.model_code})}  # fmt: skip
    with workspace.ledger.transaction() as tx:
        tx.append("challenger.add", f"{_PREFIX}{policy}/{challenger.name}", facts,
                  inputs=[(f"model:{challenger.model}", "challenger")])  # fmt: skip
    return find_candidacy(workspace, policy, challenger.name)


def enter_evidence(workspace: Workspace, one: Candidacy, report: ChallengerReport, *, source: str) -> Candidacy:
    """Keep a report as the evidence that reviews are of; its hash names it."""
    body = workspace.objects.put(canonical_json(report.to_dict()))
    facts = {
        "challenger": content_hash(one.challenger.to_dict()), "report": body, "objects": [body], "source": source,
        "verdict": report.verdict, "agreement": report.agreement.value, "decisions": report.compared,
        "labelled": report.outcomes.get("known", 0),
    }  # fmt: skip
    _append(workspace, one, "challenger.evidence", facts)
    return find_candidacy(workspace, one.policy, one.challenger.name)


def review_challenger(
    workspace: Workspace, policy: str, name: str, *, role: Role, granted: bool, reason: str
) -> Candidacy:
    """Say yes or no to the newest evidence, in a role.

    Raises
    ------
    RefusedError
        If there is no evidence, the business review is not granted yet, or somebody would review twice or their own
        challenger.
    """
    one, where = find_candidacy(workspace, policy, name), f"challenger:{policy}/{name}"
    reason = check_reason(reason, "a review must have a reason", where=where)
    check_known(role, _ROLES, "a review must be of a role that there is", where=where, what="role")
    if one.evidence is None:
        raise RefusedError("a review must be of evidence", where=where, got="none on this challenger",
                           remedy=f"Run: retrodict challenger report {policy} {name}")  # fmt: skip
    if role == "risk" and "business" in one.due:
        raise RefusedError("the business review must be granted before the risk sign-off", where=where,
                           got=one.stage, remedy=f"First: retrodict challenger review {policy} {name} --role business"
                           )  # fmt: skip
    others = {review["by"] for title, review in one.reviews.items() if title != role}
    if workspace.actor in {one.added_by, *others}:
        raise RefusedError("who adds a challenger and who reviews it in which role must be different people",
                           where=where, got=workspace.actor, remedy="Ask somebody else")  # fmt: skip
    facts = {"role": role, "granted": granted, "reason": reason, "evidence": one.evidence["report"]}
    _append(workspace, one, "challenger.review", facts)
    return find_candidacy(workspace, policy, name)


def check_reviewed(workspace: Workspace, policy: str, target: Mapping[str, str]) -> None:
    """Refuse what is still a challenger of a policy and lacks the evidence or the reviews that one needs.

    A version that nobody has added as a challenger needs none.

    Parameters
    ----------
    workspace : Workspace
    policy : str
    target : mapping
        What would decide, as deployments have it.

    Raises
    ------
    RefusedError
    """
    for one in candidacies(workspace, policy):
        if one.promotion is not None or not _is_of(one, target):
            continue
        check_way(workspace, one)
        reviewed = {name: one.challenger.to_dict()[name] for name in TARGET}
        old, new = (load_policy(workspace, Deployment(policy, **facts)) for facts in (reviewed, target))
        if replace(old, model=new.model).version != new.version:  # that of another recipe is what is brought in
            raise RefusedError("a challenger must decide by the rules that it was reviewed with",
                               where=f"challenger:{policy}/{one.challenger.name}", got=f"others in {new.name}",
                               remedy=f"Deploy {policy} with its new rules first, and add the challenger anew"
                               )  # fmt: skip


def check_way(workspace: Workspace, one: Candidacy) -> None:
    """Refuse a challenger without evidence, without a review, or with more disagreement than its policy allows."""
    where = f"challenger:{one.policy}/{one.challenger.name}"
    if one.evidence is None or one.due:
        raise RefusedError(
            "evidence, business review and risk sign-off must be there before a promotion", where=where, got=one.stage,
            remedy=f"Ask for them: retrodict challenger review {one.policy} {one.challenger.name}; or say --emergency",
        )  # fmt: skip
    limit, agreement = compared_policy(workspace, one.policy).max_disagreement, one.evidence["agreement"]
    compared = one.evidence["decisions"]
    if limit is not None and (agreement is None or round(1 - agreement, 12) > limit or compared < _COMPARED):
        got = "nothing was compared" if agreement is None else f"{1 - agreement:.2%} of {compared:,}"
        rule = f"a challenger must change at most {limit:.2%} of the decisions, of {_COMPARED} compared ones at least"
        raise RefusedError(rule, where=where, got=got,
                           remedy="Look at what changes, and raise max_disagreement of the policy if it is meant"
                           )  # fmt: skip


def enter_promotion(workspace: Workspace, one: Candidacy, revision: int, *, reason: str, emergency: bool) -> None:
    """Keep who made a challenger the champion at once, and which reviews were due."""
    _append(workspace, one, "challenger.promote", {
        "reason": reason, "emergency": emergency, "revision": revision, "review_due": one.due,
        "evidence": None if one.evidence is None else one.evidence["report"],
    })  # fmt: skip


def _append(workspace: Workspace, one: Candidacy, action: str, facts: dict[str, Any]) -> None:
    with workspace.ledger.transaction() as tx:
        tx.append(action, f"{_PREFIX}{one.policy}/{one.challenger.name}", facts)
