"""Mergeable moments: count, mean, variance, skewness, kurtosis of a column, the same from 1 or N partitions.

The sum is kept as an exact rational, so the mean is the correctly rounded one: the same bits for any partition in any
order. The central sums M2, M3, M4 of one block are taken about that exact mean (its remainder below the nearest double
included), and blocks are merged by the formulas of Chan, Golub and LeVeque (1983) and Pébay (Sandia report
SAND2008-6212, 2008) in rational arithmetic, rounded to 128 bits. M2 and M4 then are sums of terms none of which is
negative, each right to a few 2**-53, so they keep about 15 digits whatever the partition; M3 cancels by its nature and
is right relative to the sum of ``abs(x - mean)**3``.

Rejected: sums of powers (on 1e9 with noise of 1e-3 nothing of the variance is left), and the same merge in plain
doubles: a mean near 1e9 has a spacing of 1e-7, and that error enters every difference of two means. Double-double would
do there, but not where the sum itself cancels, nor near the ends of the range; rationals know neither problem and cost
about a tenth of a millisecond per merge.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from fractions import Fraction
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from retrodict.core.statistics._columns import NumberColumn, read_column
from retrodict.core.statistics.exact import scale_for, split_limbs, to_float

__all__ = ["Moments"]

_BITS = 128  # of the central sums between merges
_CHUNK = 1 << 16
_ZERO = Fraction(0)


@dataclass(frozen=True, slots=True)
class Moments:
    """Moments of the finite values of a column; nulls and infinities are counted, and shape nothing.

    Parameters
    ----------
    count, nulls, negative_infinities, positive_infinities : int
        Finite values, nulls (None, NaN) and infinities seen.
    total : Fraction
        Exact sum of the finite values.
    m2, m3, m4 : Fraction
        Sums of the second to fourth power of the difference to the mean.
    minimum, maximum : float or None
        Of the finite values; None without any.

    Notes
    -----
    ``mean`` has the same bits for any partition in any order. ``variance``, ``std`` and the fourth moment (``kurtosis``
    plus 3) agree to better than 1e-12, relative; ``skew`` to 1e-12 of the third absolute moment. Whole numbers beyond
    2**53 are rounded to a double first.

    Examples
    --------
    >>> left, right = Moments.of([1.0, 2.0, None]), Moments.of([6.0])
    >>> both = left.merge(right)
    >>> both.count, both.nulls, both.mean, both.variance()
    (3, 1, 3.0, 7.0)
    """

    kind: ClassVar[str] = "moments"

    count: int = 0
    nulls: int = 0
    negative_infinities: int = 0
    positive_infinities: int = 0
    total: Fraction = _ZERO
    m2: Fraction = _ZERO
    m3: Fraction = _ZERO
    m4: Fraction = _ZERO
    minimum: float | None = None
    maximum: float | None = None

    @classmethod
    def of(cls, values: Iterable[object]) -> Moments:
        """Moments of one block.

        Parameters
        ----------
        values : array_like of number, shape (n,)
            NumPy, Arrow, pandas or a plain sequence; None and NaN are null.

        Raises
        ------
        InputError
            If a value is not a number.
        """
        return _block(read_column(values, "moments"))

    def merge(self, other: Moments) -> Moments:
        """Moments of both blocks together (Pébay 2008, equations 2.1 for p = 2, 3, 4)."""
        n = self.count + other.count
        m2, m3, m4 = _merged_sums(self, other)
        return Moments(
            n,
            self.nulls + other.nulls,
            self.negative_infinities + other.negative_infinities,
            self.positive_infinities + other.positive_infinities,
            self.total + other.total,
            _rounded(m2),
            _rounded(m3),
            _rounded(m4),
            _least(self.minimum, other.minimum, min),
            _least(self.maximum, other.maximum, max),
        )

    @property
    def mean(self) -> float | None:
        """Mean of the finite values, correctly rounded; None without any."""
        return to_float(self.total / self.count) if self.count else None

    def variance(self, *, ddof: int = 1) -> float | None:
        """``M2 / (count - ddof)``; None if that divides by zero or less."""
        return to_float(self.m2 / (self.count - ddof)) if self.count > ddof else None

    def std(self, *, ddof: int = 1) -> float | None:
        """Square root of the variance, free of overflow on the way."""
        return _root(self.m2 / (self.count - ddof)) if self.count > ddof else None

    def skew(self) -> float | None:
        """Fisher's skewness ``g1 = m3 / m2**1.5``, as ``scipy.stats.skew``; None if all values are equal."""
        if not self.m2:
            return None
        return _root(self.count * self.m3**2 / self.m2**3) * (-1 if self.m3 < 0 else 1)

    def kurtosis(self) -> float | None:
        """Excess kurtosis ``g2 = m4 / m2**2 - 3``, as ``scipy.stats.kurtosis``; None if all values are equal."""
        return float(self.count * self.m4 / self.m2**2 - 3) if self.m2 else None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON form; the rationals are written in full, as ``hexadecimal p exponent of two``."""
        values = {entry.name: getattr(self, entry.name) for entry in fields(self)}
        rationals = {name: _write(value) for name, value in values.items() if isinstance(value, Fraction)}
        return {"kind": self.kind, **values, **rationals}

    @classmethod
    def from_dict(cls, body: Mapping[str, Any]) -> Moments:
        """Inverse of ``to_dict``."""
        read: dict[str, Any] = {name: int(body[name]) for name in cls.__slots__[:4]}
        read.update({name: _read(body[name]) for name in ("total", "m2", "m3", "m4")})
        read.update({name: None if body[name] is None else float(body[name]) for name in ("minimum", "maximum")})
        return cls(**read)


def _block(column: NumberColumn) -> Moments:
    values, others = column.finite, (column.nulls, column.lowest, column.highest)
    if not values.size:
        return Moments(0, *others)
    total = _exact_total(values)
    differences, scale = _centred(values, total)
    squares = differences * differences
    # np.sum adds pairwise: its error grows with the logarithm of the rows, not with the rows.
    sums = float(np.sum(squares)), float(np.sum(squares * differences)), float(np.sum(squares * squares))
    m2, m3, m4 = (Fraction(part) * _power(scale * order) for order, part in enumerate(sums, start=2))
    # + 0.0 turns a negative zero into zero, so that equal moments read alike.
    return Moments(values.size, *others, total, m2, m3, m4, float(values.min()) + 0.0, float(values.max()) + 0.0)


def _exact_total(values: NDArray[np.float64]) -> Fraction:
    total = _ZERO
    for start in range(0, values.size, _CHUNK):
        part = values[start : start + _CHUNK]
        scale = scale_for(part)
        limbs = split_limbs(part, scale).sum(axis=0)
        units = sum(int(limb) << (scale.width * place) for place, limb in enumerate(limbs))
        total += units * _power(scale.low)
    return total


def _centred(values: NDArray[np.float64], total: Fraction) -> tuple[NDArray[np.float64], int]:
    """Differences to the exact mean over a power of two that keeps their fourth powers in range, and its exponent.

    The nearest double to the mean is taken off first, then what it lacks. The first step is exact for values within a
    factor of two of the mean (Sterbenz); for all others the difference is so large that the remainder is lost in it.
    """
    mean = total / values.size
    # Shrinking first keeps the difference of two values near opposite ends of the range finite; growing (a negative
    # shrink) keeps the mean of the smallest doubles from being rounded away.
    top = int(math.frexp(float(np.abs(values).max()))[1])
    shrink = max(0, top - 1000) or min(0, top + 500)
    base = np.ldexp(values, -shrink) if shrink else values
    scaled_mean = mean * _power(-shrink)
    nearest = float(scaled_mean)
    differences = base - nearest
    differences -= float(scaled_mean - Fraction(nearest))
    size = float(np.abs(differences).max())
    exponent = math.frexp(size)[1] if size else 0
    if abs(exponent) > 200:
        return np.ldexp(differences, -exponent), exponent + shrink
    return differences, shrink


def _merged_sums(a: Moments, b: Moments) -> tuple[Fraction, Fraction, Fraction]:
    m2, m3, m4 = a.m2 + b.m2, a.m3 + b.m3, a.m4 + b.m4
    if not a.count or not b.count:
        return m2, m3, m4
    n1, n2, n = a.count, b.count, a.count + b.count
    d = b.total / n2 - a.total / n1
    m4 += (
        d**4 * Fraction(n1 * n2 * (n1 * n1 - n1 * n2 + n2 * n2), n**3)
        + 6 * d**2 * (n1 * n1 * b.m2 + n2 * n2 * a.m2) / n**2
        + 4 * d * (n1 * b.m3 - n2 * a.m3) / n
    )
    m3 += d**3 * Fraction(n1 * n2 * (n1 - n2), n**2) + 3 * d * (n1 * b.m2 - n2 * a.m2) / n
    m2 += d**2 * Fraction(n1 * n2, n)
    return m2, m3, m4


def _power(exponent: int) -> Fraction:
    return Fraction(1 << exponent) if exponent >= 0 else Fraction(1, 1 << -exponent)


def _rounded(value: Fraction) -> Fraction:
    """Nearest number of 128 significant bits, so that rationals do not grow from merge to merge."""
    shift = _BITS - (abs(value.numerator).bit_length() - value.denominator.bit_length())
    return round(value * _power(shift)) * _power(-shift) if value else _ZERO


def _root(value: Fraction) -> float:
    """Square root of a rational that may lie outside the range of a double."""
    if not value:
        return 0.0
    half = (value.numerator.bit_length() - value.denominator.bit_length()) // 2
    try:
        return math.ldexp(math.sqrt(float(value * _power(-2 * half))), half)
    except OverflowError:
        return math.inf


def _least(a: float | None, b: float | None, choose: Any) -> float | None:
    return b if a is None else a if b is None else choose(a, b)


def _write(value: Fraction) -> str:
    return f"{value.numerator:x}p{1 - value.denominator.bit_length()}"


def _read(text: str) -> Fraction:
    digits, _, exponent = text.partition("p")
    return int(digits, 16) * _power(int(exponent))
