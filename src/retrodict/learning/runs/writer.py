"""The thread that writes for runs that are recorded by hand.

One per process and project: it writes what all open runs logged, gives their signs of life and enters ended ones in the
ledger. It lives as long as there is something to do.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from typing import Any, Protocol

from sqlalchemy import update

from retrodict.core.errors import RetrodictError, RetryableError
from retrodict.learning.environment import environment_bytes
from retrodict.learning.runs.heartbeat import INTERVAL_S, now_us
from retrodict.learning.runs.journal import Event, secret_of, settle, write_events
from retrodict.learning.runs.schema import heartbeats, metadata
from retrodict.workspace import Workspace, capture_code
from retrodict.workspace.code import python_files

__all__ = ["Loggable", "RunWriter", "writer_of"]

_log = logging.getLogger(__name__)

FLUSH_S, SETTLE_S = 0.2, 1.0
_LONGEST_S = 5.0


class Loggable(Protocol):
    """A run that goes on, as its writer sees it."""

    @property
    def id(self) -> str:
        """ULID."""

    def take_events(self) -> list[Event]:
        """Hand over what is to be written."""

    def return_events(self, events: list[Event]) -> None:
        """Take back what could not be written, for the next time."""


class RunWriter:
    """Writes for the open runs of one project in this process.

    Attributes
    ----------
    turn : Lock
        Held from taking events to having written them: an end is written after all that came before it.
    """

    def __init__(self, workspace: Workspace) -> None:
        self._workspace, self._pid = workspace, os.getpid()
        self._open: dict[str, Loggable] = {}
        self._state = threading.Lock()
        self.turn = threading.Lock()
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        self._ending = False
        self._unsettled, self._beat, self._settled = False, 0.0, 0.0
        self._problem, self._secret = "", secret_of(workspace, begin=True)
        self._code: tuple[Any, str] = (None, "")
        self._environment: tuple[int, str] = (-1, "")
        workspace.records.ensure(metadata)

    @property
    def usable(self) -> bool:
        """Whether this process made it: a fork has no thread."""
        return self._pid == os.getpid()

    def code(self) -> str:
        """Code of the project, captured anew only where one of its Python files has changed."""
        files = [(path, (stat := os.stat(path)).st_mtime_ns, stat.st_size)
                 for path in python_files(self._workspace.root)]  # fmt: skip
        if self._code[0] != files:
            self._code = files, capture_code(self._workspace)
        return self._code[1]

    def environment(self) -> str:
        """The environment, described anew only where modules were imported since."""
        loaded = len(sys.modules)
        if self._environment[0] != loaded:
            data = environment_bytes(project=self._workspace.root)
            self._environment = len(sys.modules), self._workspace.objects.put(data)
        return self._environment[1]

    def follow(self, run: Loggable) -> None:
        """Write for a run from now on."""
        with self._state:
            self._open[run.id] = run
            self._workspace.at_close("runs", self.close)
            if self._thread is None or not self._thread.is_alive():
                self._beat = time.monotonic()
                self._thread = threading.Thread(target=self._work, name="retrodict-runs", daemon=True)
                self._thread.start()

    def forget(self, run: Loggable) -> None:
        """Do so no longer, and enter it in the ledger soon."""
        with self._state:
            self._open.pop(run.id, None)
            self._unsettled = True

    def write(self, groups: list[tuple[str, list[Event]]]) -> None:
        """Write groups of events; to be called in turn."""
        with self._workspace.records.write() as connection:
            write_events(connection, self._secret, [group for group in groups if group[1]])

    def flush(self) -> None:
        """Write what the open runs have logged; if the store takes nothing it is kept for the next time."""
        with self._state:
            opened = list(self._open.values())
        with self.turn:
            groups = [(run, events) for run in opened if (events := run.take_events())]
            if not groups:
                return
            try:
                self.write([(run.id, events) for run, events in groups])
            except BaseException:
                for run, events in groups:
                    run.return_events(events)
                raise

    def _work(self) -> None:
        pause = FLUSH_S
        while True:
            self._wake.wait(pause)
            self._wake.clear()
            pause = min(2 * pause, _LONGEST_S)  # where nothing can be written, somebody has to come and see
            try:
                self._step()
                self._problem, pause = "", FLUSH_S
            except RetryableError as error:  # tried again: what is not written now is written later
                if str(error) != self._problem:
                    self._problem = str(error)
                    _log.warning("Runs cannot be written now. %s", error)
            except RetrodictError as error:
                if str(error) != self._problem:
                    self._problem = str(error)
                    _log.error("Runs cannot be entered in the ledger. %s", error)
            with self._state:
                if not self._open and (self._ending or not self._unsettled):
                    self._thread = None
                    return

    def _step(self) -> None:
        self.flush()
        now = time.monotonic()
        with self._state:
            ids = list(self._open)
        if ids and now - self._beat > INTERVAL_S:
            with self._workspace.records.write() as connection:
                connection.execute(update(heartbeats).where(heartbeats.c.run.in_(ids)).values(time=now_us()))
            self._beat = now
        if self._unsettled and now - self._settled > SETTLE_S:
            self.settle()

    def settle(self) -> None:
        """Enter ended runs in the ledger."""
        self._unsettled = False
        try:
            settle(self._workspace, wait=False)
        except BaseException:
            self._unsettled = True
            raise
        finally:
            self._settled = time.monotonic()

    def close(self) -> None:
        """Write and enter everything before the stores are closed; what cannot be, whoever comes next enters."""
        try:
            self.flush()
            self.settle()
        finally:
            with self._state:
                thread, self._ending = self._thread, not self._open
            if self._ending:
                with _MAKING:
                    _WRITERS.pop(self._workspace, None)
                if thread is not None:
                    self._wake.set()
                    thread.join()


_WRITERS: dict[Workspace, RunWriter] = {}
_MAKING = threading.Lock()


def writer_of(workspace: Workspace) -> RunWriter:
    """Return the one writer of a project in this process."""
    with _MAKING:
        writer = _WRITERS.get(workspace)
        if writer is None or not writer.usable:
            writer = _WRITERS[workspace] = RunWriter(workspace)
        return writer
