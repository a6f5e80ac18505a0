"""Exact, order-independent sums of floats: the one meaning of SUM in batch, stream and request.

House rule: the sum of a set of finite doubles is their exact real sum, rounded once to the nearest double (ties to
even); this is what ``math.fsum`` returns. Such a sum does not depend on the order of the rows or on how they were cut
into batches, so every execution of one definition agrees bit for bit.

Over a million windows ``math.fsum`` is too slow, and differences of ordinary prefix sums are wrong (cancellation). Here
each value is written as an integer multiple of one common unit ``2**low`` and cut into ``limbs`` digits of ``width``
bits; the prefix sums of the digits are int64 and exact, so a difference of two prefixes is exact too, and is rounded
once. This is the fixed-point "superaccumulator" of Kulisch, sized to the data instead of to all 2,100 bits of a double.
Compensated (Neumaier) and double-double prefixes were rejected: accurate, but not exact, hence not order-independent.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from fractions import Fraction

import numpy as np
from numpy.typing import ArrayLike, NDArray

from retrodict.core.errors import InputError, InternalError
from retrodict.core.statistics._limbs import (
    LimbScale,
    Shifted,
    digits_of,
    exponents,
    magnitudes,
    parts,
    read_column,
    round_wide,
    times_power,
    whole,
)

__all__ = [
    "LimbScale",
    "Shifted",
    "exact_sum",
    "magnitudes",
    "round_limbs",
    "scale_for",
    "split_limbs",
    "to_float",
    "whole_limbs",
]


def exact_sum(values: Iterable[float]) -> float:
    """Exact sum of finite floats rounded once; beyond the range of a double it is an infinity.

    Differs from ``math.fsum`` only where that raises ``OverflowError`` (a partial sum, or the sum, above 1.8e308).

    Examples
    --------
    >>> exact_sum([1e16, 1.0, -1e16])
    1.0
    >>> exact_sum([1e308, 1e308, -1e308])
    1e+308
    """
    arrays = list(values)
    try:
        return math.fsum(arrays)
    except OverflowError:
        # Only sums near the end of the range come here.
        return to_float(sum(map(Fraction, arrays), Fraction(0)))


def to_float(value: Fraction) -> float:
    """Nearest double of a rational; beyond the range of a double an infinity."""
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def scale_for(values: ArrayLike | Shifted, *, rows: int | None = None) -> LimbScale:
    """Smallest layout that holds these values and sums of them.

    Parameters
    ----------
    values : array_like of float64 or int64, or Shifted, shape (n,)
        Finite values; nulls removed by the caller.
    rows : int, optional
        Rows that will be added up; None means n.

    Returns
    -------
    LimbScale

    Raises
    ------
    InputError
        If a value is NaN or infinite, or the array is not one-dimensional.
    """
    array = read_column(values)
    rows = max(array.size, 1) if rows is None else max(rows, 1)
    # One bit for the sign, one for a difference of two prefixes, one for the carry while rounding.
    width = 61 - rows.bit_length()
    if width < 8:
        raise InputError(
            "exact sums must be of at most 2**53 rows", where="exact sums", got=rows, remedy="Sum the rows in parts"
        )
    if not isinstance(array, Shifted) and array.dtype == np.int64:
        extreme = max(-int(array.min(initial=0)), int(array.max(initial=0)))
        low, high = 0, max(extreme.bit_length(), 1)
    else:
        low, high = exponents(array, width)
    return LimbScale(low=low, width=width, limbs=max(1, -(-(high - low) // width)), rows=rows)


def split_limbs(values: ArrayLike | Shifted, scale: LimbScale) -> NDArray[np.int64]:
    """Limbs of each value, shape (n, scale.limbs); adding rows of the result adds the values exactly.

    Raises
    ------
    InputError
        If a value does not fit the scale.
    """
    array = read_column(values)
    limbs = np.empty((array.size, scale.limbs), dtype=np.int64)
    for part in parts(array.size):
        for place, digits in digits_of(array[part], scale):
            limbs[part, place] = digits
    return limbs


def round_limbs(limbs: NDArray[np.int64], scale: LimbScale) -> NDArray[np.float64]:
    """Nearest double (ties to even) of exact sums; beyond the range of a double an infinity.

    Parameters
    ----------
    limbs : int64 array, shape (n, scale.limbs)
        Sums or differences of limbs of one scale.
    scale : LimbScale
        Their layout.

    Returns
    -------
    float64 array, shape (n,)
        A sum of zero is ``+0.0``.
    """
    _check_shape(limbs, scale)
    if scale.limbs == 2 and scale.width <= 53:
        # Both halves are doubles, so one addition rounds their sum, and rounds it once.
        top = limbs[:, 1] + (limbs[:, 0] >> scale.width)
        if not top.size or max(int(top.max()), -int(top.min())) < 1 << 53:
            low = limbs[:, 0] & ((1 << scale.width) - 1)
            with np.errstate(over="ignore"):
                return times_power(times_power(top.astype(np.float64), scale.width) + low, scale.low)
    values, fits = whole(limbs, scale)
    # int64 to double rounds once, and a multiple of 2**-1074 loses nothing by scaling into the subnormals.
    with np.errstate(over="ignore"):
        rounded: NDArray[np.float64] = times_power(values.astype(np.float64), scale.low)
    if not fits.all():
        rounded[~fits] = round_wide(limbs[~fits], scale)
    return rounded


def whole_limbs(limbs: NDArray[np.int64], scale: LimbScale) -> NDArray[np.int64]:
    """Exact sums of an int64 column as int64.

    Raises
    ------
    InputError
        If a sum leaves the range of int64, or the scale is not that of whole numbers.
    """
    _check_shape(limbs, scale)
    if scale.low != 0:
        raise InputError(
            "whole sums must have a scale whose unit is one",
            where="exact sums",
            got=scale.low,
            remedy="Build it with scale_for over the int64 column",
        )
    values, fits = whole(limbs, scale)
    for row in np.flatnonzero(~fits):
        total = sum(int(limb) << (scale.width * place) for place, limb in enumerate(limbs[row]))
        if not -(2**63) <= total < 2**63:
            raise InputError(
                "the sum of a whole-number column must fit in 64 bits",
                where="exact sums",
                remedy="Sum it as a float column",
                got="a sum beyond them",
            )
        values[row] = total
    return values


def _check_shape(limbs: NDArray[np.int64], scale: LimbScale) -> None:
    if limbs.ndim != 2 or limbs.shape[1] != scale.limbs or limbs.dtype != np.int64:
        raise InternalError(
            "limbs must have one int64 column per limb of their scale",
            where="exact sums",
            got=limbs.shape,
            remedy="Report it with the command",
        )
