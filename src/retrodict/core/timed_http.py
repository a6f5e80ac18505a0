"""Calls over HTTP that end by a moment, whatever comes: the timeouts of httpx are of each read and each write.

A head or a body that comes byte by byte would hold a thread for hours. The moment is that of
:func:`~retrodict.core.retries.waited_for`, so whoever waits says so once; a watchdog that closes sockets from another
thread was rejected, since it would cost a thread or a lock for each call.
"""

from __future__ import annotations

import math
import ssl
from collections.abc import Iterable
from typing import Any

import httpcore
import httpx

from retrodict.core.retries import left_s, waiting_until

__all__ = ["TimedTransport"]


class _Stream(httpcore.NetworkStream):
    """A connection on which nothing is waited for beyond the moment."""

    def __init__(self, stream: httpcore.NetworkStream) -> None:
        self._stream = stream

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, _left(timeout, httpcore.ReadTimeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        connection, rest = self.get_extra_info("socket"), memoryview(buffer)
        try:
            while rest:  # whoever takes it byte by byte begins no time anew
                connection.settimeout(_left(timeout, httpcore.WriteTimeout))
                rest = rest[connection.send(rest) :]
        except TimeoutError as error:
            raise httpcore.WriteTimeout(str(error)) from error
        except OSError as error:
            raise httpcore.WriteError(str(error)) from error

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        left = _left(timeout, httpcore.ConnectTimeout)
        return _Stream(self._stream.start_tls(ssl_context, server_hostname, left))

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


class _Backend(httpcore.SyncBackend):
    def connect_tcp(
        self, host: str, port: int, timeout: float | None = None, local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:  # fmt: skip
        left = _left(timeout, httpcore.ConnectTimeout)
        return _Stream(super().connect_tcp(host, port, left, local_address, socket_options))


def _left(timeout: float | None, late: type[httpcore.TimeoutException]) -> float | None:
    """Seconds for the next step: the smaller of its own limit and what is left."""
    left = min(left_s(waiting_until()), math.inf if timeout is None else timeout)
    if left <= 0:
        raise late("the time is over")
    return None if left == math.inf else left


class TimedTransport(httpx.HTTPTransport):
    """Transport of an ``httpx.Client`` whose calls end by the moment of ``waited_for``; proxies are not asked.

    Parameters
    ----------
    context : SSLContext, optional
        Whom ``https://`` trusts; nobody by default.
    """

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        context = context or ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        super().__init__(verify=context, trust_env=False)
        self._pool = httpcore.ConnectionPool(
            ssl_context=context, max_connections=100, max_keepalive_connections=20, keepalive_expiry=5.0,
            network_backend=_Backend(),
        )  # fmt: skip
