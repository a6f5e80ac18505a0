"""Log lines of a server, or of a process beside one, written by a thread: a pipe that nobody reads holds up nothing.

A line names the request that was worked on, if its caller gave it a name.
"""

from __future__ import annotations

import json
import logging
import os
import select
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from datetime import UTC, datetime
from logging.handlers import QueueHandler
from queue import Full, Queue
from threading import Event, Thread
from time import monotonic
from traceback import format_tb
from typing import Any

from retrodict.core.errors import ConfigurationError, RetrodictError

__all__ = ["REQUEST", "LineFormatter", "OnceASecond", "written_aside"]

_LINES = 1_000  # that wait
_END_S = 2.0

REQUEST: ContextVar[Callable[[], str | None] | None] = ContextVar("request", default=None)
"""Gives the name of the request that is worked on."""


class LineFormatter(logging.Formatter):
    """Lines of text, or JSON objects where the environment says ``RETRODICT_LOG=json``.

    Parameters
    ----------
    worker : int, optional
        Number of the process among those of a server.
    """

    def __init__(self, worker: int | None = None) -> None:
        prefix = "" if worker is None else f"worker {worker} "
        text = f"%(asctime)s %(levelname)s {prefix}%(name)s: %(before)s%(message)s"
        super().__init__(text, defaults={"before": "", "request": None})
        form = os.environ.get("RETRODICT_LOG", "text")
        if form not in ("json", "text"):
            raise ConfigurationError("lines must be text or json", where="RETRODICT_LOG", got=form,
                                     remedy="Set one of the two, or none")  # fmt: skip
        self._worker, self._json = worker, form == "json"

    def format(self, record: logging.LogRecord) -> str:
        """Line of a message; as JSON with ``time``, ``level``, ``logger``, ``message``, and ``worker``, ``request``."""
        if not self._json:
            return super().format(record)
        message = record.getMessage()
        if record.exc_info:
            message += "\n" + self.formatException(record.exc_info)
        fields = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(), "level": record.levelname,
            "logger": record.name, "worker": self._worker, "request": getattr(record, "request", None),
            "message": message,
        }  # fmt: skip
        return json.dumps({name: value for name, value in fields.items() if value is not None})


class _Plain(logging.Formatter):
    def formatException(self, ei: Any) -> str:  # noqa: N802  # as it is called
        """Where an exception came from, without its text: that of somebody else's code may hold what a caller sent."""
        error: BaseException | None = ei[1]
        pieces = []
        while error is not None:
            text = f": {error}" if isinstance(error, RetrodictError | OSError) else ""
            pieces.append(f"{''.join(format_tb(error.__traceback__))}{type(error).__name__}{text}")
            error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
        return "\nThat came of this:\n\n".join(pieces)


class _Dropping(QueueHandler):
    """Drops and counts lines while nobody takes those that wait."""

    dropped = 0

    def __init__(self, lines: Queue[logging.LogRecord | None]) -> None:
        super().__init__(lines)
        self.setFormatter(_Plain())

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        """Name the request, which is known here alone: lines are written in another thread."""
        prepared: logging.LogRecord = super().prepare(record)
        name = REQUEST.get()
        if name is not None and (request := name()) is not None:
            prepared.request, prepared.before = request, f"request {request}: "
        return prepared

    def enqueue(self, record: logging.LogRecord) -> None:
        """Have a line written."""
        try:
            self.queue.put_nowait(record)
        except Full:
            self.dropped += 1


class OnceASecond(logging.Filter):
    """Lets one line of each kind through in a second: a server that falls back with every answer writes few of them."""

    def __init__(self) -> None:
        super().__init__()
        self._kinds: dict[tuple[object, ...], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the line is written; it then says how many like it were not."""
        values = record.args if isinstance(record.args, tuple) else ()
        kind = record.msg, *(value if isinstance(value, str) else type(value) for value in values)
        until, held_back = self._kinds.get(kind, (0.0, 0))
        if monotonic() < until:
            self._kinds[kind] = until, held_back + 1
            return False
        self._kinds[kind] = monotonic() + 1, 0
        if held_back:
            record.msg, record.args = f"{record.msg} (and %d times more before)", (*values, held_back)
        return True


@contextmanager
def written_aside() -> Iterator[None]:
    """Write what the block logs in a thread; at most 1,000 lines wait, further ones are dropped and counted."""
    root, lines = logging.getLogger(), Queue[logging.LogRecord | None](_LINES)
    handlers, handler = root.handlers, _Dropping(lines)
    ended = Event()
    thread = Thread(target=_write, args=(lines, handlers, handler, ended), name="retrodict-log", daemon=True)
    thread.start()
    root.handlers = [handler]
    try:
        yield
    finally:
        root.handlers = handlers
        with suppress(Full):  # who does not read is not waited for at the end, either
            lines.put(None, timeout=_END_S)
        thread.join(_END_S)
        ended.set()
        thread.join(_END_S)


def _write(
    lines: Queue[logging.LogRecord | None], handlers: Sequence[logging.Handler], handler: _Dropping, ended: Event
) -> None:
    log = logging.Logger(__name__)  # noqa: LOG001  # of nobody else: what it logs is written here
    log.handlers = list(handlers)
    room = select.poll()  # a thread that hangs in a write holds locks which the end of the process waits for
    room.register(2, select.POLLOUT)  # standard error; one that is closed has room, and its handler says the rest
    while (record := lines.get()) is not None:
        while not room.poll(200):
            if ended.is_set():
                return
        with suppress(Exception):  # of a stream that is closed, say: the next line may be written
            log.handle(record)
        if handler.dropped and lines.qsize() < 2:  # or only the end is left
            count, handler.dropped = handler.dropped, 0
            log.warning("%d lines of the log were dropped: they came faster than they were read", count)
