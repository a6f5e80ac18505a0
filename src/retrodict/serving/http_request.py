"""A request as ASGI brings it: its headers, how long its caller waits, and its body within limits of size and time."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

from retrodict.core.errors import InputError
from retrodict.decisions.records import DecisionRecord
from retrodict.serving.deadlines import late
from retrodict.serving.http_answer import RefusedRequestError

if TYPE_CHECKING:
    from retrodict.decisions.servant import Servant

__all__ = [
    "BODY_S",
    "DEADLINE_HEADER",
    "ID_HEADER",
    "PRIORITY_HEADER",
    "TIME_HEADER",
    "HttpRequest",
    "Receive",
    "Scope",
    "Send",
    "read_header",
]

Scope = Mapping[str, Any]
Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Send = Callable[[Mapping[str, Any]], Awaitable[None]]

TIME_HEADER, ID_HEADER = b"retrodict-time", b"idempotency-key"
DEADLINE_HEADER, PRIORITY_HEADER = b"retrodict-deadline", b"retrodict-priority"

_MILLISECONDS = re.compile(r"[0-9]{1,9}(\.[0-9]{1,6})?", re.ASCII).fullmatch
BODY_S = 10.0
"""Seconds in which a body must have come; a caller that takes longer is told so."""


@dataclass(slots=True)
class HttpRequest:
    """One request, the part of its path that a route's pattern has in braces, and who sends it, where that is asked.

    ``decided`` is for its traces: records that were made for it, and when they began and ended to become durable. So
    are ``span``, where it had to begin before the answer, ``origin``, what the request is called where other servers
    are asked for it, and ``origins``, those of a server of decisions that this one is made for. ``servant`` is who is
    asked, where a caller has chosen the revision.
    """

    scope: Scope
    receive: Receive
    arrived: int
    parameter: str
    body: bytes = b""
    caller: str | None = None
    route: str = ""
    decided: Sequence[tuple[Sequence[DecisionRecord], int, int]] | None = None
    span: Any = None
    origin: tuple[str, str] | None = None
    origins: Sequence[tuple[str, str]] = ()
    servant: Servant | None = None

    def header(self, name: bytes) -> str | None:
        """Value of a header that is of no weight: the last one, if it stands more than once."""
        return dict(self.scope["headers"]).get(name, b"").decode("latin-1") or None

    def name(self) -> str | None:
        """What its caller calls it, for logs and for servers that are asked; None where that is no plain short text."""
        if self.origin is not None:
            return self.origin[0]
        names = filter(None, map(self.header, (ID_HEADER, b"x-request-id")))
        return next((one for one in names if len(one) <= 200 and one.isascii() and one.isprintable()), None)

    def has_left(self) -> bool:
        """Whether the caller has left, as far as the connection knows."""
        return bool(getattr(getattr(self.receive, "__self__", None), "disconnected", False))

    def limit_ns(self) -> int | None:
        """Nanoseconds from the arrival on that the caller waits for the answer; None: as long as it takes."""
        text = read_header(self.scope, DEADLINE_HEADER, "Retrodict-Deadline")
        if text is None:
            return None
        if not _MILLISECONDS(text):
            raise InputError("a deadline must be the milliseconds that the caller will still wait",
                             where="header Retrodict-Deadline", got="something else",
                             remedy="Send a number such as 250 or 12.5")  # fmt: skip
        limit = int(float(text) * 1e6)
        if perf_counter_ns() - self.arrived >= limit:
            raise late()
        return limit

    def until_ns(self) -> int | None:
        """``time.perf_counter_ns()`` until which the caller waits; None: as long as it takes."""
        limit = self.limit_ns()
        return None if limit is None else self.arrived + limit

    def is_batch(self) -> bool:
        """Whether others go first."""
        priority = read_header(self.scope, PRIORITY_HEADER, "Retrodict-Priority")
        if priority not in (None, "normal", "batch"):
            raise InputError("a priority must be normal or batch", where="header Retrodict-Priority",
                             got="something else", remedy="Send one of the two, or leave it out")  # fmt: skip
        return priority == "batch"

    async def read_body(self, limit: int) -> bytes:
        """Body, never more than ``limit`` bytes of it in memory, and never waited for longer than ``BODY_S``."""
        cycle = getattr(self.receive, "__self__", None)
        if getattr(cycle, "more_body", True) is False:  # all of it came with the head, as is usual: nothing to wait for
            self.body = await self._read_body(limit)
            return self.body
        try:
            async with asyncio.timeout(BODY_S):
                self.body = await self._read_body(limit)
                return self.body
        except TimeoutError:
            raise RefusedRequestError(
                408, f"a body must arrive within {BODY_S:.0f} s", ((b"connection", b"close"),)
            ) from None

    async def _read_body(self, limit: int) -> bytes:
        length = b"0"
        for name, value in self.scope["headers"]:
            if name == b"content-length":
                length = value
            elif name == b"content-encoding" and value.lower() != b"identity":
                raise RefusedRequestError(
                    415, "a body must come as it is, not compressed", ((b"connection", b"close"),)
                )
        if length.isdigit() and int(length) > limit:
            raise _too_long(limit)
        chunks, size = [], 0
        while True:
            message = await self.receive()
            if message["type"] == "http.disconnect":
                raise RefusedRequestError(499, "the caller left before the body was complete")
            chunk = message.get("body", b"")
            size += len(chunk)
            if size > limit:
                raise _too_long(limit)
            chunks.append(chunk)
            if not message.get("more_body", False):
                return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def _too_long(limit: int) -> RefusedRequestError:
    return RefusedRequestError(413, f"a body must be at most {limit} bytes", ((b"connection", b"close"),))


def read_header(scope: Scope, name: bytes, written: str) -> str | None:
    """Value of a header; None where it is not sent."""
    values = [value for key, value in scope["headers"] if key == name]
    if len(values) > 1:
        raise InputError("a header must stand once", where=f"header {written}", got=len(values),
                         remedy="Send one of them")  # fmt: skip
    return values[0].decode("latin-1") if values else None
