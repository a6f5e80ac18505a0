"""Takes connections from a listening socket that several workers share, so that each gets as many as the others.

One queue for all was chosen over a socket each (``SO_REUSEPORT``): connections that wait at a worker which dies are
nobody's loss, another one takes them. The kernel wakes whoever is first: without more, one of two workers took 63 of 64
connections that came at once, and kept them. So a worker that holds more than another leaves a new connection to it for
two milliseconds. (Queues of their own were within 30 to 36 of 64, but lose what waits.)
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import Callable, Collection
from typing import Any

from retrodict.serving.board import Board
from retrodict.serving.certificate import Certificate
from retrodict.serving.connection import HEAD_S, LAST_TAKEN_S

__all__ = ["Acceptor"]

_AT_ONCE = 64
_YIELD_S = 0.002
_WITHOUT_FILES_S = 0.5
_NO_FILES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)

_log = logging.getLogger(__name__)


class Acceptor:
    """Accepts connections in one event loop until :meth:`stop`.

    Parameters
    ----------
    listener : socket
        Non-blocking; :meth:`stop` closes it.
    connections : collection
        Those that are open now, kept by the server.
    make : callable
        Makes the protocol of a connection.
    board : Board, optional
        Of the workers that share the socket; None for one alone.
    slot : int
        This worker's, on the board.
    certificate : Certificate, optional
        To show; None: connections are not encrypted.
    """

    def __init__(
        self,
        listener: socket.socket,
        connections: Collection[object],
        make: Callable[[], asyncio.Protocol],
        board: Board | None,
        slot: int,
        certificate: Certificate | None = None,
    ) -> None:
        self._certificate = certificate
        self._listener, self._connections, self._make = listener, connections, make
        self._board, self._slot = board, slot
        self._loop = asyncio.get_running_loop()
        self._opening: set[asyncio.Task[None]] = set()
        self._pause: asyncio.TimerHandle | None = None
        self._stopped = False
        self._loop.add_reader(listener, self._look)

    def _look(self) -> None:
        for _ in range(_AT_ONCE):  # a turn of the loop may be long: one in each, and a thousand would wait for seconds
            if self._board is not None:
                mine = len(self._connections) + len(self._opening)
                self._board.set_connections(self._slot, mine)
                if mine > self._board.fewest_connections():
                    self._wait(_YIELD_S)
                    return
            if not self._take():
                return

    def _wait(self, seconds: float) -> None:
        self._loop.remove_reader(self._listener)
        self._pause = self._loop.call_later(seconds, self._go_on)

    def _go_on(self) -> None:
        self._pause = None
        self._loop.add_reader(self._listener, self._look)
        self._take()  # the others have had their time

    def _take(self) -> bool:
        """Accept one connection, if there is one."""
        try:
            accepted, _ = self._listener.accept()
        except OSError as error:  # nobody waits any more, most of the time
            if error.errno in _NO_FILES:
                _log.error("no connection can be taken: %s", error.strerror)
                if not self._stopped:
                    self._wait(_WITHOUT_FILES_S)
            return False
        accepted.setblocking(False)
        task = self._loop.create_task(self._open(accepted))
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)
        return True

    async def _open(self, accepted: socket.socket) -> None:
        try:
            tls: dict[str, Any] = {}
            if self._certificate is not None:
                tls = {"ssl": self._certificate.context, "ssl_handshake_timeout": HEAD_S,
                       "ssl_shutdown_timeout": LAST_TAKEN_S}  # fmt: skip
            await self._loop.connect_accepted_socket(self._make, accepted, **tls)
        except OSError:  # the caller has left already, or speaks no TLS
            accepted.close()

    async def stop(self) -> None:
        """Take what waits in the queue, then no more."""
        self._stopped = True
        if self._board is not None:
            self._board.set_connections(self._slot, None)
        self._loop.remove_reader(self._listener)
        if self._pause is not None:
            self._pause.cancel()
        while self._take():
            pass
        self._listener.close()
        await asyncio.gather(*self._opening, return_exceptions=True)
