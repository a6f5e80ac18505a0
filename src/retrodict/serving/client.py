"""Asking a running server for decisions."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from retrodict.core.clock import format_time
from retrodict.core.errors import (
    InputError,
    IntegrityError,
    NotFoundError,
    RefusedError,
    RetrodictError,
    RetryableError,
)
from retrodict.workspace import Workspace

if TYPE_CHECKING:
    from http.client import HTTPConnection

__all__ = ["ask", "ask_many", "server_url"]

_TIMEOUT_S = 30.0
KEY_VARIABLE = "RETRODICT_API_KEY"


def server_url(workspace: Workspace) -> str:
    """Address at which a server of this project answers, by its configuration."""
    host = workspace.config["serving.host"]
    # What a server listens on is not always what a caller can connect to.
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  # compared, not bound
    scheme = "https" if workspace.config["serving.certificate"] else "http"
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{workspace.config['serving.port']}"


def ask(
    url: str, policy: str, body: Mapping[str, Any], *, at: int | None = None, request_id: str | None = None
) -> dict[str, Any]:
    """Ask a server for one decision.

    Parameters
    ----------
    url : str
        ``http://HOST:PORT``.
    policy : str
    body : mapping
        ``entities``, and if needed ``context``, ``key`` and ``explain``.
    at : int, optional
        Simulated moment in microseconds since 1970-01-01 UTC, for a server that was started for replays.
    request_id : str, optional
        Sent as ``Idempotency-Key``: the same answer to every call that repeats it, so a call may be sent again after
        any failure.

    Returns
    -------
    dict
        The answer; with ``replayed`` where an earlier call with the same id has got it.

    Raises
    ------
    RetryableError
        If no server answers, it has no capacity now, or another call with the same id is under way.
    NotFoundError, InputError, RefusedError
        If the server refuses the policy's name, the request, or another request with an id that was used; its words.
    """
    headers = {} if at is None else {"retrodict-time": format_time(at)}
    if request_id is not None:
        from retrodict.serving.idempotency import check_request_id  # loads the stores: only who repeats pays for it

        headers["idempotency-key"] = check_request_id(request_id, where="request_id")
    answer, fields = _post(url, f"/v1/decisions/{quote(policy, safe='')}", body, headers, field="decision_id")
    return {**answer, "replayed": True} if "idempotency-replayed" in fields else answer


def ask_many(
    url: str, policy: str, bodies: Sequence[Mapping[str, Any]], *, at: int | None = None
) -> list[dict[str, Any]]:
    """Ask a server for many decisions with one request.

    Parameters
    ----------
    url, policy, at
        As for :func:`ask`.
    bodies : sequence of mapping
        As for :func:`ask`, each with a ``request_id`` if it is to be decided once.

    Returns
    -------
    list of dict
        In order, each with ``status``: 200 beside an answer, another one beside ``error``.

    Raises
    ------
    RetryableError, NotFoundError, InputError
        As :func:`ask` does, where the server refuses all of them.
    """
    headers = {} if at is None else {"retrodict-time": format_time(at)}
    path = f"/v1/decisions/{quote(policy, safe='')}:batch"
    answers: list[dict[str, Any]] = _post(url, path, {"requests": list(bodies)}, headers, field="answers")[0]["answers"]
    return answers


def _post(
    url: str, path: str, body: Mapping[str, Any], headers: Mapping[str, str], *, field: str
) -> tuple[dict[str, Any], set[str]]:
    """Answer of a server, which must have a field, and the names of its headers."""
    from http.client import HTTPException

    connection = _connect(url)
    try:
        every = {"content-type": "application/json", **headers}
        if key := os.environ.get(KEY_VARIABLE):
            every["authorization"] = f"Bearer {key}"
        connection.request("POST", path, json.dumps(body).encode(), every)
        response = connection.getresponse()
        status, text = response.status, response.read().decode("utf-8", "replace")
        fields = {name.lower() for name, _ in response.getheaders()}
    except (OSError, HTTPException) as error:
        raise RetryableError(
            "a server must answer at this address",
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
    if status == 200 and isinstance(answer, dict) and field in answer:
        return answer, fields
    raise _refusal(url, status, answer, again="retry-after" in fields)


def _connect(url: str) -> HTTPConnection:
    # The HTTP client brings TLS and e-mail parsing along: only who asks a server pays for it.
    from http.client import HTTPConnection, HTTPSConnection

    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InputError(
            "an address must read http://HOST:PORT",
            where="--url",
            got=url,
            remedy="Write it like http://127.0.0.1:8400",
        )
    connection = HTTPSConnection if parts.scheme == "https" else HTTPConnection
    return connection(parts.hostname, parts.port, timeout=_TIMEOUT_S)


def _refusal(url: str, status: int, answer: Any, *, again: bool) -> RetrodictError:
    """The server's own words, in the error that says what the caller can do."""
    if not isinstance(answer, dict) or "error" not in answer:
        return InputError(
            "a Retrodict server must answer at this address", where=url, got=f"status {status}", remedy="Check --url"
        )
    errors = {
        401: RefusedError,
        403: RefusedError,
        404: NotFoundError,
        409: RefusedError,
        429: RetryableError,
        503: RetryableError,
    }
    error = RetryableError if again else errors.get(status, InputError if status < 500 else IntegrityError)
    return error(str(answer["error"]).rstrip("."), where=f"{url}, status {status}")
