"""The two lowest rungs of the ladder: one answer for every row, and one per category drawn towards it.

Of a yes or no the answer is a rate; of classes their shares; of numbers the mean, or for quantiles those of the
training rows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from retrodict.core.errors import InputError, check_known
from retrodict.core.statistics.survival import event_by
from retrodict.core.tasks import Target
from retrodict.models._logistic import logit
from retrodict.models.engines.base import JsonEngine, check_matrix, check_row
from retrodict.models.problem import Examples, Fitted, Problem

__all__ = [
    "ConstantEngine",
    "GroupOutputsEngine",
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


@dataclass(frozen=True, slots=True)
class GroupOutputsEngine(JsonEngine):
    """The outputs of the row's category, of any task but a yes or no; those of all where it is missing or unseen.

    Attributes
    ----------
    column : int or None
        Place of the category in the row; None: the same for every row.
    outputs : tuple of tuples of float
        Outputs by code, the last ones those of all training rows.
    features : int
        Width of the rows.
    predicts : dict
        Plain form of the target.
    """

    kind: ClassVar[str] = "group_outputs"

    column: int | None
    outputs: tuple[tuple[float, ...], ...]
    features: int
    predicts: dict[str, Any]

    @property
    def target(self) -> Target:
        """What the outputs are."""
        return Target.from_dict(self.predicts)

    @property
    def width(self) -> int:
        """Number of features."""
        return self.features

    def _table(self, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
        table, last = np.array(self.outputs), len(self.outputs) - 1
        if self.column is None:
            return np.repeat(table[-1:], len(matrix), axis=0)
        codes = matrix[:, self.column]
        valid = (codes >= 0) & (codes < last)
        return np.asarray(table[np.where(valid, codes, last).astype(np.intp)])

    def scores(self, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
        """Outputs of each row's category."""
        table = self._table(check_matrix(matrix, self.features))
        return table[:, 0] if table.shape[1] == 1 else table

    def score_row(self, row: NDArray[np.float64]) -> Any:
        """Outputs of the row's category."""
        outputs = self.scores(check_row(row, self.features)[None, :])[0]
        return tuple(outputs.tolist()) if isinstance(outputs, np.ndarray) else float(outputs)

    def margins(self, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
        """The outputs."""
        return self.scores(matrix)

    def margin(self, row: NDArray[np.float64]) -> Any:
        """The outputs."""
        return self.score_row(row)

    def contributions(self, row: NDArray[np.float64]) -> NDArray[np.float64]:
        """How far the category moves each output from that of all rows, then that: one row per output."""
        overall = np.array(self.outputs[-1])
        shares = np.zeros((len(overall), self.features + 1))
        shares[:, -1] = overall
        if self.column is not None:
            shares[:, self.column] = np.atleast_1d(self.margin(row)) - overall
        return shares[0] if len(overall) == 1 else shares

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> Self:
        """Engine from its fields as JSON has them."""
        return cls(fields["column"], tuple(map(tuple, fields["outputs"])), fields["features"], fields["predicts"])


def _outputs_of(labels: NDArray[np.float64], weights: NDArray[np.float64], target: Target) -> tuple[float, ...]:
    """Best constant answer: shares of classes, quantiles (the least value that reaches them), Kaplan-Meier, or mean."""
    total = float(weights.sum())
    match target.task:
        case "multiclass":
            counts = np.bincount(labels.astype(np.intp), weights, minlength=len(target.classes))
            return tuple((counts / total).tolist())
        case "survival":
            return tuple(event_by(labels, np.array(target.days), weights).tolist())
        case "quantile":
            order = np.argsort(labels, kind="stable")
            cumulative = np.cumsum(weights[order]) / total
            places = np.searchsorted(cumulative, np.array(target.quantiles) - 1e-12)
            return tuple(labels[order][np.minimum(places, len(labels) - 1)].tolist())
        case _:
            return (float((labels * weights).sum() / total),)


def _fit_outputs(train: Examples, column: int | None, prior_count: float = 20.0) -> Fitted[GroupOutputsEngine]:
    """Outputs of all rows and, of each category, drawn towards them by the prior count."""
    weights = np.ones(len(train.labels)) if train.weights is None else train.weights
    overall = _outputs_of(train.labels, weights, train.target)
    outputs = []
    if column is not None:
        codes = train.matrix[:, column]
        for code in range(int(np.nanmax(codes)) + 1 if (~np.isnan(codes)).any() else 0):
            rows = codes == code
            mass = float(weights[rows].sum())
            group_outputs = _outputs_of(train.labels[rows], weights[rows], train.target) if mass else overall
            share = mass / (mass + prior_count) if mass else 0.0
            outputs.append(tuple(share * a + (1.0 - share) * b for a, b in zip(group_outputs, overall, strict=True)))
    engine = GroupOutputsEngine(column, (*outputs, overall), train.width, train.target.to_dict())
    return Fitted(engine, params={} if column is None else {"column": column, "prior_count": prior_count})


def fit_constant(train: Examples) -> Fitted[ConstantEngine]:
    """Share of ones among the training rows."""
    rate = float(np.average(train.labels, weights=train.weights))
    return Fitted(ConstantEngine(rate, train.width), params={})


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
    weights = np.ones(len(codes)) if train.weights is None else train.weights
    overall = float(np.average(train.labels, weights=weights))
    rows = np.bincount(places, weights=weights[present])
    ones = np.bincount(places, weights=(train.labels * weights)[present], minlength=len(rows))
    weight = rows + prior_count
    # A code without rows and without a prior knows nothing of its own.
    rates = np.where(weight > 0, (ones + prior_count * overall) / np.where(weight > 0, weight, 1.0), overall)
    engine = GroupRateEngine(column, tuple(np.clip(rates, 0.0, 1.0).tolist()), overall, train.width)
    return Fitted(engine, params={"column": column, "prior_count": prior_count})


def solve_constant(problem: Problem) -> Fitted[ConstantEngine] | Fitted[GroupOutputsEngine]:
    """Registered as ``constant``."""
    return fit_constant(problem.train) if problem.train.target.task == "binary" else _fit_outputs(problem.train, None)


def solve_group_rate(problem: Problem) -> Fitted[GroupRateEngine] | Fitted[GroupOutputsEngine]:
    """Registered as ``group_rate``; its parameter ``group`` names a category among the features."""
    group, names = problem.params["group"], problem.inputs.names
    rule = "the group must be a feature of the model"
    check_known(group, names, rule, where="group rate", what="feature", error=InputError)
    column, prior = names.index(group), float(problem.params["prior_count"])
    if problem.train.target.task == "binary":
        return fit_group_rate(problem.train, column, prior_count=prior)
    if column not in problem.inputs.categorical:
        raise InputError("a group rate must be over a category", where=f"feature {group!r}", got="a number",
                         remedy="Choose a category, or say types={'…': 'category'}")  # fmt: skip
    return _fit_outputs(problem.train, column, prior)
