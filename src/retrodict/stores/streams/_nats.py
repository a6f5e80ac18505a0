"""A connection to NATS with a synchronous face: one event loop in a thread of its own.

``nats-py`` is asyncio only. Its own reconnecting was rejected: it resends what was buffered without telling what
became of it, and a request whose answer was lost waits until its time is up. Here a connection that breaks ends every
call on it at once, and the call begins again on a new one until its time limit.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import threading
import weakref
from collections.abc import Callable, Coroutine, Mapping, Sequence
from importlib.util import find_spec
from typing import Any, TypeVar

from retrodict.core.errors import (
    ConfigurationError,
    MissingExtraError,
    RetrodictError,
    RetryableError,
    ServerAwayError,
)
from retrodict.stores._guard import ServerGuard
from retrodict.stores._ownership import check_usable

T = TypeVar("T")

_PAUSE_S = 0.05
_CLOSE_S = 1.0
_OPTIONS: dict[str, Any] = {
    "name": "retrodict",
    "allow_reconnect": False,
    "max_reconnect_attempts": 1,
    "reconnect_time_wait": _PAUSE_S,
    "connect_timeout": 2,
}
# As the tools of NATS name them in the environment.
_CREDENTIALS = {"user": "NATS_USER", "password": "NATS_PASSWORD", "token": "NATS_TOKEN"}
# JetStream is off for the server or the account: waiting does not help.
_NOT_ENABLED = {10039, 10076}
_UNAVAILABLE = 503


class ApiError(Exception):
    """An error that JetStream answered: its code, and whether it may pass by itself."""

    def __init__(self, answer: Mapping[str, Any]) -> None:
        self.code, self.description = int(answer.get("err_code", 0)), str(answer.get("description", ""))
        self.passing = answer.get("code") == _UNAVAILABLE
        super().__init__(self.description)


class Connection:
    """Runs calls on one connection to a server, which is made on first use and made anew when it breaks.

    Threads may share it. A forked child may not: the thread stays with the parent.
    """

    def __init__(self, servers: Sequence[str], timeout_s: float, guard: ServerGuard) -> None:
        if find_spec("nats") is None:
            raise MissingExtraError("nats-py", "nats", needed_for="event streams on NATS JetStream")
        self._servers, self._timeout_s, self._guard = list(servers), timeout_s, guard
        self._pid, self._mutex = os.getpid(), threading.Lock()
        self._thread: _LoopThread | None = None
        self._stop: weakref.finalize[..., Connection] | None = None
        self._closed = False
        self.greetings: list[Callable[[Any], Coroutine[Any, Any, None]]] = []
        """What is done on each new connection before anything else."""

    def call(self, action: Callable[[Any], Coroutine[Any, Any, T]], where: str) -> T:
        """Result of an action on a connected client; begun again if the connection breaks, within the time limit.

        Anything it does may be done twice. RetryableError if the time limit passes without an answer,
        ConfigurationError if the server refuses the credentials or has no JetStream.
        """
        # Before the lock too: a fork may have copied it while another thread held it.
        check_usable("a store of streams", where=where, owner=self._pid, closed=self._closed)
        with self._mutex:
            check_usable("a store of streams", where=where, owner=self._pid, closed=self._closed)
            if self._thread is None:
                self._thread = _LoopThread()
                self._stop = weakref.finalize(self, self._thread.stop)
            thread = self._thread
        with self._guard.breaker.attempt():
            return thread.run(self._attempts(thread, action, where))

    def forget(self, action: Callable[[Any], Coroutine[Any, Any, None]]) -> None:
        """Tidy up on the server if it is still connected; nobody waits for it."""
        with self._mutex:
            thread = self._thread
        if thread is not None and os.getpid() == self._pid:
            thread.start(action)

    def close(self) -> None:
        """Disconnect and end the thread; a second call does nothing."""
        with self._mutex:
            self._closed, self._thread = True, None
        if self._stop is not None and os.getpid() == self._pid:
            self._stop()

    async def _attempts(self, thread: _LoopThread, action: Callable[[Any], Coroutine[Any, Any, T]], where: str) -> T:
        import nats.errors

        deadline = asyncio.get_running_loop().time() + self._timeout_s
        reason = ""
        while True:
            try:
                async with asyncio.timeout_at(deadline):
                    client, broken = await thread.connected(self._servers, self.greetings)
                    return await _until_broken(action(client), broken)
            except ApiError as error:
                if error.code in _NOT_ENABLED or not error.passing:
                    raise _refused(error, where) from error
                reason = error.description
            except (OSError, nats.errors.Error, TimeoutError) as error:
                await thread.drop()
                if "authorization" in str(error).lower():  # no class of its own while connecting
                    raise ConfigurationError(
                        "the server must accept the credentials",
                        where=where,
                        remedy="Set NATS_USER and NATS_PASSWORD, or NATS_TOKEN, in the environment",
                        got="a refusal",
                    ) from None
                if not (reason and isinstance(error, TimeoutError)):  # time that ran out says less than the server did
                    reason = type(error).__name__  # its text names addresses
            if asyncio.get_running_loop().time() + _PAUSE_S >= deadline:
                raise ServerAwayError(
                    f"the server must answer within {self._timeout_s:g} s",
                    where=where,
                    got=reason,
                    remedy="See that NATS runs with JetStream and can be reached, then try again",
                )
            await asyncio.sleep(_PAUSE_S)


async def _until_broken(work: Coroutine[Any, Any, T], broken: asyncio.Event) -> T:
    """Result of work on a connection; an error as soon as the connection is lost."""
    import nats.errors

    task, watch = asyncio.ensure_future(work), asyncio.ensure_future(broken.wait())
    try:
        await asyncio.wait({task, watch}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise nats.errors.ConnectionClosedError
        return task.result()
    finally:
        task.cancel()
        watch.cancel()
        await asyncio.gather(task, watch, return_exceptions=True)


def _refused(error: ApiError, where: str) -> RetrodictError:
    if error.code in _NOT_ENABLED:
        return ConfigurationError(
            "the server must have JetStream enabled for this account",
            where=where,
            got="no JetStream",
            remedy="Start nats-server with -js, or enable it for the account",
        )
    return RetryableError(
        "the server must take the request",
        where=where,
        got=error.description,
        remedy="Give JetStream what it asks for, then try again",
    )


async def ask(client: Any, subject: str, question: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Answer of the JetStream API to a request; ApiError if the answer is one."""
    data = json.dumps(question).encode() if question else b""
    # The time limit is that of the whole call.
    message = await client.request(f"$JS.API.{subject}", data, timeout=3600)
    answer: dict[str, Any] = json.loads(message.data)
    if "error" in answer:
        raise ApiError(answer["error"])
    return answer


async def _ignore(error: Exception) -> None:
    """What the library reports beside a call: the call itself fails with it."""
    del error


class _LoopThread:
    """An event loop in a daemon thread, and the connection that lives on it."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._client: Any = None
        self._broken, self._connecting = asyncio.Event(), asyncio.Lock()
        self._thread = threading.Thread(target=self._loop.run_forever, name="retrodict-nats", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Result of a coroutine; an interrupt of the caller ends it."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def start(self, action: Callable[[Any], Coroutine[Any, Any, None]]) -> None:
        """Begin an action on the connection, if there is one, and do not wait for it."""

        async def once() -> None:
            if self._client is not None and not self._broken.is_set():
                with contextlib.suppress(Exception):
                    async with asyncio.timeout(_CLOSE_S):
                        await action(self._client)

        asyncio.run_coroutine_threadsafe(once(), self._loop)

    def stop(self) -> None:
        """Disconnect, end what still runs, then the thread."""
        asyncio.run_coroutine_threadsafe(self._end(), self._loop)
        if threading.current_thread() is self._thread:
            return  # collected by the loop's own thread, which cannot wait for itself
        self._thread.join(5 * _CLOSE_S)
        if not self._thread.is_alive():
            self._loop.close()

    async def connected(
        self, servers: list[str], greetings: Sequence[Callable[[Any], Coroutine[Any, Any, None]]]
    ) -> tuple[Any, asyncio.Event]:
        """The connected client, and the event that tells when it no longer is."""
        from nats.aio.client import Client

        async with self._connecting:
            if self._client is not None and not self._broken.is_set():
                return self._client, self._broken
            await self.drop()
            client, broken = Client(), asyncio.Event()

            async def closed() -> None:
                broken.set()

            # Kept before it is connected: an attempt that fails or is given up is closed like any other.
            self._client, self._broken = client, broken
            try:
                secrets = {key: os.environ[name] for key, name in _CREDENTIALS.items() if os.environ.get(name)}
                await client.connect(servers=servers, error_cb=_ignore, closed_cb=closed, **(_OPTIONS | secrets))
                for greet in list(greetings):
                    await greet(client)
            except BaseException:
                broken.set()
                raise
            return client, broken

    async def drop(self) -> None:
        """Disconnect, whatever state the connection is in."""
        client, self._client = self._client, None
        if client is None:
            return
        self._broken.set()
        # A server that is stopped but not dead takes no more bytes: closing properly would wait for it.
        with contextlib.suppress(Exception):
            async with asyncio.timeout(_CLOSE_S):
                await client.close()
        with contextlib.suppress(Exception):
            client._transport.close()  # noqa: SLF001  # a connection that never came about leaves it open

    async def _end(self) -> None:
        await self.drop()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        if others:
            await asyncio.wait(others, timeout=_CLOSE_S)
        self._loop.stop()
