"""Connections to one Redis server: the pool of ``redis``, and the only place that sees its errors.

The pool connects, checks and reconnects. Its client was rejected, and the connections are used directly: the client
costs more per call than the server does.

Texts of errors do not come through, not as a cause either: those of the library name the host, and those of the server
may repeat keys.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import redis

from retrodict.core.errors import (
    ConfigurationError,
    IntegrityError,
    InternalError,
    RetrodictError,
    RetryableError,
    ServerAwayError,
)
from retrodict.core.retries import TELLING_S, left_s, waiting_until
from retrodict.stores._guard import ServerGuard
from retrodict.stores._ownership import check_usable
from retrodict.stores.keys._address import Address

Durability = Literal["always", "on request", "server"]

WHERE = "key store in Redis"
_SLOW = "no answer"


class Connections:
    """As many connections as calls run at once; never across fork.

    An answer is waited for up to ``timeout_s`` seconds; connecting, and one to a read, as long as the guard says.
    Where the server need not keep anything (``keeps`` is false) it is neither judged nor called at opening.
    """

    def __init__(self, address: Address, timeout_s: float, guard: ServerGuard, *, keeps: bool = True) -> None:
        self._trusting, self._guard, self._timeout_s = address.trusting, guard, timeout_s
        self._read_s, self._keeps = min(timeout_s, guard.read_timeout_s), keeps
        self._owner, self._closed = os.getpid(), False
        # What durable writes rest on, as judged by the newest connection.
        self.durability: Durability = "server"
        self._pool = redis.ConnectionPool(
            **address.settings,
            max_connections=2**31,
            protocol=2,
            socket_timeout=timeout_s,
            socket_connect_timeout=self._read_s,
            redis_connect_func=self._greet,
        )
        if keeps:
            self._ask((), self._read_s)  # a server that cannot be used is reported at opening

    def read(self, *command: object) -> Any:
        """Answer to a command that changes nothing, and may be sent again."""
        self.check_usable()
        return self._guard.read(lambda: self._guarded((command,), self._read_s)[0], WHERE)

    def ask(self, *commands: Sequence[object], writes: bool = False) -> list[Any]:
        """Answers to commands that are sent in one go; an answer that is an error is raised."""
        self.check_usable()
        return self._guarded(commands, self._timeout_s, writes=writes)

    def _guarded(self, commands: Sequence[Sequence[object]], wait_s: float, *, writes: bool = False) -> list[Any]:
        """Answers, within the time that somebody waits for them; the breaker does not count what had hardly any."""
        limit_s = min(wait_s, left_s(waiting_until()))
        if limit_s <= 0:
            raise _late(writes=False)
        with self._guard.breaker.attempt():
            try:
                return self._ask(commands, limit_s, writes=writes)
            except ServerAwayError as error:
                if error.got == _SLOW and limit_s < min(wait_s, TELLING_S):
                    raise _late(writes=writes) from None
                raise

    def _ask(self, commands: Sequence[Sequence[object]], wait_s: float, *, writes: bool = False) -> list[Any]:
        with _translating(writes=False):
            connection: Any = self._pool.get_connection()
        try:
            with _translating(writes=writes):
                for command in commands:
                    connection.send_packed_command(connection.pack_command(*command))
                answers = [_answer(connection, wait_s) for _ in commands]
                for answer in answers:
                    if isinstance(answer, redis.ResponseError):
                        raise answer  # noqa: TRY301 - all answers are read before one is raised
        except BaseException:
            # An answer still under way would be taken for that of the next command, and after a failover the next call
            # must look for the new primary.
            connection.disconnect()
            raise
        finally:
            self._pool.release(connection)
        if self._closed:
            self.close()  # another thread closed it meanwhile
        return answers

    def check_usable(self) -> None:
        """Raise if the store was closed, or belongs to the process this one was forked from."""
        check_usable("a key store", where=WHERE, owner=self._owner, closed=self._closed)

    def close(self) -> None:
        """End all connections; those in use end with their call."""
        self._closed = True
        self._pool.disconnect(inuse_connections=False)

    def _greet(self, connection: Any) -> None:
        """Log in on a new connection and judge the server, which may be another than before."""
        try:
            limit_s = min(self._read_s, left_s(waiting_until()))
            connection.update_current_socket_timeout(max(0.001, limit_s))
            connection.on_connect()
            if self._keeps:
                self.durability = _judged(connection, self._read_s, trusting=self._trusting)
            connection.update_current_socket_timeout(-1)  # what it was
        except BaseException:
            connection.disconnect()
            raise


@contextlib.contextmanager
def _translating(*, writes: bool) -> Iterator[None]:
    """Translate errors of the library and the system."""
    try:
        yield
    except (redis.RedisError, OSError, UnicodeError) as error:
        raise _translated(error, writes=writes) from None


def _answer(connection: Any, wait_s: float) -> Any:
    try:
        return connection.read_response(timeout=wait_s)
    except redis.ResponseError as error:
        return error


def _judged(connection: Any, wait_s: float, *, trusting: bool) -> Durability:
    """What durable writes can rest on at this server; refuses one that forgets."""

    def ask(*command: object) -> Any:
        connection.send_command(*command)
        return _answer(connection, wait_s)

    # A server may keep its settings to itself; an answer that is an error tells nothing.
    settings: dict[bytes, bytes] = {}
    for pattern in ("*append*", "maxmemory*"):
        pairs = ask("CONFIG", "GET", pattern)
        settings |= {} if isinstance(pairs, Exception) else dict(zip(pairs[::2], pairs[1::2], strict=True))
    if settings.get(b"maxmemory", b"0") != b"0" and settings[b"maxmemory-policy"].startswith(b"allkeys"):
        raise ConfigurationError(
            "a server that holds a key store must evict no keys",
            where=WHERE,
            got=f"maxmemory-policy {settings[b'maxmemory-policy'].decode()}",
            remedy="Set maxmemory-policy to 'noeviction'",
        )
    if trusting:
        return "server"
    syncing = {b"appendonly": b"yes", b"appendfsync": b"always", b"no-appendfsync-on-rewrite": b"no"}
    if syncing.items() <= settings.items():
        return "always"
    if not isinstance(ask("WAITAOF", 1, 0, 1), Exception):
        return "on request"
    raise ConfigurationError(
        "the server must promise that a durable write survives a loss of power",
        where=WHERE,
        got={name.decode(): settings[name].decode() for name in sorted(syncing) if name in settings},
        remedy="Set appendonly to 'yes' and appendfsync to 'always' (from Redis 7.2 on appendonly is enough), or "
        "accept it by 'durability=server' in the URL",
    )


def _translated(error: Exception, *, writes: bool) -> RetrodictError:
    """Our error for one of the library or the system."""
    if isinstance(error, redis.AuthenticationError | redis.BusyLoadingError | redis.ResponseError):
        # The library takes the code off the text of the errors it has a class for.
        code = "AUTH" if isinstance(error, _UNAUTHENTICATED) else str(error.status_code)
        code = code if code in _REFUSALS else str(error).partition(" ")[0]
        if code in _REFUSALS:
            kind, rule, remedy = _REFUSALS[code]
            return kind(rule, where=WHERE, got=code, remedy=remedy)
        return InternalError(
            "the server must take the commands of a key store",
            where=WHERE,
            got=code if code.isupper() and code.isalpha() else type(error).__name__,
            remedy="Report it with the version of the server",
        )
    slow = isinstance(error, redis.TimeoutError)
    doubt = ", and whether the write was stored is not known" if writes else ""
    return ServerAwayError(
        ("the server must answer in time" if slow else "there must be a connection to the server") + doubt,
        where=WHERE,
        got=_SLOW if slow else "no connection",
        remedy="Check that it runs, and try again",
    )


def _late(*, writes: bool) -> RetryableError:
    doubt = ", and whether the write was stored is not known" if writes else ""
    return RetryableError(f"the server must answer while somebody waits{doubt}", where=WHERE,
                          got="no answer before the deadline", remedy="Try again")  # fmt: skip


_REFUSALS: dict[str, tuple[type[RetrodictError], str, str]] = {
    "LOADING": (ServerAwayError, "the server must have read its files", "Try again"),
    "READONLY": (RetryableError, "the server must be a primary, not a replica, which only reads", "Try again"),
    "MISCONF": (RetryableError, "the server must be able to write to its disk", "Free its disk and try again"),
    "NOREPLICAS": (RetryableError, "the server must have its replicas", "Try again"),
    "BUSY": (RetryableError, "the server must not be busy with a script", "Try again"),
    "MASTERDOWN": (ServerAwayError, "the replica must have its primary", "Try again"),
    "CLUSTERDOWN": (ServerAwayError, "the cluster must be up", "Try again"),
    "ASK": (RetryableError, "the cluster must not be moving the keys", "Try again"),
    "TRYAGAIN": (RetryableError, "the cluster must not be moving the keys", "Try again"),
    "AUTH": (ConfigurationError, "the server must accept the user and the password", "Check both in the URL"),
    "OOM": (
        ConfigurationError,
        "the server must stay below its maxmemory; nothing of this write was stored",
        "Give it more memory",
    ),
    "NOPERM": (
        ConfigurationError,
        "the user must have the permissions of a key store",
        "Allow it all keys of the prefix, EVAL and what it calls",
    ),
    "MOVED": (ConfigurationError, "the node of a cluster must hold the prefix", "Name the node that does"),
    "unknown": (
        ConfigurationError,
        "the server must have the commands of a key store",
        "Allow MGET and EVAL; Redis 7.0 or newer has both",
    ),
    "DB": (
        ConfigurationError,
        "the server must have the database of this number",
        "Name one that it has, or tell stores apart by their prefix",
    ),
    "WRONGTYPE": (
        IntegrityError,
        "nothing but this store must be under its prefix",
        "Give this store a prefix of its own",
    ),
}

_UNAUTHENTICATED = (redis.AuthenticationError, redis.exceptions.AuthenticationWrongNumberOfArgsError)
