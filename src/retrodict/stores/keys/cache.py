"""Values in Redis that may be gone at any time: for a cache that processes and machines share.

Whoever reads waits as long as it says and no longer, whatever the server, the network or the resolver does: a read is
made in a thread, and as long as one that was given up goes on, no other is begun. Writes are made later, together, and
left out where many wait or one has just failed. Nothing of it raises: what is not answered is not there.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any, Literal
from urllib.parse import quote

from retrodict.core.errors import RetrodictError
from retrodict.stores._guard import ServerGuard
from retrodict.stores.keys._address import read_address
from retrodict.stores.keys._connections import Connections

__all__ = ["ExpiringKeys"]

_THREADS = 4
_MOST, _AT_ONCE = 1_000, 100  # writes that wait, and those of one round trip
_PAUSE_S = 5.0  # without writes, after one that failed
_MEASURE_S = 5.0

_log = logging.getLogger(__name__)


class ExpiringKeys:
    """Values by key in Redis or Valkey, each for a time of its own. Threads may share it; never across ``fork``.

    The server may evict, and need not be there, also not at opening; it is taken as it is.

    Parameters
    ----------
    url : str
        As for :class:`~retrodict.stores.keys.redis.RedisKeys`.
    guard : ServerGuard
        Its breaker, and how long a read goes on that nobody waits for any more; its retries are not made.

    Attributes
    ----------
    trip_us : float or None
        Microseconds of a round trip, measured again while there are writes; None until the server has answered.
    """

    def __init__(self, url: str, *, guard: ServerGuard) -> None:
        address = read_address(url, "stores.scores")
        self._prefix = b"{%s}scores:" % quote(address.prefix, safe="").encode()
        self._breaker = guard.breaker
        self._server = Connections(address, guard.read_timeout_s, replace(guard, retry=None), keeps=False)
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="retrodict-cache")
        self._waiting: deque[tuple[bytes, bytes, int]] = deque()
        self._lock, self._writing, self._pause_until, self._measured = threading.Lock(), False, 0.0, 0.0
        self._given_up: Future[Any] | None = None
        self.trip_us: float | None = None
        self._begin_write()

    def get_many(self, keys: Sequence[bytes], wait_s: float) -> list[bytes | None] | Literal["late", "away"]:
        """Values in the order of the keys, None where there is none; or why nothing is known after ``wait_s``."""
        if self._given_up is not None and not self._given_up.done():
            return "late"
        if self._breaker.state == "open":
            return "away"
        try:
            read = self._threads.submit(self._server.read, b"MGET", *[self._prefix + key for key in keys])
        except RuntimeError:  # it was closed
            return "away"
        try:
            values: list[bytes | None] = read.result(wait_s)
        except TimeoutError:
            if not read.cancel():
                self._given_up = read
            return "late"
        except RetrodictError:
            return "away"
        return values

    def put(self, key: bytes, value: bytes, ttl_ms: int) -> bool:
        """Store a value soon, for so many milliseconds; False where it is left out."""
        if time.monotonic() < self._pause_until or len(self._waiting) >= _MOST or self._breaker.state == "open":
            return False
        self._waiting.append((self._prefix + key, value, ttl_ms))
        return self._begin_write()

    def _begin_write(self) -> bool:
        with self._lock:
            if not self._writing:
                try:
                    self._threads.submit(self._write)
                except RuntimeError:  # it was closed
                    return False
                self._writing = True
        return True

    def _write(self) -> None:
        try:
            if time.monotonic() - self._measured > _MEASURE_S:
                self._measure()
            while items := self._next():
                self._server.ask(*((b"SET", key, value, b"PX", ttl) for key, value, ttl in items), writes=True)
        except RetrodictError as error:
            self._pause_until = time.monotonic() + _PAUSE_S
            with self._lock:
                self._waiting.clear()
                self._writing = False
            _log.warning("no scores are shared for %g s: %s", _PAUSE_S, error)

    def _next(self) -> list[tuple[bytes, bytes, int]]:
        with self._lock:
            items = [self._waiting.popleft() for _ in range(min(_AT_ONCE, len(self._waiting)))]
            self._writing = bool(items)
        return items

    def _measure(self) -> None:
        times = []
        for _ in range(4):  # the first may have to connect
            before = time.perf_counter_ns()
            self._server.read(b"MGET", self._prefix)
            times.append(time.perf_counter_ns() - before)
        self.trip_us, self._measured = min(times) / 1e3, time.monotonic()

    def close(self) -> None:
        """Write what waits, and end all connections; a second call does nothing."""
        self._threads.shutdown()
        self._server.close()
