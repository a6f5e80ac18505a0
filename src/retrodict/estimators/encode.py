"""Category codes become numbers: one column per category, its rank, its share, or the mean label of its rows.

Codes are those of the model's inputs: the place in the vocabulary of the training rows, NaN for missing or unseen.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from retrodict.core.errors import InputError, check_known
from retrodict.estimators._folds import Splitter, is_classification, split_rows
from retrodict.estimators._operations import Equal, Flag, Lookup, Matrix, Operation, Take
from retrodict.estimators.steps import Step

__all__ = ["FrequencyEncoder", "OneHotEncoder", "OrdinalEncoder", "TargetEncoder"]

Vector = NDArray[np.float64]


class _Encoder(Step):
    """Base: every category that is named gives way to the operations that ``_encoded`` learns for it."""

    def _learn(self, matrix: Matrix, labels: Any, weights: Any) -> Iterator[Operation]:
        places = set(self._categories())
        self._prepare(labels, weights)
        for place in range(matrix.shape[1]):
            if place in places:
                yield from self._encoded(place, *self._codes(matrix[:, place], weights), labels)
            else:
                yield Take(place)

    def _prepare(self, labels: Any, weights: Any) -> None:
        pass

    def _encoded(self, place: int, codes: NDArray[np.int64], weights: Vector, labels: Any) -> Iterable[Operation]:
        raise NotImplementedError

    def _codes(self, column: Vector, weights: Any) -> tuple[NDArray[np.int64], Vector]:
        """Codes, -1 for missing, and one weight per row."""
        present = ~np.isnan(column)
        if ((column[present] < 0) | (column[present] != np.floor(column[present]))).any():
            raise InputError("a category must have whole codes from 0 on", where=self._where, got="other numbers",
                             remedy="Name columns that hold category codes")  # fmt: skip
        codes = np.where(present, column, -1).astype(np.int64)
        return codes, np.ones(codes.size) if weights is None else weights


class OneHotEncoder(_Encoder):
    """One column per frequent category, one for all others (rare or not seen in training) and one for missing.

    Parameters
    ----------
    columns : sequence of int, optional
        None: all categories.
    categorical : sequence of int, default ()
    min_share : float, default 0.01
        Share of the (weighted) training rows from which on a category has a column of its own.
    max_categories : int, default 50
        Most columns of categories; of more, the most frequent (ties: the lower code).

    Examples
    --------
    >>> step = OneHotEncoder(categorical=[0], min_share=0.3).fit([[0.0], [0.0], [1.0], [np.nan]])
    >>> step.get_feature_names_out(["carrier"], {0: ["AA", "UA"]}).tolist()
    ['carrier=AA', 'carrier=other', 'carrier=missing']
    >>> step.transform_row([1.0]), step.transform_row([np.nan])
    ([0.0, 1.0, 0.0], [0.0, 0.0, 1.0])
    """

    kind: ClassVar[str] = "one_hot_encoder"

    def __init__(
        self,
        *,
        columns: Sequence[int] | None = None,
        categorical: Sequence[int] = (),
        min_share: float = 0.01,
        max_categories: int = 50,
    ) -> None:
        self.columns = columns
        self.categorical = categorical
        self.min_share = min_share
        self.max_categories = max_categories

    def _encoded(
        self, place: int, codes: NDArray[np.int64], weights: Vector, labels: Any  # noqa: ARG002
    ) -> Iterator[Operation]:  # fmt: skip
        counts = _totals(codes, weights)
        frequent = np.flatnonzero((counts > 0) & (counts >= self.min_share * weights.sum()))
        ranked = sorted(frequent.tolist(), key=lambda code: (-counts[code], code))
        selected = sorted(ranked[: self.max_categories])
        for code in selected:
            yield Equal(place, code)
        others = np.ones(counts.size)
        others[selected] = 0.0
        yield Lookup(place, tuple(others.tolist()), 1.0, 0.0, "=other")
        yield Flag(place, "", "=missing")


class OrdinalEncoder(_Encoder):
    """The code of a category as a number; missing stays missing, and so is what was not seen in training.

    Parameters
    ----------
    columns : sequence of int, optional
        None: all categories.
    categorical : sequence of int, default ()
    order : {"code", "frequency"}, default "code"
        Numbers by the order of the vocabulary, or 0 for the most frequent category, 1 for the next one, …

    Examples
    --------
    >>> OrdinalEncoder(categorical=[0], order="frequency").fit([[0.0], [1.0], [1.0]]).transform_row([1.0])
    [0.0]
    """

    kind: ClassVar[str] = "ordinal_encoder"

    def __init__(
        self, *, columns: Sequence[int] | None = None, categorical: Sequence[int] = (), order: str = "code"
    ) -> None:
        self.columns = columns
        self.categorical = categorical
        self.order = order

    def _encoded(
        self, place: int, codes: NDArray[np.int64], weights: Vector, labels: Any  # noqa: ARG002
    ) -> Iterator[Operation]:  # fmt: skip
        check_known(self.order, ("code", "frequency"), "an order must be one that exists", where=self._where,
                    what="order", error=InputError)  # fmt: skip
        counts = _totals(codes, weights)
        numbers = np.arange(counts.size, dtype=np.float64)
        if self.order == "frequency":
            numbers[np.argsort(-counts, kind="stable")] = numbers.copy()
        numbers[counts == 0] = np.nan
        yield Lookup(place, tuple(numbers.tolist()), np.nan, np.nan)


class FrequencyEncoder(_Encoder):
    """The share of the training rows that hold the category; that of missing rows for missing, 0 for unseen.

    Parameters
    ----------
    columns : sequence of int, optional
        None: all categories.
    categorical : sequence of int, default ()

    Examples
    --------
    >>> FrequencyEncoder(categorical=[0]).fit([[0.0], [1.0], [1.0], [np.nan]]).transform_row([1.0])
    [0.5]
    """

    kind: ClassVar[str] = "frequency_encoder"

    def __init__(self, *, columns: Sequence[int] | None = None, categorical: Sequence[int] = ()) -> None:
        self.columns = columns
        self.categorical = categorical

    def _encoded(
        self, place: int, codes: NDArray[np.int64], weights: Vector, labels: Any  # noqa: ARG002
    ) -> Iterator[Operation]:  # fmt: skip
        total = weights.sum()
        shares = _totals(codes, weights) / total
        yield Lookup(place, tuple(shares.tolist()), 0.0, float(weights[codes < 0].sum() / total), "_frequency")


class TargetEncoder(_Encoder):
    """The mean label of the category's training rows, drawn towards the mean of all (the prior) where they are few.

    ``(sum of labels + smoothing * prior) / (rows + smoothing)`` (Micci-Barreca 2001, SIGKDD Explorations 3). What was
    not seen in training gets the prior. Missing is a category of its own. Several classes give one column for each.

    ``fit_transform`` gives every training row the value learned without it and its fold: in sample, an id would tell
    the label. Rows in no test part of the splitter, such as the first ones of an expanding window, get the prior.

    Parameters
    ----------
    columns : sequence of int, optional
        None: all categories.
    categorical : sequence of int, default ()
    smoothing : float, default 20.0
        Rows that the prior counts for.
    splitter : int, splitter of scikit-learn, or iterable of (train, test) positions; default 5
        Folds of ``fit_transform``; a number is that many, stratified and shuffled by the seed.
    task : {"auto", "classification", "regression"}, default "auto"
        ``auto``: classes, if the labels are at most 20 different whole numbers from 0 on.
    seed : int, default 0

    Examples
    --------
    >>> step = TargetEncoder(categorical=[0], smoothing=1.0).fit([[0.0], [0.0], [1.0], [1.0]], [1, 1, 0, 1])
    >>> step.transform_row([0.0]), step.transform_row([7.0])
    ([0.9166666666666666], [0.75])
    """

    kind: ClassVar[str] = "target_encoder"
    _unsaved: ClassVar[tuple[str, ...]] = ("splitter",)

    def __init__(
        self,
        *,
        columns: Sequence[int] | None = None,
        categorical: Sequence[int] = (),
        smoothing: float = 20.0,
        splitter: Splitter = 5,
        task: str = "auto",
        seed: int = 0,
    ) -> None:
        self.columns = columns
        self.categorical = categorical
        self.smoothing = smoothing
        self.splitter = splitter
        self.task = task
        self.seed = seed

    def _prepare(self, labels: Any, weights: Any) -> None:
        if self.smoothing < 0:
            raise InputError("smoothing must be zero or more rows", where=self._where, got=self.smoothing,
                             remedy="Pass smoothing=20")  # fmt: skip
        classes = np.unique(self._required(labels)).tolist()
        binary = not is_classification(labels, self.task) or set(classes) <= {0.0, 1.0}
        self._classes: list[float] = [] if binary else classes
        targets = self._targets(labels)
        self._priors = {suffix: float(np.average(target, weights=weights)) for suffix, target in targets.items()}
        self.report_ = {"priors": self._priors}

    def _targets(self, labels: Vector) -> dict[str, Vector]:
        """What is averaged, by the ending of the column: the label, or whether it is this class."""
        several = {f"_target_{code:g}": (labels == code).astype(np.float64) for code in self._classes}
        return several or {"_target": labels}

    def _encoded(self, place: int, codes: NDArray[np.int64], weights: Vector, labels: Any) -> Iterator[Lookup]:
        counts = _totals(codes + 1, weights)  # the first one is that of missing
        for suffix, target in self._targets(labels).items():
            prior = self._priors[suffix]
            means = (_totals(codes + 1, weights * target) + self.smoothing * prior) / np.maximum(
                counts + self.smoothing, np.finfo(float).tiny
            )
            means[counts == 0] = prior
            missing = float(means[0]) if means.size else prior
            yield Lookup(place, tuple(means[1:].tolist()), prior, missing, suffix)

    def fit_transform(self, X: Any, y: Any = None, sample_weight: Any = None) -> Any:  # noqa: N803
        """Fit on all rows, and give the training rows encoded out of fold."""
        self.fit(X, y, sample_weight)
        matrix = self._read(X, reset=False)
        labels = self._vector(y, len(matrix), "labels")
        weights = np.ones(len(matrix)) if sample_weight is None else self._vector(sample_weight, len(matrix), "weights")
        output = self._apply(matrix)
        learned = {
            place: operation for place, operation in enumerate(self.operations_) if isinstance(operation, Lookup)
        }
        for place, operation in learned.items():
            output[:, place] = operation.other  # the prior
        for train, test in split_rows(self.splitter, matrix, labels, task=self.task, seed=self.seed):
            rows = train[weights[train] > 0]
            if not rows.size:
                continue
            sources = {operation.at for operation in learned.values()}
            parts = {at: self._fold(at, matrix[rows, at], labels[rows], weights[rows]) for at in sources}
            for place, operation in learned.items():
                output[test, place] = parts[operation.at][operation.suffix].column(matrix[test])
        return output

    def _fold(self, place: int, column: Vector, labels: Vector, weights: Vector) -> dict[str, Lookup]:
        """Operations learned from some rows, with the prior of all: five priors would tell the folds apart."""
        codes, shares = self._codes(column, weights)
        return {operation.suffix: operation for operation in self._encoded(place, codes, shares, labels)}


def _totals(codes: NDArray[np.int64], weights: Vector) -> Vector:
    """Sum of weights per code; codes below 0 are left out."""
    return np.bincount(codes[codes >= 0], weights=weights[codes >= 0]).astype(np.float64)
