"""What a server says of itself to programs and people: its metrics, its addresses, and pages of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from retrodict.serving.http_answer import HttpAnswer
from retrodict.serving.http_request import HttpRequest
from retrodict.serving.openapi import PAGE_HEADERS, docs_page, landing_page, openapi
from retrodict.serving.routes import route
from retrodict.serving.telemetry import breaker_states, process_series

if TYPE_CHECKING:
    from retrodict.serving.app import DecisionApp

__all__: list[str] = []


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
