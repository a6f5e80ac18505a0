"""Numbers of the matrix: their scale, their tails, their bins and their products."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import combinations, combinations_with_replacement
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from retrodict.core.errors import InputError, check_known
from retrodict.estimators._operations import Affine, Bin, Clamp, Curve, Matrix, Operation, Product, Take
from retrodict.estimators.normaliser import Normaliser
from retrodict.estimators.steps import Step, weighted_quantile

__all__ = ["Binner", "Clipper", "Interactions", "Scaler"]

_METHODS = ("log", "min_max", "power", "robust", "standard")
_MOST_PRODUCTS = 2_000


def spread(column: NDArray[np.float64], weights: NDArray[np.float64] | None, method: str) -> tuple[float, float]:
    """Centre and scale of the values that are there; a column without values or spread has the scale 1."""
    present = ~np.isnan(column)
    values, shares = column[present], None if weights is None else weights[present]
    if not values.size:
        return 0.0, 1.0
    low, high = float(values.min()), float(values.max())
    if low == high:
        return low, 1.0
    if method == "robust":
        quarter, centre, three = (weighted_quantile(values, shares, level) for level in (0.25, 0.5, 0.75))
        return centre, (three - quarter) or 1.0
    if method == "min_max":
        return low, high - low
    if shares is None:
        normaliser = Normaliser().fit(values[:, None])
        centre, scale = float(normaliser.centre_[0]), float(normaliser.scale_[0])
    else:
        # About the first value, so that a large common part costs no digits.
        centre = float(values[0] + np.average(values - values[0], weights=shares))
        scale = math.sqrt(float(np.average((values - centre) ** 2, weights=shares)))
    # A spread below the rounding of the values is noise of their last digit.
    return centre, scale if scale > 8 * np.finfo(float).eps * abs(centre) else 1.0


class Scaler(Step):
    """Bring numbers to one scale; missing values stay, categories pass through.

    ============  =====================================================================================================
    ``standard``  ``(x - mean) / std``, ddof 0; the statistic of the mergeable ``Normaliser``
    ``robust``    ``(x - median) / (q75 - q25)``
    ``min_max``   ``(x - min) / (max - min)``
    ``log``       ``sign(x) log(1 + |x|)``: defined for every number
    ``power``     the power of Yeo and Johnson that makes the training values most normal, then ``standard``
    ============  =====================================================================================================

    A column without spread is divided by 1. Weights count like so many equal rows, but not in the choice of the power.

    Parameters
    ----------
    method : {"standard", "robust", "min_max", "log", "power"}, default "standard"
    columns : sequence of int, optional
        None: all numbers.
    categorical : sequence of int, default ()

    Examples
    --------
    >>> Scaler().fit([[1.0], [3.0]]).transform_row([5.0])
    [3.0]
    """

    kind: ClassVar[str] = "scaler"

    def __init__(
        self, method: str = "standard", *, columns: Sequence[int] | None = None, categorical: Sequence[int] = ()
    ) -> None:
        self.method = method
        self.columns = columns
        self.categorical = categorical

    def _learn(self, matrix: Matrix, labels: Any, weights: Any) -> Iterator[Operation]:  # noqa: ARG002
        check_known(self.method, _METHODS, "a method must be one that exists", where=self._where, what="method",
                    error=InputError)  # fmt: skip
        places = set(self._numbers())
        for place in range(matrix.shape[1]):
            if place not in places:
                yield Take(place)
            elif self.method == "log":
                yield Curve(place, 0.0, 1.0, math.nan, 0.0, 1.0)
            elif self.method == "power":
                yield self._power(place, matrix[:, place], weights)
            else:
                yield Affine(place, *spread(matrix[:, place], weights, self.method))

    @staticmethod
    def _power(place: int, column: NDArray[np.float64], weights: Any) -> Operation:
        from sklearn.preprocessing import PowerTransformer

        centre, scale = spread(column, weights, "standard")
        values = (column - centre) / scale
        present = ~np.isnan(values)
        if np.unique(values[present]).size < 2:
            return Affine(place, centre, scale)
        fitted = PowerTransformer(standardize=False).fit(values[present, None])
        power = float(fitted.lambdas_[0])
        bent = Curve(0, centre, scale, power, 0.0, 1.0).column(column[:, None])
        return Curve(place, centre, scale, power, *spread(bent, weights, "standard"))


class Clipper(Step):
    """Cut off tails: what lies beyond a quantile of the training rows becomes that quantile (winsorising).

    Parameters
    ----------
    low, high : float, default 0.01 and 0.99
        Levels of the quantiles, 0 <= low < high <= 1.
    columns : sequence of int, optional
        None: all numbers.
    categorical : sequence of int, default ()

    Examples
    --------
    >>> Clipper(0.0, 1.0).fit([[1.0], [3.0]]).transform_row([99.0])
    [3.0]
    """

    kind: ClassVar[str] = "clipper"

    def __init__(
        self,
        low: float = 0.01,
        high: float = 0.99,
        *,
        columns: Sequence[int] | None = None,
        categorical: Sequence[int] = (),
    ) -> None:
        self.low = low
        self.high = high
        self.columns = columns
        self.categorical = categorical

    def _learn(self, matrix: Matrix, labels: Any, weights: Any) -> Iterator[Operation]:  # noqa: ARG002
        if not 0 <= self.low < self.high <= 1:
            raise InputError("levels must ascend from 0 to 1", where=self._where, got=(self.low, self.high),
                             remedy="Pass low=0.01, high=0.99")  # fmt: skip
        places = set(self._numbers())
        for place in range(matrix.shape[1]):
            present = ~np.isnan(matrix[:, place])
            if place not in places or not present.any():
                yield Take(place)
                continue
            values, shares = matrix[present, place], None if weights is None else weights[present]
            yield Clamp(place, *(weighted_quantile(values, shares, level) for level in (self.low, self.high)))


class Binner(Step):
    """Turn numbers into bins, whose number becomes a category; missing values stay missing.

    Parameters
    ----------
    bins : int, default 10
        Most bins; ties make fewer.
    method : {"quantile", "uniform"}, default "quantile"
        Bins of as many training rows, or of one width.
    columns : sequence of int, optional
        None: all numbers.
    categorical : sequence of int, default ()

    Examples
    --------
    >>> step = Binner(2).fit([[1.0], [2.0], [3.0], [4.0]])
    >>> step.transform_row([-9.0]), step.transform_row([9.0]), step.categorical_
    ([0.0], [1.0], (0,))
    """

    kind: ClassVar[str] = "binner"

    def __init__(
        self,
        bins: int = 10,
        method: str = "quantile",
        *,
        columns: Sequence[int] | None = None,
        categorical: Sequence[int] = (),
    ) -> None:
        self.bins = bins
        self.method = method
        self.columns = columns
        self.categorical = categorical

    def _learn(self, matrix: Matrix, labels: Any, weights: Any) -> Iterator[Operation]:  # noqa: ARG002
        check_known(self.method, ("quantile", "uniform"), "a method must be one that exists", where=self._where,
                    what="method", error=InputError)  # fmt: skip
        if self.bins < 2:
            raise InputError("there must be two bins or more", where=self._where, got=self.bins,
                             remedy="Pass bins=10")  # fmt: skip
        places = set(self._numbers())
        for place in range(matrix.shape[1]):
            present = ~np.isnan(matrix[:, place])
            if place not in places:
                yield Take(place)
                continue
            values, shares = matrix[present, place], None if weights is None else weights[present]
            yield Bin(place, self._edges(values, shares) if values.size else ())

    def _edges(self, values: NDArray[np.float64], shares: NDArray[np.float64] | None) -> tuple[float, ...]:
        low, high = float(values.min()), float(values.max())
        levels = np.arange(1, self.bins) / self.bins
        if self.method == "uniform":
            edges = low + levels * (high - low)
        else:
            edges = np.array([weighted_quantile(values, shares, level) for level in levels])
        return tuple(np.unique(edges[edges > low]).tolist())


class Interactions(Step):
    """Add products of columns of numbers behind the columns there are; missing where a factor is.

    Parameters
    ----------
    columns : sequence of int, optional
        Factors; None: all numbers.
    degree : int, default 2
        Most factors of a product.
    powers : bool, default True
        Whether a column may be a factor more than once.
    categorical : sequence of int, default ()

    Examples
    --------
    >>> step = Interactions(powers=False).fit([[2.0, 3.0]])
    >>> step.transform_row([4.0, 5.0]), step.get_feature_names_out(["a", "b"]).tolist()
    ([4.0, 5.0, 20.0], ['a', 'b', 'a*b'])
    """

    kind: ClassVar[str] = "interactions"

    def __init__(
        self,
        *,
        columns: Sequence[int] | None = None,
        degree: int = 2,
        powers: bool = True,
        categorical: Sequence[int] = (),
    ) -> None:
        self.columns = columns
        self.degree = degree
        self.powers = powers
        self.categorical = categorical

    def _learn(self, matrix: Matrix, labels: Any, weights: Any) -> Iterator[Operation]:  # noqa: ARG002
        places = self._numbers()
        if codes := sorted(set(places) & set(self.categorical)):
            raise InputError("factors must be numbers", where=self._where, got=codes,
                             remedy="Encode the categories first")  # fmt: skip
        choose = combinations_with_replacement if self.powers else combinations
        products = [factors for size in range(2, self.degree + 1) for factors in choose(places, size)]
        if len(products) > _MOST_PRODUCTS:
            raise InputError(f"products must be {_MOST_PRODUCTS:,} or fewer", where=self._where, got=len(products),
                             remedy="Name the columns that may interact")  # fmt: skip
        yield from (Take(place) for place in range(matrix.shape[1]))
        yield from (Product(first, tuple(others)) for first, *others in products)
