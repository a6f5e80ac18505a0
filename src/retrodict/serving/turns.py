"""Which request is worked on next, and which is told at once to come back.

An event loop reads every socket that has something before it goes on. Without more, a thousand callers who ask at the
same time are all read, then all decided, and nobody hears anything before the last one is through. So requests take
turns: in each turn of the loop as many are let in as two milliseconds hold, or half as long as everything else took, so
that reading never starves deciding, and a long turn is no reason for a longer one. How long the queue is in time is
known from what the last ones took, so who would wait for too long is refused from the head of its request alone. A
limit that adapts to latency was rejected: it cannot tell a few more honest callers from a flood.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import AbstractAsyncContextManager
from time import perf_counter_ns
from types import TracebackType
from typing import NamedTuple

from retrodict.serving.http_answer import RETRY, RefusedRequestError

__all__ = ["QUEUE_SHARE", "RequestHead", "Turns", "full", "read_head"]

_TURN_NS = 2_000_000
_FIRST_NS = 300_000.0  # that a request takes, until it is known
_MEMORY = 1 / 8  # of the newest turn, in a mean
_MOST = 1 << 20  # bytes of a body that are waited for after its request was turned away
_LENGTH, _KEPT = b"\r\ncontent-length: ", b"\r\nconnection: keep-alive\r\n"
_UNUSUAL = b"\r\ntransfer-encoding", b"\r\nexpect", b"\r\nupgrade"
QUEUE_SHARE = 4
"""The queue may be a quarter as long as a request may wait: a pause of the process is no overload, a queue is.
Before a body of many requests it may be as long."""


class RequestHead(NamedTuple):
    """What decides whether a request is turned away: its address, its priority, and how much of it is still to come."""

    path: bytes
    batch: bool
    missing: int


def read_head(data: bytes) -> RequestHead | None:
    """Head of the one POST that some bytes are; None for whatever needs a parser, or keeps no connection."""
    end = data.find(b"\r\n\r\n")
    head = data[: end + 2].lower()
    begin = head.find(_LENGTH) + len(_LENGTH)
    length = head[begin : head.find(b"\r\n", begin)]
    path, _, version = data[: head.find(b"\r\n")].removeprefix(b"POST ").partition(b" ")
    number = length.isdigit() and len(length) < 10 and head.count(b"\r\ncontent-length") == 1
    usual = version == b"HTTP/1.1" and number and (
        head.count(b"\r\nconnection") == head.count(_KEPT) < 2 and not any(name in head for name in _UNUSUAL)
    )  # fmt: skip
    if not usual or not data.startswith(b"POST "):
        return None
    missing = end + 4 + int(length) - len(data)
    return RequestHead(path, b"\r\nretrodict-priority: batch\r\n" in head, missing) if 0 <= missing < _MOST else None


class Turns:
    """Places among the requests that are worked on, and the queue before them; for one event loop.

    Parameters
    ----------
    places : int
        Requests that wait or are worked on. Those of priority ``batch`` may take half of them.
    wait_us : int
        Microseconds that a request may have waited. Those of priority ``batch`` may have a quarter of it.

    Attributes
    ----------
    taken : int
        Places that are taken.
    """

    def __init__(self, places: int, wait_us: int) -> None:
        self._places, self._wait_ns = places, wait_us * 1_000
        self.taken = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._number, self._work_ns, self._others_ns = (
            1.0,
            _FIRST_NS,
            0.0,
        )  # of a turn: let in, their time, and all else
        self._turning = False
        self._let_in, self._begun_ns, self._ended_ns = 0, 0, 0

    @property
    def queued(self) -> int:
        """Requests that wait for their turn."""
        return len(self._waiting)

    @property
    def load(self) -> float:
        """Share of what may be, of places that are taken or of the longest queue, whichever is larger; 1 is refused."""
        return max(self.taken / self._places, len(self._waiting) * self._pace * QUEUE_SHARE / self._wait_ns)

    @property
    def _pace(self) -> float:
        """Nanoseconds until the next one in the queue has its turn."""
        return self._work_ns / self._number + self._others_ns / self._room

    @property
    def _room(self) -> float:
        """How many are let in in a turn: over a third of the time is theirs, and no turn draws out the next."""
        return max(_TURN_NS, self._others_ns / 2) * self._number / self._work_ns

    def is_full(self, *, batch: bool, many: bool = False) -> bool:
        """Whether one more would find no place, or wait for too long; a body of many requests may wait for longer."""
        places, wait = (self._places // 2, self._wait_ns // 4) if batch else (self._places, self._wait_ns)
        return self.taken >= places or len(self._waiting) * self._pace * (1 if many else QUEUE_SHARE) > wait

    def turn(
        self, since_ns: int, *, batch: bool, many: bool = False, limit_ns: int | None = None
    ) -> AbstractAsyncContextManager[None]:
        """Hold a place from its turn on, as an asynchronous context manager.

        Parameters
        ----------
        since_ns : int
            When the request was complete, by ``time.perf_counter_ns()``.
        batch : bool
            Whether others go first.
        many : bool, default False
            Whether its body has many requests: a few of those are a long queue, and none of their callers is in haste.
        limit_ns : int, optional
            Nanoseconds that it may have waited, if fewer than else. A turn, two milliseconds, it may have waited in any
            case: who has less time than that is late without a queue, too.
        """
        return _Turn(self, since_ns, batch, many, limit_ns)

    async def enter(self, since_ns: int, *, batch: bool, many: bool = False, limit_ns: int | None = None) -> None:
        """Wait for a turn and take a place; RefusedRequestError if there is none, or it has come too late."""
        if self.is_full(batch=batch, many=many):
            raise full()
        self.taken += 1
        loop = asyncio.get_running_loop()
        if not self._turning:  # the only one, as far as anybody knows
            self._turning = True
            loop.call_soon(self._next)
        else:
            ready = loop.create_future()
            self._waiting.append(ready)
            try:
                await ready
            except BaseException:
                self.taken -= 1
                raise
        wait_ns = self._wait_ns // 4 if batch else self._wait_ns
        if limit_ns is not None:
            wait_ns = min(wait_ns, max(limit_ns, _TURN_NS))
        if perf_counter_ns() - since_ns > wait_ns:
            self.taken -= 1
            raise full()

    def _begin(self) -> None:
        self._begun_ns = perf_counter_ns()

    def _next(self) -> None:
        """Let in the next ones, once in a turn of the loop: the callbacks of a turn run in the order of their calls."""
        now = perf_counter_ns()
        if self._let_in:
            self._number += (self._let_in - self._number) * _MEMORY
            self._work_ns += (max(now - self._begun_ns, 1) - self._work_ns) * _MEMORY
            self._others_ns += (self._begun_ns - self._ended_ns - self._others_ns) * _MEMORY
        self._ended_ns, self._let_in = now, 0
        self._turning = bool(self._waiting)
        if not self._turning:
            return
        loop, room = asyncio.get_running_loop(), self._room
        loop.call_soon(self._begin)
        while self._waiting and self._let_in < room:
            ready = self._waiting.popleft()
            if not ready.done():  # its task was cancelled
                ready.set_result(None)
                self._let_in += 1
        loop.call_soon(self._next)


class _Turn:
    __slots__ = ("_batch", "_limit_ns", "_many", "_since_ns", "_turns")

    def __init__(self, turns: Turns, since_ns: int, batch: bool, many: bool, limit_ns: int | None) -> None:
        self._turns, self._since_ns, self._batch, self._many, self._limit_ns = turns, since_ns, batch, many, limit_ns

    async def __aenter__(self) -> None:
        await self._turns.enter(self._since_ns, batch=self._batch, many=self._many, limit_ns=self._limit_ns)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._turns.taken -= 1


def full() -> RefusedRequestError:
    """Tell a caller to come back."""
    return RefusedRequestError(429, "the server is at its limit of requests; try again", RETRY)
