"""Fill from the nearest training rows, and by chained regressions: two scikit-learn imputers as arrays.

``KNNImputer`` keeps its training rows, ``IterativeImputer`` a sequence of fitted regressions; both would have to be
pickled. Here the state is arrays, and the fill is computed from them row by row in a fixed order of additions: a row
alone gives the same bits as the same row in a batch, which matrix products do not promise. Equal to scikit-learn to
1e-9 where no two training rows are equally far; among those the earlier one is taken, scikit-learn leaves it open.
"""

from __future__ import annotations

import base64
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from retrodict.core.errors import IntegrityError

_CELLS = 1 << 21  # distances held at a time
_TYPES = {"<f8": np.float64, "<i8": np.int64}

Matrix = NDArray[np.float64]


class _Stored:
    """State as JSON: an array is dtype, shape and little-endian bytes in base64, so nothing in it can run."""

    __slots__ = ()
    kind: ClassVar[str]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON form."""
        state = {field.name: getattr(self, field.name) for field in fields(self)}  # type: ignore[arg-type]
        packed = {name: _pack(value) if isinstance(value, np.ndarray) else value for name, value in state.items()}
        return {"kind": self.kind, **packed, "columns": list(state["columns"])}

    @classmethod
    def from_dict(cls, body: Mapping[str, Any]) -> Self:
        """Inverse of ``to_dict``; IntegrityError if the bytes of an array do not fit its dtype and shape."""
        state = {field.name: body[field.name] for field in fields(cls)}  # type: ignore[arg-type]
        arrays = {name: _unpack(value) for name, value in state.items() if isinstance(value, Mapping)}
        return cls(**{**state, **arrays, "columns": tuple(body["columns"])})


def _pack(array: NDArray[Any]) -> dict[str, Any]:
    kind = "<i8" if array.dtype.kind in "iu" else "<f8"
    data = np.ascontiguousarray(array, dtype=kind).tobytes()
    return {"dtype": kind, "shape": list(array.shape), "base64": base64.b64encode(data).decode()}


def _unpack(body: Mapping[str, Any]) -> NDArray[Any]:
    try:
        flat = np.frombuffer(base64.b64decode(body["base64"], validate=True), dtype=body["dtype"])
        return flat.reshape(body["shape"]).astype(_TYPES[body["dtype"]])
    except (KeyError, TypeError, ValueError) as error:
        raise IntegrityError("a stored array must have the bytes of its dtype and shape", where="estimator",
                             got=type(error).__name__, remedy="Restore it from a backup") from error  # fmt: skip


@dataclass(frozen=True, slots=True)
class Neighbours(_Stored):
    """Mean of the ``k`` nearest training rows that have a value, by Euclidean distance over the columns both have.

    Distances follow Dixon (1979), as in ``sklearn.metrics.pairwise.nan_euclidean_distances``: the squares over the
    shared columns, scaled up to all columns. A row that shares no column with any donor gets the mean of the column.
    """

    kind: ClassVar[str] = "knn"

    columns: tuple[str, ...]
    rows: Matrix
    k: int

    def fill(self, matrix: Matrix) -> Matrix:
        """Rows without NaN, shape (n, columns)."""
        filled = matrix.copy()
        incomplete = np.flatnonzero(np.isnan(matrix).any(axis=1))
        step = max(1, _CELLS // max(1, len(self.rows)))
        for start in range(0, incomplete.size, step):
            part = incomplete[start : start + step]
            distances = self._distances(matrix[part])
            for place in range(matrix.shape[1]):
                missing = np.isnan(matrix[part, place])
                if missing.any():
                    filled[part[missing], place] = self._means(distances[missing], place)
        return filled

    def _distances(self, matrix: Matrix) -> Matrix:
        """Squared distances; infinite where no column is shared."""
        total = np.zeros((len(matrix), len(self.rows)))
        shared = np.zeros(total.shape)
        with np.errstate(over="ignore"):  # a donor out of reach is as far as one that shares no column
            for place in range(matrix.shape[1]):
                difference = matrix[:, place, None] - self.rows[None, :, place]
                present = ~np.isnan(difference)
                total += np.where(present, difference * difference, 0.0)
                shared += present
        with np.errstate(invalid="ignore", divide="ignore"):
            distances: Matrix = np.where(shared > 0, total / shared * matrix.shape[1], np.inf)
        return distances

    def _means(self, distances: Matrix, place: int) -> NDArray[np.float64]:
        donors = np.flatnonzero(~np.isnan(self.rows[:, place]))
        values, near = self.rows[donors, place], distances[:, donors]
        k = min(self.k, donors.size)
        furthest = np.partition(near, k - 1, axis=1)[:, k - 1 : k]
        closer, equal = near < furthest, near == furthest
        spare = k - closer.sum(axis=1, keepdims=True)
        donor_mask = (closer | (equal & (np.cumsum(equal, axis=1) <= spare))) & np.isfinite(near)
        count = donor_mask.sum(axis=1)
        # Chosen values side by side, in the order of the training rows: the same additions for one row and for many.
        order = np.argsort(~donor_mask, axis=1, kind="stable")[:, :k]
        total = np.zeros(len(near))
        for rank in range(k):
            total += np.where(rank < count, values[order[:, rank]], 0.0)
        means: NDArray[np.float64] = np.where(count > 0, total / np.maximum(count, 1), values.mean())
        return means


@dataclass(frozen=True, slots=True)
class DonorChain(_Stored):
    """Linear regressions applied one after the other, round by round (MICE, van Buuren and Groothuis-Oudshoorn 2011).

    Step s fills column ``targets[s]`` where it was missing: ``intercepts[s] + sum(weights[s] * other columns)``; the
    weight of the target itself is zero. Before the first step a missing value is the mean of its column.
    """

    kind: ClassVar[str] = "iterative"

    columns: tuple[str, ...]
    means: NDArray[np.float64]
    targets: NDArray[np.int64]
    weights: Matrix
    intercepts: NDArray[np.float64]
    converged: bool

    @classmethod
    def fit(cls, columns: tuple[str, ...], matrix: Matrix, iterations: int) -> DonorChain:
        """Fit ``sklearn.impute.IterativeImputer`` (Bayesian ridge, no sampling) and keep its numbers."""
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.experimental import enable_iterative_imputer  # noqa: F401 - scikit-learn asks for it
        from sklearn.impute import IterativeImputer

        imputer = IterativeImputer(max_iter=iterations, random_state=0)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", ConvergenceWarning)
            imputer.fit(matrix)
        converged = not any(issubclass(warning.category, ConvergenceWarning) for warning in caught)
        steps = imputer.imputation_sequence_ if imputer.n_iter_ else []
        weights = np.zeros((len(steps), len(columns)))
        for step, (_, others, model) in enumerate(steps):
            weights[step, others] = model.coef_
        targets = np.array([step.feat_idx for step in steps], dtype=np.int64)
        intercepts = np.array([step.estimator.intercept_ for step in steps], dtype=np.float64)
        return cls(columns, imputer.initial_imputer_.statistics_, targets, weights, intercepts, converged)

    def fill(self, matrix: Matrix) -> Matrix:
        """Rows without NaN, shape (n, columns)."""
        missing = np.isnan(matrix)
        filled = np.where(missing, self.means, matrix)
        for target, weights, intercept in zip(self.targets, self.weights, self.intercepts, strict=True):
            rows = np.flatnonzero(missing[:, target])
            if rows.size:
                value = np.full(rows.size, intercept)
                for place in np.flatnonzero(weights):
                    value += weights[place] * filled[rows, place]
                filled[rows, target] = value
        return filled
