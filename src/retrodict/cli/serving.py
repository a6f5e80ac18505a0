"""``serve`` and ``decide``: a server, and one request to a running one."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any

import click

from retrodict.cli._command import Answer, Session, command
from retrodict.cli._root import cli
from retrodict.cli._text import facts, number, to_json
from retrodict.cli._types import complete, instant, name_values, policies

if TYPE_CHECKING:
    from http.client import HTTPConnection

_TIMEOUT_S = 30.0


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
    from retrodict.serving.server import ServeOptions, serve

    def ready(url: str) -> None:
        click.echo(to_json({"url": url, "replay": replay}) if session.as_json else f"Serving {url} (Ctrl-C stops)")

    serve(session.project, ServeOptions(host=host, port=port, replay=replay, consume=not no_consume), ready=ready)


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
) -> Answer:
    """Ask a running server for one decision.

    Values are read as JSON where they are a number, true, false, null or a text in quotes, and as text otherwise.
    """
    from urllib.parse import quote

    from retrodict.core.clock import format_time

    body: dict[str, Any] = {"entities": entities, "context": context, "explain": explain}
    if key is not None:
        body["key"] = key
    headers = {"content-type": "application/json"}
    if at is not None:
        headers["retrodict-time"] = format_time(at)
    found = _post(url or _own_url(session), f"/v1/decisions/{quote(policy, safe='')}", body, headers)
    return Answer(found, _decided(found))


def _decided(found: dict[str, Any]) -> list[Any]:
    said = facts(
        {
            "decision": found["decision"],
            "score": number(found.get("score")),
            "model": found["model"] or None,
            "policy": found["policy"],
            "fallback": found.get("fallback"),
            "id": f"decision:{found['decision_id']}",
        }
    )
    return [said, *(f"  because  {reason}" for reason in found.get("reasons", []))]


def _own_url(session: Session) -> str:
    config = session.project.config
    host = config["serving.host"]
    # What a server listens on is not always what a caller can connect to.
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  # compared, not bound
    return f"http://{f'[{host}]' if ':' in host else host}:{config['serving.port']}"


def _post(url: str, path: str, body: dict[str, Any], headers: dict[str, str]) -> dict[str, Any]:
    from http.client import HTTPException

    from retrodict.core.errors import RetryableError

    connection = _connect(url)
    try:
        connection.request("POST", path, json.dumps(body).encode(), headers)
        response = connection.getresponse()
        status, text = response.status, response.read().decode("utf-8", "replace")
    except (OSError, HTTPException) as error:
        raise RetryableError(
            "a server answers at this address",
            where=url,
            got=type(error).__name__,
            remedy="Start one with: retrodict serve",
        ) from error
    finally:
        connection.close()
    try:
        answer = json.loads(text)
    except ValueError:
        answer = None
    if status == 200 and isinstance(answer, dict) and "decision_id" in answer:
        return answer
    raise _refusal(url, status, answer)


def _connect(url: str) -> HTTPConnection:
    # The HTTP client brings TLS and e-mail parsing along: only who asks a server pays for it.
    from http.client import HTTPConnection, HTTPSConnection
    from urllib.parse import urlsplit

    from retrodict.core.errors import InputError

    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InputError(
            "the address reads http://HOST:PORT", where="--url", got=url, remedy="Write it like http://127.0.0.1:8400"
        )
    kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
    return kind(parts.hostname, parts.port, timeout=_TIMEOUT_S)


def _refusal(url: str, status: int, answer: Any) -> Exception:
    """The server's own words, in the error that says what the caller can do."""
    from retrodict.core.errors import InputError, IntegrityError, NotFoundError, RetryableError

    if not isinstance(answer, dict) or "error" not in answer:
        return InputError(
            "a Retrodict server answers at this address", where=url, got=f"status {status}", remedy="Check --url"
        )
    kinds = {404: NotFoundError, 429: RetryableError, 503: RetryableError}
    kind = kinds.get(status, InputError if status < 500 else IntegrityError)
    return kind(str(answer["error"]).rstrip("."), where=f"{url}, status {status}")
