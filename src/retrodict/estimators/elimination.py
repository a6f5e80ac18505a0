"""Select columns by what an estimator makes of them: recursive elimination and permutation importance.

``RFE`` and ``RFECV`` of scikit-learn keep neither which column went when nor the importances of each step, compare
coefficients of inputs in different units, and take no folds that keep the order of time together with weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone

from retrodict.core.errors import InputError, check_known
from retrodict.estimators._folds import Splitter, is_classification, split_rows
from retrodict.estimators._operations import Matrix
from retrodict.estimators.selection import (
    CorrelationSelector,
    Selector,
    VarianceSelector,
    best,
    ranked,
    sampled_rows,
)
from retrodict.estimators.shape import spread

__all__ = ["PermutationSelector", "RecursiveSelector"]

Vector = NDArray[np.float64]
_DEFAULTS = ("forest", "linear")
_CORRELATED = 0.98  # limit of the filter before the elimination of a wide table


@dataclass(frozen=True, slots=True)
class _Model:
    """A fitted estimator with the scale of its inputs."""

    estimator: Any
    places: NDArray[np.int64]
    centres: Vector
    scales: Vector
    fills: bool

    def inputs(self, matrix: Matrix) -> Matrix:
        """Inputs of the estimator: its columns, scaled; missing ones at their mean where it takes none."""
        scaled = (matrix[:, self.places] - self.centres) / self.scales
        return np.where(np.isnan(scaled), 0.0, scaled) if self.fills else scaled


@dataclass(frozen=True, slots=True)
class _Learner:
    """What fits the estimator on some columns of some rows, and says what each column is worth to it."""

    estimator: Any
    matrix: Matrix
    labels: Vector
    weights: Vector | None
    categorical: frozenset[int]
    scoring: str
    where: str

    def fit(self, rows: NDArray[np.int64], places: Sequence[int]) -> _Model:
        from sklearn.utils import get_tags
        from sklearn.utils.validation import has_fit_parameter

        shares = np.ones(rows.size) if self.weights is None else self.weights[rows]
        scales = [(0.0, 1.0) if place in self.categorical else spread(self.matrix[rows, place], shares, "standard")
                  for place in places]  # fmt: skip
        estimator = clone(self.estimator)
        fills = not get_tags(estimator).input_tags.allow_nan
        centres, widths = np.array(scales).reshape(-1, 2).T
        model = _Model(estimator, np.array(places), centres, widths, fills)
        weighted = self.weights is not None and has_fit_parameter(estimator, "sample_weight")
        estimator.fit(model.inputs(self.matrix[rows]), self.labels[rows],
                      **({"sample_weight": shares} if weighted else {}))  # fmt: skip
        return model

    def importance(self, model: _Model) -> Vector:
        """Per column: ``feature_importances_``, or the length of its coefficients over the classes."""
        estimator = model.estimator
        if hasattr(estimator, "feature_importances_"):
            return np.asarray(estimator.feature_importances_, dtype=np.float64)
        if not hasattr(estimator, "coef_"):
            raise InputError("the estimator must have coef_ or feature_importances_", where=self.where,
                             got=type(estimator).__name__,
                             remedy="Select by permutation importance, which any estimator has")  # fmt: skip
        if codes := sorted(self.categorical & set(model.places.tolist())):
            raise InputError("columns that coefficients rank must be numbers, not codes of categories",
                             where=self.where, got=codes,
                             remedy="Encode the categories in a step before, or take estimator='forest'")  # fmt: skip
        lengths: Vector = np.linalg.norm(np.atleast_2d(estimator.coef_), axis=0)
        return lengths

    def scorer(self) -> Any:
        """A function of (model, rows) that gives the score."""
        from sklearn.metrics import get_scorer

        scorer = get_scorer(self.scoring)

        def score(model: _Model, rows: NDArray[np.int64]) -> float:
            shares = {} if self.weights is None else {"sample_weight": self.weights[rows]}
            return float(scorer(model.estimator, model.inputs(self.matrix[rows]), self.labels[rows], **shares))

        return score


class _ByEstimator(Selector):
    """Base: settings that both kinds of selection by an estimator share."""

    _unsaved: ClassVar[tuple[str, ...]] = ("estimator", "splitter")
    _positional: ClassVar[bool] = True
    columns = None

    estimator: Any
    scoring: str | None
    splitter: Splitter
    task: str
    max_rows: int
    seed: int

    def _learner(self, matrix: Matrix, labels: Any, weights: Any) -> _Learner:
        labels = self._required(labels)
        classes = is_classification(labels, self.task)
        several = np.unique(labels).size > 2
        scoring = self.scoring or (("neg_log_loss" if several else "roc_auc") if classes else "r2")
        self.report_.update(scoring=scoring, task="classification" if classes else "regression")
        estimator = self.estimator
        if isinstance(estimator, str):
            check_known(estimator, _DEFAULTS, "an estimator must be an instance, or a word that exists",
                        where=self._where, what="estimator", error=InputError)  # fmt: skip
            estimator = _default(estimator, classes=classes, seed=self.seed)
        return _Learner(estimator, matrix, labels, weights, frozenset(self.categorical), scoring, self._where)

    def _parts(self, learner: _Learner) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """Folds, within the rows that are looked at."""
        used = np.zeros(len(learner.labels), dtype=bool)
        used[sampled_rows(len(learner.labels), self.max_rows, self.seed)] = True
        pairs = split_rows(self.splitter, learner.matrix, learner.labels, task=self.task, seed=self.seed)
        parts = [(train[used[train]], test[used[test]]) for train, test in pairs]
        short = self.report_["task"] == "classification"
        for train, test in parts:
            fewest = min((np.unique(learner.labels[side]).size for side in (train, test) if side.size), default=0)
            if not train.size or not test.size or (short and fewest < 2):
                raise InputError("every part of a fold must have rows, and of more than one class", where=self._where,
                                 got=(train.size, test.size), remedy="Take fewer folds, or longer ones")  # fmt: skip
        if not parts:
            raise InputError("there must be a fold", where=self._where, got=0, remedy="Pass splitter=5")
        return parts


def _default(word: str, *, classes: bool, seed: int) -> Any:
    if word == "linear":
        from sklearn.linear_model import LogisticRegression, Ridge

        return LogisticRegression(max_iter=1000) if classes else Ridge()
    # Extra trees: a tenth of the time of a random forest, and they take gaps and codes as they are.
    from sklearn.ensemble import ExtraTreesClassifier, ExtraTreesRegressor

    forest = ExtraTreesClassifier if classes else ExtraTreesRegressor
    return forest(50, max_depth=8, max_features=0.5, random_state=seed, n_jobs=1)


def _interval(values: Sequence[float]) -> dict[str, float | None]:
    """Mean over the folds, and Student's interval of it at 95 %, as if folds were independent, which they are not."""
    from scipy.special import stdtrit

    mean, count = float(np.mean(values)), len(values)
    half = float(stdtrit(count - 1, 0.975) * np.std(values, ddof=1) / np.sqrt(count)) if count > 1 else None
    return {"mean": mean, "low": None if half is None else mean - half, "high": None if half is None else mean + half}


class RecursiveSelector(_ByEstimator):
    """Leave out the least important column, fit again, and so on (Guyon et al. 2002, Machine Learning 46).

    With ``n`` that many columns stay. Without, cross-validation decides: each fold eliminates on its own training rows
    and scores what is left on its test rows; the number of columns with the best mean score wins, of equal ones the
    smallest. Numbers are scaled before the fit, so that coefficients compare.

    Parameters
    ----------
    n : int, optional
        Columns that stay; None: decided by cross-validation.
    step : int or float, default 1
        Columns that go at a time, or below 1 their share of all.
    min_features : int, default 1
        Fewest columns that cross-validation looks at.
    estimator : {"forest", "linear"} or estimator of scikit-learn, default "forest"
        Must have ``coef_`` or ``feature_importances_``. ``forest`` are 50 extra trees, which take category codes and
        missing values as they are.
    scoring : str, optional
        Of scikit-learn; None: roc_auc, neg_log_loss of several classes, r2.
    splitter : int, splitter of scikit-learn, or iterable of (train, test) positions; default 5
    wide : int, default 200
        From more columns than this, those without variance or correlated beyond 0.98 go first.
    categorical : sequence of int, default ()
    names : sequence of str, optional
        Names of the columns, for ``history_``.
    task : {"auto", "classification", "regression"}, default "auto"
    max_rows : int, default 10000
        Rows looked at, drawn by the seed.
    seed : int, default 0

    Attributes
    ----------
    report_ : dict
        ``ranking``, ``history``, and of cross-validation ``scores``: per number of ``features`` the score of each fold,
        their mean with an interval.
    """

    kind: ClassVar[str] = "recursive_selector"

    def __init__(  # noqa: PLR0913 - parameters of scikit-learn are flat
        self,
        n: int | None = None,
        *,
        step: float = 1,
        min_features: int = 1,
        estimator: Any = "forest",
        scoring: str | None = None,
        splitter: Splitter = 5,
        wide: int = 200,
        categorical: Sequence[int] = (),
        names: Sequence[str] | None = None,
        task: str = "auto",
        max_rows: int = 10_000,
        seed: int = 0,
    ) -> None:
        self.n = n
        self.step = step
        self.min_features = min_features
        self.estimator = estimator
        self.scoring = scoring
        self.splitter = splitter
        self.wide = wide
        self.categorical = categorical
        self.names = names
        self.task = task
        self.max_rows = max_rows
        self.seed = seed

    def _ranks(self, matrix: Matrix, labels: Any, weights: Any) -> Sequence[int]:
        fewest = self.min_features if self.n is None else self.n
        if fewest < 1 or self.step <= 0:
            raise InputError("at least one column must stay, and one go at a time", where=self._where,
                             got=(fewest, self.step), remedy="Pass min_features=1, step=1")  # fmt: skip
        learner = self._learner(matrix, labels, weights)
        places, history = self._filtered(learner), []
        rows = sampled_rows(len(matrix), self.max_rows, self.seed)
        if self.n is None:
            fewest = self._choose(learner, places, fewest)
        for number, (remaining, importance, removed, _) in enumerate(self._steps(learner, rows, places, fewest), 1):
            titles = self.report_["names"]
            history.append({
                "step": number, "removed": [titles[place] for place in removed],
                "remaining": len(remaining) - len(removed),
                "importance": {titles[place]: float(value) for place, value in zip(remaining, importance, strict=True)},
            })  # fmt: skip
            places = [place for place in remaining if place not in removed]
        self.report_["history"] = [*self.report_.pop("filtered"), *history]
        return self._ranking(places)

    def _ranking(self, selected: list[int]) -> list[int]:
        titles = self.report_["names"]
        ranks = dict.fromkeys((titles[place] for place in selected), 1)
        removals = [entry["removed"] for entry in reversed(self.report_["history"]) if entry["removed"]]
        for rank, removed in enumerate(removals, 2):
            ranks.update(dict.fromkeys(removed, rank))
        return [ranks[title] for title in titles]

    def _filtered(self, learner: _Learner) -> list[int]:
        places = list(range(learner.matrix.shape[1]))
        self.report_["filtered"] = []
        if len(places) <= self.wide:
            return places
        codes, titles = learner.categorical, self.report_["names"]
        for reason, filter_ in (("variance", VarianceSelector()), ("correlation", CorrelationSelector(_CORRELATED))):
            filter_.set_params(categorical=[i for i, place in enumerate(places) if place in codes])
            support = filter_.fit(learner.matrix[:, places], learner.labels, learner.weights).support_
            removed = [titles[place] for place, stays in zip(places, support, strict=True) if not stays]
            places = [place for place, stays in zip(places, support, strict=True) if stays]
            entry = {"step": 0, "removed": removed, "remaining": len(places), "importance": {}, "filter": reason}
            self.report_["filtered"].append(entry)
        return places

    def _steps(self, learner: _Learner, rows: NDArray[np.int64], places: list[int], fewest: int) -> Any:
        """Yield (columns, importances, columns that go, model); the last one keeps all of its columns."""
        count = max(1, int(self.step * len(places))) if self.step < 1 else int(self.step)
        while True:
            model = learner.fit(rows, places)
            importance = learner.importance(model)
            # Of equally important columns the later one goes.
            order = np.argsort(importance[::-1], kind="stable")[: max(0, min(count, len(places) - fewest))]
            removed = [places[len(places) - 1 - place] for place in order.tolist()]
            yield places, importance, removed, model
            if not removed:
                return
            places = [place for place in places if place not in removed]

    def _choose(self, learner: _Learner, places: list[int], fewest: int) -> int:
        scores: dict[int, list[float]] = {}
        score = learner.scorer()
        for train, test in self._parts(learner):
            for remaining, _, _, model in self._steps(learner, train, places, fewest):
                scores.setdefault(len(remaining), []).append(score(model, test))
        self.report_["scores"] = [{"features": count, "folds": values, **_interval(values)}
                                  for count, values in sorted(scores.items())]  # fmt: skip
        means: dict[int, float] = {entry["features"]: entry["mean"] for entry in self.report_["scores"]}
        return min(means, key=lambda count: (-means[count], count))


class PermutationSelector(_ByEstimator):
    """Select by what a shuffled column costs on rows that the estimator has not seen (Breiman 2001).

    Each fold fits on its training rows; the importance of a column is the mean loss of score on its test rows. Two
    columns that tell the same hide each other: leave one out before.

    Parameters
    ----------
    k : int, optional
        Columns to select; None: all whose mean importance is above ``above``.
    above : float, default 0.0
        In units of the score.
    estimator : {"forest", "linear"} or estimator of scikit-learn, default "forest"
    scoring : str, optional
        Of scikit-learn; None: roc_auc, neg_log_loss of several classes, r2.
    splitter : int, splitter of scikit-learn, or iterable of (train, test) positions; default 5
    repeats : int, default 5
        Shufflings per column and fold.
    categorical : sequence of int, default ()
    names : sequence of str, optional
        Names of the columns, for ``report_``.
    task : {"auto", "classification", "regression"}, default "auto"
    max_rows : int, default 10000
        Rows looked at, drawn by the seed.
    seed : int, default 0
    """

    kind: ClassVar[str] = "permutation_selector"

    def __init__(  # noqa: PLR0913 - as above
        self,
        k: int | None = None,
        *,
        above: float = 0.0,
        estimator: Any = "forest",
        scoring: str | None = None,
        splitter: Splitter = 5,
        repeats: int = 5,
        categorical: Sequence[int] = (),
        names: Sequence[str] | None = None,
        task: str = "auto",
        max_rows: int = 10_000,
        seed: int = 0,
    ) -> None:
        self.k = k
        self.above = above
        self.estimator = estimator
        self.scoring = scoring
        self.splitter = splitter
        self.repeats = repeats
        self.categorical = categorical
        self.names = names
        self.task = task
        self.max_rows = max_rows
        self.seed = seed

    def _ranks(self, matrix: Matrix, labels: Any, weights: Any) -> Sequence[int]:
        from sklearn.inspection import permutation_importance

        learner = self._learner(matrix, labels, weights)
        places = list(range(matrix.shape[1]))
        losses = []
        for train, test in self._parts(learner):
            model = learner.fit(train, places)
            measured = permutation_importance(
                model.estimator, model.inputs(matrix[test]), learner.labels[test], scoring=learner.scoring,
                n_repeats=self.repeats, random_state=self.seed,
                sample_weight=None if learner.weights is None else learner.weights[test],
            )  # fmt: skip
            losses.append(measured.importances_mean)
        folds = np.array(losses)
        by_column = zip(self.report_["names"], folds.T.tolist(), strict=True)
        self.report_["importance"] = [{"column": c, "folds": values, **_interval(values)} for c, values in by_column]
        means = folds.mean(axis=0)
        return ranked(means, best(means, self.k, self.above))
