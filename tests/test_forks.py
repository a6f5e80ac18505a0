"""A fork of the test process never holds up the run."""

import threading

from tests.forks import forked


def test_a_child_that_waits_for_ever_is_ended() -> None:
    """A lock that a thread of the parent held is nobody's in the child: only a signal ends the wait."""
    lock = threading.Lock()
    lock.acquire()
    with forked(limit_s=1) as child:
        if child == 0:
            lock.acquire()
