"""Smallest or largest value of many ranges of one array, whatever their lengths.

Nothing is subtracted, so a window's extreme costs a range of its own. In C a range is looked at on levels of every
sixty-four below it; NumPy, which has no loops, does with running extremes inside blocks and a sparse table of blocks.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrodict.core.native import kernel
from retrodict.features.facts.columns import Ints

__all__ = ["RangeExtremes", "SparseExtremes", "identity_of"]

_FAN = 64
_BLOCK = 16


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
        if kernel is None:
            self._twin = SparseExtremes(values, largest=largest)
        self._levels = [np.ascontiguousarray(values)]
        merge = np.maximum if largest else np.minimum
        while kernel is not None and len(self._levels[-1]) > _FAN:
            below = self._levels[-1]
            self._levels.append(merge.reduceat(below, np.arange(0, len(below), _FAN)))

    def over(self, left: Ints, right: Ints) -> NDArray[Any]:
        """Extreme of each range [left, right), the identity for an empty one."""
        if kernel is None:
            return self._twin.over(left, right)
        values = self._levels[0]
        best = np.full(len(left), self._nothing, dtype=values.dtype)
        ranges = np.ascontiguousarray(left), np.ascontiguousarray(right)
        kernel.extremes(tuple(self._levels), *ranges, best, values.dtype.kind == "f", self._largest)
        return best


class SparseExtremes:
    """Twin of the kernel's ranges.

    Sparse table: Bender and Farach-Colton, "The LCA Problem Revisited". Of blocks and not of values, it takes a tenth
    of the memory, so it is made once for all windows.
    """

    def __init__(self, values: NDArray[Any], *, largest: bool) -> None:
        self._merge = np.maximum if largest else np.minimum
        self._nothing, self._values = identity_of(values.dtype, largest=largest), values
        blocks = np.full((-(-len(values) // _BLOCK), _BLOCK), self._nothing, dtype=values.dtype)
        blocks.reshape(-1)[: len(values)] = values
        self._upto = self._merge.accumulate(blocks, axis=1).reshape(-1)
        self._onward = self._merge.accumulate(blocks[:, ::-1], axis=1)[:, ::-1].reshape(-1)
        # Level j: the extreme of every run of 2**j blocks.
        self._levels = [self._upto[_BLOCK - 1 :: _BLOCK].copy()]
        while len(self._levels[-1]) > (half := 1 << (len(self._levels) - 1)):
            self._levels.append(self._merge(self._levels[-1][:-half], self._levels[-1][half:]))

    def over(self, left: Ints, right: Ints) -> NDArray[Any]:
        """Extreme of each range [left, right), the identity for an empty one."""
        best = np.full(len(left), self._nothing, dtype=self._values.dtype)
        first, last = left // _BLOCK, (right - 1) // _BLOCK
        rows = np.flatnonzero((right > left) & (first < last))
        best[rows] = self._merge(self._onward[left[rows]], self._upto[right[rows] - 1])
        self._merge_blocks(best, rows, first[rows] + 1, last[rows])
        rows = np.flatnonzero((right > left) & (first == last))
        for step in range(_BLOCK):
            rows = rows[left[rows] + step < right[rows]]
            best[rows] = self._merge(best[rows], self._values[left[rows] + step])
        return best

    def _merge_blocks(self, best: NDArray[Any], rows: Ints, first: Ints, end: Ints) -> None:
        level_of = np.frexp((end - first).astype(np.float64))[1] - 1
        for level in range(int(level_of.max(initial=-1)) + 1):
            here, run = np.flatnonzero((level_of == level) & (end > first)), self._levels[level]
            inside = self._merge(run[first[here]], run[end[here] - (1 << level)])
            best[rows[here]] = self._merge(best[rows[here]], inside)
