"""Several feature consumers on one machine: each a process with partitions of its own, all started and ended as one.

Children are commands of their own, not forks: a key store does not survive a fork, and what a person can start by hand
(``--partition``) is all that a child is. One that is killed is started again, for it loses nothing; one that ends with
an error ends all of them, for it would only do so again.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from retrodict.cli._consumer import lives, stopping
from retrodict.core.errors import InputError, RetryableError

if TYPE_CHECKING:
    from retrodict.workspace import Workspace

__all__ = ["consume_in_processes", "shares"]

_LOOK_S = 0.05
_PATIENCE_S = 20.0
_AGAIN = 10  # times that children are started again within ...
_WITHIN_S = 60.0

_log = logging.getLogger(__name__)


def shares(partitions: int, processes: int) -> list[list[int]]:
    """Partitions of each process, as even as can be.

    Raises
    ------
    InputError
        If there are more processes than partitions: some would have nothing to do.
    """
    if processes > partitions:
        raise InputError(
            "every process has at least one partition",
            where="--processes",
            got=processes,
            remedy=f"Ask for {partitions} at most, or set features.partitions, which needs a new state",
        )
    return [list(range(partitions))[first::processes] for first in range(processes)]


def consume_in_processes(project: Workspace, processes: int, *, parent: int | None, once: bool) -> None:
    """Feed all partitions, each process some of them, until told to stop or, with ``once``, until all is applied.

    Parameters
    ----------
    project : Workspace
    processes : int
        How many.
    parent : int, optional
        Process id; its end ends all of them.
    once : bool
        Apply what is there now, and return.

    Raises
    ------
    RetryableError
        If a process ended with an error, which stands in the log, or if they were killed again and again.
    """
    direct = parent is not None and os.getppid() == parent
    owned = shares(project.config["features.partitions"], processes)
    with stopping() as stop:
        children = [_start(project, own, once=once) for own in owned]
        deaths: list[float] = []
        try:
            while not stop.wait(_LOOK_S):
                if parent is not None and not lives(parent, direct=direct):
                    return
                codes = [child.poll() for child in children]
                if once and all(code == 0 for code in codes):
                    return
                for place, code in enumerate(codes):
                    if code is None or (once and code == 0):
                        continue
                    deaths = [moment for moment in deaths if time.monotonic() - moment < _WITHIN_S]
                    _check(code, len(deaths))
                    deaths.append(time.monotonic())
                    _log.warning("the process of partitions %s was ended by signal %d: again", owned[place], -code)
                    children[place] = _start(project, owned[place], once=once)
        finally:
            _end(children)


def _check(code: int, deaths: int) -> None:
    if code >= 0:
        raise RetryableError(
            "a process that keeps features current runs until it is told to stop",
            where="features stream",
            got=f"exit code {code}",
            remedy="Its own message says why; correct that, and start again",
        )
    if deaths >= _AGAIN:
        raise RetryableError(
            f"processes are killed less than {_AGAIN} times in {_WITHIN_S:.0f} s",
            where="features stream",
            got=f"signal {-code}",
            remedy="Look at what kills them: the system's log tells if memory ran out",
        )


def _start(project: Workspace, own: Sequence[int], *, once: bool) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "retrodict", "features", "stream", "--project", str(project.root)]
    command += ["--parent", str(os.getpid()), *(word for each in own for word in ("--partition", str(each)))]
    if once:
        command.append("--once")
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)  # noqa: S603  # our own command


def _end(children: Sequence[subprocess.Popen[bytes]]) -> None:
    """End all children: asked first, so that each ends between two transactions."""
    for child in children:
        if child.poll() is None:
            child.terminate()
    until = time.monotonic() + _PATIENCE_S
    for child in children:
        try:
            child.wait(timeout=max(until - time.monotonic(), 0.1))
        except subprocess.TimeoutExpired:  # a kill loses nothing, either
            child.kill()
            child.wait()
