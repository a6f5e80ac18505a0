"""The loop of the feature consumer: catch up, wait, say how far it is; ends by a signal or with its parent.

A process of its own, so that applying events never holds up an answer. It holds nothing that could be lost: offsets are
in the state, and after ``kill -9`` the next consumer continues from there.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from retrodict.core.errors import InputError, RetryableError

if TYPE_CHECKING:
    from retrodict.features.online.upkeep import Upkeep
    from retrodict.workspace import Workspace

__all__ = ["consume", "lives", "stopping"]

_POLL_S = 0.02
_TELL_S = 30.0

_log = logging.getLogger(__name__)


def consume(
    project: Workspace, *, parent: int | None, once: bool, own: Sequence[int] | None = None
) -> dict[str, dict[str, Any]]:
    """Apply events until told to stop.

    Parameters
    ----------
    project : Workspace
    parent : int, optional
        Process id; its end ends the loop.
    once : bool
        Apply what is there now, and return.
    own : sequence of int, optional
        Partitions to feed; other processes feed the others. None: all.

    Returns
    -------
    dict
        Per source the offset that the state has reached, and the events after it.

    Raises
    ------
    InputError
        With ``once``: if a stream holds a record that is not an event of its table. Without it the error is logged,
        and the source stands still until the record is dealt with, rather than losing it silently.
    """
    from retrodict.features.online.upkeep import Upkeep
    from retrodict.registry.feature_sets import served_feature_sets

    upkeep = Upkeep(project, served_feature_sets, own=own)
    if once:
        while upkeep.catch_up():
            pass
        return upkeep.lags()
    with stopping() as stop:
        _log.info("keeping online features current")
        _loop(upkeep, stop, parent)
    return upkeep.lags()


def _loop(upkeep: Upkeep, stop: threading.Event, parent: int | None) -> None:
    direct = parent is not None and os.getppid() == parent
    told, taken, problem = time.monotonic(), 0, ""
    while not stop.is_set():
        if parent is not None and not lives(parent, direct=direct):
            _log.info("process %d, which this one belongs to, has ended", parent)
            return
        applied = 0
        try:
            applied = upkeep.catch_up()
            problem = ""
        except (InputError, RetryableError) as error:
            if str(error) != problem:  # once, not ten times a second
                problem = str(error)
                _log.error("events cannot be applied: %s", problem)
        taken += applied
        if taken and time.monotonic() - told >= _TELL_S:
            behind = {source: each["lag"] for source, each in upkeep.lags().items()}
            _log.info("applied %d events in %.0f s; behind: %s", taken, time.monotonic() - told, behind)
            told, taken = time.monotonic(), 0
        if not applied:
            stop.wait(_POLL_S)


def lives(parent: int, *, direct: bool) -> bool:
    """Whether a process is still there; ``direct`` if it was the parent of this one to begin with."""
    if direct:  # a child is handed to another process the moment its parent ends: no number is mistaken for a new one
        return os.getppid() == parent
    try:
        os.kill(parent, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's, and alive
        return True
    return True


@contextmanager
def stopping() -> Iterator[threading.Event]:
    """Return an event that SIGINT and SIGTERM set; what handled them before does so again afterwards."""
    stop = threading.Event()
    before = {number: signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
