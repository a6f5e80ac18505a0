"""Smallest or largest value of many ranges of one array, whatever their lengths.

Nothing is subtracted, so a window's extreme costs a range of its own. In C a range is looked at on levels of every
sixty-four below it; NumPy, which has no loops, merges runs of one, two, four and so on values.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrodict.core.native import kernel
from retrodict.features.facts.columns import Ints

__all__ = ["RangeExtremes", "identity_of", "sparse_extremes"]

_FAN = 64


def identity_of(dtype: np.dtype[Any], *, largest: bool) -> Any:
    """Neutral element of max (largest) or min for a type."""
    if dtype.kind == "f":
        return -np.inf if largest else np.inf
    return np.iinfo(np.int64).min if largest else np.iinfo(np.int64).max


class RangeExtremes:
    """Smallest or largest value of ranges of an array.

    Parameters
    ----------
    values : int64 or float64 array
        The values.
    largest : bool
        Whether the largest are wanted.
    """

    def __init__(self, values: NDArray[Any], *, largest: bool) -> None:
        self._largest, self._nothing = largest, identity_of(values.dtype, largest=largest)
        self._levels = [np.ascontiguousarray(values)]
        merge = np.maximum if largest else np.minimum
        while kernel is not None and len(self._levels[-1]) > _FAN:
            below = self._levels[-1]
            self._levels.append(merge.reduceat(below, np.arange(0, len(below), _FAN)))

    def over(self, left: Ints, right: Ints) -> NDArray[Any]:
        """Extreme of each range [left, right), the identity for an empty one."""
        values = self._levels[0]
        if kernel is None:
            return sparse_extremes(values, left, right, largest=self._largest)
        best = np.full(len(left), self._nothing, dtype=values.dtype)
        ranges = np.ascontiguousarray(left), np.ascontiguousarray(right)
        kernel.extremes(tuple(self._levels), *ranges, best, values.dtype.kind == "f", self._largest)
        return best


def sparse_extremes(values: NDArray[Any], left: Ints, right: Ints, *, largest: bool) -> NDArray[Any]:
    """Twin of the kernel: the extreme of each range [left, right).

    Sparse table: Bender and Farach-Colton, "The LCA Problem Revisited". Its levels, one of every run of ``2**level``
    values, come one after the other and none stays, so it takes no more memory than the values.
    """
    merge = np.maximum if largest else np.minimum
    best = np.full(len(left), identity_of(values.dtype, largest=largest), dtype=values.dtype)
    level_of = np.frexp(np.maximum(right - left, 0).astype(np.float64))[1] - 1
    for level in range(int(level_of.max(initial=-1)) + 1):
        rows = np.flatnonzero(level_of == level)
        best[rows] = merge(values[left[rows]], values[right[rows] - (1 << level)])
        values = merge(values[: -(1 << level)], values[1 << level :])
    return best
