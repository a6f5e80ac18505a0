"""One connection of a caller: what it may send, how long that may take, and how long it may leave answers untaken.

uvicorn waits for the head of a request as long as it takes, keeps a header of any length, takes any number of requests
before it answers the first, waits for ever for a caller that reads nothing, drops the body of a request that offers
another protocol, and leaves a caller that closes its sending half without an answer. Bodies have their limits in the
application, which knows the address.
"""

from __future__ import annotations

import asyncio
import resource
from contextlib import suppress
from time import perf_counter_ns
from typing import Any

from httptools import HttpParserError, HttpParserUpgrade
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT, FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from retrodict.serving.turns import read_head

__all__ = ["ARRIVED", "COMPLETE", "BoundedConnection", "DrainingState", "raise_open_files"]

ARRIVED, COMPLETE = "retrodict.arrived", "retrodict.complete"
"""In a request's scope, when its head and its last byte came, by ``time.perf_counter_ns()``."""

HEAD_S = 10.0
"""Seconds from the first byte of a request, or from the connection, to the end of its headers."""

HEAD_BYTES, HEADERS = 64 << 10, 100
OVERHEAD_BYTES = 1 << 20
"""What may come behind a head that is no body: sizes, extensions and trailers of chunks."""

TAKEN_S, LAST_TAKEN_S = 10.0, 1.0
"""Seconds in which a caller must take something of what was written; and when the server is about to end."""

WAITING, PIECE_BYTES = 16, 1 << 10
"""Requests of one connection that wait for the answer to an earlier one, beyond which nothing more is parsed; and how
much is parsed between two looks at their number."""
_FILES = 65_536
_TURNED_AWAY = STATUS_LINE[429] + (
    b"content-type: application/json\r\nretry-after: 1\r\nx-content-type-options: nosniff\r\n"
    b"cache-control: no-store\r\ncontent-length: %d\r\n\r\n"
)


class _Refused(Exception):
    """Ends the parser's work; the connection knows why."""


class _Flow(FlowControl):
    """Reads nothing as long as something that was read has not been parsed."""

    leftover = False

    def resume_reading(self) -> None:
        """Read on, if there is nothing left."""
        if not self.leftover:
            super().resume_reading()


class _Answering(RequestResponseCycle):
    """Writes an answer in one piece: those of our application come whole, with their length and names in lower case."""

    async def send(self, message: Any) -> None:
        """Take the head of an answer, then its body."""
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        if not self.response_started:
            self.response_started, self._head = True, message
        elif not self.disconnected and not self.transport.is_closing():
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
    excess = 0
    """Connections of which another worker should have the next requests: each says so with its next answer."""

    def drain(self) -> None:
        """Say ``Connection: close`` with the last answer of each connection, so that no caller is surprised."""
        self.draining = True
        for connection in self.connections:
            assert isinstance(connection, BoundedConnection)
            cycle: Any = connection.cycle  # none before the first request; the newest, if several came together
            if cycle is not None:
                cycle.keep_alive = False


class BoundedConnection(HttpToolsProtocol):
    """A connection whose heads are bounded in time, size and number of headers, and its waiting requests in number."""

    flow: _Flow
    _head_timer: asyncio.TimerHandle | None = None
    _write_timer: asyncio.TimerHandle | None = None
    _head_bytes = _overhead = _body_bytes = _skip = 0
    _in_head = True
    _half_closed = _head_came = _upgrading = False
    _unread: memoryview | bytes = b""
    _running: RequestResponseCycle | None = None
    _problem: tuple[int, str] | None = None
    _refusal: bytes | None = None

    def connection_made(self, transport: Any) -> None:
        """Time counts from here."""
        super().connection_made(transport)
        self.flow = _Flow(transport)
        # So that we are told of every caller that does not take all. One of TLS calls nothing at all too much, at 0.
        transport.set_write_buffer_limits(high=0 if transport.get_extra_info("sslcontext") is None else 1, low=0)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Let go of the timers, and of what nobody waits for."""
        self._head_ends()
        self.resume_writing()
        self._unread = b""
        if self._running is not None and not self._running.response_complete:
            self._running.disconnected = True  # uvicorn tells the newest of several only
            self._running.message_event.set()
        super().connection_lost(exc)

    def shutdown(self) -> None:
        """End after what has come; a caller that takes nothing has little time left."""
        super().shutdown()
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._await_taken()

    def pause_writing(self) -> None:
        """Something waits to be taken by the caller."""
        super().pause_writing()
        if self._write_timer is None:
            self._await_taken()

    def resume_writing(self) -> None:
        """The caller has taken all."""
        super().resume_writing()
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None

    def data_received(self, data: bytes) -> None:
        """Feed the parser, as far as no more requests wait than may, and refuse a head that has grown too large."""
        if self._skip:  # the rest of a request that was turned away
            data, self._skip = data[self._skip :], max(self._skip - len(data), 0)
        if data and self._refusal is None and not (self._fresh and self._turn_away(data)):
            self._unread = memoryview(bytes(self._unread) + data if self._unread else data)
            self._feed()

    @property
    def _fresh(self) -> bool:
        """Whether a new request begins here, which nothing has to wait for."""
        cycle: Any = self.cycle  # none before the first request
        begins = not self._head_bytes if self._in_head else self._head_timer is None
        done = not cycle or (cycle.response_complete and not cycle.more_body)
        return begins and done and not self._unread and not self.flow.write_paused

    def _turn_away(self, data: bytes) -> bool:
        """Answer a request for which there is no place without parsing it, if it is as nearly all requests are."""
        app: Any = self.app
        if not app.turns.taken or getattr(self.server_state, "draining", False) or self.transport.is_closing():
            return False
        head = read_head(data)
        body = None if head is None else app.turn_away(head)
        if head is None or body is None:
            return False
        self._skip = head.missing
        self._head_ends()
        self.transport.write(_TURNED_AWAY % len(body) + body)
        super().on_response_complete()  # from here on it is idle, also while it sends the rest
        return True

    def _feed(self) -> None:
        self._unset_keepalive_if_required()
        while self._unread and not self._full and self._refusal is None and not self.transport.is_closing():
            size = PIECE_BYTES
            if len(self._unread) > size:  # what is left of a body holds no request
                length = next((int(value) for name, value in self.headers or () if name == b"content-length"), 0)
                size = max(size, length - self._body_bytes)
            piece, self._unread = self._unread[:size], self._unread[size:]
            self._parse(piece)
        self.flow.leftover = bool(self._unread)
        if self.flow.leftover:
            self.flow.pause_reading()

    @property
    def _full(self) -> bool:
        return len(self.pipeline) >= WAITING or (bool(self.pipeline) and len(self.cycle.body) > HIGH_WATER_LIMIT)

    def _parse(self, data: memoryview | bytes) -> None:
        if self._in_head:
            self._head_bytes += len(data)
        elif self._head_timer is None and self._idle:  # the next request of a connection that is kept
            self._await_head()
            self._head_bytes += len(data)
        else:
            self._overhead += len(data)
        try:
            self.parser.feed_data(data)
        except HttpParserError:  # what was sent is not repeated
            self._refuse(*(self._problem or (400, "the request must be HTTP/1.1")))
        except HttpParserUpgrade as offer:
            self._decline(data[offer.args[0] :])
        if self._overhead > OVERHEAD_BYTES:
            self._refuse(413, "a body must not be mostly the frames of its chunks")
        if self._in_head and self._head_bytes > HEAD_BYTES:
            self._refuse(431, f"the head of a request must have at most {HEAD_BYTES >> 10} KiB")

    def _decline(self, rest: memoryview | bytes) -> None:
        """Parse a head again without the protocol that it offers: the parser takes what follows for another one."""
        head = [f"{self.scope['method']} ".encode(), self.url, f" HTTP/{self.scope['http_version']}\r\n".encode()]
        for name, value in self.headers:
            if name != b"upgrade":
                head += (name, b": ", value, b"\r\n")
        self._unread = memoryview(b"".join([*head, b"\r\n", rest, self._unread]))
        self._head_bytes = 0

    def on_message_begin(self) -> None:
        """Headers come from here on."""
        super().on_message_begin()
        self._head_came = self._upgrading = False

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header, up to a number of them; what comes behind a body is none."""
        if self._head_came:
            return
        super().on_header(name, value)
        if len(self.headers) > HEADERS:
            self._problem = 431, f"a request must have at most {HEADERS} headers"
            raise _Refused

    def on_headers_complete(self) -> None:
        """The head has come."""
        self._head_came, self._body_bytes = True, 0
        self._upgrading = self.parser.should_upgrade()
        if self._upgrading:
            self.scope["method"] = self.parser.get_method().decode("ascii")
            self.scope["http_version"] = self.parser.get_http_version()
            if self.scope["method"] == "CONNECT":
                self._problem = 501, "this is no proxy"
                raise _Refused
            return
        if any(name == b"transfer-encoding" and value.strip().lower() != b"chunked" for name, value in self.headers):
            self._problem = 501, "a body must be chunked or have a length, and no other transfer encoding"
            raise _Refused
        self._head_ends()
        self._overhead = 0
        self._stamp(self.scope, ARRIVED)
        super().on_headers_complete()
        state = self.server_state
        if getattr(state, "draining", False):
            self.cycle.keep_alive = False
        elif isinstance(state, DrainingState) and state.excess and not self.pipeline:
            state.excess -= 1
            self.cycle.keep_alive = False

    def on_message_complete(self) -> None:
        """Nothing is missing any more: what the request waits from here on is our doing."""
        if not self._upgrading:
            self._stamp(self.scope, COMPLETE)
            super().on_message_complete()

    def on_body(self, body: bytes) -> None:
        """Take a piece of the body."""
        self._overhead -= len(body)
        self._body_bytes += len(body)
        super().on_body(body)

    def eof_received(self) -> bool | None:  # type: ignore[override]  # True keeps the sending half open
        """Whether the connection stays open: as long as a request that came whole has no answer."""
        cycle: Any = self.cycle  # none before the first request
        self._half_closed = bool(cycle) and not cycle.response_complete and not cycle.more_body
        return self._half_closed or None

    def on_response_complete(self) -> None:
        """After the last answer nothing more can come from a caller that has closed its half."""
        super().on_response_complete()  # which starts the next of several requests that came together
        if self._unread:
            self._feed()
            self.flow.resume_reading()
        if self._refusal is not None and self._running is not None and self._running.response_complete:
            self._end(self._refusal)
        if self._half_closed and self._idle and not self.pipeline:
            self.transport.close()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        cycle.__class__ = _Answering  # uvicorn makes them, and has no place to say of which class
        self._running = cycle
        if not cycle.more_body:  # it came behind another request, and waited for its answer: no time of ours
            self._stamp(cycle.scope, ARRIVED)
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

    def _await_taken(self) -> None:
        wait = LAST_TAKEN_S if getattr(self.server_state, "draining", False) else TAKEN_S
        self._write_timer = self.loop.call_later(wait, self._not_taken, self.transport.get_write_buffer_size())

    def _not_taken(self, before: int) -> None:
        if self.transport.get_write_buffer_size() < before:
            self._await_taken()
        else:
            self.transport.abort()

    def _refuse(self, status: int, text: str) -> None:
        """Say no and close, after the answers to what came whole before."""
        if self._refusal is not None or self.transport.is_closing():
            return
        body = f'{{"error":"{text}"}}'.encode()
        head = b"content-type: application/json\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % len(body)
        self._refusal, self._unread = STATUS_LINE[status] + head + body, b""
        self._head_ends()
        if self.pipeline and self.cycle.more_body:
            self.pipeline.popleft()  # the newest will never be whole
        running = self._running
        if running is None or running.response_complete or running.more_body:
            self._end(self._refusal)

    def _end(self, refusal: bytes) -> None:
        if not self.transport.is_closing():
            self.transport.write(refusal)
            self.transport.close()


def raise_open_files() -> None:
    """Let the process have as many connections as the machine allows it: the usual limit of 1,024 is soon reached."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = _FILES if hard == resource.RLIM_INFINITY else min(_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < limit:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
