"""``deploy`` to ``decide`` and ``decisions``: what is in force, asking it, and what was decided."""

from __future__ import annotations

import logging
from typing import Any

import click

from retrodict.cli._command import CommandContext, Parameter, command, expose, group
from retrodict.cli._root import cli
from retrodict.cli._types import model_refs, name_values
from retrodict.project import to_json

_VERSION = Parameter("REF", model_refs)

expose(cli, "deploy", "deploy", model=_VERSION, examples=[
    "retrodict deploy warn_early", "retrodict deploy warn_early --model late_arrival@1 --reason 'pilot'",
    "retrodict deploy warn_early --trial 1000 --max-changes 0.02",
])  # fmt: skip
expose(cli, "promote", "promote", model=_VERSION,
       examples=["retrodict promote warn_early late_arrival@2 --reason 'better on August'"])  # fmt: skip
expose(cli, "rollback", "rollback", to=Parameter("REF", model_refs), examples=[
    "retrodict rollback warn_early --reason 'warns too often'",
    "retrodict rollback warn_early --to late_arrival@1 --reason 'as in the pilot'",
])  # fmt: skip
expose(cli, "drill", "policies.drill", examples=[
    "retrodict drill warn_early", "retrodict drill warn_early --keep 5 --decisions 1000 --json",
])  # fmt: skip
expose(cli, "incident", "policies.incident", action=Parameter("TEXT", option=True, more={"multiple": True}), examples=[
    "retrodict incident warn_early",
    "retrodict incident warn_early --cause 'weather feed in knots' --output incident.md",
])  # fmt: skip
expose(cli, "deployments", "policies.deployments", examples=[
    "retrodict deployments", "retrodict deployments warn_early --at 2013-09-01T00:00Z",
])  # fmt: skip
policies = group(cli, "policies", "What is done to each request.")
expose(policies, "show", "policies.show", examples=["retrodict policies show warn_early"])
expose(policies, "guards", "policies.guards", examples=["retrodict policies guards warn_early"])
expose(policies, "session", "policies.session", unit=Parameter("NAME=VALUE", callback=name_values, more={"nargs": -1}),
       examples=["retrodict policies session remind customer=adler",
                 "retrodict policies session remind customer=adler --drop"])  # fmt: skip


def _announce(session: CommandContext) -> dict[str, Any]:
    """Say the address when the first answer can be given."""
    replay = click.get_current_context().params["replay"]

    def ready(url: str, grpc: str | None) -> None:
        beside = f" and gRPC on {grpc}" if grpc else ""
        facts = {"url": url, "grpc": grpc, "replay": replay}
        click.echo(to_json(facts) if session.as_json else f"Serving {url}{beside} (Ctrl-C stops)")

    return {"ready": ready}


expose(
    cli, "serve", "serve", hidden=["ready"], supply=_announce, log_level=logging.INFO,
    port=Parameter(type=click.IntRange(0, 65535)), grpc_port=Parameter(type=click.IntRange(0, 65535)),
    examples=["retrodict serve", "retrodict serve --port 0 --json", "retrodict serve --workers 4",
              "retrodict serve --workers 1-8", "retrodict serve --grpc-port 8401", "retrodict serve --only models"],
)  # fmt: skip
_PAIRS = {"multiple": True, "required": False}
expose(
    cli, "decide", "decisions.ask", at=Parameter(option=True),
    entities=Parameter("NAME=VALUE", option=True, flag="--entity", callback=name_values, more=_PAIRS),
    context=Parameter("NAME=VALUE", option=True, callback=name_values, more=_PAIRS),
    examples=["retrodict decide warn_early --entity origin=JFK --context sched_dep=2013-09-01T22:00Z --explain"],
)  # fmt: skip

keys = group(cli, "api-keys", "Who may call a server: keys, what they are for and until when.")
_SCOPE = Parameter("SCOPE", option=True, flag="--scope", more={"multiple": True})
expose(keys, "issue", "api_keys.issue", scope=_SCOPE, examples=[
    "retrodict api-keys issue web-shop --scope score --reason checkout",
    "retrodict api-keys issue prometheus --scope read --expires 90d --rate 1 --reason metrics",
])  # fmt: skip
expose(keys, "rotate", "api_keys.rotate", examples=["retrodict api-keys rotate web-shop --grace 1h --reason yearly"])
expose(keys, "revoke", "api_keys.revoke", examples=["retrodict api-keys revoke web-shop --reason 'lost laptop'"])
expose(keys, "list", "api_keys.list", examples=["retrodict api-keys list", "retrodict api-keys list --every"])

decisions = group(cli, "decisions", "Look at decisions that were made, and make a table of them.")
expose(decisions, "show", "decisions.show", ref=Parameter("ID"),
       examples=["retrodict decisions show 01M8Q2JY6Z1DM9WXDWRAH6STH4"])  # fmt: skip
expose(decisions, "compact", "decisions.compact",
       examples=["retrodict decisions compact", "retrodict decisions compact --keep 400d"])  # fmt: skip
expose(decisions, "retain", "decisions.retain",
       examples=["retrodict decisions retain --older-than 400d --reason 'data policy 7' --yes"])  # fmt: skip
expose(decisions, "failures", "decisions.failures",
       examples=["retrodict decisions failures", "retrodict decisions failures warn_early --limit 20"])  # fmt: skip
expose(decisions, "drop-scores", "decisions.drop_scores", examples=[
    "retrodict decisions drop-scores warn_early --reason 'library was upgraded'",
    "retrodict decisions drop-scores --feature weather__wind --reason 'sensor was wrong'",
])  # fmt: skip
expose(decisions, "score-caches", "decisions.score_caches",
       examples=["retrodict decisions score-caches", "retrodict decisions score-caches --json"])  # fmt: skip
expose(decisions, "training-set", "decisions.training_set",
       examples=["retrodict decisions training-set warn_early --output august.parquet"])  # fmt: skip


@command(decisions, "export", examples=["retrodict decisions export --start 2013-09-01T00:00Z > log.jsonl",
                                        "retrodict decisions export --follow | kcat -P -t decisions"])  # fmt: skip
@click.argument("policy", required=False)
@click.option("--start", help="Only decisions from this time on.")
@click.option("--follow", is_flag=True, help="Go on with what is recorded from then on.")
def _export(session: CommandContext, policy: str | None, start: str | None, follow: bool) -> None:
    """Print the decision log as lines of JSON, one for each record.

    A line has the stream and offset of its record: a collector that was stopped begins again with --start, and knows
    by them what it has.
    """
    for line in session.project.decisions.lines(policy, start=start, follow=follow):
        click.echo(line)
