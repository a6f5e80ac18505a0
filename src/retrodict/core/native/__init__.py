"""Loops in C: one extension module, made when the package is installed where a compiler is.

Every function in it has a twin in Python, which says what it means, is what tests compare it with, and does the work
where there is no compiler or ``RETRODICT_NATIVE=0`` is set. Numba was rejected: a hundred megabytes and half a second
of import for a few loops; Cython: one more language for a reader, and a tool to build with.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from types import ModuleType
from typing import TypeVar

__all__ = ["in_threads", "kernel"]

T = TypeVar("T")
R = TypeVar("R")

_VERSION = 5

kernel: ModuleType | None
"""The extension module, None where Python does its work."""

if os.environ.get("RETRODICT_NATIVE") == "0":
    kernel = None
else:
    try:
        from retrodict.core.native import _kernel as kernel
    except ImportError:
        kernel = None
    if getattr(kernel, "VERSION", 1) != _VERSION:  # made from older sources, which read older blocks
        kernel = None


def in_threads(job: Callable[[T], R], *parts: T) -> list[R]:
    """Results of a job that lets the interpreter go, of each part, in order; at the same time where there are cores."""
    if len(parts) == 1 or (os.cpu_count() or 1) == 1:
        return [job(part) for part in parts]
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(len(parts)) as pool:
        return list(pool.map(job, parts))
