"""What a server says of itself to programs and people: its metrics, its addresses, and pages of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from retrodict.serving.http_answer import HttpAnswer, RefusedRequestError
from retrodict.serving.http_request import HttpRequest
from retrodict.serving.openapi import PAGE_HEADERS, docs_page, landing_page, openapi
from retrodict.serving.routes import route
from retrodict.serving.telemetry import breaker_states, process_series

if TYPE_CHECKING:
    from retrodict.serving.app import DecisionApp

__all__ = ["readiness"]


@route("GET", "/healthz", None)
async def _alive(_app: DecisionApp, _: HttpRequest) -> HttpAnswer:
    return HttpAnswer(b'{"status":"alive"}')


@route("GET", "/readyz", None)
async def readiness(app: DecisionApp, request: HttpRequest) -> HttpAnswer:
    """Say whether this process can answer; a refusal says why it cannot, with its details to whom the server knows."""
    trusted = app.callers is None or app.callers.knows(request.scope["headers"])

    def refusal(reason: str, details: str | None) -> RefusedRequestError:
        return RefusedRequestError(503, f"{reason}: {details}" if trusted and details else reason)

    lags = {flow.view: flow.table for flow in app.health.flows if flow.table.behind}
    if app.records and (failure := await asyncio.to_thread(app.log.find_problem)) is not None:
        raise refusal("the decision log cannot be written", str(failure))
    unbuilt = sorted(view for view, lag in lags.items() if lag.version is None)
    if app.problem is not None:
        raise refusal("a revision cannot be loaded", app.problem)
    if not app.servants and not app.services and not (app.parts and app.parts.loaded):
        if app.services_problem is not None:
            raise refusal("the definitions cannot be read", app.services_problem)
        raise RefusedRequestError(
            503, "no policy is deployed and no feature service is defined. Deploy one with: retrodict deploy POLICY."
        )
    if unbuilt:
        raise RefusedRequestError(
            503, f"the online state of {', '.join(unbuilt)} is not built. Run: retrodict features build"
        )
    unseen = [part for part, answers in app.reached.items() if answers is None]
    if unseen:  # its first decisions would be fallbacks, and a part that starts with it is there in a moment
        raise RefusedRequestError(503, f"the server of {' and '.join(unseen)} has not answered yet")
    away = [part for part, answers in app.reached.items() if not answers]
    if away and not any(servant.policy.policy.decide for servant in app.servants.values()):
        raise RefusedRequestError(503, f"nothing in force has an answer without the server of {' and '.join(away)}")
    behind = {flow.view: app.health.behind[flow.version] for flow in app.health.flows
              if flow.version in app.health.behind}  # fmt: skip
    missing = app.colleagues.missing() if app.colleagues is not None else []
    stores = {name: guard.state for name, guard in app.workspace.breakers.items() if guard.state != "closed"}
    parts = {part: "reached" if answers else "away" for part, answers in app.reached.items()}
    not_followed, not_loaded = app.not_followed, app.not_loaded
    callers = app.callers and app.callers.problem
    if not trusted:  # the reasons name paths, addresses and settings
        behind, not_loaded = dict.fromkeys(behind), dict.fromkeys(not_loaded, "cannot be loaded")
        missing, not_followed = ["a worker does not answer"] * len(missing), not_followed and "the records are away"
        callers = callers and "keys are not followed"
    notes = {"behind": behind, "workers": missing, "stores": stores, "parts": parts,
             "not_followed": not_followed, "not_loaded": not_loaded, "callers": callers}  # fmt: skip
    return HttpAnswer(msgspec.json.encode({"status": "ready", **{name: note for name, note in notes.items() if note}}))


@route("GET", "/metrics")
async def _metrics(app: DecisionApp, _: HttpRequest) -> HttpAnswer:
    now = app.workspace.clock.now()
    if app.colleagues is not None:
        text = app.colleagues.exposition(now)
    else:
        facts = [app.facts()]  # first: it counts
        text = app.telemetry.exposition() + process_series(facts) + breaker_states(facts)
        text += app.health.exposition(now)
    return HttpAnswer(text.encode(), kind=b"text/plain; version=0.0.4")


@route("GET", "/openapi.json")
async def _openapi(app: DecisionApp, _: HttpRequest) -> HttpAnswer:
    return HttpAnswer(msgspec.json.encode(openapi(app)))


@route("GET", "/docs")
async def _docs(app: DecisionApp, _: HttpRequest) -> HttpAnswer:
    return await _page(app, docs_page)


@route("GET", "/")
async def _landing(app: DecisionApp, _: HttpRequest) -> HttpAnswer:
    return await _page(app, landing_page)


async def _page(app: DecisionApp, make: Callable[[DecisionApp, str], str]) -> HttpAnswer:
    page = await asyncio.to_thread(make, app, app.workspace.name)
    return HttpAnswer(page.encode(), 200, PAGE_HEADERS, b"text/html; charset=utf-8")
