"""A mergeable quantile sketch that carries its own proven bound on the rank error.

A deterministic compactor: a level holds values that stand for ``2**level`` rows each; a level with more than ``k``
values is sorted and every second value moves up, standing for two. One such step moves the rank of any number by at
most the weight of its level, upwards if the first of each pair is kept, downwards if the second. The sketch adds up
both and always keeps the side whose sum is smaller, so ``rank_error`` is no estimate: the true rank of every number
lies within it, for any data in any order.

Rejected: KLL (Karnin, Lang and Liberty 2016), whose bound is smaller for the same space but holds only with some
probability, and needs a seed; t-digest, which has no bound at all; GK summaries, which do not merge without loss.
What a block holds in memory need not be streamed: ``of`` sorts it once and keeps the middle of each run of ``2**level``
rows, whose error is at most half a run (Munro and Paterson 1980 compacts the same way, from a stream).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from retrodict.core.errors import InputError
from retrodict.core.statistics._columns import read_column

__all__ = ["QuantileSketch"]

Values = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class QuantileSketch:
    """Quantiles and ranks of the finite values of a column, mergeable.

    What holds:

    * up to ``k`` values nothing is compacted: quantiles equal ``numpy.quantile`` of all values, in any partition and
      order, and sketches of the same values are equal;
    * beyond that, every rank is within ``rank_error`` rows, a bound that the sketch proves as it goes. One block of n
      values has ``rank_error <= n / k``; N blocks of similar size merged stay near ``n (1 + log2 N) / k`` at worst;
    * ``a.merge(b) == b.merge(a)``. Merging in another grouping gives another sketch, which keeps its own bound;
    * ``minimum`` and ``maximum`` are exact.

    Parameters
    ----------
    k : int
        Values per level; even.
    levels : tuple of float64 array
        Sorted values; those of level j stand for ``2**j`` rows each.
    over, under : int
        Most rows by which ``rank`` may be too high, and too low.
    nulls, infinities : int
        Values counted and left out.
    minimum, maximum : float or None
        Of the finite values.

    Examples
    --------
    >>> sketch = QuantileSketch.of([1.0, 2.0, None]).merge(QuantileSketch.of([4.0]))
    >>> sketch.count, sketch.quantile(0.5), sketch.rank_error
    (3, 2.0, 0)
    >>> big = QuantileSketch.of(range(1_000_000))
    >>> big.rank_error <= 1_000_000 / 1024
    True
    """

    kind: ClassVar[str] = "quantiles"

    k: int = 1024
    levels: tuple[Values, ...] = ()
    over: int = 0
    under: int = 0
    nulls: int = 0
    infinities: int = 0
    minimum: float | None = None
    maximum: float | None = None

    def __post_init__(self) -> None:
        if self.k < 8 or self.k % 2:
            raise InputError(
                "a level must hold an even number of values, at least 8",
                where="quantile sketch",
                got=self.k,
                remedy="Leave k out for the default",
            )
        for level in self.levels:
            level.flags.writeable = False

    @classmethod
    def of(cls, values: Iterable[object], *, k: int = 1024) -> QuantileSketch:
        """Sketch of one block.

        Parameters
        ----------
        values : array_like of number, shape (n,)
            NumPy, Arrow, pandas or a plain sequence; None and NaN are null, and like infinities they are left out.
        k : int, default 1024
            Values per level: the rank error of one block is at most ``n / k``. Even, at least 8.

        Raises
        ------
        InputError
            If a value is not a number, or ``k`` is odd or below 8.
        """
        empty = cls(k)
        column = read_column(values, "quantile sketch")
        infinities = column.lowest + column.highest
        if not column.finite.size:
            return cls(k, (), 0, 0, column.nulls, infinities)
        ordered = np.sort(column.finite)
        ordered += 0.0  # a negative zero becomes zero, so that equal sketches read alike
        ends = float(ordered[0]), float(ordered[-1])
        if ordered.size <= empty.k:
            return cls(k, (ordered,), 0, 0, column.nulls, infinities, *ends)
        top = math.ceil(math.log2(ordered.size / k))
        levels, start = [], 0
        for level in range(top, -1, -1):
            # Runs lie side by side in sorted order, so one number can cut through a single run only.
            stop = start + ((ordered.size - start) >> level << level)
            levels.append(ordered[start:stop][(1 << level) // 2 :: 1 << level].copy())
            start = stop
        half = 1 << (top - 1)
        return cls(k, tuple(reversed(levels)), half - 1, half, column.nulls, infinities, *ends)

    def merge(self, other: QuantileSketch) -> QuantileSketch:
        """Sketch of both blocks together; the bounds add up, plus what is compacted now.

        Raises
        ------
        InputError
            If the sketches differ in ``k``.
        """
        if self.k != other.k:
            raise InputError(
                "sketches that are merged must have one k",
                where="quantile sketch",
                got=(self.k, other.k),
                remedy="Build both with the same k",
            )
        depth = max(len(self.levels), len(other.levels))
        stacked = [[s.levels[j] for s in (self, other) if j < len(s.levels)] for j in range(depth)]
        levels, over, under = self._compact(stacked, self.over + other.over, self.under + other.under)
        lows = [s.minimum for s in (self, other) if s.minimum is not None]
        highs = [s.maximum for s in (self, other) if s.maximum is not None]
        return QuantileSketch(
            self.k, levels, over, under, self.nulls + other.nulls, self.infinities + other.infinities,
            min(lows, default=None), max(highs, default=None),
        )  # fmt: skip

    def _compact(self, stacked: list[list[Values]], over: int, under: int) -> tuple[tuple[Values, ...], int, int]:
        levels: list[Values] = []
        moved: Values | None = None
        level = 0
        while level < len(stacked) or moved is not None:
            parts = (stacked[level] if level < len(stacked) else []) + ([] if moved is None else [moved])
            values, moved = np.sort(np.concatenate(parts)), None
            if values.size > self.k:
                paired = values[: values.size // 2 * 2]
                first = over <= under
                moved, values = paired[0 if first else 1 :: 2], values[paired.size :]
                over, under = (over + (1 << level), under) if first else (over, under + (1 << level))
            levels.append(values)
            level += 1
        return tuple(levels), over, under

    @cached_property
    def count(self) -> int:
        """Finite values seen."""
        return sum(values.size << level for level, values in enumerate(self.levels))

    @property
    def rank_error(self) -> int:
        """Most rows by which ``rank`` of any number can be wrong; 0 while nothing was compacted."""
        return max(self.over, self.under)

    @cached_property
    def _weighted(self) -> tuple[Values, NDArray[np.int64]]:
        """All values in order, and how many rows each of them and those before it stand for."""
        if not self.levels:
            return np.empty(0), np.zeros(0, dtype=np.int64)
        values = np.concatenate(self.levels)
        weights = np.concatenate([np.full(v.size, 1 << j, dtype=np.int64) for j, v in enumerate(self.levels)])
        order = np.argsort(values, kind="stable")
        return values[order], np.cumsum(weights[order])

    def quantiles(self, shares: ArrayLike) -> Values:
        """Values at these shares of the rows, by linear interpolation as ``numpy.quantile``; NaN without values.

        Parameters
        ----------
        shares : array_like of float, shape (m,)
            Each between 0 and 1; 0 is the minimum and 1 the maximum, exactly.

        Raises
        ------
        InputError
            If a share lies outside 0 to 1.
        """
        requested = np.atleast_1d(np.asarray(shares, dtype=np.float64))
        if not ((requested >= 0) & (requested <= 1)).all():
            raise InputError(
                "a share of rows must lie between 0 and 1",
                where="quantile sketch",
                got=shares,
                remedy="Pass 0.5 for the median",
            )
        if self.minimum is None or self.maximum is None:
            return np.full(requested.size, np.nan)
        places = requested * (self.count - 1)
        below = np.floor(places).astype(np.int64)
        low, high = self._at(below), self._at(np.minimum(below + 1, self.count - 1))
        part = places - below
        # The two forms NumPy uses: each is exact at its own end.
        with np.errstate(over="ignore"):
            width = high - low
        estimates = np.where(part < 0.5, low + width * part, high - width * (1 - part))
        estimates = np.where(np.isfinite(width), estimates, low * (1 - part) + high * part)
        return np.where(low == high, low, np.clip(estimates, self.minimum, self.maximum))

    def _at(self, ranks: NDArray[np.int64]) -> Values:
        """Value of the row at these ranks, counted from 0; the first and last row are exact."""
        values, reach = self._weighted
        estimates = values[np.searchsorted(reach, ranks, side="right")]
        estimates = np.where(ranks <= 0, np.float64(self.minimum or 0.0), estimates)
        return np.where(ranks >= self.count - 1, np.float64(self.maximum or 0.0), estimates)

    def quantile(self, share: float) -> float | None:
        """Value at one share of the rows; None without values."""
        return None if self.minimum is None else float(self.quantiles([share])[0])

    def rank(self, value: float) -> int:
        """Rows whose value is at most this, within ``rank_error``; exact below the minimum and from the maximum on."""
        if self.minimum is None or self.maximum is None or value < self.minimum:
            return 0
        if value >= self.maximum:
            return self.count
        values, reach = self._weighted
        place = int(np.searchsorted(values, value, side="right"))
        return int(reach[place - 1]) if place else 0

    def __eq__(self, other: object) -> bool:
        return isinstance(other, QuantileSketch) and self.to_dict() == other.to_dict()

    def __hash__(self) -> int:
        return hash((self.k, self.count, self.over, self.under, self.minimum, self.maximum))

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON form."""
        values = {entry.name: getattr(self, entry.name) for entry in fields(self)}
        return {"kind": self.kind, **values, "levels": [level.tolist() for level in self.levels]}

    @classmethod
    def from_dict(cls, body: Mapping[str, Any]) -> QuantileSketch:
        """Inverse of ``to_dict``."""
        levels = tuple(np.array(level, dtype=np.float64) for level in body["levels"])
        counts = (int(body[name]) for name in ("over", "under", "nulls", "infinities"))
        ends = (None if body[name] is None else float(body[name]) for name in ("minimum", "maximum"))
        return cls(int(body["k"]), levels, *counts, *ends)
