"""Which runs still have a process: a sign of life in the records, and its absence.

Files with locks were rejected: they say nothing of a run on another machine that shares the record store. Times here
are the host's, not the project's clock: they are about processes, which no simulated day makes older.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from sqlalchemy import update

from retrodict.core.errors import RetrodictError
from retrodict.learning.runs.schema import heartbeats
from retrodict.workspace import Workspace

__all__ = ["INTERVAL_S", "beat", "has_process", "now_us", "sign_of_life"]

_log = logging.getLogger(__name__)

INTERVAL_S = 15.0
SILENCE_S = 300.0


def sign_of_life(process: int | None = None) -> dict[str, Any]:
    """Machine, process and its start, and the time in microseconds since 1970-01-01 UTC, of this process by default."""
    number = os.getpid() if process is None else process
    return {"machine": _machine(), "process": number, "began": _start_of(number), "time": now_us()}


def has_process(row: Any) -> bool:
    """Whether a run whose last sign of life this is may still be running.

    On this machine its process must exist; everywhere it must have given a sign within five minutes.
    """
    if row.machine == _machine() and row.began and _start_of(row.process) != row.began:
        return False
    return bool(now_us() - row.time < SILENCE_S * 1e6)


@contextmanager
def beat(workspace: Workspace, run: str) -> Iterator[None]:
    """Give a sign of life every fifteen seconds while the block runs, from a thread of its own."""
    stop = threading.Event()

    def signal() -> None:
        while not stop.wait(INTERVAL_S):
            try:
                with workspace.records.write() as connection:
                    connection.execute(update(heartbeats).where(heartbeats.c.run == run).values(time=now_us()))
            except RetrodictError as error:  # a store that is busy: the next sign is due soon
                _log.warning("No sign of life of run:%s. %s", run, error)

    thread = threading.Thread(target=signal, name="retrodict-heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def now_us() -> int:
    """Microseconds since 1970-01-01 UTC by the clock of the host."""
    return time.time_ns() // 1_000


@cache
def _machine() -> str:
    """Boot of the operating system and namespace of process numbers: within both, a number names one process."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:
        return os.uname().nodename


def _start_of(process: int) -> int:
    """When a process began, in clock ticks since the boot; 0 if there is none of this number, or no way to know."""
    try:
        text = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return 0
    # The name, in brackets, may hold anything: fields count from its end (proc(5), field 22). A zombie is no process.
    fields = text.rpartition(")")[2].split()
    return 0 if fields[0] in "ZX" else int(fields[19])
