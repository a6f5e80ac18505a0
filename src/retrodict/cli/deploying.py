"""``deploy``, ``promote``, ``rollback`` and ``deployments``: what is in force, and since when."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from retrodict.cli._command import Answer, Session, command
from retrodict.cli._root import cli
from retrodict.cli._text import short_hash, table, when
from retrodict.cli._types import complete, instant, model_refs, policies

if TYPE_CHECKING:
    from retrodict.registry import Revision

_UNVERIFIED = click.option("--unverified", metavar="REASON", help="Let views serve that have not passed; recorded.")


@command(
    cli,
    "deploy",
    examples=["retrodict deploy warn_early", "retrodict deploy warn_early --model late_arrival@1 --reason 'pilot'"],
)
@click.argument("policy", shell_complete=complete(policies))
@click.option(
    "--model",
    metavar="REF",
    shell_complete=complete(model_refs),
    help="Version to decide with.  [default: newest approved]",
)
@click.option("--reason", default="deploy", show_default=True, help="Why, for the ledger.")
@_UNVERIFIED
def deploy_policy(session: Session, policy: str, model: str | None, reason: str, unverified: str | None) -> Answer:
    """Put a policy in force with an approved version of its model.

    Refused while a view of the model has not passed `features verify` as it was when the model was trained.
    """
    from retrodict.rollout import deploy

    return _changed(deploy(session.project, policy, model=model, reason=reason, unverified=unverified))


@command(cli, "promote", examples=["retrodict promote warn_early late_arrival@2 --reason 'better on August'"])
@click.argument("policy", shell_complete=complete(policies))
@click.argument("model", shell_complete=complete(model_refs))
@click.option("--reason", required=True, help="Why, for the ledger.")
@_UNVERIFIED
def promote_model(session: Session, policy: str, model: str, reason: str, unverified: str | None) -> Answer:
    """Let another approved version of the model decide."""
    from retrodict.rollout import promote

    return _changed(promote(session.project, policy, model, reason=reason, unverified=unverified))


@command(cli, "rollback", examples=["retrodict rollback warn_early --reason 'warns too often'"])
@click.argument("policy", shell_complete=complete(policies))
@click.option("--reason", required=True, help="Why, for the ledger.")
def rollback_policy(session: Session, policy: str, reason: str) -> Answer:
    """Go back to what decided before the present revision."""
    from retrodict.rollout import rollback

    return _changed(rollback(session.project, policy, reason=reason))


def _changed(revision: Revision) -> Answer:
    now = revision.deployment
    before = now.previous["model"] if now.previous else None
    said = f"{now.policy}#{revision.revision}: {now.model} decides" + (f" (before: {before})" if before else "")
    return Answer(revision.to_dict(), said + ". Running servers follow within a second.")


@command(
    cli, "deployments", examples=["retrodict deployments", "retrodict deployments warn_early --at 2013-09-01T00:00Z"]
)
@click.argument("policy", required=False, shell_complete=complete(policies))
@click.option(
    "--at", callback=instant, metavar="TIME", help="Only what was in force at this time (ISO 8601 with a zone)."
)
def deployments(session: Session, policy: str | None, at: int | None) -> Answer:
    """List what is in force since when, or was at a time."""
    from retrodict.registry import history, in_force

    if at is None:
        found = history(session.project, policy)
    elif policy is not None:
        found = [in_force(session.project, policy, at)]
    else:
        newest = {r.deployment.policy: r for r in history(session.project) if r.time <= at}
        found = sorted(newest.values(), key=lambda revision: revision.revision)
    rows = [
        (
            f"{r.deployment.policy}#{r.revision}",
            when(r.time),
            r.action,
            r.deployment.model,
            short_hash(r.deployment.policy_version),
            r.actor,
            r.reason,
        )
        for r in found
    ]
    columns = ("revision", "since", "change", "model", "policy hash", "by", "reason")
    shown: Any = table(columns, rows) if rows else "Nothing is deployed yet."
    return Answer({"deployments": [revision.to_dict() for revision in found]}, shown)
