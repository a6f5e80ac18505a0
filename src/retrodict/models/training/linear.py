"""Fits logistic regression, and folds its preparation into plain coefficients.

Few columns are solved by Newton steps on a dense matrix, which converge fully in about five passes; a category of
thousands stays affordable on a sparse one by L-BFGS, which needs hundreds. Either runs on one BLAS thread: the result
depends on their number.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrodict.core.errors import InputError
from retrodict.models.engines.linear import CategoryTerm, LinearEngine, NumberTerm
from retrodict.models.training.base import Examples, Fitted

__all__ = ["fit_logistic"]

_DENSE_COLUMNS = 1_000
_DENSE_BYTES = 1 << 30


def fit_logistic(
    train: Examples,
    categorical: Sequence[int] = (),
    *,
    penalty: float = 1.0,
    max_iterations: int = 1_000,
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
    """
    from scipy import sparse
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

    if len(np.unique(train.labels)) < 2:
        raise InputError("logistic regression needs rows of both outcomes", where="training rows",
                         got="one outcome only")  # fmt: skip
    if not penalty >= 0:
        raise InputError("a penalty is zero or more", where="logistic regression", got=penalty)
    columns = [
        _category(train.matrix[:, at]) if at in set(categorical) else _number(train.matrix[:, at])
        for at in range(train.width)
    ]
    design = sparse.hstack([block for block, _ in columns], format="csr")
    dense = design.shape[1] <= _DENSE_COLUMNS and 8 * design.shape[0] * design.shape[1] <= _DENSE_BYTES
    solver, tolerance = ("newton-cholesky", 1e-8) if dense else ("lbfgs", 1e-5)
    model = LogisticRegression(
        C=1.0 / penalty if penalty else np.inf, solver=solver, tol=tolerance, max_iter=max_iterations
    )
    with threadpool_limits(limits=1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # reported as params["converged"]
        model.fit(design.toarray() if dense else design, train.labels)
    engine = _fold(model.coef_[0], float(model.intercept_[0]), columns)
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


def _number(values: NDArray[np.float64]) -> tuple[Any, NumberTerm]:
    """Standardised column, and its term without the weight."""
    from scipy import sparse

    seen = values[~np.isnan(values)]
    mean = float(seen.mean()) if len(seen) else 0.0
    filled = np.where(np.isnan(values), mean, values)
    scale = float(filled.std())
    # A column of one value, up to rounding, would be blown up to noise of size one.
    if not scale > 1e-12 * abs(mean):
        scale = 1.0
    return sparse.csr_array(((filled - mean) / scale)[:, None]), NumberTerm(mean, scale, 0.0)


def _category(values: NDArray[np.float64]) -> tuple[Any, CategoryTerm]:
    """One column per code (the last one for missing, if any), and the term without weights."""
    from scipy import sparse

    missing = np.isnan(values)
    codes = int(values[~missing].max()) + 1 if (~missing).any() else 0
    width = codes + bool(missing.any())
    places = np.where(missing, codes, values).astype(np.intp)
    block = sparse.csr_array((np.ones(len(values)), (np.arange(len(values)), places)), shape=(len(values), width))
    return block, CategoryTerm((0.0,) * codes, 0.0)


def _fold(
    weights: NDArray[np.float64], intercept: float, columns: Sequence[tuple[Any, NumberTerm | CategoryTerm]]
) -> LinearEngine:
    terms: list[NumberTerm | CategoryTerm] = []
    at = 0
    for block, term in columns:
        own = weights[at : at + block.shape[1]].tolist()
        at += block.shape[1]
        if isinstance(term, NumberTerm):
            terms.append(NumberTerm(term.mean, term.scale, own[0]))
        else:
            codes = len(term.weights)
            terms.append(CategoryTerm(tuple(own[:codes]), own[codes] if len(own) > codes else 0.0))
    return LinearEngine(intercept, tuple(terms))
