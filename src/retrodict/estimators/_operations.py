"""Operations that a fitted step consists of: one output column each, as an array and as a plain number.

A step is a list of them, so that "one row equals the batch, bit for bit", the JSON form and the names of the columns
are settled here once, for every step. Each operation does the same sequence of IEEE operations in both forms; and
logarithms and powers go through ``math`` number by number: the vectorised ones of NumPy differ between processors.
"""

from __future__ import annotations

import math
import sys
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from retrodict.core.errors import IntegrityError, check_known

Matrix = NDArray[np.float64]
Column = NDArray[np.float64]
Row = Sequence[float]

_LARGEST = sys.float_info.max


@dataclass(frozen=True, slots=True)
class Operation:
    """One output column, computed from the input column ``at``; by default the column as it is."""

    category: ClassVar[bool | None] = None  # whether the output holds category codes; None: as its input does

    at: int

    def column(self, matrix: Matrix) -> Column:
        """Output column of shape (n,)."""
        return matrix[:, self.at]

    def value(self, row: Row) -> float:
        """Output of one row."""
        return row[self.at]

    def label(self, names: Sequence[str], words: Mapping[int, Sequence[Any]]) -> str:  # noqa: ARG002
        """Name of the output, from those of the inputs; ``words`` are the vocabularies of categories, by place."""
        return names[self.at]

    @property
    def places(self) -> tuple[int, ...]:
        """Places of the input columns that the output is computed from."""
        return (self.at,)

    def to_list(self) -> list[Any]:
        """Plain JSON form; NaN is null."""
        values = [getattr(self, field.name) for field in fields(self)]
        return [type(self).__name__.lower(), *(_plain(value) for value in values)]


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return None if value != value else value  # noqa: PLR0124 - NaN


def _restored(value: Any) -> Any:
    return tuple(_restored(item) for item in value) if isinstance(value, list) else math.nan if value is None else value


@dataclass(frozen=True, slots=True)
class Take(Operation):
    """The column as it is."""


@dataclass(frozen=True, slots=True)
class Fill(Operation):
    """A value in the place of NaN."""

    with_: float

    def column(self, matrix: Matrix) -> Column:
        column = matrix[:, self.at]
        return np.where(np.isnan(column), self.with_, column)

    def value(self, row: Row) -> float:
        value = row[self.at]
        return self.with_ if value != value else value  # noqa: PLR0124 - NaN


@dataclass(frozen=True, slots=True)
class Flag(Operation):
    """1 where the value is missing, else 0."""

    category: ClassVar[bool | None] = False
    prefix: str = "missingindicator_"
    suffix: str = ""

    def column(self, matrix: Matrix) -> Column:
        return np.isnan(matrix[:, self.at]).astype(np.float64)

    def value(self, row: Row) -> float:
        value = row[self.at]
        return 1.0 if value != value else 0.0  # noqa: PLR0124 - NaN

    def label(self, names: Sequence[str], words: Mapping[int, Sequence[Any]]) -> str:  # noqa: ARG002
        return f"{self.prefix}{names[self.at]}{self.suffix}"


@dataclass(frozen=True, slots=True)
class Affine(Operation):
    """``(value - centre) / scale``."""

    centre: float
    scale: float

    def column(self, matrix: Matrix) -> Column:
        with np.errstate(over="ignore"):
            scaled: Column = (matrix[:, self.at] - self.centre) / self.scale
        return scaled

    def value(self, row: Row) -> float:
        return (row[self.at] - self.centre) / self.scale


@dataclass(frozen=True, slots=True)
class Curve(Operation):
    """A logarithm that keeps the sign, or the power of Yeo and Johnson, between two affine maps.

    ``(f((value - centre) / scale) - centre_out) / scale_out``; ``parameter`` is the lambda of the power, NaN for the
    logarithm ``sign(x) log(1 + |x|)``.
    """

    centre: float
    scale: float
    parameter: float
    centre_out: float
    scale_out: float

    def column(self, matrix: Matrix) -> Column:
        values = map(self._number, matrix[:, self.at].tolist())
        return np.fromiter(values, dtype=np.float64, count=len(matrix))

    def value(self, row: Row) -> float:
        return self._number(row[self.at])

    def _number(self, value: float) -> float:
        if value != value:  # noqa: PLR0124 - NaN
            return value
        inner, power = (value - self.centre) / self.scale, self.parameter
        size = math.log1p(abs(inner))
        # Yeo and Johnson 2000, Biometrika 87: ((1 + x)^p - 1) / p for x >= 0, with 2 - p and signs below zero.
        if power == power:  # noqa: PLR0124 - NaN
            power = power if inner >= 0 else 2.0 - power
            try:
                size = math.expm1(power * size) / power if abs(power) > 1e-12 else size
            except OverflowError:
                size = 1e150  # far out, and still finite after the affine map
        return (math.copysign(size, inner) - self.centre_out) / self.scale_out


@dataclass(frozen=True, slots=True)
class Clamp(Operation):
    """The value, or the nearer of two bounds; NaN stays."""

    low: float
    high: float

    def column(self, matrix: Matrix) -> Column:
        column = matrix[:, self.at]
        return np.where(column < self.low, self.low, np.where(column > self.high, self.high, column))

    def value(self, row: Row) -> float:
        value = row[self.at]
        return self.low if value < self.low else min(value, self.high)


@dataclass(frozen=True, slots=True)
class Bin(Operation):
    """Number of edges at or below the value, a category; NaN stays."""

    category: ClassVar[bool | None] = True
    edges: tuple[float, ...]

    def column(self, matrix: Matrix) -> Column:
        column = matrix[:, self.at]
        places = np.searchsorted(self.edges, column, side="right").astype(np.float64)
        return np.where(np.isnan(column), np.nan, places)

    def value(self, row: Row) -> float:
        value = row[self.at]
        return value if value != value else float(bisect_right(self.edges, value))  # noqa: PLR0124 - NaN


@dataclass(frozen=True, slots=True)
class Product(Operation):
    """The column times others; a product beyond the largest float is the largest float."""

    category: ClassVar[bool | None] = False
    others: tuple[int, ...]

    @property
    def places(self) -> tuple[int, ...]:
        """Places of the factors."""
        return (self.at, *self.others)

    def column(self, matrix: Matrix) -> Column:
        column = matrix[:, self.at]
        for other in self.others:
            with np.errstate(over="ignore"):
                column = column * matrix[:, other]
            column = np.where(np.isinf(column), np.copysign(_LARGEST, column), column)
        return column

    def value(self, row: Row) -> float:
        value = row[self.at]
        for other in self.others:
            value *= row[other]
            if value - value != 0.0 and value == value:  # noqa: PLR0124 - an infinity, not NaN
                value = math.copysign(_LARGEST, value)
        return value

    def label(self, names: Sequence[str], words: Mapping[int, Sequence[Any]]) -> str:  # noqa: ARG002
        return "*".join(names[place] for place in self.places)


@dataclass(frozen=True, slots=True)
class Equal(Operation):
    """1 where the category has this code, else 0."""

    category: ClassVar[bool | None] = False
    code: int

    def column(self, matrix: Matrix) -> Column:
        flags: Column = (matrix[:, self.at] == self.code).astype(np.float64)
        return flags

    def value(self, row: Row) -> float:
        return 1.0 if row[self.at] == self.code else 0.0

    def label(self, names: Sequence[str], words: Mapping[int, Sequence[Any]]) -> str:
        vocabulary = words.get(self.at, ())
        word = vocabulary[self.code] if self.code < len(vocabulary) else self.code
        return f"{names[self.at]}={word}"


@dataclass(frozen=True, slots=True)
class Lookup(Operation):
    """A number per code; codes without one, and missing ones, have numbers of their own."""

    category: ClassVar[bool | None] = False
    values: tuple[float, ...]
    other: float
    missing: float
    suffix: str = ""

    def column(self, matrix: Matrix) -> Column:
        codes = matrix[:, self.at]
        with np.errstate(invalid="ignore"):
            fits = (codes >= 0) & (codes < len(self.values)) & (codes == np.floor(codes))
        table = np.array([*self.values, self.other, self.missing])
        places = np.where(fits, codes, np.where(np.isnan(codes), len(self.values) + 1, len(self.values)))
        numbers: Column = table[places.astype(np.int64)]
        return numbers

    def value(self, row: Row) -> float:
        code = row[self.at]
        if code != code:  # noqa: PLR0124 - NaN
            return self.missing
        return self.values[int(code)] if 0 <= code < len(self.values) and code == int(code) else self.other

    def label(self, names: Sequence[str], words: Mapping[int, Sequence[Any]]) -> str:  # noqa: ARG002
        return f"{names[self.at]}{self.suffix}"


_KINDS: dict[str, Callable[..., Operation]] = {
    kind.__name__.lower(): kind for kind in (Take, Fill, Flag, Affine, Curve, Clamp, Bin, Product, Equal, Lookup)
}


def read_operation(body: Sequence[Any]) -> Operation:
    """Inverse of ``to_list``; IntegrityError for one that does not exist or has other fields."""
    check_known(body[0], _KINDS, "a stored operation must be one that exists", where="step", what="operation",
                error=IntegrityError)  # fmt: skip
    try:
        return _KINDS[body[0]](*(_restored(value) for value in body[1:]))
    except TypeError as error:
        raise IntegrityError("a stored operation must have the fields of its kind", where="step",
                             got=(body[0], len(body) - 1), remedy="Restore it from a backup") from error  # fmt: skip
