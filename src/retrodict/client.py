"""Asks a running server: decisions, features, events, from a program that holds no project.

One connection pool for many calls, errors that say what the caller can do, and another attempt where the one before
surely decided nothing, or where the call has a request id and so gives the same answer again. A call ends with its
timeout, pauses and attempts within it; the server hears how long that is.
"""

from __future__ import annotations

import json
import math
import os
import re
import ssl
import sys
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any, Self
from urllib.parse import quote, urlsplit

import httpx

from retrodict.core.clock import format_time
from retrodict.core.errors import (
    InputError,
    IntegrityError,
    NotFoundError,
    RefusedError,
    RetrodictError,
    RetryableError,
)
from retrodict.core.retries import Retry, waited_for
from retrodict.core.timed_http import TimedTransport

__all__ = ["KEY_VARIABLE", "Answer", "AsyncClient", "Client"]

KEY_VARIABLE = "RETRODICT_API_KEY"
"""Environment variable whose value is sent as the key where none is given."""

_ERRORS: Mapping[int, type[RetrodictError]] = {
    401: RefusedError, 403: RefusedError, 404: NotFoundError, 409: RefusedError, 429: RetryableError,
    503: RetryableError, 504: RetryableError,
}  # fmt: skip
_GRACE_S = 0.25  # in which the server may say that the time is over
_CONNECTING = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)


@dataclass(frozen=True, slots=True)
class Answer:
    """Answer to one request for a decision.

    Attributes
    ----------
    decision_id, decision, model, policy : str
        The record's id, what was decided, and by which version and revision.
    score : float or None
        None where a fallback decided, or the model has several outputs.
    outputs : dict
        By name, of a model with several.
    reasons : list of str
    fallback : str or None
        Which one decided in place of the model.
    views : dict
        Views that were not simply read, with ``status`` and ``age_s``.
    warnings : list of str
        Values that were sent and that nothing which decides reads.
    recorded : str or None
        ``async`` or ``no`` where the record is not durable before the answer.
    replayed : bool
        An earlier call with the same request id has got it.
    served_by : str or None
        Decision stream of the worker that answered; with decide_many, that of the whole call.
    server_ms : float or None
        Milliseconds that it took there, from the first byte of the call to the answer.
    status : int
        200; another one beside ``error`` for a case of a batch that got no decision.
    error : str or None
    body : dict
        The answer as it came.
    """

    decision_id: str = ""
    decision: str = ""
    model: str = ""
    policy: str = ""
    score: float | None = None
    outputs: dict[str, float] = field(default_factory=dict)
    reasons: list[str] = field(default_factory=list)
    fallback: str | None = None
    views: dict[str, dict[str, Any]] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    recorded: str | None = None
    replayed: bool = False
    served_by: str | None = None
    server_ms: float | None = None
    status: int = 200
    error: str | None = None
    body: dict[str, Any] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, body: Mapping[str, Any]) -> Answer:
        """Answer of a body; what a later server says more stands in ``body`` only."""
        return cls(**{name: value for name, value in body.items() if name in _ANSWER}, body=dict(body))

    @classmethod
    def of_batch(cls, body: Mapping[str, Any]) -> list[Answer]:
        """Answers of a call about many cases."""
        served = {name: body[name] for name in ("served_by", "server_ms") if name in body}
        return [cls.of({**one, **served}) for one in body["answers"]]


_DURATION = re.compile(r"(?:^|, *)total;dur=([0-9]+(?:\.[0-9]+)?)").search
_ANSWER = {one.name for one in fields(Answer)} - {"body"}


@dataclass(slots=True)
class _Call:
    """One call: what is sent, what the answer must have, and whether it may be sent twice."""

    method: str
    path: str
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    field: str | None = None
    twice: bool = False
    attempts: int = 0
    until: float = 0.0


class _Base:
    """What both clients share: how calls are made, read, and made again. Its parameters are :class:`Client`'s."""

    def __init__(
        self,
        url: str,
        *,
        key: str | None = None,
        timeout: float = 30.0,
        retries: int = 2,
        ids: bool = False,
        ca: str | os.PathLike[str] | None = None,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InputError("an address must read http://HOST:PORT", where="url", got=url,
                             remedy="Write it like http://127.0.0.1:8400")  # fmt: skip
        if not timeout > 0 or retries not in range(11):
            raise InputError("a timeout must be above 0, and retries from 0 to 10", where="client",
                             got={"timeout": timeout, "retries": retries}, remedy="Leave them out")  # fmt: skip
        self._url, self._timeout, self._retries, self._ids = url, timeout, retries, ids
        self._pauses = Retry((OSError,), base="50ms", cap="1s")
        token = key or os.environ.get(KEY_VARIABLE)
        self._options: dict[str, Any] = {
            "base_url": url, "trust_env": False, "verify": ssl.create_default_context(cafile=ca),
            "headers": {"authorization": f"Bearer {token}"} if token else {},
        }  # fmt: skip

    def _decision(
        self, policy: str, entities: Mapping[str, Any], context: Mapping[str, Any] | None, key: str | None,
        explain: bool, request_id: str | None, at: int | None,
    ) -> _Call:  # fmt: skip
        body = {"entities": dict(entities), "context": dict(context or {}), "explain": explain}
        if key is not None:
            body["key"] = key
        request_id = request_id or (str(uuid.uuid4()) if self._ids else None)
        headers = {} if at is None else {"retrodict-time": format_time(at)}
        if request_id is not None:
            if not (0 < len(request_id) <= 200 and request_id.isascii() and request_id.isprintable()):
                raise InputError("a request id must be 1 to 200 printable ASCII characters", where="request_id",
                                 got=f"{len(request_id)} characters", remedy="Send a UUID")  # fmt: skip
            headers["idempotency-key"] = request_id
        path = f"/v1/decisions/{quote(policy, safe='')}"
        return _Call("POST", path, body, headers, "decision_id", twice=request_id is not None)

    def _decisions(self, policy: str, cases: Iterable[Mapping[str, Any]], at: int | None) -> _Call:
        bodies = [dict(case) for case in cases]
        for body in bodies if self._ids else ():
            body.setdefault("request_id", str(uuid.uuid4()))
        headers = {} if at is None else {"retrodict-time": format_time(at)}
        path = f"/v1/decisions/{quote(policy, safe='')}:batch"
        return _Call("POST", path, {"requests": bodies}, headers, "answers",
                     twice=all("request_id" in body for body in bodies))  # fmt: skip

    @staticmethod
    def _job(
        policy: str, cases: Iterable[Mapping[str, Any]], callback: str | None, key: str | None, at: int | None
    ) -> _Call:
        body = {
            "policy": policy,
            "requests": [dict(case) for case in cases],
            **({"callback": callback} if callback else {}),
        }
        headers = {"idempotency-key": key or str(uuid.uuid4())}
        if at is not None:
            headers["retrodict-time"] = format_time(at)
        return _Call("POST", "/v1/jobs/score", body, headers, "job", twice=True)

    @staticmethod
    def _features(service: str, entities: Sequence[Mapping[str, Any]], context: Mapping[str, Any] | None) -> _Call:
        body = {"entities": [dict(one) for one in entities], "context": dict(context or {})}
        return _Call("POST", f"/v1/features/{quote(service, safe='')}", body, twice=True)

    @staticmethod
    def _events(table: str, rows: Sequence[Mapping[str, Any]]) -> _Call:
        return _Call("POST", f"/v1/events/{quote(table, safe='')}", [dict(row) for row in rows])

    def _begin(self, call: _Call) -> dict[str, Any]:
        """Arguments of the next attempt's request."""
        now = time.monotonic()
        call.until = call.until or now + self._timeout
        left = max(call.until - now, 0.001)
        headers = {**call.headers, "content-type": "application/json", "retrodict-deadline": f"{left * 1e3:.0f}"}
        if "opentelemetry.trace" in sys.modules:  # else there can be no span to go on from
            from opentelemetry.propagate import inject

            inject(headers)
        content = None if call.body is None else _encode(call.body)
        # The server ends first and says why; whoever ends it here learns less.
        return {
            "method": call.method,
            "url": call.path,
            "content": content,
            "headers": headers,
            "timeout": left + _GRACE_S,
        }

    def _again(self, call: _Call, error: RetrodictError, *, after: float = 0.0) -> float:
        """Seconds to wait before another attempt; raises the error if there is to be none."""
        call.attempts += 1
        pause = max(self._pauses.pause_s(call.attempts), after)
        if call.attempts > self._retries or time.monotonic() + pause >= call.until:
            raise error
        return pause

    def _lost(self, call: _Call, error: httpx.HTTPError) -> float:
        """Seconds to wait after a call that got no answer; raises if it may have been one, and could be made twice."""
        if "certificate verify failed" in str(error).lower():
            raise RefusedError(
                "the certificate of the server must be trusted",
                where=self._url,
                got="one of nobody who is known here, or for another name",
                remedy="Give the file of its certificate (ca=, or SSL_CERT_FILE in the environment)",
            ) from error
        ours = RetryableError("a server must answer at this address", where=self._url, got=type(error).__name__,
                              remedy="Start one with: retrodict serve")  # fmt: skip
        ours.__cause__ = error
        if not isinstance(error, _CONNECTING) and not call.twice:
            raise ours
        return self._again(call, ours)

    def _read(self, call: _Call, response: httpx.Response, body: bytes) -> dict[str, Any] | float:
        """Body of an answer, or seconds to wait before another attempt; raises what the server says."""
        try:
            answer = json.loads(body)
        except ValueError:
            answer = None
        fits = isinstance(answer, dict) and (call.field is None or call.field in answer)
        if response.status_code in (200, 202) and fits:
            facts = {"replayed": True} if "idempotency-replayed" in response.headers else {}
            return {**answer, **facts, **_served(response.headers)}
        status = response.status_code
        if not isinstance(answer, dict) or "error" not in answer:
            raise InputError("a Retrodict server must answer at this address", where=self._url, got=f"status {status}",
                             remedy="Check the address")  # fmt: skip
        after, kind = response.headers.get("retry-after"), _ERRORS.get(status)
        kind = RetryableError if after else kind or (InputError if status < 500 else IntegrityError)
        remedy = f"Give a key (key=, or {KEY_VARIABLE} in the environment)" if status == 401 else None
        error = kind(str(answer["error"]).rstrip("."), where=f"{self._url}, status {status}", remedy=remedy)
        if after is None and status != 503:
            raise error
        return self._again(call, error, after=float(after) if after and after.isdigit() else 0.0)


class Client(_Base):
    """Asks a server; may be shared by threads. A context manager that closes its connections.

    Parameters
    ----------
    url : str
        ``http://HOST:PORT`` or ``https://…``.
    key : str, optional
        API key or signed token.  [default: the variable ``RETRODICT_API_KEY``]
    timeout : float, default 30
        Seconds for a call with all its attempts.
    retries : int, default 2
        Attempts after the first, 0 to 10.
    ids : bool, default False
        Give every decision a request id, so that it may be asked for again after any failure and is made once.
    ca : path, optional
        Certificates to trust (PEM) instead of the system's.

    Raises
    ------
    RetryableError
        By every call: no server answers, it has no capacity now, or the time is over.
    NotFoundError, InputError, RefusedError
        By every call: the server refuses the name, the request, the key, or another request with an id that was used.

    Examples
    --------
    >>> with Client("http://127.0.0.1:8400") as client:  # doctest: +SKIP
    ...     client.decide("remind", {"customer": "adler"}, {"amount": 1200.0, "terms_days": 14}).decision
    'call'
    """

    def __init__(self, url: str, **options: Any) -> None:
        super().__init__(url, **options)
        self._http = httpx.Client(**self._options, transport=TimedTransport(self._options["verify"]))

    def decide(
        self, policy: str, entities: Mapping[str, Any], context: Mapping[str, Any] | None = None, *,
        key: str | None = None, explain: bool = False, request_id: str | None = None, at: int | None = None,
    ) -> Answer:  # fmt: skip
        """Ask for one decision; ``at``, in microseconds since 1970-01-01 UTC, is for servers that replay."""
        return Answer.of(self._call(self._decision(policy, entities, context, key, explain, request_id, at)))

    def decide_many(self, policy: str, cases: Iterable[Mapping[str, Any]], *, at: int | None = None) -> list[Answer]:
        """Ask for many with one request: dicts of ``entities``, ``context``, ``key``, ``explain``, ``request_id``."""
        return Answer.of_batch(self._call(self._decisions(policy, cases, at)))

    def submit(
        self, policy: str, cases: Iterable[Mapping[str, Any]], *, callback: str | None = None, key: str | None = None,
        at: int | None = None,
    ) -> dict[str, Any]:  # fmt: skip
        """Have many decided as a job, once for each ``key``; its ``job`` is asked for by ``get(f"/v1/jobs/{job}")``."""
        return self._call(self._job(policy, cases, callback, key, at))

    def features(
        self, service: str, entities: Sequence[Mapping[str, Any]], context: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Ask a feature service for the features of entities."""
        return self._call(self._features(service, entities, context))

    def push(self, table: str, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Push events of a table; they are durable when this returns. Not tried again where an answer was lost."""
        return self._call(self._events(table, rows))

    def get(self, path: str) -> dict[str, Any]:
        """Answer of another address that gives JSON, such as ``/v1/status``."""
        return self._call(_Call("GET", path, twice=True))

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _call(self, call: _Call) -> dict[str, Any]:
        while True:
            try:
                result = self._ask(call)
            except httpx.HTTPError as error:
                result = self._lost(call, error)
            if not isinstance(result, float):
                return result
            time.sleep(result)

    def _ask(self, call: _Call) -> dict[str, Any] | float:
        request = self._begin(call)
        with waited_for(time.perf_counter_ns() + int(request["timeout"] * 1e9)):
            response = self._http.request(**request)
        return self._read(call, response, response.content)


class AsyncClient(_Base):
    """Asks a server as :class:`Client` does, with coroutines; ``async with``, or ``await client.close()``.

    Examples
    --------
    >>> async with AsyncClient("http://127.0.0.1:8400") as client:  # doctest: +SKIP
    ...     answers = await asyncio.gather(*[client.decide("remind", who, what) for who, what in cases])
    """

    def __init__(self, url: str, **options: Any) -> None:
        super().__init__(url, **options)
        self._http = httpx.AsyncClient(**self._options)

    async def decide(
        self, policy: str, entities: Mapping[str, Any], context: Mapping[str, Any] | None = None, *,
        key: str | None = None, explain: bool = False, request_id: str | None = None, at: int | None = None,
    ) -> Answer:  # fmt: skip
        """Ask for one decision."""
        return Answer.of(await self._call(self._decision(policy, entities, context, key, explain, request_id, at)))

    async def decide_many(
        self, policy: str, cases: Iterable[Mapping[str, Any]], *, at: int | None = None
    ) -> list[Answer]:
        """Ask for many with one request."""
        return Answer.of_batch(await self._call(self._decisions(policy, cases, at)))

    async def submit(
        self, policy: str, cases: Iterable[Mapping[str, Any]], *, callback: str | None = None, key: str | None = None,
        at: int | None = None,
    ) -> dict[str, Any]:  # fmt: skip
        """Have many decided as a job, once for each ``key``; its ``job`` is asked for by ``get(f"/v1/jobs/{job}")``."""
        return await self._call(self._job(policy, cases, callback, key, at))

    async def features(
        self, service: str, entities: Sequence[Mapping[str, Any]], context: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Ask a feature service for the features of entities."""
        return await self._call(self._features(service, entities, context))

    async def push(self, table: str, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Push events of a table; they are durable when this returns."""
        return await self._call(self._events(table, rows))

    async def get(self, path: str) -> dict[str, Any]:
        """Answer of another address that gives JSON."""
        return await self._call(_Call("GET", path, twice=True))

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    async def _call(self, call: _Call) -> dict[str, Any]:
        import asyncio

        while True:
            try:
                request = self._begin(call)
                async with asyncio.timeout(request["timeout"]):  # httpx's own is of each piece
                    response = await self._http.request(**request)
                result = self._read(call, response, response.content)
            except TimeoutError:
                result = self._lost(call, httpx.ReadTimeout("the answer did not end in time"))
            except httpx.HTTPError as error:
                result = self._lost(call, error)
            if not isinstance(result, float):
                return result
            await asyncio.sleep(result)


def _served(headers: Mapping[str, str]) -> dict[str, Any]:
    """Who answered, and how long it took there, where the server says so."""
    name, duration = headers.get("retrodict-served-by"), _DURATION(headers.get("server-timing", ""))
    return {} if name is None or duration is None else {"served_by": name, "server_ms": float(duration[1])}


def _check_finite(value: Any, name: str | None = None) -> None:
    """Refuse infinities, which would arrive as null."""
    if isinstance(value, float):
        if math.isinf(value):
            raise InputError("a number must be finite", where="request" if name is None else f"value {name!r}",
                             got="an infinity", remedy="Pass a number or None")  # fmt: skip
    elif value is None or isinstance(value, str | int):  # before mappings, of which it is slow to ask
        return
    elif isinstance(value, Mapping):
        for key, part in value.items():
            _check_finite(part, key)
    elif isinstance(value, list | tuple):
        for part in value:
            _check_finite(part, name)
    elif callable(item := getattr(value, "item", None)):  # of NumPy
        _check_finite(item(), name)


def _encode(body: Any) -> bytes:
    """JSON, of times and NumPy numbers as well."""
    import msgspec

    _check_finite(body)

    def plain(value: Any) -> Any:
        if isinstance(value, datetime) and value.tzinfo is not None:  # of a class of its own, like those of pandas
            return value.isoformat()
        if callable(item := getattr(value, "item", None)):
            return item()
        raise InputError("a value must be text, a number, true, false, a time or null", where="request",
                         got=type(value).__name__, remedy="Convert it first")  # fmt: skip

    return msgspec.json.encode(body, enc_hook=plain)
