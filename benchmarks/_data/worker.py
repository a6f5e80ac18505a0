"""Runs one job in a process of its own: seconds from the first import of the tool to its answer, and peak memory.

The start of Python itself is not counted, for anybody. Peak memory is VmHWM, not ru_maxrss: the latter begins with what
the parent had.
"""

from __future__ import annotations

import json
import re
import resource
import sys
import time
from importlib import import_module
from pathlib import Path


def peak_bytes() -> int:
    """Peak resident memory of this process."""
    status = Path("/proc/self/status")
    if status.exists():
        return int(re.search(r"VmHWM:\s+(\d+) kB", status.read_text())[1]) * 1024  # type: ignore[index]
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def main() -> None:
    """``worker.py module job JSON-of-arguments``; prints one JSON object as its last line."""
    module, job, given = sys.argv[1:]
    start = time.perf_counter()
    answer = getattr(import_module(module), job)(**json.loads(given))
    seconds = time.perf_counter() - start
    print(json.dumps({"seconds": seconds, "peak": peak_bytes(), "answer": answer}))


if __name__ == "__main__":
    main()
