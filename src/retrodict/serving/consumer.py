"""The feature consumer: applies events to the online state, in one process or in several, until it is stopped.

It runs in processes of its own, so that applying events never holds up an answer. It keeps nothing that could be lost:
offsets are in the state, and after ``kill -9`` the next consumer continues from there. Children are commands, not
forks, because a key store does not survive a fork, and because a person can then start by hand (``--partition``) what a
child is. One that is killed is started again; one that ends with an error ends all of them, since it would only fail
again.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from retrodict.core.errors import ConfigurationError, DefinitionError, InputError, RetrodictError, RetryableError
from retrodict.features.online import Upkeep
from retrodict.registry.feature_sets import served_feature_sets
from retrodict.workspace import Workspace, capture_code, definitions_of

__all__ = ["code_of", "consume", "end_children", "ending_signals", "share_partitions", "start_companion",
           "start_consumer"]  # fmt: skip

_POLL_S = 0.02
_REPORT_S = 30.0
_WATCH_S = 0.05
_PATIENCE_S = 20.0
_MAX_RESTARTS = 10  # within ...
_RESTARTS_WITHIN_S = 60.0

_log = logging.getLogger(__name__)


def consume(
    workspace: Workspace,
    *,
    parent: int | None = None,
    once: bool = False,
    partitions: Sequence[int] | None = None,
    processes: int | None = None,
    code: str | None = None,
) -> dict[str, dict[str, Any]]:
    """Apply events to the online state of what is deployed until SIGINT or SIGTERM.

    Parameters
    ----------
    workspace : Workspace
    parent : int, optional
        Process id; its end ends the consumer.
    once : bool, default False
        Apply what is in the streams now, and return.
    partitions : sequence of int, optional
        Partitions to feed; other processes feed the others. None: all.
    processes : int, optional
        Share the partitions among so many child processes. None: this process feeds them.
    code : str, optional
        SHA-256 of the code object whose services are kept current. None: those of the module as it is now.

    Returns
    -------
    dict
        Per source the offset that the state has reached, and the events after it.

    Raises
    ------
    InputError
        If ``partitions`` and ``processes`` are both asked for, or if there are more processes than partitions.
        With ``once``: if a stream holds a record that is not an event of its table. Without it the error is logged,
        and the source stands still until the record is dealt with, rather than losing it silently.
    ConfigurationError
        If the state is not what the settings say, or cannot be written.
    RetryableError
        If a child ended with an error, which is in the log, or if children were killed again and again.
    """
    if processes is not None and partitions is not None:
        raise InputError(
            "processes must share all partitions",
            where="features stream",
            got=f"--processes {processes} and {len(partitions)} of --partition",
            remedy="Pass one of the two",
        )
    if code is not None:
        workspace.definitions = definitions_of(workspace, code)
    if processes is not None and processes > 1:
        _consume_in_children(workspace, processes, parent=parent, once=once)
        return Upkeep(workspace, served_feature_sets).lags()
    upkeep = Upkeep(workspace, served_feature_sets, assigned=partitions)
    if once:
        while upkeep.catch_up():
            pass
        return upkeep.lags()
    with _stop_event() as stop:
        _log.info("keeping online features current")
        with suppress(RetrodictError):  # which the loop below says
            for shortfall in filter(None, (flow["table"]["shortfall"] for flow in upkeep.lags().values())):
                _log.warning("%s", shortfall)
        _follow(upkeep, stop, parent)
    return upkeep.lags()


def _follow(upkeep: Upkeep, stop: threading.Event, parent: int | None) -> None:
    direct = parent is not None and os.getppid() == parent
    reported, total, problem = time.monotonic(), 0, ""
    while not stop.is_set():
        if parent is not None and not _is_alive(parent, direct=direct):
            _log.info("process %d, which this one belongs to, has ended", parent)
            return
        applied = 0
        try:
            applied = upkeep.catch_up()
            problem, total = "", total + applied
            if total and time.monotonic() - reported >= _REPORT_S:
                behind = {source: progress["lag"] for source, progress in upkeep.lags().items()}
                _log.info("applied %d events in %.0f s; behind: %s", total, time.monotonic() - reported, behind)
                reported, total = time.monotonic(), 0
        except ConfigurationError:  # this process has its settings for good, and would only fail again
            raise
        except RetrodictError as error:
            if str(error) != problem:  # once, not fifty times a second
                problem = str(error)
                _log.error("events cannot be applied: %s", problem)
        if not applied:
            stop.wait(_POLL_S)


def _is_alive(parent: int, *, direct: bool) -> bool:
    """Whether a process still runs; ``direct`` if it was the parent of this one to begin with."""
    if direct:  # a child passes to another process when its parent ends, so a reused number cannot be mistaken for it
        return os.getppid() == parent
    try:
        os.kill(parent, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it runs, under another user
        return True
    with suppress(OSError):  # one that ended and that nobody has waited for yet is still found
        return Path(f"/proc/{parent}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return True


@contextmanager
def _stop_event() -> Iterator[threading.Event]:
    """Event that SIGINT and SIGTERM set; the earlier signal handlers are restored afterwards."""
    stop = threading.Event()
    before = {number: signal.signal(number, lambda *_: stop.set()) for number in ending_signals()}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def share_partitions(partitions: int, processes: int) -> list[list[int]]:
    """Partitions of each process, as even as possible; InputError if some process would have none."""
    if processes > partitions:
        raise InputError(
            "every process must have at least one partition",
            where="--processes",
            got=processes,
            remedy=f"Ask for {partitions} at most, or set features.partitions, which needs a new state",
        )
    return [list(range(partitions))[first::processes] for first in range(processes)]


def code_of(workspace: Workspace) -> str | None:
    """Code object of the module as it is now, so that a consumer started later reads the same; None if it has none."""
    with suppress(DefinitionError):  # a module outside of the project: a consumer reads what it says then
        return capture_code(workspace)
    return None


def start_consumer(
    workspace: Workspace, partitions: Sequence[int] = (), *, once: bool = False, code: str | None = None
) -> subprocess.Popen[bytes]:
    """Start a consumer as a child process that ends with this one; without partitions it feeds all of them."""
    arguments = ["features", "stream", "--project", str(workspace.root), *(f"--partition={n}" for n in partitions)]
    if once:
        arguments.append("--once")
    if code is not None:
        arguments += ["--code", code]
    return start_companion(arguments)


def start_companion(arguments: Sequence[str]) -> subprocess.Popen[bytes]:
    """Start a command of this package as a child process; it takes ``--parent``, and ends with this process."""
    command = [sys.executable, "-P", "-m", "retrodict", *arguments, "--parent", str(os.getpid())]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)  # noqa: S603  # our command


def ending_signals() -> list[signal.Signals]:
    """Signals that end a server in order; that of a terminal which is closed, unless it is ignored, as by ``nohup``."""
    hangup = [] if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN else [signal.SIGHUP]
    return [signal.SIGINT, signal.SIGTERM, *hangup]


def _consume_in_children(workspace: Workspace, processes: int, *, parent: int | None, once: bool) -> None:
    direct = parent is not None and os.getppid() == parent
    shares = share_partitions(workspace.config["features.partitions"], processes)
    with _stop_event() as stop:
        services = code_of(workspace)
        children = [start_consumer(workspace, share, once=once, code=services) for share in shares]
        deaths: list[float] = []
        try:
            while not stop.wait(_WATCH_S):
                if parent is not None and not _is_alive(parent, direct=direct):
                    return
                codes = [child.poll() for child in children]
                if once and all(code == 0 for code in codes):
                    return
                for place, code in enumerate(codes):
                    if code is None or (once and code == 0):
                        continue
                    deaths = [moment for moment in deaths if time.monotonic() - moment < _RESTARTS_WITHIN_S]
                    _check_restart(code, len(deaths))
                    deaths.append(time.monotonic())
                    _log.warning("the process of partitions %s was ended by signal %d: again", shares[place], -code)
                    children[place] = start_consumer(workspace, shares[place], once=once, code=services)
        finally:
            end_children(children)


def _check_restart(code: int, deaths: int) -> None:
    if code >= 0:
        raise RetryableError(
            "a process that keeps features current must run until it is stopped",
            where="features stream",
            got=f"exit code {code}",
            remedy="Correct what its own message says, and start again",
        )
    if deaths >= _MAX_RESTARTS:
        raise RetryableError(
            f"processes must be killed less than {_MAX_RESTARTS} times in {_RESTARTS_WITHIN_S:.0f} s",
            where="features stream",
            got=f"signal {-code}",
            remedy="Find out what kills them: the system's log shows if memory ran out",
        )


def end_children(children: Sequence[subprocess.Popen[bytes]]) -> None:
    """Ask all children to end, so that each ends between two transactions; kill those that do not."""
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
