"""The HTTP face of deciding, as a bare ASGI application.

A web framework was rejected for this one path: routing five addresses is a dictionary, and the framework alone would
cost more than features, model and rules together. Nothing on the way to an answer waits for the control plane: the
watcher swaps servants beside it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from time import perf_counter_ns
from typing import Any

import msgspec

from retrodict.core.clock import Clock, parse_time
from retrodict.core.errors import InputError, NotFoundError, RetryableError
from retrodict.core.identity import UlidFactory
from retrodict.decisions.loader import find_servant
from retrodict.decisions.recorder import Recorder
from retrodict.decisions.records import encode_record
from retrodict.decisions.requests import decode_request
from retrodict.decisions.servant import Servant
from retrodict.features.online import FeatureHealth
from retrodict.serving.events import EventInlet
from retrodict.serving.telemetry import Telemetry

__all__ = ["DecisionApp", "Limits"]

Scope = Mapping[str, Any]
Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Send = Callable[[Mapping[str, Any]], Awaitable[None]]

TIME_HEADER = b"retrodict-time"

_log = logging.getLogger(__name__)
_json = msgspec.json.Encoder()


@dataclass(frozen=True, slots=True)
class Limits:
    """What the app refuses: bodies above ``body`` bytes, more than ``in_flight`` requests at once."""

    body: int
    in_flight: int
    events_body: int = 4 << 20


class _Refused(Exception):
    """An answer that is not a decision: status, text, extra headers."""

    def __init__(self, status: int, text: str, headers: tuple[tuple[bytes, bytes], ...] = ()) -> None:
        super().__init__(text)
        self.status, self.text, self.headers = status, text, headers


class DecisionApp:
    """ASGI application over the servants of one process.

    Parameters
    ----------
    clock : Clock
        Where the moment of a decision comes from.
    recorder : Recorder
    inlet : EventInlet
        Takes pushed events.
    limits : Limits
    simulated_time : bool, default False
        Accept the header ``Retrodict-Time``: only for replays, a server for real callers refuses it.

    Attributes
    ----------
    servants : dict
        Policy name to servant; replaced as a whole by the watcher, never changed in place.
    telemetry : Telemetry
    health : FeatureHealth
        Of the features that decide; its gauges are refreshed from outside.
    """

    def __init__(
        self, clock: Clock, recorder: Recorder, inlet: EventInlet, limits: Limits, *, simulated_time: bool = False
    ) -> None:
        self.servants: dict[str, Servant] = {}
        self.telemetry, self.health = Telemetry(), FeatureHealth()
        self.problem: str | None = None
        self._clock, self._recorder, self._inlet, self._limits = clock, recorder, inlet, limits
        self._simulated_time = simulated_time
        self._new_id = UlidFactory(clock)
        self._in_flight = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        arrived = perf_counter_ns()
        headers: tuple[tuple[bytes, bytes], ...] = ()
        status, body = 500, b""
        try:
            body, headers, status = await self._route(scope, receive, arrived)
        except _Refused as refused:
            status, body, headers = refused.status, _json.encode({"error": refused.text}), refused.headers
        except NotFoundError as error:
            status, body = 404, _json.encode({"error": str(error)})
        except InputError as error:
            status, body = 400, _json.encode({"error": str(error)})
        except RetryableError as error:
            status, body, headers = 503, _json.encode({"error": str(error)}), ((b"retry-after", b"1"),)
        except Exception:  # noqa: BLE001  # the last resort: the server lives on, its log says why
            _log.exception("request failed")
            body = _json.encode({"error": "the server failed to answer; its log says why"})
        self.telemetry.count("requests_total", f'status="{status}"')
        kind = b"text/plain; version=0.0.4" if scope["path"] == "/metrics" and status == 200 else b"application/json"
        start = [(b"content-type", kind), (b"content-length", str(len(body)).encode()), *headers]
        await send({"type": "http.response.start", "status": status, "headers": start})
        await send({"type": "http.response.body", "body": body})

    async def _route(self, scope: Scope, receive: Receive, arrived: int) -> tuple[bytes, tuple[Any, ...], int]:
        method, parts = scope["method"], scope["path"].strip("/").split("/")
        match method, parts:
            case "POST", ["v1", "decisions", name]:
                return await self._decide(name, scope, receive, arrived), (), 200
            case "POST", ["v1", "events", table]:
                body = await _read_body(scope, receive, self._limits.events_body)
                return _json.encode(await self._inlet.push(table, body)), (), 202
            case "GET", ["v1", "policies"]:
                return _json.encode({name: servant.describe() for name, servant in self.servants.items()}), (), 200
            case "GET", ["v1", "policies", name]:
                return _json.encode(find_servant(self.servants, name, where="address").describe()), (), 200
            case "GET", ["v1", "status"]:
                return _json.encode(await self._status()), (), 200
            case "GET", ["metrics"]:
                text = self.telemetry.exposition() + self.health.exposition(self._clock.now())
                return text.encode(), (), 200
            case "GET", ["healthz"]:
                return b'{"status":"alive"}', (), 200
            case "GET", ["readyz"]:
                if self.servants and self.problem is None:
                    return b'{"status":"ready"}', (), 200
                raise _Refused(503, self.problem or "no policy is deployed. Deploy one with: retrodict deploy POLICY.")
        known = {"v1/decisions/{policy}": "POST", "v1/events/{table}": "POST", "v1/policies": "GET", "v1/status": "GET"}
        if (
            parts[:2] in (["v1", "decisions"], ["v1", "events"], ["v1", "policies"], ["v1", "status"])
            and len(parts) <= 3
        ):
            raise _Refused(
                405,
                "this address takes another method",
                ((b"allow", b"POST" if parts[1] in ("decisions", "events") else b"GET"),),
            )
        raise _Refused(
            404, "no such address; there are " + ", ".join(f"{verb} /{path}" for path, verb in known.items())
        )

    async def _decide(self, name: str, scope: Scope, receive: Receive, arrived: int) -> bytes:
        if self._in_flight >= self._limits.in_flight:
            raise _Refused(429, "the server is at its limit of requests; try again", ((b"retry-after", b"1"),))
        self._in_flight += 1
        try:
            request = decode_request(await _read_body(scope, receive, self._limits.body))
            servant = find_servant(self.servants, name, where="address")
            at = self._moment(scope)
            record = servant.decide(request, decision_id=self._new_id(), at=at, arrived_ns=arrived)
            before = perf_counter_ns()
            await self._recorder.write(encode_record(record))
            ended = perf_counter_ns()
        finally:
            self._in_flight -= 1
        self.telemetry.count(
            "decisions_total", f'policy="{name}",decision="{record.decision}",fallback="{record.fallback or ""}"'
        )
        for stage, micros in record.stages.items():
            self.telemetry.observe(stage, micros)
        self.telemetry.observe("record", (ended - before) // 1_000)
        self.telemetry.observe("total", (ended - arrived) // 1_000)
        return _json.encode(record.answer())

    def _moment(self, scope: Scope) -> int:
        given = next((value for key, value in scope["headers"] if key == TIME_HEADER), None)
        if given is None:
            return self._clock.now()
        if not self._simulated_time:
            raise InputError(
                "simulated time is for a server started for a replay",
                where="header Retrodict-Time",
                remedy="Leave the header out, or start with: retrodict serve --replay",
            )
        return parse_time(given.decode("latin-1"), where="header Retrodict-Time")

    async def _status(self) -> dict[str, Any]:
        loop = asyncio.get_running_loop()
        return {
            "policies": {name: servant.describe()["policy"] for name, servant in self.servants.items()},
            "revisions": {name: servant.revision.revision for name, servant in self.servants.items()},
            "problem": self.problem,
            "counters": {
                f"{name}{{{label}}}" if label else name: value
                for (name, label), value in self.telemetry.counters.items()
            },
            "latency": self.telemetry.latencies(),
            "decision_stream": self._recorder.log.stream,
            "recovered": [{"offset": torn.offset, "bytes": torn.size} for torn in self._recorder.log.recovered],
            "sources": await loop.run_in_executor(None, self._inlet.lags),
        }


async def _read_body(scope: Scope, receive: Receive, most: int) -> bytes:
    """Body of a request, never more than ``most`` bytes of it in memory."""
    announced = next((value for key, value in scope["headers"] if key == b"content-length"), b"0")
    if announced.isdigit() and int(announced) > most:
        raise _Refused(413, f"a body is at most {most} bytes", ((b"connection", b"close"),))
    chunks, size = [], 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _Refused(499, "the caller left before the body was complete")
        chunk = message.get("body", b"")
        size += len(chunk)
        if size > most:
            raise _Refused(413, f"a body is at most {most} bytes", ((b"connection", b"close"),))
        chunks.append(chunk)
        if not message.get("more_body", False):
            return chunks[0] if len(chunks) == 1 else b"".join(chunks)
