"""One connection of a caller: how long its head may take and how large it may be, and an answer after its last byte.

uvicorn waits for the head of a request as long as it takes, keeps a header of any length, and leaves a caller that
closes its sending half without an answer. Bodies have their limits in the application, which knows the address.
"""

from __future__ import annotations

import asyncio
import resource
from contextlib import suppress
from time import perf_counter_ns
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

__all__ = ["ARRIVED", "COMPLETE", "BoundedConnection", "DrainingState", "raise_open_files"]

ARRIVED, COMPLETE = "retrodict.arrived", "retrodict.complete"
"""In a request's scope, when its head and its last byte came, by ``time.perf_counter_ns()``."""

HEAD_S = 10.0
"""Seconds from the first byte of a request, or from the connection, to the end of its headers."""

HEAD_BYTES, HEADERS = 64 << 10, 100
OVERHEAD_BYTES = 1 << 20
"""What may come behind a head that is no body: sizes, extensions and trailers of chunks."""
_FILES = 65_536


class _TooLarge(Exception):
    """Ends the parser's work: the head is beyond its limits."""


class _Answering(RequestResponseCycle):
    """Writes an answer in one piece: those of our application come whole, with their length and names in lower case."""

    async def send(self, message: Any) -> None:
        """Take the head of an answer, then its body."""
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        if not self.response_started:
            self.response_started, self._head = True, message
        elif not self.disconnected:
            parts = [STATUS_LINE[self._head["status"]]]
            for name, value in self._head["headers"]:
                if name == b"connection":
                    self.keep_alive = False
                else:
                    parts += (name, b": ", value, b"\r\n")
            parts += (b"\r\n" if self.keep_alive else b"connection: close\r\n\r\n", message["body"])
            self.transport.write(b"".join(parts))
            self.response_complete = True
            self.message_event.set()
            if not self.keep_alive:
                self.transport.close()
            self.on_response()


class DrainingState(ServerState):
    """What the connections of one server share, whether it is about to end among it."""

    draining = False

    def drain(self) -> None:
        """Say ``Connection: close`` with the last answer of each connection, so that no caller is surprised."""
        self.draining = True
        for connection in self.connections:
            assert isinstance(connection, BoundedConnection)
            cycle: Any = connection.cycle  # none before the first request; the newest, if several came together
            if cycle is not None:
                cycle.keep_alive = False


class BoundedConnection(HttpToolsProtocol):
    """A connection whose heads are bounded in time, size and number of headers."""

    _head_timer: asyncio.TimerHandle | None = None
    _head_bytes = _overhead = 0
    _in_head = True
    _half_closed = False

    def connection_made(self, transport: Any) -> None:
        """Time counts from here."""
        super().connection_made(transport)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Let go of the timer."""
        self._head_ends()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Feed the parser, and refuse a head that has grown too large."""
        if self._in_head:
            self._head_bytes += len(data)
        elif self._head_timer is None and self._idle:  # the next request of a connection that is kept
            self._await_head()
            self._head_bytes += len(data)
        else:
            self._overhead += len(data)
        super().data_received(data)
        if self._overhead > OVERHEAD_BYTES and not self.transport.is_closing():
            self._refuse(413, "a body must not be mostly the frames of its chunks")
        if self._in_head and self._head_bytes > HEAD_BYTES and not self.transport.is_closing():
            self._refuse(431, f"the head of a request must have at most {HEAD_BYTES >> 10} KiB")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header, up to a number of them."""
        super().on_header(name, value)
        if len(self.headers) > HEADERS:
            raise _TooLarge

    def on_headers_complete(self) -> None:
        """The head has come."""
        self._head_ends()
        self._overhead = 0
        self._stamp(self.scope, ARRIVED)
        super().on_headers_complete()
        if getattr(self.server_state, "draining", False):
            self.cycle.keep_alive = False

    def on_message_complete(self) -> None:
        """Nothing is missing any more: what the request waits from here on is our doing."""
        self._stamp(self.scope, COMPLETE)
        super().on_message_complete()

    def on_body(self, body: bytes) -> None:
        """Take a piece of the body."""
        self._overhead -= len(body)
        super().on_body(body)

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002  # it may repeat what was sent
        """Answer what the parser refused; what was sent is not repeated."""
        headers: list[Any] | None = self.headers  # none before the first request
        if len(headers or ()) > HEADERS:
            self._refuse(431, f"a request must have at most {HEADERS} headers")
        else:
            self._refuse(400, "the request must be HTTP/1.1")

    def eof_received(self) -> bool | None:  # type: ignore[override]  # True keeps the sending half open
        """Whether the connection stays open: as long as a request that came whole has no answer."""
        cycle: Any = self.cycle  # none before the first request
        self._half_closed = bool(cycle) and not cycle.response_complete and not cycle.more_body
        return self._half_closed or None

    def on_response_complete(self) -> None:
        """After the last answer nothing more can come from a caller that has closed its half."""
        super().on_response_complete()  # which starts the next of several requests that came together
        if self._half_closed and self._idle and not self.pipeline:
            self.transport.close()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        cycle.__class__ = _Answering  # uvicorn makes them, and has no place to say of which class
        if not cycle.more_body:  # it came behind another request, and has waited for its answer
            self._stamp(cycle.scope, COMPLETE)
        super()._start_asgi_task(cycle, app)

    @staticmethod
    def _stamp(scope: Any, name: str) -> None:
        scope[name] = perf_counter_ns()

    @property
    def _idle(self) -> bool:
        cycle: Any = self.cycle
        return not cycle or cycle.response_complete

    def _await_head(self) -> None:
        self._in_head, self._head_bytes = True, 0
        self._head_timer = self.loop.call_later(HEAD_S, self._too_slow)

    def _head_ends(self) -> None:
        self._in_head = False
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _too_slow(self) -> None:
        self._head_timer = None
        if self._in_head and not self.transport.is_closing():
            self._refuse(408, f"the head of a request must arrive within {HEAD_S:.0f} s")

    def _refuse(self, status: int, text: str) -> None:
        body = f'{{"error":"{text}"}}'.encode()
        head = b"content-type: application/json\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % len(body)
        self.transport.write(STATUS_LINE[status] + head + body)
        self.transport.close()


def raise_open_files() -> None:
    """Let the process have as many connections as the machine allows it: the usual limit of 1,024 is soon reached."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = _FILES if hard == resource.RLIM_INFINITY else min(_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < limit:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
