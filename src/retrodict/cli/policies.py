"""``deploy``, ``promote``, ``rollback``, ``deployments``, ``serve`` and ``decide``: what is in force, and asking it."""

from __future__ import annotations

import logging
from typing import Any

import click

from retrodict.cli._command import Parameter, Session, command, expose
from retrodict.cli._root import cli
from retrodict.cli._types import complete, instant, model_refs, name_values, policies
from retrodict.project import Shown, to_json

_VERSION = Parameter("REF", model_refs)

expose(cli, "deploy", "deploy", model=_VERSION, examples=[
    "retrodict deploy warn_early", "retrodict deploy warn_early --model late_arrival@1 --reason 'pilot'",
])  # fmt: skip
expose(cli, "promote", "promote", model=_VERSION,
       examples=["retrodict promote warn_early late_arrival@2 --reason 'better on August'"])  # fmt: skip
expose(cli, "rollback", "rollback", examples=["retrodict rollback warn_early --reason 'warns too often'"])
expose(cli, "deployments", "policies.deployments", examples=[
    "retrodict deployments", "retrodict deployments warn_early --at 2013-09-01T00:00Z",
])  # fmt: skip


@command(cli, "serve", examples=["retrodict serve", "retrodict serve --port 0 --json"], log_level=logging.INFO)
@click.option("--host", help="Address to listen on.  [default: serving.host of retrodict.toml]")
@click.option("--port", type=click.IntRange(0, 65535), help="Port, 0 for any free one.  [default: serving.port]")
@click.option(
    "--replay", is_flag=True, help="Accept a simulated time from callers: for replays, never for real callers."
)
@click.option("--no-consume", is_flag=True, help="Do not start the feature consumer beside the server.")
def serve_policies(session: Session, host: str | None, port: int | None, replay: bool, no_consume: bool) -> None:
    """Answer decisions over HTTP, until Ctrl-C.

    Prints the address when the first answer can be given. Follows every change of a deployment within a second.
    """

    def ready(url: str) -> None:
        click.echo(to_json({"url": url, "replay": replay}) if session.as_json else f"Serving {url} (Ctrl-C stops)")

    session.project.serve(host=host, port=port, replay=replay, no_consume=no_consume, ready=ready)


@command(
    cli,
    "decide",
    examples=[
        "retrodict decide warn_early --entity origin=JFK --context sched_dep=2013-09-01T22:00Z --explain",
    ],
)
@click.argument("policy", shell_complete=complete(policies))
@click.option(
    "--entity",
    "entities",
    metavar="NAME=VALUE",
    callback=name_values,
    multiple=True,
    help="Key of an entity; may be repeated.",
)
@click.option(
    "--context",
    "context",
    metavar="NAME=VALUE",
    callback=name_values,
    multiple=True,
    help="Value the caller knows; may be repeated.",
)
@click.option("--key", help="Key of the decided thing in the label's table, for the outcome to join on.")
@click.option("--explain", is_flag=True, help="Ask for reasons.")
@click.option("--at", callback=instant, metavar="TIME", help="Simulated time, for a server started with --replay.")
@click.option("--url", help="Address of the server.  [default: serving.host and serving.port of retrodict.toml]")
def decide(
    session: Session,
    policy: str,
    *,
    entities: dict[str, Any],
    context: dict[str, Any],
    key: str | None,
    explain: bool,
    at: int | None,
    url: str | None,
) -> Shown:
    """Ask a running server for one decision.

    Values are read as JSON where they are a number, true, false, null or a text in quotes, and as text otherwise.
    """
    return session.project.decisions.ask(policy, entities, context, key=key, explain=explain, at=at, url=url)
