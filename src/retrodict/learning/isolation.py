"""Trainings that share a machine with a server: they step back.

Priorities were chosen over a refusal (a small project has one machine) and over control groups, which need rights that
a user seldom has; in a container or a unit of systemd these stand outside of the process anyway. Between two of them,
or two sessions with autogroups, the kernel does not compare nice values: a bound on threads counts there, too. A limit
of the kernel on memory (``RLIMIT_DATA``) was tried and rejected: libraries hung or crashed at it instead of reporting
it. The disk needs no call of its own: the kernel derives the priority of reads and writes from the nice value.
"""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from pathlib import Path

from retrodict.core.errors import ConfigurationError
from retrodict.workspace import Workspace
from retrodict.workspace.servers import is_served

__all__ = ["THREADS", "give_way"]

THREADS = (
    "OMP_NUM_THREADS", "OMP_THREAD_LIMIT", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "POLARS_MAX_THREADS",
    "LOKY_MAX_CPU_COUNT",  # joblib: forests, and the fits of a search
)  # fmt: skip
"""Environment variables by which numeric libraries learn how many threads they may use."""

_NICE = 10

_log = logging.getLogger(__name__)


def give_way(folder: str | Path) -> None:
    """Run this process with ``training.threads``, and behind a server of the project if one runs here.

    It is for a process of its own: what has been given up cannot be taken back. It comes before the libraries that
    fit are loaded: they read the number of their threads only then, and threads inherit what their process gave up.

    Parameters
    ----------
    folder : path
        Of the project, or below. Nothing happens where there is none: what runs says so, or makes one.
    """
    try:
        workspace = Workspace(folder)
    except ConfigurationError:
        return
    if threads := workspace.config["training.threads"]:
        os.environ.update(dict.fromkeys(THREADS, str(threads)))
    if is_served(workspace):
        nice = os.nice(max(_NICE - os.nice(0), 0))
        with suppress(OSError):  # forbidden here; the nice value counts all the same
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
        _log.warning("a server of this project runs on this machine: this steps back to nice %d, but may still slow "
                     "its answers; bound it by training.threads, or run it on another machine", nice)  # fmt: skip
