"""Loops in C: one extension module, made when the package is installed where a compiler is.

Every function in it has a twin in Python, which says what it means, is what tests compare it with, and does the work
where there is no compiler or ``RETRODICT_NATIVE=0`` is set. Numba was rejected: a hundred megabytes and half a second
of import for a few loops; Cython: one more language for a reader, and a tool to build with.
"""

from __future__ import annotations

import os
from types import ModuleType

__all__ = ["kernel"]

_VERSION = 3

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
