"""Threads for code that may hang: nobody waits for one beyond a deadline, and the end of the process for none at all.

A thread cannot be ended from outside, so what hangs in one is left behind. The pool of the standard library was
rejected for that: the interpreter waits at its exit for every thread of it.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import Executor, Future
from queue import SimpleQueue
from typing import Any, TypeVar

from retrodict.core.errors import DefinitionError
from retrodict.core.retries import left_s

__all__ = ["BoundedThreads", "DaemonThreads", "HangingError"]

_LEAST, _HANGING = 4, 2
_CLOSE_S = 1.0

T = TypeVar("T")
_Calls = SimpleQueue[tuple["Future[Any]", Callable[[], Any]] | None]


class HangingError(TimeoutError):
    """Too many calls of a model have not come back: it is not called before one of them does."""


class DaemonThreads(Executor):
    """As a pool of the standard library, but what hangs in it keeps no process alive.

    Parameters
    ----------
    threads : int
        At once; each begins when it is needed first.
    name : str
        What their names begin with.
    """

    def __init__(self, threads: int, name: str) -> None:
        self._limit, self._name, self._lock = threads, name, threading.Lock()
        self._calls: _Calls = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._open = 0
        weakref.finalize(self, _dismiss, self._calls, self._threads)

    def submit(self, call: Callable[..., T], /, *values: Any, **options: Any) -> Future[T]:
        """Future of a call."""
        future: Future[T] = Future()
        with self._lock:
            self._open += 1
            if self._open > len(self._threads) < self._limit:
                name = f"{self._name}-{len(self._threads)}"
                self._threads.append(threading.Thread(target=_work, args=(self._calls,), name=name, daemon=True))
                self._threads[-1].start()
        future.add_done_callback(self._close_one)
        self._calls.put((future, lambda: call(*values, **options)))
        return future

    def _close_one(self, _: Future[Any]) -> None:
        with self._lock:
            self._open -= 1

    def close(self) -> None:
        """Let go of the threads; those that work have a second to end."""
        _dismiss(self._calls, self._threads)
        until = time.monotonic() + _CLOSE_S
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))


class BoundedThreads:
    """Threads of one model: what hangs in them takes none from any other.

    For one event loop. A call that has not come back when its caller gives up is left behind, and hangs once it has
    run for longer than any call may; while two do, nothing is called, so that a model that hangs for good costs a few
    threads and its callers no time. Callers who are in a hurry make none hang.

    Parameters
    ----------
    patience_ns : int
        Nanoseconds that a call may run: the policy's deadline.
    ends : bool, default False
        Whether every call ends by itself, as that of a server does: all threads may then wait.
    """

    def __init__(self, patience_ns: int, *, ends: bool = False) -> None:
        threads = max(_LEAST, os.cpu_count() or 1)
        self._pool = DaemonThreads(threads, "retrodict-engine")
        self._ending = DaemonThreads(threads, "retrodict-decide")  # so that it waits for nothing that hangs
        self._limit, self._patience_ns = threads if ends else _HANGING, patience_ns
        self._left: dict[asyncio.Future[Any], list[int]] = {}  # behind, and when each began

    @property
    def hanging(self) -> int:
        """Calls that have run for longer than any may, and that nobody waits for."""
        late = time.perf_counter_ns() - self._patience_ns
        return sum(began < late for moments in self._left.values() for began in moments)

    async def run(self, call: Callable[[], T], until_ns: int | None) -> T:
        """Result of a call, by a moment of ``time.perf_counter_ns()``; None: whenever it comes.

        Raises
        ------
        TimeoutError
            After that; HangingError at once while too many have not come back.
        """
        if (hanging := self.hanging) >= self._limit:
            raise HangingError(f"{hanging} calls of the model have not come back")
        began: list[int] = []

        def work_through() -> T:
            began.append(time.perf_counter_ns())
            return call()

        work = self._pool.submit(work_through)
        result = asyncio.wrap_future(work)
        result.add_done_callback(lambda result: result.cancelled() or result.exception())  # else asyncio reports it
        if (await asyncio.wait([result], timeout=None if until_ns is None else left_s(until_ns)))[0]:
            return result.result()
        if not work.cancel():  # it has begun
            self._left[result] = began
            result.add_done_callback(self._left.pop)
        raise TimeoutError("deadline passed before the model came back")

    async def finish(self, call: Callable[[], T]) -> T:
        """Result of a call that ends by itself, whenever that is."""
        return await asyncio.wrap_future(self._ending.submit(call))

    def close(self) -> None:
        """Let go of the threads; what hangs is left."""
        self._pool.close()
        self._ending.close()


def _dismiss(calls: _Calls, threads: list[threading.Thread]) -> None:
    for _ in threads:
        calls.put(None)


def _work(calls: _Calls) -> None:
    while (one := calls.get()) is not None:
        future, call = one
        if not future.set_running_or_notify_cancel():
            continue
        try:
            result = call()
        except Exception as error:  # noqa: BLE001  # whoever waits gets it
            future.set_exception(error)
        except BaseException as error:  # noqa: BLE001  # it would end the event loop, or a task of it
            ended = DefinitionError("a call must return or raise an exception", where=threading.current_thread().name,
                                    got=type(error).__name__, remedy="Correct that code")  # fmt: skip
            ended.__cause__ = error
            future.set_exception(ended)
        else:
            future.set_result(result)
        del one, future, call
