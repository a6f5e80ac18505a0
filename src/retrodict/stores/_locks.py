"""A lock between processes that ends with its holder and says who that is.

``flock`` was chosen over a lock file that exists or not: the kernel lets go of it when the process ends, also after
``kill -9``, so nobody ever has to judge whether a lock is stale. Whoever holds it writes its process id and the time
into the file, for the message of those who wait.
"""

from __future__ import annotations

import fcntl
import os
import struct
import time
import weakref
from contextlib import suppress
from pathlib import Path

from retrodict.core.clock import SystemClock, format_time
from retrodict.core.errors import BusyError
from retrodict.stores._durable import make_folder
from retrodict.stores._ownership import Closing

_RANGE = struct.Struct("hh4xqqi4x")  # struct flock, on every 64-bit Linux
_HELD: weakref.WeakSet[FileLock] = weakref.WeakSet()


class FileLock(Closing):
    """An exclusive lock on a file, held from construction to ``close``.

    Threads of one process exclude each other as well: every lock has an open file of its own. The file is made if
    needed and stays, or goes with a lock that is ``temporary``: its holder removes it, and who waited for a file that
    was removed opens the new one (else two would hold "the" lock). All who lock a path must agree on which it is. If
    another still holds it after ``timeout_s`` seconds, BusyError names its process.
    """

    def __init__(self, path: Path, *, where: str, timeout_s: float, temporary: bool = False) -> None:
        make_folder(path.parent)
        self._temporary = path.absolute() if temporary else None
        self._descriptor: int | None = None
        end = time.monotonic() + timeout_s
        while self._descriptor is None:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                _wait(descriptor, where, timeout_s, end)
                if temporary and not _is_at(path, descriptor):
                    continue
                note = f"process {os.getpid()} since {format_time(SystemClock().now())}".encode()
                with suppress(OSError):  # a full disk: the lock holds without its note
                    os.ftruncate(descriptor, 0)
                    os.pwrite(descriptor, note, 0)
                self._descriptor = descriptor
            finally:
                if self._descriptor is None:
                    os.close(descriptor)
        _HELD.add(self)

    def close(self) -> None:
        """Let go; a second call does nothing."""
        if self._descriptor is not None:
            descriptor, self._descriptor = self._descriptor, None
            _HELD.discard(self)
            with suppress(OSError):
                os.ftruncate(descriptor, 0) if self._temporary is None else self._temporary.unlink()
            os.close(descriptor)

    def _forget(self) -> None:
        # A forked child shares the open file; left open there, the lock would outlive its holder.
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _wait(descriptor: int, where: str, timeout_s: float, end: float) -> None:
    pause = 0.001
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            left = end - time.monotonic()
            if left <= 0:
                holder = os.pread(descriptor, 200, 0).decode("ascii", "replace")
                raise BusyError(
                    f"there must be one writer at a time, and the wait of {timeout_s:g} s is over",
                    where=where,
                    got=holder or "a process that has just begun",
                    remedy="Wait for it, or end that process",
                ) from error
            time.sleep(min(pause, left))
            pause = min(pause * 2, 0.025)
        else:
            return


def _is_at(path: Path, descriptor: int) -> bool:
    """Whether the open file is still the one of that name."""
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(descriptor), path.stat())
    return False


def _forget_all() -> None:
    for lock in list(_HELD):
        lock._forget()  # noqa: SLF001 - same module, not part of what a lock offers
    _HELD.clear()


os.register_at_fork(after_in_child=_forget_all)


def lock_range(descriptor: int, command: int, kind: int, start: int = 0, length: int = 0) -> int:
    """Lock bytes of an open file, let go of them, or ask who holds them; the kind of lock that stands in the way.

    The lock is the open file's, and ends with its last descriptor, also after ``kill -9``. BlockingIOError where
    another open file holds some of them.

    Parameters
    ----------
    descriptor : int
    command : int
        ``fcntl.F_OFD_SETLK`` or ``F_OFD_GETLK``.
    kind : int
        ``fcntl.F_RDLCK``, ``F_WRLCK`` or ``F_UNLCK``.
    start, length : int, default 0
        A length of 0 is up to the end, wherever that is.
    """
    answer = fcntl.fcntl(descriptor, command, _RANGE.pack(kind, os.SEEK_SET, start, length, 0))
    return int(_RANGE.unpack(answer)[0])
