"""Connections to one Redis server: taken, checked, given back, and the only place that sees its errors.

The client of ``redis`` was rejected, and its connections are used directly: the client costs more per call than the
server does. Idle connections wait in one deque rather than per thread, so threads may come and go.

Texts of errors do not come through, not as a cause either: those of the library name the host, and those of the server
may repeat keys.
"""

from __future__ import annotations

import contextlib
import os
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, Literal

from retrodict.core.errors import (
    ConfigurationError,
    IntegrityError,
    InternalError,
    MissingExtraError,
    RetrodictError,
    RetryableError,
)
from retrodict.stores.keys._address import Address

try:
    import redis
    from redis.connection import Connection, SSLConnection, UnixDomainSocketConnection
except ImportError as error:
    raise MissingExtraError("redis", "redis", needed_for="a key store in Redis") from error

__all__ = ["WHERE", "Connections", "Durability"]

Durability = Literal["always", "on request", "server"]

WHERE = "key store in Redis"
_KINDS: dict[str, Any] = {"tcp": Connection, "tls": SSLConnection, "unix": UnixDomainSocketConnection}


class Connections:
    """As many connections as calls run at once; never across fork.

    Parameters
    ----------
    address : Address
        Where the server is.
    timeout_s : float
        How long connecting, and each answer, is waited for, in seconds.
    """

    def __init__(self, address: Address, timeout_s: float) -> None:
        self._address, self._timeout_s = address, timeout_s
        self._idle: deque[Any] = deque()
        self._owner, self._closed = os.getpid(), False
        # What durable writes rest on, as the newest connection found it.
        self.durability: Durability = "server"
        self._idle.append(self._take())

    def ask(self, *commands: Sequence[object], writes: bool = False) -> list[Any]:
        """Answers to commands that are sent in one go; an answer that is an error is raised."""
        connection = self._take()
        with _guarded(connection, writes=writes):
            for command in commands:
                connection.send_packed_command(connection.pack_command(*command))
            answers = [_answer(connection) for _ in commands]
            for answer in answers:
                if isinstance(answer, redis.ResponseError):
                    raise answer
        self._idle.append(connection)
        if self._closed:
            self.close()  # another thread closed it meanwhile
        return answers

    def check_usable(self) -> None:
        """Raise if the store was closed, or belongs to the process this one was forked from."""
        if self._closed:
            raise InternalError("a closed key store is not used again", where=WHERE)
        if self._owner != os.getpid():
            raise InternalError(
                "a key store is opened by the process that uses it, not before a fork",
                where=WHERE,
                remedy="Start workers with 'spawn', or open the store after the fork",
            )

    def close(self) -> None:
        """End all connections; those in use end with their call."""
        self._closed = True
        with contextlib.suppress(IndexError):
            while True:
                self._idle.popleft().disconnect()

    def _take(self) -> Any:
        self.check_usable()
        with contextlib.suppress(IndexError):
            while True:
                connection = self._idle.pop()
                # An idle one on which something can be read was closed by the server, or is out of step.
                with contextlib.suppress(redis.RedisError):
                    if not connection.can_read(0):
                        return connection
                connection.disconnect()
        return self._connected()

    def _connected(self) -> Any:
        connection = _KINDS[self._address.kind](
            **self._address.settings,
            protocol=2,
            socket_timeout=self._timeout_s,
            socket_connect_timeout=self._timeout_s,
        )
        with _guarded(connection):
            connection.connect()
            self.durability = _judged(connection, trusting=self._address.trusting)
        return connection


@contextlib.contextmanager
def _guarded(connection: Any, *, writes: bool = False) -> Iterator[None]:
    """End the connection with any exception, and translate those of the library and the system.

    An answer still under way would be taken for that of the next command, and after a failover the next call must look
    for the new primary.
    """
    try:
        yield
    except (redis.RedisError, OSError, UnicodeError) as error:
        connection.disconnect()
        raise _translated(error, writes=writes) from None
    except BaseException:
        connection.disconnect()
        raise


def _answer(connection: Any) -> Any:
    try:
        return connection.read_response()
    except redis.ResponseError as error:
        return error


def _judged(connection: Any, *, trusting: bool) -> Durability:
    """What durable writes can rest on at this server; refuses one that forgets."""

    def told(*command: object) -> Any:
        connection.send_packed_command(connection.pack_command(*command))
        return _answer(connection)

    # A server may keep its settings to itself; an answer that is an error tells nothing.
    settings: dict[bytes, bytes] = {}
    for pattern in ("*append*", "maxmemory*"):
        pairs = told("CONFIG", "GET", pattern)
        settings |= {} if isinstance(pairs, Exception) else dict(zip(pairs[::2], pairs[1::2], strict=True))
    if settings.get(b"maxmemory", b"0") != b"0" and settings[b"maxmemory-policy"].startswith(b"allkeys"):
        raise ConfigurationError(
            "a server that holds a key store evicts no keys",
            where=WHERE,
            got=f"maxmemory-policy {settings[b'maxmemory-policy'].decode()}",
            remedy="Set maxmemory-policy to 'noeviction'",
        )
    if trusting:
        return "server"
    wanted = {b"appendonly": b"yes", b"appendfsync": b"always", b"no-appendfsync-on-rewrite": b"no"}
    if wanted.items() <= settings.items():
        return "always"
    if not isinstance(told("WAITAOF", 1, 0, 1), Exception):
        return "on request"
    raise ConfigurationError(
        "this server does not promise that a durable write survives a loss of power",
        where=WHERE,
        remedy="Set appendonly to 'yes' and appendfsync to 'always' (from Redis 7.2 on appendonly is enough), or "
        "accept it by 'durability=server' in the URL",
    )


def _translated(error: Exception, *, writes: bool) -> RetrodictError:
    """Our error for one of the library or the system."""
    if isinstance(error, redis.ResponseError):
        return _refusal(error)
    if isinstance(error, redis.AuthenticationError):
        return ConfigurationError(
            "the server refuses the user or the password", where=WHERE, remedy="Look at both in the URL"
        )
    if isinstance(error, redis.BusyLoadingError):
        return RetryableError("the server is still reading its files", where=WHERE, remedy="Try again")
    waited = isinstance(error, redis.TimeoutError)
    rule = "the server did not answer in time" if waited else "there is no connection to the server"
    doubt = ", and whether the write was stored is not known" if writes else ""
    return RetryableError(rule + doubt, where=WHERE, remedy="Look whether it runs, and try again")


_RETRYABLE = {
    "READONLY": "the server is a replica, which only reads, or is becoming one",
    "MISCONF": "the server cannot write to its disk",
    "NOREPLICAS": "the server misses replicas",
    "BUSY": "the server is busy with a script",
    "MASTERDOWN": "the server has lost its primary",
    "CLUSTERDOWN": "the cluster is down",
    "TRYAGAIN": "the cluster is moving keys",
}
_CONFIGURED = {
    "OOM": ("the server has reached its maxmemory, and nothing of this write was stored", "Give it more"),
    "NOPERM": ("the user may not do this on the server", "Allow it all keys of the prefix, EVAL and what it calls"),
    "MOVED": ("this node of a cluster does not hold the prefix", "Name the node that does"),
    "unknown": (
        "the server lacks a command that a key store needs",
        "Allow MGET and EVAL; Redis 7.0 or newer has both",
    ),
    "DB": ("the server has no database of this number", "Name one that it has, or tell stores apart by their prefix"),
}


def _refusal(error: redis.ResponseError) -> RetrodictError:
    """Our error for an answer that is one."""
    code = _CODES.get(type(error)) or str(error).partition(" ")[0]
    if code in _RETRYABLE:
        return RetryableError(_RETRYABLE[code], where=WHERE, remedy="Try again")
    if code in _CONFIGURED:
        rule, remedy = _CONFIGURED[code]
        return ConfigurationError(rule, where=WHERE, remedy=remedy)
    if code == "WRONGTYPE":
        return IntegrityError(
            "something else is stored under the prefix", where=WHERE, remedy="Give this store a prefix of its own"
        )
    if code.isupper() and code.isalpha():
        return InternalError("the server refused a command", where=WHERE, got=code)
    return InternalError("the server refused a command", where=WHERE, got=type(error).__name__)


# The library takes the code off the text of the errors it has a class for.
_CODES: dict[type, str] = {
    redis.OutOfMemoryError: "OOM",
    redis.ReadOnlyError: "READONLY",
    redis.exceptions.NoPermissionError: "NOPERM",
    redis.exceptions.MovedError: "MOVED",
    redis.exceptions.AskError: "TRYAGAIN",
    redis.exceptions.TryAgainError: "TRYAGAIN",
    redis.exceptions.ClusterDownError: "CLUSTERDOWN",
    redis.exceptions.MasterDownError: "MASTERDOWN",
}
