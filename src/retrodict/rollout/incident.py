"""A post-mortem of a rollback or a halt: what happened is read from the ledger, why and what to do is said by people.

Nothing of the timeline is stored again: revisions, triggers and the decision log are the record. Only what somebody
says is an entry of its own, with the hash of what was known then.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retrodict.core.clock import format_time
from retrodict.core.display import Block, Facts, Grid, Shown, seconds, when
from retrodict.core.errors import InputError, RefusedError, check_known, check_text
from retrodict.core.files import write_text
from retrodict.core.identity import canonical_json
from retrodict.decisions.log import read_decisions
from retrodict.decisions.split import CANARY
from retrodict.learning.card import markdown_lines
from retrodict.pages import document
from retrodict.registry import Revision, history
from retrodict.rollout.changes import find_current
from retrodict.workspace import Workspace

__all__ = ["Incident", "find_incident", "note_incident"]

_ENDS = ("rollback", "halt")
_SIGNS = ("alert", "pause", "trigger.fire", *_ENDS)


@dataclass(frozen=True, slots=True, repr=False)
class Incident(Shown):
    """What went wrong with a version, from when it began to decide until something else did.

    Attributes
    ----------
    policy, revision, model : str, int, str
        Of the change that ended it, and the version that was left.
    began, detected, ended : int
        When it began to decide, the first sign (an alert, a pause, a trigger, or the end itself), and the end.
    timeline : list of dict
        ``time``, ``what``, ``by``, ``why``, oldest first, until somebody has released it or deployed something.
    decisions : dict
        ``made`` by it; of these ``by_fallback``, and ``late``, after the end by servers that had not followed;
        ``by_decision`` and ``by_arm``.
    cause : str or None
        As somebody has said.
    actions : list of dict
        ``action``, ``by`` and ``time``.
    """

    policy: str
    revision: int
    model: str
    began: int
    detected: int
    ended: int
    timeline: list[dict[str, Any]]
    decisions: Mapping[str, Any]
    cause: str | None
    actions: list[dict[str, Any]]

    def to_dict(self) -> dict[str, Any]:
        """Plain form for ``--json``."""
        times = {name: format_time(getattr(self, name)) for name in ("began", "detected", "ended")}
        return {**Shown.to_dict(self), **times, "detect_s": (self.detected - self.began) / 1e6,
                "mitigate_s": (self.ended - self.detected) / 1e6}  # fmt: skip

    def blocks(self) -> Sequence[Block | None]:
        """Facts, decisions, timeline, cause and actions."""
        harm = self.decisions
        facts = {"incident": f"{self.policy}#{self.revision}", "version": self.model, "began": when(self.began),
                 "detected": f"{when(self.detected)}, after {seconds((self.detected - self.began) / 1e6)}",
                 "ended": f"{when(self.ended)}, {seconds((self.ended - self.detected) / 1e6)} later",
                 "decisions": harm["made"], "by fallback": harm["by_fallback"], "after the end": harm["late"],
                 "cause": self.cause or f"to be said: retrodict incident {self.policy} --cause TEXT"}  # fmt: skip
        counts = [(part, name, n) for part in ("by_decision", "by_arm") for name, n in harm[part].items()]
        actions = [(one["action"], one["by"], one["time"]) for one in self.actions]
        return [
            Facts(facts),
            Grid(("decisions", "which", "count>"), counts) if counts else None,
            Grid(("time", "what", "by", "why"), [(one["time"], one["what"], one["by"], one["why"])
                                                 for one in self.timeline], title="Timeline"),
            Grid(("action", "by", "time"), actions, title="Actions") if actions
            else f"No action is agreed: retrodict incident {self.policy} --action TEXT",
        ]  # fmt: skip

    def write(self, path: str | Path) -> None:
        """Write it as a page of HTML, or as Markdown; InputError if the file's name ends in neither."""
        file, title = Path(path), f"Incident {self.policy}#{self.revision}"
        if file.suffix not in (".html", ".md"):
            raise InputError("an incident must be written to a file that ends in .html or .md", where="incident",
                             got=file.suffix, remedy="Name it incident.html or incident.md")  # fmt: skip
        text = [f"# {title}", *("\n".join(markdown_lines(block)) for block in self.blocks() if block is not None)]
        write_text(file, document(title, self.blocks()) if file.suffix == ".html" else "\n\n".join(text) + "\n")


def find_incident(workspace: Workspace, policy: str, revision: int | None = None) -> Incident:
    """Incident that a rollback or a halt has ended: the newest, or the one of a revision.

    Raises
    ------
    RefusedError
        If nothing was ever rolled back or halted.
    NotFoundError
        If the policy is not deployed, or the revision is none of these.
    """
    find_current(workspace, policy)
    revisions, where = history(workspace, policy), f"policy:{policy}"
    ends = {str(one.revision): place for place, one in enumerate(revisions) if one.action in _ENDS and place}
    if not ends:
        raise RefusedError("an incident must have ended in a rollback or a halt", where=where, got="none",
                           remedy=f"See what changed: retrodict deployments {policy}")  # fmt: skip
    name = next(reversed(ends)) if revision is None else str(revision)
    last = ends[check_known(name, ends, "an incident must be of a rollback or a halt", where=where, what="revision")]
    end, before = revisions[last], revisions[last - 1]
    split = before.deployment.split
    tried = end.action == "rollback" and split is not None and end.deployment.target == before.deployment.target
    left = split["candidate"] if tried and split is not None else before.deployment.target
    first = last - 1
    while first and _decides(revisions[first - 1], left):
        first -= 1
    begin = revisions[first]
    after = next((place for place in range(last + 1, len(revisions)) if revisions[place].action in
                  ("release", "deploy", "promote")), len(revisions) - 1)  # fmt: skip
    events: list[tuple[int, str, str, str]] = [
        (one.time, one.action, one.actor, one.reason) for one in revisions[first : after + 1]
    ]
    events += [(one.payload["at"], one.action, one.actor, f"{one.object_id}: {one.payload['reason']}")
               for one in workspace.ledger.vouched("trigger:") if one.action == "trigger.fire"
               and one.payload["policy"] == policy and begin.time <= one.payload["at"] <= end.time]  # fmt: skip
    events.sort(key=lambda one: one[0])
    detected = next((at for at, what, _, _ in events if what in _SIGNS and at >= begin.time), end.time)
    notes = workspace.ledger.entries(object_id=f"incident:{policy}#{end.revision}", action="incident.note")
    return Incident(
        policy, end.revision, left["model"], begin.time, min(detected, end.time), end.time,
        [{"time": format_time(at), "what": what, "by": by, "why": why} for at, what, by, why in events],
        _harm(workspace, begin, end, tried=tried),
        next((one.payload["cause"] for one in reversed(notes) if one.payload["cause"]), None),
        [{"action": text, "by": one.actor, "time": format_time(one.time)} for one in notes for text in
         one.payload["actions"]],
    )  # fmt: skip


def _decides(revision: Revision, target: Mapping[str, str]) -> bool:
    split = revision.deployment.split
    return revision.deployment.target == target or (split is not None and split["candidate"] == target)


def _harm(workspace: Workspace, begin: Revision, end: Revision, *, tried: bool) -> dict[str, Any]:
    """Decisions for which the version stood: those of the canary, or all but those of one."""
    records = (one.record for one in read_decisions(workspace, policy=end.deployment.policy))
    logged = [one for one in records if begin.revision <= one.revision < end.revision and (one.arm == CANARY) == tried]
    return {
        "made": len(logged), "by_fallback": sum(one.fallback is not None for one in logged),
        "late": sum(one.time > end.time for one in logged),
        "by_decision": dict(Counter(one.decision for one in logged).most_common()),
        "by_arm": dict(Counter(one.arm or "no arm" for one in logged).most_common()),
    }  # fmt: skip


def note_incident(workspace: Workspace, incident: Incident, *, cause: str | None, actions: Sequence[str]) -> Incident:
    """Say why it came about, or what is to be done; the ledger keeps who said what, with what was known then."""
    words = [check_text(text, where="incident").strip() for text in (cause, *actions) if text is not None]
    if not all(words):
        raise InputError("a cause and an action must be text", where="incident", got="", remedy="Write a sentence")
    body = workspace.objects.put(canonical_json(incident.to_dict()))
    name = f"{incident.policy}#{incident.revision}"
    with workspace.ledger.transaction() as tx:
        tx.append("incident.note", f"incident:{name}", {"cause": cause, "actions": list(actions), "report": body,
                  "objects": [body]}, inputs=[(f"policy:{name}", "ended it")])  # fmt: skip
    return find_incident(workspace, incident.policy, incident.revision)
