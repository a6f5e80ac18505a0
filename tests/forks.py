"""Forks of the test process that end, whatever they wait for."""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["forked"]


@contextmanager
def forked(limit_s: int = 60) -> Iterator[int]:
    """Process id of a fork: 0 in the child, which ends with the block, and after a minute if something in it waits.

    A fork has its parent's locks and garbage and none of its threads: a lock that one of them held, or an object that
    joins its threads when it is collected, is waited for without end. No timeout of pytest reaches it, and as it holds
    the pipes of its parent, the whole run waits for it.
    """
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(limit_s)
        gc.disable()
        try:
            yield child
        finally:
            os._exit(0)
    try:
        yield child
    finally:
        os.waitpid(child, 0)
