"""Steps of a recipe: transformers of the float64 matrix, whose fitted state is a list of operations in plain JSON.

``sklearn.preprocessing`` would do for the batch. Its transformers are saved as pickles, take a tenth of a millisecond
or more for one row, know nothing of category codes that are NaN where unseen, and only some take weights.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import _check_feature_names_in, check_is_fitted, validate_data

from retrodict.core.errors import InputError, IntegrityError, check_known
from retrodict.estimators._neighbours import DonorChain, Neighbours
from retrodict.estimators._operations import Matrix, Operation, Take, read_operation
from retrodict.estimators._tables import check_kind, set_columns

__all__ = ["Step", "load_step"]

_HOMES: Mapping[str, str] = {
    "binner": "shape:Binner",
    "clipper": "shape:Clipper",
    "correlation_selector": "selection:CorrelationSelector",
    "frequency_encoder": "encode:FrequencyEncoder",
    "imputer": "impute:Imputer",
    "information_selector": "selection:InformationSelector",
    "interactions": "shape:Interactions",
    "one_hot_encoder": "encode:OneHotEncoder",
    "ordinal_encoder": "encode:OrdinalEncoder",
    "permutation_selector": "elimination:PermutationSelector",
    "recursive_selector": "elimination:RecursiveSelector",
    "scaler": "shape:Scaler",
    "scikit_learn": "foreign:ScikitLearnStep",
    "target_encoder": "encode:TargetEncoder",
    "variance_selector": "selection:VarianceSelector",
}


class Step(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Base of the steps; a subclass learns operations, everything else is here.

    Promises
    --------
    * *Training rows only*: nothing is learned but from the rows given to ``fit``; rows of weight 0 are not looked at.
    * *One answer*: ``transform_row(row)`` equals the row of ``transform``, bit for bit, unless ``exact_rows`` is False.
    * *Fixed columns*: which columns come out is settled when fitted, whatever is missing or unseen later.
    * *No pickle*: ``to_dict`` is plain JSON, ``load_step`` reads it; a step that was read transforms, and is not fitted
      again.

    Parameters
    ----------
    columns : sequence of int, optional
        Places of the columns that the step changes; None: all numbers, or all categories, as the step's doc says.
    categorical : sequence of int, default ()
        Places of the columns that hold category codes (NaN: missing or unseen).

    Attributes
    ----------
    categorical_ : tuple of int
        Places of the output columns that hold category codes.
    sources_ : tuple of tuple of int
        Places of the input columns that each output column stands for.
    report_ : dict
        What was learned that is worth keeping, as plain JSON.
    """

    kind: ClassVar[str]
    exact_rows: ClassVar[bool] = True
    _unsaved: ClassVar[tuple[str, ...]] = ()  # parameters that only fitting needs and JSON cannot hold
    _positional: ClassVar[bool] = False  # whether it splits the rows by position: none is left out then

    columns: Sequence[int] | None
    categorical: Sequence[int]

    def _learn(self, matrix: Matrix, labels: Any, weights: Any) -> Iterable[Operation]:
        raise NotImplementedError

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Self:  # noqa: N803 - as in scikit-learn
        """Learn from the training rows.

        Parameters
        ----------
        X : array of shape (n, columns), float64
            NaN for missing.
        y : array of shape (n,), optional
            Labels as floats; steps that do not look at labels do without.
        sample_weight : array of shape (n,), optional
            Zero or more, not all zero; None: all alike.

        Raises
        ------
        InputError
            If a number is infinite, a place does not exist, or labels or weights do not fit the rows.
        """
        matrix = self._read(X, reset=True)
        labels = None if y is None else self._vector(y, len(matrix), "labels")
        weights = None if sample_weight is None else self._vector(sample_weight, len(matrix), "weights")
        if weights is not None:
            if (weights < 0).any() or not weights.any():
                raise InputError("weights must be zero or more, and not all zero", where=self._where,
                                 got=f"{int((weights < 0).sum())} below zero",
                                 remedy="Pass the weights of the training rows")  # fmt: skip
            rows = np.full(len(matrix), True) if self._positional else weights > 0
            matrix, weights = matrix[rows], weights[rows]
            labels = None if labels is None else labels[rows]
        for place in self.categorical:
            self._check_place(place)
        self.blocks_: tuple[tuple[tuple[int, ...], Neighbours | DonorChain], ...] = ()
        self.report_: dict[str, Any] = {}
        self.operations_: tuple[Operation, ...] = tuple(self._learn(matrix, labels, weights))
        return self

    def fit_transform(self, X: Any, y: Any = None, sample_weight: Any = None) -> Any:  # noqa: N803
        """Fit, and give the training rows transformed; a step that uses labels gives values from other rows."""
        return self.fit(X, y, sample_weight).transform(X)

    def transform(self, X: Any) -> Any:  # noqa: N803
        """Matrix of shape (n, columns that come out), float64.

        Raises
        ------
        InputError
            If the width differs from that of training, or a number is infinite.
        """
        check_is_fitted(self, "operations_")
        return self._apply(self._read(X, reset=False))

    def _apply(self, matrix: Matrix) -> Matrix:
        for places, block in self.blocks_:
            matrix = np.hstack((matrix, block.fill(matrix[:, list(places)])))
        output = np.empty((len(matrix), len(self.operations_)))
        for place, operation in enumerate(self.operations_):
            output[:, place] = operation.column(matrix)
        return output

    def transform_row(self, row: Sequence[float]) -> list[float]:
        """One row in plain Python, the same bits as ``transform``.

        Raises
        ------
        InputError
            If the row has another width than in training, or an infinite number.
        """
        if len(row) != self.n_features_in_ or math.inf in row or -math.inf in row:
            self._read(np.array([row], dtype=np.float64), reset=False)  # says what is wrong
        for places, block in self.blocks_:
            filled = block.fill(np.array([[row[place] for place in places]], dtype=np.float64))
            row = [*row, *filled[0].tolist()]
        return [operation.value(row) for operation in self.operations_]

    def get_feature_names_out(
        self, input_features: Any = None, words: Mapping[int, Sequence[Any]] | None = None
    ) -> NDArray[Any]:
        """Names of the columns that come out.

        Parameters
        ----------
        input_features : sequence of str, optional
            Names of the input columns; None: those of training, or x0, x1, …
        words : mapping of int to sequence, optional
            Vocabularies of the categories by place, for names such as ``carrier=UA``; without them the code stands.
        """
        check_is_fitted(self, "operations_")
        names = list(_check_feature_names_in(self, input_features))
        for places, _ in self.blocks_:
            names += [names[place] for place in places]
        return np.array([operation.label(names, words or {}) for operation in self.operations_], dtype=object)

    @property
    def categorical_(self) -> tuple[int, ...]:
        """Places of the output columns that hold category codes."""
        check_is_fitted(self, "operations_")
        codes = set(self.categorical)
        return tuple(place for place, operation in enumerate(self.operations_)
                     if (operation.at in codes if operation.category is None else operation.category))  # fmt: skip

    @property
    def sources_(self) -> tuple[tuple[int, ...], ...]:
        """Places of the input columns that each output column stands for; of one filled by others, its own."""
        check_is_fitted(self, "operations_")
        owners = [*range(self.n_features_in_), *(place for places, _ in self.blocks_ for place in places)]
        return tuple(tuple(owners[place] for place in operation.places) for operation in self.operations_)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON form of a fitted step."""
        check_is_fitted(self, "operations_")
        params = {name: list(value) if isinstance(value, tuple) else value
                  for name, value in self.get_params(deep=False).items() if name not in self._unsaved}  # fmt: skip
        names = getattr(self, "feature_names_in_", None)
        return {
            "kind": self.kind,
            "parameters": params,
            "width": self.n_features_in_,
            "names": None if names is None else list(names),
            "operations": [operation.to_list() for operation in self.operations_],
            "blocks": [[list(places), block.to_dict()] for places, block in self.blocks_],
            "report": self.report_,
        }

    @classmethod
    def from_dict(cls, body: Mapping[str, Any]) -> Self:
        """Inverse of ``to_dict``.

        Raises
        ------
        IntegrityError
            If the body is of another kind, or not one of ``to_dict``.
        """
        check_kind(body, cls.kind, "step")
        params = {name: tuple(v) if isinstance(v, list) else v for name, v in body["parameters"].items()}
        step = cls(**params)
        set_columns(step, body["names"] or [""] * body["width"], has_names=body["names"] is not None)
        readers: dict[str, Any] = {reader.kind: reader for reader in (Neighbours, DonorChain)}
        step.blocks_ = tuple((tuple(places), readers[b["kind"]].from_dict(b)) for places, b in body["blocks"])
        step.operations_ = tuple(read_operation(operation) for operation in body["operations"])
        step.report_ = dict(body["report"])
        return step

    @property
    def _where(self) -> str:
        return f"step {type(self).__name__}"

    def _read(self, data: Any, *, reset: bool) -> Matrix:
        try:
            matrix = validate_data(self, data, reset=reset, dtype=np.float64, ensure_all_finite="allow-nan")
        except (TypeError, ValueError) as error:
            raise InputError(f"rows must be a finite or missing float64 matrix ({str(error).rstrip('.')})",
                             where=self._where, got=type(data).__name__,
                             remedy="Pass the matrix as it was fitted") from error  # fmt: skip
        return np.asarray(matrix)

    def _vector(self, values: Any, rows: int, what: str) -> NDArray[np.float64]:
        vector = np.asarray(values, dtype=np.float64)
        if vector.shape != (rows,) or not np.isfinite(vector).all():
            raise InputError(f"{what} must be one finite number per row", where=self._where, got=(rows, *vector.shape),
                             remedy=f"Pass the {what} of the same rows")  # fmt: skip
        return vector

    def _check_place(self, place: int) -> int:
        if not 0 <= place < self.n_features_in_:
            raise InputError(f"a column must be a place below {self.n_features_in_}", where=self._where, got=place,
                             remedy="Count columns from 0")  # fmt: skip
        return place

    def _numbers(self) -> list[int]:
        """Places to work on: those of ``columns``, or all numbers."""
        return self._places(place for place in range(self.n_features_in_) if place not in set(self.categorical))

    def _categories(self) -> list[int]:
        """Places to work on: those of ``columns``, or all categories."""
        return self._places(self.categorical)

    def _places(self, default: Iterable[int]) -> list[int]:
        return sorted({self._check_place(place) for place in (default if self.columns is None else self.columns)})

    def _others(self, places: Iterable[int]) -> Iterable[Take]:
        rest = set(range(self.n_features_in_)) - set(places)
        return (Take(place) for place in sorted(rest))

    def _required(self, labels: Any) -> NDArray[np.float64]:
        if labels is None:
            raise InputError("the step must have labels to learn from", where=self._where, got=None,
                             remedy="Pass y, the labels of the training rows")  # fmt: skip
        vector: NDArray[np.float64] = labels
        return vector

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags


def load_step(body: Mapping[str, Any]) -> Any:
    """Read a step from what its ``to_dict`` gave.

    Raises
    ------
    IntegrityError
        If the kind does not exist, or the body is not one of ``to_dict``.
    """
    kind = body.get("kind")
    check_known(str(kind), _HOMES, "a stored step must be of a kind that exists", where="step", what="kind",
                error=IntegrityError)  # fmt: skip
    module, _, name = _HOMES[str(kind)].partition(":")
    return getattr(import_module(f"retrodict.estimators.{module}"), name).from_dict(body)


def weighted_quantile(values: NDArray[np.float64], weights: NDArray[np.float64] | None, level: float) -> float:
    """Mean of the lowest and the highest value at which the distribution reaches a level.

    For the level 0.5 and equal weights it is the usual median; a whole weight counts like so many equal rows.
    """
    last = values.size - 1
    if weights is None:
        limit, slack = level * values.size, 1e-12 * values.size
        low, high = max(0, math.ceil(limit - slack) - 1), min(last, math.floor(limit + slack))
        ordered = np.partition(values, (low, high))
    else:
        order = np.argsort(values, kind="stable")
        ordered, cumulative = values[order], np.cumsum(weights[order])
        limit, slack = level * cumulative[-1], 1e-12 * cumulative[-1]
        low = min(last, int(np.searchsorted(cumulative, limit - slack, side="left")))
        high = min(last, int(np.searchsorted(cumulative, limit + slack, side="right")))
    return float(ordered[low] / 2 + ordered[high] / 2)  # halves first: the sum may be beyond the largest float
