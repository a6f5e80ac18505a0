"""A clock that runs while this process and those it began compute, and stands still while others do.

Whoever has this folder on PYTHONPATH measures budgets by it: on a machine that does other things, too, every tool gets
the same work done in them. ``time.time`` is left alone where a tool does not budget by it.
"""

import os
import time
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_BEGAN = time.time()


def _of_children(parent: int) -> float:
    """Seconds of the processes that another one began, and of theirs."""
    total = 0.0
    for task in Path(f"/proc/{parent}/task").iterdir():
        try:
            for child in (task / "children").read_text().split():
                fields = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()
                total += sum(map(int, fields[11:15])) / _TICKS + _of_children(int(child))
        except OSError:  # it has just ended: its parent's sums have it
            continue
    return total


def processor_time() -> float:
    """Seconds of this process, of those it began, and of those of them that have ended."""
    mine = os.times()
    return time.process_time() + mine.children_user + mine.children_system + _of_children(os.getpid())


time.perf_counter = processor_time
if os.environ.get("BENCH_TIME") == "processor":
    time.time = lambda: _BEGAN + time.process_time()
