"""Times a job and says what it gave, so that all sides can be compared."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np


def answer(job: Callable[[], Any], repeat: int, names: Sequence[str], *, prefix: str = "") -> dict[str, Any]:
    """Best seconds of some runs, their CPU seconds, and per column how many values there are and their sum."""
    seconds = cpu = float("inf")
    result: Any = None
    for _ in range(repeat):
        result = None
        gc.collect()
        start, used = time.perf_counter(), time.process_time()
        result = job()
        seconds, cpu = min(seconds, time.perf_counter() - start), min(cpu, time.process_time() - used)
    return {"seconds": seconds, "cpu": cpu, "columns": {name: summed(result, prefix + name) for name in names}}


def summed(result: Any, name: str) -> list[float]:
    """Number of values and their sum; a count of nothing counts as no value, as joins give it."""
    values = np.asarray(result[name] if isinstance(result, dict) else result.column(name).to_numpy(), dtype=np.float64)
    held = values[np.isfinite(values) & ~(("count" in name) & (values == 0))]
    return [len(held), float(np.sort(held).sum())]
