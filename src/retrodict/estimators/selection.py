"""Select columns by looking at each, or at pairs: variance, correlation, mutual information with the label."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from retrodict.core.errors import InputError
from retrodict.estimators._folds import is_classification
from retrodict.estimators._operations import Matrix, Operation, Take
from retrodict.estimators.steps import Step

__all__ = ["CorrelationSelector", "InformationSelector", "Selector", "VarianceSelector"]

Vector = NDArray[np.float64]


class Selector(Step):
    """Base of the steps that only select columns; the order of those selected stays.

    Attributes
    ----------
    support_ : bool array of shape (columns,)
        Which columns are selected.
    ranking_ : int array of shape (columns,)
        1 for the selected ones, then up: the greater, the sooner a column goes.
    history_ : list of dict
        Per step of an elimination: ``step``, ``removed``, ``remaining``, ``importance`` by name; empty for filters.
    """

    names: Sequence[str] | None

    def _ranks(self, matrix: Matrix, labels: Any, weights: Any) -> Sequence[int]:
        """Rank per column, 1 for those selected."""
        raise NotImplementedError

    def _learn(self, matrix: Matrix, labels: Any, weights: Any) -> Iterable[Operation]:
        self.report_ = {"names": self._titles()}
        ranks = [int(rank) for rank in self._ranks(matrix, labels, weights)]
        self.report_["ranking"] = ranks
        return [Take(place) for place, rank in enumerate(ranks) if rank == 1]

    def _titles(self) -> list[str]:
        width = self.n_features_in_
        fitted = getattr(self, "feature_names_in_", [f"x{place}" for place in range(width)])
        names = list(self.names or fitted)
        if len(set(names)) != width or len(names) != width:
            raise InputError("there must be one name per column, each another one", where=self._where,
                             got=(len(names), width),
                             remedy="Pass the names of the input columns")  # fmt: skip
        return names

    @property
    def support_(self) -> NDArray[np.bool_]:
        """Which columns are selected."""
        selected: NDArray[np.bool_] = self.ranking_ == 1
        return selected

    @property
    def ranking_(self) -> NDArray[np.int64]:
        """1 for the selected columns, then up."""
        return np.array(self.report_["ranking"], dtype=np.int64)

    @property
    def history_(self) -> list[dict[str, Any]]:
        """Steps of the elimination; empty for filters."""
        return list(self.report_.get("history", ()))


def ranked(scores: Vector, selected: NDArray[np.bool_]) -> list[int]:
    """1 for the selected columns, 2 for the best of the others (ties: the earlier one), …; one is always selected."""
    order = np.argsort(-scores, kind="stable")
    selected = selected.copy()
    if not selected.any():
        selected[order[0]] = True
    ranks = np.ones(scores.size, dtype=np.int64)
    rest = [place for place in order if not selected[place]]
    ranks[rest] = np.arange(2, 2 + len(rest))
    return ranks.tolist()


class VarianceSelector(Selector):
    """Leave out columns that hardly vary; those without any value always.

    Parameters
    ----------
    minimum : float, default 0.0
        A column stays if its variance is above; that of a category is ``1 - sum of squared shares`` (Gini and Simpson),
        missing being a category of its own.
    categorical : sequence of int, default ()
    names : sequence of str, optional
        Names of the columns, for ``report_``.

    Examples
    --------
    >>> VarianceSelector().fit([[1.0, 5.0], [2.0, 5.0]]).transform_row([7.0, 8.0])
    [7.0]
    """

    kind: ClassVar[str] = "variance_selector"
    columns = None

    def __init__(
        self, minimum: float = 0.0, *, categorical: Sequence[int] = (), names: Sequence[str] | None = None
    ) -> None:
        self.minimum = minimum
        self.categorical = categorical
        self.names = names

    def _ranks(self, matrix: Matrix, labels: Any, weights: Any) -> Sequence[int]:  # noqa: ARG002
        codes = set(self.categorical)
        variances = np.array([_variance(matrix[:, place], weights, is_code=place in codes)
                              for place in range(matrix.shape[1])])  # fmt: skip
        self.report_["variance"] = variances.tolist()
        return ranked(variances, variances > self.minimum)


def _variance(column: Vector, weights: Any, *, is_code: bool) -> float:
    shares = np.ones(column.size) if weights is None else weights
    if is_code:
        inverse = np.unique(column, return_inverse=True)[1]
        totals = np.bincount(inverse, weights=shares) / shares.sum()
        return float(1 - (totals**2).sum()) if totals.size > 1 else 0.0
    present = ~np.isnan(column)
    values, shares = column[present], shares[present]
    if not values.size or values.min() == values.max():
        return 0.0
    return float(np.average((values - np.average(values, weights=shares)) ** 2, weights=shares))


class CorrelationSelector(Selector):
    """Of two numbers that are correlated beyond a limit, leave out the one that is less related to the label.

    Columns are gone through from the one most correlated with the label (of several classes: with any of them) to the
    least, ties by place; one stays unless it is correlated with one that stays. Correlations are Pearson's over the
    rows where both have a value. Without labels the earlier column stays. Categories stay.

    Parameters
    ----------
    limit : float, default 0.95
        Largest absolute correlation of two columns that both stay.
    categorical : sequence of int, default ()
    names : sequence of str, optional
        Names of the columns, for ``report_``.
    task : {"auto", "classification", "regression"}, default "auto"

    Examples
    --------
    >>> CorrelationSelector().fit([[1.0, 2.0], [2.0, 4.0], [3.0, 6.0]]).ranking_.tolist()
    [1, 2]
    """

    kind: ClassVar[str] = "correlation_selector"
    columns = None

    def __init__(
        self,
        limit: float = 0.95,
        *,
        categorical: Sequence[int] = (),
        names: Sequence[str] | None = None,
        task: str = "auto",
    ) -> None:
        self.limit = limit
        self.categorical = categorical
        self.names = names
        self.task = task

    def _ranks(self, matrix: Matrix, labels: Any, weights: Any) -> Sequence[int]:
        places = self._numbers()
        together = np.abs(correlations(matrix[:, places], matrix[:, places], weights))
        relation = np.zeros(len(places))
        if labels is not None:
            several = is_classification(labels, self.task) and np.unique(labels).size > 2
            targets = np.column_stack([labels == c for c in np.unique(labels)] if several else [labels])
            relation = np.abs(correlations(matrix[:, places], targets.astype(float), weights)).max(axis=1)
        staying: list[int] = []
        dropped = {}
        for place in np.argsort(-relation, kind="stable").tolist():
            rival = next((other for other in staying if together[place, other] > self.limit), None)
            if rival is None:
                staying.append(place)
            else:
                dropped[places[place]] = (places[rival], float(together[place, rival]))
        titles = self.report_["names"]
        self.report_["dropped"] = [
            {"column": titles[place], "for": titles[rival], "correlation": value}
            for place, (rival, value) in sorted(dropped.items())
        ]
        selected = np.array([place not in dropped for place in range(matrix.shape[1])])
        scores = np.full(matrix.shape[1], math.inf)
        scores[places] = relation
        return ranked(scores, selected)


def correlations(left: Matrix, right: Matrix, weights: Any = None) -> Matrix:
    """Pearson's correlation of each pair over the rows where both have a value; 0 where one does not vary."""
    shares = np.ones(len(left)) if weights is None else weights

    def centred(matrix: Matrix) -> tuple[Matrix, Matrix]:
        present = ~np.isnan(matrix)
        total = np.maximum((present * shares[:, None]).sum(axis=0), np.finfo(float).tiny)
        first = np.where(present.any(axis=0), matrix[present.argmax(axis=0), np.arange(matrix.shape[1])], 0.0)
        values = np.where(present, matrix - first, 0.0)
        values = np.where(present, values - (values * shares[:, None]).sum(axis=0) / total, 0.0)
        size = np.sqrt((values**2 * shares[:, None]).sum(axis=0))
        return values / np.where(size > 0, size, 1.0), present.astype(np.float64)

    (x, has_x), (y, has_y) = centred(left), centred(right)
    weighted_x, weighted_has = x * shares[:, None], has_x * shares[:, None]
    rows = np.maximum(weighted_has.T @ has_y, np.finfo(float).tiny)
    sum_x, sum_y = weighted_x.T @ has_y, weighted_has.T @ y
    squares_x = (weighted_x * x).T @ has_y - sum_x**2 / rows
    squares_y = weighted_has.T @ (y * y) - sum_y**2 / rows
    # Below the rounding of the sums there is no variance in the shared rows.
    varies = (squares_x > 1e-14) & (squares_y > 1e-14)
    product = np.where(varies, squares_x * squares_y, 1.0)
    return np.where(varies, (weighted_x.T @ y - sum_x * sum_y / rows) / np.sqrt(product), 0.0)


class InformationSelector(Selector):
    """Select by mutual information with the label: the ``k`` best, or those above a value in nats.

    ``mutual_info_classif`` and ``mutual_info_regression`` of scikit-learn (Kraskov et al. 2004, Ross 2014). A missing
    number counts as the median, a missing category as one of its own. Weights are not taken into account.

    Parameters
    ----------
    k : int, optional
        Columns to select; None: all above ``above``.
    above : float, default 0.0
    categorical : sequence of int, default ()
    names : sequence of str, optional
        Names of the columns, for ``report_``.
    task : {"auto", "classification", "regression"}, default "auto"
    max_rows : int, default 20000
        Rows looked at, drawn by the seed.
    seed : int, default 0
    """

    kind: ClassVar[str] = "information_selector"
    columns = None

    def __init__(
        self,
        k: int | None = None,
        *,
        above: float = 0.0,
        categorical: Sequence[int] = (),
        names: Sequence[str] | None = None,
        task: str = "auto",
        max_rows: int = 20_000,
        seed: int = 0,
    ) -> None:
        self.k = k
        self.above = above
        self.categorical = categorical
        self.names = names
        self.task = task
        self.max_rows = max_rows
        self.seed = seed

    def _ranks(self, matrix: Matrix, labels: Any, weights: Any) -> Sequence[int]:  # noqa: ARG002
        from sklearn.feature_selection import mutual_info_classif, mutual_info_regression

        labels = self._required(labels)
        rows = sampled_rows(len(matrix), self.max_rows, self.seed)
        matrix, labels = matrix[rows].copy(), labels[rows]
        codes = np.isin(np.arange(matrix.shape[1]), list(self.categorical))
        for place in range(matrix.shape[1]):
            missing = np.isnan(matrix[:, place])
            rest = matrix[~missing, place]
            fill = 0.0 if not rest.size else rest.max() + 1 if codes[place] else np.median(rest)
            matrix[missing, place] = fill
        classes = is_classification(labels, self.task)
        measure = mutual_info_classif if classes else mutual_info_regression
        information = measure(matrix, labels, discrete_features=codes, random_state=self.seed)
        self.report_.update(information=information.tolist(), rows=len(matrix))
        return ranked(information, best(information, self.k, self.above))


def best(scores: Vector, k: int | None, above: float) -> NDArray[np.bool_]:
    """Which columns are among the ``k`` best (ties: the earlier one), or, where that is None, above a value."""
    if k is None:
        return scores > above
    if k < 1:
        raise InputError("at least one column must be selected", where="selection", got=k, remedy="Pass k=10")
    selected = np.zeros(scores.size, dtype=bool)
    selected[np.argsort(-scores, kind="stable")[:k]] = True
    return selected


def sampled_rows(rows: int, most_rows: int, seed: int) -> NDArray[np.int64]:
    """Positions of all rows, or of so many drawn by the seed, in order."""
    if rows <= most_rows:
        return np.arange(rows)
    return np.sort(np.random.default_rng(seed).choice(rows, most_rows, replace=False))
