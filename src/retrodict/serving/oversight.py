"""Approving and auditing over HTTP: each request is the command that it stands for, run as who asks.

In a process of its own, since what an audit reads is computed in Python and would hold up answers here; one at a time
in each worker. Calling the rooms from here was rejected: there is one way to approve, and its checks are in one place.
"""

from __future__ import annotations

import asyncio
import logging
import re
import sys
from asyncio.subprocess import DEVNULL, PIPE
from typing import TYPE_CHECKING

import msgspec

from retrodict.core import errors
from retrodict.core.errors import InputError, InternalError
from retrodict.decisions.requests import decode_body
from retrodict.serving.deadlines import late, within
from retrodict.serving.http_answer import RETRY, HttpAnswer, RefusedRequestError, status_of
from retrodict.serving.http_request import HttpRequest
from retrodict.serving.routes import route

if TYPE_CHECKING:
    from retrodict.serving.app import DecisionApp

__all__ = ["Judgement"]

_DECISION = re.compile(r"[0-9A-HJKMNP-TV-Z]{26}").fullmatch
_VERSION = re.compile(r"[a-z0-9_]{1,63}@[0-9]{1,9}").fullmatch
_LONGEST_NS = 600_000_000_000

_log = logging.getLogger(__name__)
_running = asyncio.Lock()


class Judgement(msgspec.Struct, forbid_unknown_fields=True):
    """Body of an approval or a rejection."""

    reason: str


@route("GET", "/v1/audit", "audit")
async def _verify(app: DecisionApp, request: HttpRequest) -> HttpAnswer:
    return await _run(app, request, "audit", "verify")


@route("GET", "/v1/decisions/{decision}", "audit")
async def _show(app: DecisionApp, request: HttpRequest) -> HttpAnswer:
    return await _run(app, request, "lineage", about=_decision(request))


@route("POST", "/v1/decisions/{decision}:replay", "audit")
async def _replay(app: DecisionApp, request: HttpRequest) -> HttpAnswer:
    return await _run(app, request, "replay", "decision", about=_decision(request))


@route("POST", "/v1/models/{model}:reject", "approve")
@route("POST", "/v1/models/{model}:approve", "approve")
async def _judge(app: DecisionApp, request: HttpRequest) -> HttpAnswer:
    if request.caller is None:  # else everybody on this machine would be a second pair of eyes
        raise RefusedRequestError(403, "who approves must be known: set auth.required = 'always', and send a key")
    judgement = decode_body(await request.read_body(app.limits.body), Judgement, see="/docs")
    if not _VERSION(request.parameter) or "\0" in judgement.reason:
        raise InputError("an approval must be of NAME@VERSION, its reason plain text", where="address",
                         got="something else", remedy="See: retrodict models list")  # fmt: skip
    action = request.route.rpartition(":")[2]
    return await _run(app, request, "models", action, f"--reason={judgement.reason}", about=request.parameter)


def _decision(request: HttpRequest) -> str:
    if not _DECISION(request.parameter):
        raise InputError("a decision must be named by its id, of 26 digits and capital letters", where="address",
                         got="another form", remedy="Write the decision_id of its answer there, such as "
                         "01M8Y42E9X6K048S2B347AXFHP; to have one made, send POST /v1/decisions/{policy}")  # fmt: skip
    return f"decision:{request.parameter}"


async def _run(app: DecisionApp, request: HttpRequest, *words: str, about: str | None = None) -> HttpAnswer:
    """Answer of a command of this project with ``--json``, as who asks; its errors have the status that ours have."""
    if _running.locked():
        raise RefusedRequestError(429, "another command is under way; try again", RETRY)
    limit = request.limit_ns() or _LONGEST_NS
    until = request.arrived + min(limit, _LONGEST_NS)
    command = [sys.executable, "-P", "-m", "retrodict", *words, f"--project={app.workspace.root}",
               f"--actor={request.caller or app.workspace.actor}", "--json"]  # fmt: skip
    async with _running:
        process = await asyncio.create_subprocess_exec(
            *command, *(["--", about] if about else []), stdin=DEVNULL, stdout=PIPE, stderr=PIPE
        )
        try:
            doubt = late("a command that goes on for longer", doubt="whether it did anything is not known")
            output, log = await within(process.communicate(), until, doubt)
        finally:
            if process.returncode is None:
                process.kill()
    try:
        answer = msgspec.json.decode(output)
    except msgspec.DecodeError as error:
        _log.error(
            "%s ended with %s: %s", " ".join(words[:2]), process.returncode, log[-2_000:].decode(errors="replace")
        )
        raise InternalError("a command must answer", where=words[0], got="none", remedy="See the log") from error
    if fault := answer.get("error"):
        kind = getattr(errors, fault["kind"], InternalError)
        raise RefusedRequestError(status_of(kind("")), fault["message"])
    return HttpAnswer(output)
