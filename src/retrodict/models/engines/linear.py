"""Logistic regression as plain numbers: means for what is missing, scales, one weight per category.

The sum runs feature by feature in a fixed order. A matrix product was rejected: BLAS adds in another order for one row
than for a thousand, and on another processor.

Few columns are solved by Newton steps on a dense matrix, which converge fully in about five passes; a category of
thousands stays affordable on a sparse one by L-BFGS, which needs hundreds. Either runs on one BLAS thread: the result
depends on their number.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from retrodict.core.errors import InputError
from retrodict.models._logistic import sigmoid, sigmoids
from retrodict.models.engines.base import JsonEngine, check_matrix, check_row
from retrodict.models.problem import Examples, Fitted

__all__ = [
    "CategoryTerm",
    "LinearEngine",
    "NumberTerm",
    "design_category",
    "design_number",
    "fit_logistic",
    "fold_weights",
    "join_design",
    "start_weights",
    "takes_dense",
]

_DENSE_COLUMNS = 1_000
_DENSE_BYTES = 1 << 30


@dataclass(frozen=True, slots=True)
class NumberTerm:
    """``weight * (x - mean) / scale``; a missing x counts as the mean, so it adds nothing.

    Attributes
    ----------
    mean, scale, weight : float
        Mean and standard deviation of the training rows, and the coefficient of the standardised value.
    """

    mean: float
    scale: float
    weight: float

    def of(self, value: float) -> float:
        """Share of one value in the margin."""
        return 0.0 if math.isnan(value) else (value - self.mean) / self.scale * self.weight

    def of_column(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Share of each of a column."""
        return np.where(np.isnan(values), 0.0, (values - self.mean) / self.scale * self.weight)


@dataclass(frozen=True, slots=True)
class CategoryTerm:
    """One weight per code, and one for missing or unseen.

    Attributes
    ----------
    weights : tuple of float
        Coefficient by code.
    missing : float
        Coefficient of null and unseen; 0 where the training rows held none.
    """

    weights: tuple[float, ...]
    missing: float

    def of(self, value: float) -> float:
        """Share of one code in the margin."""
        valid = not math.isnan(value) and 0 <= value < len(self.weights)
        return self.weights[int(value)] if valid else self.missing

    def of_column(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Share of each of a column of codes."""
        valid = (values >= 0) & (values < len(self.weights))
        return np.array((*self.weights, self.missing))[np.where(valid, values, len(self.weights)).astype(np.intp)]


@dataclass(frozen=True, slots=True)
class LinearEngine(JsonEngine):
    """Sum of an intercept and one term per feature, through the logistic function.

    Attributes
    ----------
    intercept : float
        Log-odds where every number is at its mean and no category has a weight.
    terms : tuple of NumberTerm and CategoryTerm
        One per feature, in order.
    """

    kind: ClassVar[str] = "linear"

    intercept: float
    terms: tuple[NumberTerm | CategoryTerm, ...]

    def __post_init__(self) -> None:
        """Refuse a scale that cannot be divided by."""
        for at, term in enumerate(self.terms):
            if isinstance(term, NumberTerm) and not term.scale > 0:
                raise InputError("a scale must be above zero", where=f"engine, feature {at}", got=term.scale,
                                 remedy="Fit the engine with fit_logistic")  # fmt: skip

    @property
    def width(self) -> int:
        """Number of features."""
        return len(self.terms)

    def scores(self, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
        """Probabilities, shape (n,)."""
        return sigmoids(self.margins(matrix))

    def score_row(self, row: NDArray[np.float64]) -> float:
        """Probability of one row."""
        return sigmoid(self.margin(row))

    def margins(self, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
        """Log-odds, shape (n,)."""
        check_matrix(matrix, self.width)
        total = np.full(len(matrix), self.intercept)
        for at, term in enumerate(self.terms):
            total += term.of_column(matrix[:, at])
        return total

    def margin(self, row: NDArray[np.float64]) -> float:
        """Log-odds of one row."""
        total = self.intercept
        for term, value in zip(self.terms, check_row(row, self.width).tolist(), strict=True):
            total += term.of(value)
        return total

    def contributions(self, row: NDArray[np.float64]) -> NDArray[np.float64]:
        """Share of each term, then the intercept.

        For a number this is its exact Shapley value against the training mean; a category is measured from no weight.
        """
        values = check_row(row, self.width).tolist()
        return np.array([*(t.of(v) for t, v in zip(self.terms, values, strict=True)), self.intercept])

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> Self:
        """Engine from its fields as JSON has them."""
        terms = tuple(
            CategoryTerm(tuple(t["weights"]), t["missing"]) if "weights" in t else NumberTerm(**t)
            for t in fields["terms"]
        )  # fmt: skip
        return cls(intercept=fields["intercept"], terms=terms)


def fit_logistic(
    train: Examples,
    categorical: Sequence[int] = (),
    *,
    penalty: float = 1.0,
    max_iterations: int = 1_000,
    start: Sequence[LinearEngine] = (),
) -> Fitted[LinearEngine]:
    """Logistic regression with an L2 penalty (scikit-learn).

    Numbers: missing becomes the training mean, then standardised. Categories: one column per code, and one for missing
    where the training rows hold any.

    Parameters
    ----------
    train : Examples
        Training rows with both outcomes.
    categorical : sequence of int, default ()
        Places of the categories in the matrix.
    penalty : float, default 1.0
        Weight of half the squared coefficients against the summed log loss; zero for none.
    max_iterations : int, default 1000
        ``params["converged"]`` says whether they were enough.
    start : sequence of LinearEngine, optional
        One, whose coefficients the solver begins from.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

    if len(np.unique(train.labels)) < 2:
        raise InputError("the training rows must hold both outcomes", where="logistic regression",
                         got="one outcome only", remedy="Train on a longer span")  # fmt: skip
    if not penalty >= 0:
        raise InputError("a penalty must be zero or more", where="logistic regression", got=penalty,
                         remedy="Pass 0 for none")  # fmt: skip
    columns = [
        design_category(train.matrix[:, at]) if at in set(categorical) else design_number(train.matrix[:, at])
        for at in range(train.width)
    ]
    design = join_design([block for block, _ in columns])
    dense = takes_dense(design.shape)
    solver, tolerance = ("newton-cholesky", 1e-8) if dense else ("lbfgs", 1e-5)
    model = LogisticRegression(
        C=1.0 / penalty if penalty else np.inf, solver=solver, tol=tolerance, max_iter=max_iterations,
        warm_start=bool(start),
    )  # fmt: skip
    if start:
        model.coef_, model.intercept_ = start_weights(start, columns)
    with threadpool_limits(limits=1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # reported as params["converged"]
        model.fit(design.toarray() if dense else design, train.labels, sample_weight=train.weights)
    engine = fold_weights(model.coef_[0], float(model.intercept_[0]), columns)
    iterations = int(model.n_iter_[0])
    params = {
        "penalty": penalty,
        "solver": solver,
        "tolerance": tolerance,
        "max_iterations": max_iterations,
        "threads": 1,
        "iterations": iterations,
        "converged": iterations < max_iterations,
    }
    return Fitted(engine, params)


def start_weights(
    lines: Sequence[LinearEngine], columns: Sequence[tuple[Any, NumberTerm | CategoryTerm]]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Coefficients of shape (lines, columns of a design), and intercepts, that give the sums which lines gave.

    Each line has means and scales of its own; rows that miss a number may differ, as the mean stands for it.
    """
    coefficients, intercepts = [], []
    for line in lines:
        weights, intercept = list[float](), line.intercept
        for old, (block, new) in zip(line.terms, columns, strict=True):
            if isinstance(old, NumberTerm) and isinstance(new, NumberTerm):
                weights.append(old.weight * new.scale / old.scale)
                intercept += old.weight * (new.mean - old.mean) / old.scale
            elif isinstance(old, CategoryTerm) and isinstance(new, CategoryTerm):
                codes = len(new.weights)
                weights += [*old.weights[:codes], *(old.missing,) * (codes - len(old.weights))]
                weights += [old.missing] * (block.shape[1] - codes)
        coefficients.append(weights)
        intercepts.append(intercept)
    return np.array(coefficients), np.array(intercepts)


def takes_dense(shape: tuple[int, ...]) -> bool:
    """Whether a design of this shape is solved dense: few columns, and not too many bytes."""
    return shape[1] <= _DENSE_COLUMNS and 8 * shape[0] * shape[1] <= _DENSE_BYTES


def design_number(values: NDArray[np.float64]) -> tuple[Any, NumberTerm]:
    """Standardised column of numbers, and its term without the weight."""
    from scipy import sparse

    seen = values[~np.isnan(values)]
    mean = float(seen.mean()) if len(seen) else 0.0
    filled = np.where(np.isnan(values), mean, values)
    scale = float(filled.std())
    # A column of one value, up to rounding, would be blown up to noise of size one.
    if not scale > 1e-12 * abs(mean):
        scale = 1.0
    return sparse.csr_array(((filled - mean) / scale)[:, None]), NumberTerm(mean, scale, 0.0)


def design_category(values: NDArray[np.float64]) -> tuple[Any, CategoryTerm]:
    """One column per code (the last one for missing, if any), and the term without weights."""
    from scipy import sparse

    missing = np.isnan(values)
    codes = int(values[~missing].max()) + 1 if (~missing).any() else 0
    width = codes + bool(missing.any())
    places = np.where(missing, codes, values).astype(np.intp)
    block = sparse.csr_array((np.ones(len(values)), (np.arange(len(values)), places)), shape=(len(values), width))
    return block, CategoryTerm((0.0,) * codes, 0.0)


def join_design(blocks: Sequence[Any]) -> Any:
    """Columns beside each other, with indices of 32 bits where they suffice: some solvers take no others."""
    from scipy import sparse

    design = sparse.hstack(blocks, format="csr")
    kind = sparse.get_index_dtype(maxval=max(design.nnz, *design.shape))
    design.indices, design.indptr = design.indices.astype(kind), design.indptr.astype(kind)
    return design


def fold_weights(
    weights: NDArray[np.float64], intercept: float, columns: Sequence[tuple[Any, NumberTerm | CategoryTerm]]
) -> LinearEngine:
    """Engine of the coefficients of a design, whose columns stand beside each other in the order of the features."""
    terms: list[NumberTerm | CategoryTerm] = []
    at = 0
    for block, term in columns:
        part = weights[at : at + block.shape[1]].tolist()
        at += block.shape[1]
        if isinstance(term, NumberTerm):
            terms.append(NumberTerm(term.mean, term.scale, part[0]))
        else:
            codes = len(term.weights)
            terms.append(CategoryTerm(tuple(part[:codes]), part[codes] if len(part) > codes else 0.0))
    return LinearEngine(intercept, tuple(terms))
