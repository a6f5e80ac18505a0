"""The two lowest rungs of the ladder: the base rate, and the rate per category drawn towards it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from retrodict.core.errors import InputError, check_known
from retrodict.models._logistic import logit
from retrodict.models.engines.base import JsonEngine, check_matrix, check_row
from retrodict.models.problem import Examples, Fitted, Problem

__all__ = [
    "ConstantEngine",
    "GroupRateEngine",
    "fit_constant",
    "fit_group_rate",
    "solve_constant",
    "solve_group_rate",
]


def _check_rate(rate: float) -> None:
    if not 0.0 <= rate <= 1.0:
        raise InputError("a rate must be between 0 and 1", where="engine", got=rate,
                         remedy="Fit the engine on training rows")  # fmt: skip


@dataclass(frozen=True, slots=True)
class ConstantEngine(JsonEngine):
    """The same rate for every row.

    Attributes
    ----------
    rate : float
        Share of the outcome among the training rows.
    features : int
        Width of the rows it is given (and does not look at).
    """

    kind: ClassVar[str] = "constant"

    rate: float
    features: int

    def __post_init__(self) -> None:
        """Check the rate."""
        _check_rate(self.rate)

    @property
    def width(self) -> int:
        """Number of features."""
        return self.features

    def scores(self, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the rate, n times."""
        return np.full(len(check_matrix(matrix, self.features)), self.rate)

    def score_row(self, row: NDArray[np.float64]) -> float:
        """Return the rate."""
        check_row(row, self.features)
        return self.rate

    def contributions(self, row: NDArray[np.float64]) -> NDArray[np.float64]:
        """Zero for every feature, then the log-odds of the rate."""
        shares = np.zeros(self.features + 1)
        shares[-1] = self.margin(row)
        return shares


@dataclass(frozen=True, slots=True)
class GroupRateEngine(JsonEngine):
    """The rate of the row's category; the rate of all where the category is missing or unseen.

    Attributes
    ----------
    column : int
        Place of the category in the row.
    rates : tuple of float
        Rate by code, already drawn towards the overall rate by the prior count.
    overall : float
        Rate of all training rows.
    features : int
        Width of the rows.
    """

    kind: ClassVar[str] = "group_rate"

    column: int
    rates: tuple[float, ...]
    overall: float
    features: int

    def __post_init__(self) -> None:
        """Check rates and column."""
        for rate in (self.overall, *self.rates):
            _check_rate(rate)
        if not 0 <= self.column < self.features:
            raise InputError(f"the column must be one of the {self.features} of the row", where="engine",
                             got=self.column, remedy="Count from 0")  # fmt: skip

    @property
    def width(self) -> int:
        """Number of features."""
        return self.features

    def scores(self, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
        """Rate of each row's category."""
        codes = check_matrix(matrix, self.features)[:, self.column]
        # Whatever is not a known code ends on the last entry: the overall rate.
        valid = (codes >= 0) & (codes < len(self.rates))
        places = np.where(valid, codes, len(self.rates)).astype(np.intp)
        return np.array((*self.rates, self.overall))[places]

    def score_row(self, row: NDArray[np.float64]) -> float:
        """Rate of the row's category."""
        code = float(check_row(row, self.features)[self.column])
        valid = not math.isnan(code) and 0 <= code < len(self.rates)
        return self.rates[int(code)] if valid else self.overall

    def contributions(self, row: NDArray[np.float64]) -> NDArray[np.float64]:
        """How far the category moves the log-odds from those of all rows; zero for every other feature."""
        shares = np.zeros(self.features + 1)
        shares[-1] = logit(self.overall)
        shares[self.column] = self.margin(row) - shares[-1]
        return shares


def fit_constant(train: Examples) -> Fitted[ConstantEngine]:
    """Share of ones among the training rows."""
    return Fitted(ConstantEngine(float(train.labels.mean()), train.width), params={})


def fit_group_rate(train: Examples, column: int, *, prior_count: float = 20.0) -> Fitted[GroupRateEngine]:
    """Rate per category: ``(ones + prior_count * overall) / (rows + prior_count)``.

    Parameters
    ----------
    train : Examples
        Training rows.
    column : int
        Place of a category in the matrix (whole codes from 0; NaN for missing).
    prior_count : float, default 20
        How many rows at the overall rate each category is given beforehand; more draws small categories closer.
    """
    if not 0 <= column < train.width:
        raise InputError(f"the column must be one of the {train.width} of the matrix", where="group rate", got=column,
                         remedy="Count from 0")  # fmt: skip
    if not prior_count >= 0:
        raise InputError("a prior count must be zero or more", where="group rate", got=prior_count,
                         remedy="Pass 0 for no prior")  # fmt: skip
    codes = train.matrix[:, column]
    present = ~np.isnan(codes)
    places = codes[present].astype(np.intp)
    if (places < 0).any() or (places != codes[present]).any():
        raise InputError("a group rate must be over a category", where=f"feature {column}", got="a number",
                         remedy="Choose one of InputSpec.categorical")  # fmt: skip
    overall = float(train.labels.mean())
    rows = np.bincount(places)
    ones = np.bincount(places, weights=train.labels[present], minlength=len(rows))
    weight = rows + prior_count
    # A code without rows and without a prior knows nothing of its own.
    rates = np.where(weight > 0, (ones + prior_count * overall) / np.where(weight > 0, weight, 1.0), overall)
    engine = GroupRateEngine(column, tuple(np.clip(rates, 0.0, 1.0).tolist()), overall, train.width)
    return Fitted(engine, params={"column": column, "prior_count": prior_count})


def solve_constant(problem: Problem) -> Fitted[ConstantEngine]:
    """Registered as ``constant``."""
    return fit_constant(problem.train)


def solve_group_rate(problem: Problem) -> Fitted[GroupRateEngine]:
    """Registered as ``group_rate``; its parameter ``group`` names a category among the features."""
    group, names = problem.params["group"], problem.inputs.names
    rule = "the group must be a feature of the model"
    check_known(group, names, rule, where="group rate", what="feature", error=InputError)
    return fit_group_rate(problem.train, names.index(group), prior_count=problem.params["prior_count"])
