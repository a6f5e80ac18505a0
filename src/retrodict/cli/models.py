"""``models``: registered versions and the judgement of somebody else than their author."""

from __future__ import annotations

from typing import Any

import click

from retrodict.cli._command import Answer, Session, command, group
from retrodict.cli._root import cli
from retrodict.cli._text import facts, number, short_hash, table, when
from retrodict.cli._types import complete, model_names, model_refs

models = group(cli, "models", "Look at model versions, approve or reject them.")


@command(models, "list", examples=["retrodict models list", "retrodict models list late_arrival"])
@click.argument("model", required=False, shell_complete=complete(model_names))
def list_all(session: Session, model: str | None) -> Answer:
    """List model versions with their gates and approvals."""
    from retrodict.registry import list_versions

    found = list_versions(session.project, model)
    rows = [(v.ref, when(v.time), v.author, number(v.metrics.get("auc")), v.gates_passed, v.approved,
             v.approvals[-1].approver if v.approvals else "") for v in found]  # fmt: skip
    columns = ("model", "registered", "by", "test auc>", "gates passed", "approved", "judged by")
    return Answer(
        {"models": [v.to_dict() for v in found]}, table(columns, rows) if rows else "There is no model version yet."
    )


@command(models, "show", examples=["retrodict models show late_arrival@1"])
@click.argument("ref", shell_complete=complete(model_refs))
def show(session: Session, ref: str) -> Answer:
    """Show one model version: gates, metrics, judgements."""
    from retrodict.registry import get_version

    found = get_version(session.project, ref)
    parts: list[Any] = [
        facts({"model": found.ref, "run": f"run:{found.run}", "by": found.author, "registered": when(found.time),
               "artifact": short_hash(found.artifact), "approved": found.approved}),
        "",
        table(("gate", "status", "measured"), [(g["gate"], g["status"], g["reason"]) for g in found.gates]),
        "",
        table(("test metric", "value>"), list(found.metrics.items())),
    ]  # fmt: skip
    if found.approvals:
        rows = [(when(a.time), a.approver, "approved" if a.granted else "rejected", a.reason) for a in found.approvals]
        parts += ["", table(("judged", "by", "verdict", "reason"), rows)]
    return Answer(found.to_dict(), parts)


@command(models, "approve", examples=["retrodict models approve late_arrival@1 --reason 'pilot' --actor reviewer"])
@click.argument("ref", shell_complete=complete(model_refs))
@click.option("--reason", required=True, help="Why, for the ledger.")
def approve_version(session: Session, ref: str, reason: str) -> Answer:
    """Approve a version, by somebody else than its author; every gate must have passed."""
    return _judge(session, ref, reason, granted=True)


@command(
    models,
    "reject",
    examples=["retrodict models reject late_arrival@2 --reason 'unfair to one carrier' --actor reviewer"],
)
@click.argument("ref", shell_complete=complete(model_refs))
@click.option("--reason", required=True, help="Why, for the ledger.")
def reject_version(session: Session, ref: str, reason: str) -> Answer:
    """Reject a version; this also takes back an earlier approval."""
    return _judge(session, ref, reason, granted=False)


def _judge(session: Session, ref: str, reason: str, *, granted: bool) -> Answer:
    from retrodict.registry import approve

    found = approve(session.project, ref, reason=reason, granted=granted)
    word = "approved" if granted else "rejected"
    return Answer(found.to_dict(), f"{found.ref} is {word} by {session.project.actor}.")
