"""Fixed-point limbs: cut finite doubles into integer digits on a common scale, and round sums of digits back.

The arithmetic behind ``exact``; apart, so that the promise there and the bits here can be read alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from retrodict.core.errors import InputError

_CHUNK = 1 << 16  # rows worked on at a time: temporaries stay in the cache
_SMALLEST = -1074  # exponent of the smallest subnormal double
_WINDOW = 62  # bits that enter the last rounding: 53, and a sticky bit below them


@dataclass(frozen=True, slots=True)
class LimbScale:
    """Fixed-point layout shared by every prefix whose differences are to be combined.

    A value is ``sum(limb[j] * 2**(low + width * j))``.

    Parameters
    ----------
    low : int
        Exponent of the unit: every value is a multiple of ``2**low``.
    width : int
        Bits per limb.
    limbs : int
        Number of limbs.
    rows : int
        Most rows whose limbs may be added up without overflow of int64, two prefixes combined included.
    """

    low: int
    width: int
    limbs: int
    rows: int


@dataclass(frozen=True, slots=True)
class Shifted:
    """Numbers beyond the range of doubles, each ``values * 2**shift``: squares and cubes of very large or small ones.

    Parameters
    ----------
    values : float64 array, shape (n,)
        Finite; 0 or in ``[2**-300, 1]``.
    shift : int64 array, shape (n,)
        Exponents.
    """

    values: NDArray[np.float64]
    shift: NDArray[np.int64]

    @property
    def dtype(self) -> np.dtype[np.float64]:
        """Type of the values."""
        return self.values.dtype

    @property
    def size(self) -> int:
        """How many there are."""
        return self.values.size

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, rows: Any) -> Shifted:
        return Shifted(self.values[rows], self.shift[rows])

    def any(self) -> bool:
        """Whether one is not 0."""
        return bool(self.values.any())

    def fractions(self) -> list[Fraction]:
        """The numbers, exactly."""
        pairs = zip(self.values.tolist(), self.shift.tolist(), strict=True)
        return [Fraction(value) * Fraction(2) ** shift for value, shift in pairs]


Column: TypeAlias = "NDArray[np.float64] | NDArray[np.int64] | Shifted"


def read_column(values: ArrayLike | Shifted) -> Column:
    if isinstance(values, Shifted):
        return values
    array = np.asarray(values)
    if array.ndim != 1:
        raise InputError(
            "exact sums must be given one dimension", where="exact sums", got=array.shape, remedy="Pass one column"
        )
    if array.dtype.kind in "bi" or (array.dtype.kind == "u" and array.dtype.itemsize < 8):
        return array.astype(np.int64, copy=False)
    if array.dtype.kind != "f" or array.dtype.itemsize > 8:
        raise InputError(
            "exact sums must be given float64 or int64",
            where="exact sums",
            got=str(array.dtype),
            remedy="Cast the column first",
        )
    floats = array.astype(np.float64, copy=False)
    if not all(np.isfinite(floats[part]).all() for part in parts(floats.size)):
        raise InputError(
            "exact sums must be given finite values",
            where="exact sums",
            remedy="Remove nulls and infinities first",
            got="a null or an infinity",
        )
    return floats


def parts(size: int) -> Iterator[slice]:
    return (slice(start, min(start + _CHUNK, size)) for start in range(0, size, _CHUNK))


def exponents(values: Column, width: int) -> tuple[int, int]:
    """Exponent of the lowest set bit (a lower bound when one limb suffices anyway) and of the bound of all values."""
    if isinstance(values, Shifted):
        rows = values.values != 0.0
        if not rows.any():
            return 0, 1
        lowest = _lowest_bits(values.values[rows]) + values.shift[rows]
        return int(lowest.min()), int(magnitudes(values)[rows].max())
    largest, smallest = 0.0, math.inf
    for part in parts(values.size):
        size = np.abs(values[part])
        largest = max(largest, float(size.max()))
        size[size == 0.0] = math.inf
        smallest = min(smallest, float(size.min()))
    if largest == 0.0:
        return 0, 1
    high = math.frexp(largest)[1]
    low = max(math.frexp(smallest)[1] - 53, _SMALLEST)
    if high - low > width:
        pieces = (values[part].astype(np.float64, copy=False) for part in parts(values.size))
        low = min(int(_lowest_bits(piece[piece != 0.0]).min(initial=1024)) for piece in pieces)
    return low, high


def magnitudes(values: Column) -> NDArray[np.int64]:
    """Exponent of the power of two above each value; 0 for 0."""
    if isinstance(values, Shifted):
        return np.where(values.values == 0.0, 0, magnitudes(values.values) + values.shift)
    return np.frexp(np.abs(values.astype(np.float64)))[1].astype(np.int64)


def _lowest_bits(values: NDArray[np.float64]) -> NDArray[np.int64]:
    """Exponent of the lowest set bit of each value that is not 0."""
    bits = values.view(np.int64)
    biased = (bits >> 52) & 0x7FF
    mantissa = (bits & 0xFFFFFFFFFFFFF) | ((biased > 0).astype(np.int64) << 52)
    zeros = np.bitwise_count((mantissa & -mantissa) - 1)
    lowest: NDArray[np.int64] = np.maximum(biased, 1) + zeros - 1075
    return lowest


def digits_of(values: Column, scale: LimbScale) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Yield (place, digit of every value), highest place first; digits carry the sign of their value or are floored."""
    shift: NDArray[np.int64] | int = 0
    if isinstance(values, Shifted):
        shift, values = values.shift, values.values
    if values.dtype == np.int64 and scale.low == 0:
        integers = values.astype(np.int64, copy=False)
        top = scale.limbs - 1
        # A shift by 63 leaves the sign, which is the floored digit of every place above.
        high = integers >> min(scale.width * top, 63)
        _check_fits(bool(((high < 1 << scale.width) & (high >= -(1 << scale.width))).all()))
        yield top, high
        for place in range(top - 1, -1, -1):
            yield place, (integers >> min(scale.width * place, 63)) & ((1 << scale.width) - 1)
        return
    rest = values.astype(np.float64)
    if values.dtype == np.int64:  # a scale made for floats holds whole numbers that are doubles
        _check_fits(bool((np.abs(rest) <= 2.0**53).all()))
    with np.errstate(under="ignore"):
        for place in range(scale.limbs - 1, -1, -1):
            exponent = scale.low + scale.width * place - shift
            # Exact: the digit is a run of leading bits of the value, the rest the bits after it.
            digit = np.trunc(times_power(rest, -exponent))
            if place == scale.limbs - 1:
                _check_fits(bool((np.abs(digit) < 2.0**scale.width).all()))
            rest -= times_power(digit, exponent)
            yield place, digit.astype(np.int64)
    _check_fits(not rest.any())


def _check_fits(fits: bool) -> None:
    if not fits:
        raise InputError(
            "a value must fit the scale of its prefix",
            where="exact sums",
            remedy="Build the scale with scale_for over every value it will hold",
            got="a larger or finer one",
        )


def times_power(values: NDArray[np.float64], exponent: NDArray[np.int64] | int) -> NDArray[np.float64]:
    """Multiply by a power of two; ldexp only where the factor is not a normal double, as it is slower."""
    if isinstance(exponent, int) and -1022 <= exponent <= 1023:
        return values * 2.0**exponent
    scaled: NDArray[np.float64] = np.ldexp(values, exponent)
    return scaled


def whole(limbs: NDArray[np.int64], scale: LimbScale) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return sums in units of 2**low as int64, and where they fit; the other rows hold no meaning."""
    total = limbs[:, -1].copy()
    fits = np.ones(total.size, dtype=np.bool_)
    bound = 1 << (_WINDOW - scale.width)
    for place in range(scale.limbs - 2, -1, -1):
        lower = limbs[:, place]
        # The carry first, so that what is shifted up is the floor and what is added is below 2**width.
        total += lower >> scale.width
        fits &= (total < bound) & (total >= -bound)
        total <<= scale.width
        total |= lower & ((1 << scale.width) - 1)
    return total, fits


def round_wide(limbs: NDArray[np.int64], scale: LimbScale) -> NDArray[np.float64]:
    """Round sums of more than 62 bits: keep the leading bits, fold all others into one sticky bit."""
    digits, negative = _magnitude(limbs, scale)
    leading = np.zeros(len(limbs), dtype=np.int64)
    sticky = np.zeros(len(limbs), dtype=np.int64)
    dropped = np.zeros(len(limbs), dtype=np.int64)
    for digit in digits:
        # frexp may say one bit too many just below a power of two, which only keeps a bit less: 61 are plenty.
        room = _WINDOW - np.frexp(leading.astype(np.float64))[1].astype(np.int64)
        take = np.clip(room, 0, scale.width)
        cut = scale.width - take
        leading = (leading << take) | (digit >> cut)
        sticky |= digit & ((np.int64(1) << cut) - 1)
        dropped += cut
    leading |= sticky != 0
    with np.errstate(over="ignore"):
        size: NDArray[np.float64] = np.ldexp(leading.astype(np.float64), (dropped + scale.low).astype(np.int32))
    return np.where(negative, -size, size)


def _magnitude(limbs: NDArray[np.int64], scale: LimbScale) -> tuple[list[NDArray[np.int64]], NDArray[np.bool_]]:
    """Digits of the absolute sums, highest first, each in [0, 2**width), and where the sums are negative."""
    mask = (1 << scale.width) - 1
    # The carry of the top limb needs room: int64 is at most 62 // width further digits.
    extra = -(-62 // scale.width)
    columns = [limbs[:, place] for place in range(scale.limbs)]
    carry = np.zeros(len(limbs), dtype=np.int64)
    for column in columns:
        carry = (column + carry) >> scale.width
    negative = carry < 0
    sign = np.where(negative, np.int64(-1), np.int64(1))
    digits, carry = [], np.zeros(len(limbs), dtype=np.int64)
    for place in range(scale.limbs + extra):
        total = (columns[place] * sign if place < scale.limbs else 0) + carry
        digits.append(total & mask)
        carry = total >> scale.width
    return digits[::-1], negative
