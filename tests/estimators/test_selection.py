"""Selection of columns: scikit-learn's RFE and RFECV as oracles, a history that adds up, folds kept apart."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble import RandomForestClassifier
from sklearn.feature_selection import RFE, RFECV, mutual_info_classif
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.model_selection import StratifiedKFold, TimeSeriesSplit
from sklearn.neighbors import KNeighborsClassifier

from retrodict.core.errors import InputError
from retrodict.estimators import (
    CorrelationSelector,
    InformationSelector,
    PermutationSelector,
    RecursiveSelector,
    VarianceSelector,
    load_step,
)


def data(classes: int = 2, rows: int = 300, width: int = 8, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Standardised columns, of which the first three tell the label, the earlier the better."""
    rng = np.random.default_rng(seed)
    matrix = rng.normal(size=(rows, width))
    margin = matrix[:, 0] * 2 + matrix[:, 1] * 1.4 + matrix[:, 2] + rng.normal(size=rows)
    labels = np.digitize(margin, np.quantile(margin, np.arange(1, classes) / classes)).astype(float)
    return (matrix - matrix.mean(axis=0)) / matrix.std(axis=0), labels


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("step", [1, 2, 0.3])
def test_elimination_ranks_as_in_scikit_learn(classes: int, step: float) -> None:
    """By coefficients of all classes, not of the first; for steps of one, two and a share of the columns."""
    matrix, labels = data(classes)
    ours = RecursiveSelector(2, step=step, estimator=LogisticRegression()).fit(matrix, labels)
    theirs = RFE(LogisticRegression(), n_features_to_select=2, step=step).fit(matrix, labels)
    np.testing.assert_array_equal(ours.ranking_, theirs.ranking_)
    np.testing.assert_array_equal(ours.support_, theirs.support_)
    np.testing.assert_array_equal(ours.transform(matrix), matrix[:, theirs.support_])


@pytest.mark.parametrize("estimator", [LogisticRegression(), RandomForestClassifier(8, max_depth=3, random_state=0)])
def test_cross_validation_chooses_as_in_scikit_learn(estimator: Any) -> None:
    """The same folds give the same score of each number of columns, and the same choice."""
    matrix, labels = data()
    folds = StratifiedKFold(4, shuffle=True, random_state=2)
    theirs = RFECV(estimator, cv=folds, scoring="roc_auc", min_features_to_select=2).fit(matrix, labels)
    ours = RecursiveSelector(estimator=estimator, splitter=folds, min_features=2, scoring="roc_auc")
    ours.fit(matrix, labels)
    means = [entry["mean"] for entry in ours.report_["scores"]]
    # Each fold is scaled by its own training rows here: close, not equal.
    np.testing.assert_allclose(means, theirs.cv_results_["mean_test_score"], atol=0.005)
    assert [entry["features"] for entry in ours.report_["scores"]] == list(range(2, 9))
    assert ours.support_[:3].all()
    assert ours.support_.sum() == theirs.n_features_
    first = ours.report_["scores"][0]
    half = 3.182446 * np.std(first["folds"], ddof=1) / 2
    assert (first["low"], first["high"]) == pytest.approx((first["mean"] - half, first["mean"] + half))


def test_of_equal_scores_the_fewest_columns_win() -> None:
    """A label that one column tells: every number of columns scores 1."""
    matrix, _ = data(rows=200, width=5)
    labels = (matrix[:, 4] > 0).astype(float)
    matrix[:, 4] += 10 * labels
    selector = RecursiveSelector(estimator="linear", splitter=2).fit(matrix, labels)
    assert {entry["mean"] for entry in selector.report_["scores"]} == {1.0}
    assert np.flatnonzero(selector.support_).tolist() == [4]


def test_the_history_adds_up_and_is_stored() -> None:
    """Step by step: who went, how many are left, and the least important went; plain JSON, by name."""
    matrix, labels = data()
    frame = pd.DataFrame(matrix, columns=list("abcdefgh"))
    selector = RecursiveSelector(3, step=2, estimator="linear").fit(frame, labels)
    remaining = set("abcdefgh")
    for number, entry in enumerate(selector.history_, 1):
        assert entry["step"] == number
        assert set(entry["importance"]) == remaining
        lowest = sorted(entry["importance"], key=entry["importance"].get)[: len(entry["removed"])]
        assert set(entry["removed"]) == set(lowest)
        remaining -= set(entry["removed"])
        assert entry["remaining"] == len(remaining)
    assert remaining == {"a", "b", "c"}
    assert len(selector.history_[-1]["importance"]) == 3, "the columns that stay have importances, too"
    read = load_step(json.loads(json.dumps(selector.to_dict(), allow_nan=False)))
    assert read.history_ == selector.history_
    assert read.transform_row(matrix[0].tolist()) == matrix[0, :3].tolist()
    assert list(read.get_feature_names_out()) == ["a", "b", "c"]


def test_units_do_not_decide() -> None:
    """A column in thousandths has coefficients a thousand times as large: they are those of scaled inputs."""
    matrix, labels = data()
    units = np.array([1e6, 1e3, 1.0, 1e-3, 1e-3, 1e-6, 1e-6, 1.0])
    plain = RecursiveSelector(3, estimator="linear").fit(matrix, labels)
    scaled = RecursiveSelector(3, estimator="linear").fit(matrix * units, labels)
    np.testing.assert_array_equal(scaled.ranking_, plain.ranking_)
    assert np.flatnonzero(scaled.support_).tolist() == [0, 1, 2]


def test_a_column_that_only_tells_later_classes_stays() -> None:
    """Importance counts the coefficients of every class, not of the first one."""
    rng = np.random.default_rng(4)
    matrix = rng.normal(size=(600, 3))
    labels = np.where(matrix[:, 0] < -0.5, 0.0, np.where(matrix[:, 1] > 0, 1.0, 2.0))
    selector = RecursiveSelector(2, estimator="linear").fit(matrix, labels)
    assert np.flatnonzero(selector.support_).tolist() == [0, 1]


def test_an_estimator_with_neither_is_refused_with_the_remedy() -> None:
    """Permutation importance takes any estimator; coefficients do not rank codes."""
    matrix, labels = data()
    with pytest.raises(InputError, match=r"must have coef_ or feature_importances_; got 'KNeighborsClassifier'\. "
                                         r"Select by permutation importance"):  # fmt: skip
        RecursiveSelector(2, estimator=KNeighborsClassifier()).fit(matrix, labels)
    with pytest.raises(InputError, match=r"must be numbers, not codes of categories; got \[3\]"):
        RecursiveSelector(2, estimator="linear", categorical=[3]).fit(matrix, labels)
    with pytest.raises(InputError, match="Did you mean the estimator 'forest'"):
        RecursiveSelector(2, estimator="forrest").fit(matrix, labels)
    selector = PermutationSelector(3, estimator=KNeighborsClassifier(), repeats=3).fit(matrix, labels)
    assert np.flatnonzero(selector.support_).tolist() == [0, 1, 2]


def test_permutation_keeps_what_costs_score_on_unseen_rows() -> None:
    """The three that tell; noise that a forest fits in sample is worth nothing out of it."""
    matrix, labels = data(rows=500)
    selector = PermutationSelector(above=0.01, repeats=2, splitter=3).fit(matrix, labels)
    assert np.flatnonzero(selector.support_).tolist() == [0, 1, 2]
    shares = [entry["mean"] for entry in selector.report_["importance"]]
    assert shares[0] > shares[1] > shares[2] > 0.01
    assert all(entry["low"] <= entry["mean"] <= entry["high"] for entry in selector.report_["importance"])


def test_folds_that_are_passed_keep_time() -> None:
    """No fit sees a row at or after those it is scored on; weights go to the fit and to the score."""
    matrix, labels = data()
    seen: list[tuple[int, int]] = []

    class Spy(LogisticRegression):
        def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Any:  # noqa: N803
            seen.append((len(X), 0 if sample_weight is None else int(sample_weight.sum())))
            return super().fit(X, y, sample_weight)

    weights = np.arange(300) % 3 * 1.0
    splitter = TimeSeriesSplit(3)
    RecursiveSelector(estimator=Spy(), splitter=splitter, min_features=7).fit(matrix, labels, weights)
    expected = [(len(train), int(weights[train].sum())) for train, _ in splitter.split(matrix)]
    assert set(expected) <= set(seen)
    assert set(seen) - set(expected) == {(300, 300)}, "the last elimination is on all training rows"


def test_a_wide_table_is_filtered_first() -> None:
    """Constants and near copies go before the elimination, and the history says by which filter."""
    matrix, labels = data()
    wide = np.hstack((matrix, matrix[:, :1] + 1e-6, np.ones((300, 2))))
    selector = RecursiveSelector(3, wide=9, estimator="linear").fit(wide, labels)
    first, second, *_ = selector.history_
    assert (first["filter"], first["removed"], first["remaining"]) == ("variance", ["x9", "x10"], 9)
    assert (second["filter"], second["removed"], second["remaining"]) == ("correlation", ["x8"], 8)
    assert np.flatnonzero(selector.support_).tolist() == [0, 1, 2]
    assert selector.ranking_.max() == selector.ranking_[9] == selector.ranking_[10]


def test_low_variance_goes() -> None:
    """Constants, empty columns and categories of one value; a category with gaps varies."""
    nan = float("nan")
    matrix = [[1.0, 5.0, nan, 0.0, 0.0], [2.0, 5.0, nan, 0.0, nan], [3.0, 5.0, nan, 0.0, 0.0]]
    selector = VarianceSelector(categorical=[3, 4]).fit(matrix)
    assert selector.support_.tolist() == [True, False, False, False, True]
    assert selector.report_["variance"][4] == pytest.approx(1 - (4 / 9 + 1 / 9))
    assert VarianceSelector(99.0).fit(matrix).support_.tolist() == [True, False, False, False, False], "one stays"


def test_of_two_alike_the_one_less_related_to_the_label_goes() -> None:
    """Whatever its place; each removal names the column that stays for it."""
    matrix, labels = data()
    noisy = matrix[:, 0] + 0.1 * np.random.default_rng(2).normal(size=300)
    wide = np.column_stack((noisy, matrix))
    selector = CorrelationSelector(0.9).fit(wide, labels)
    assert np.flatnonzero(~selector.support_).tolist() == [0]
    (entry,) = selector.report_["dropped"]
    assert (entry["column"], entry["for"]) == ("x0", "x1")
    assert entry["correlation"] == pytest.approx(abs(np.corrcoef(noisy, matrix[:, 0])[0, 1]))
    assert np.flatnonzero(~CorrelationSelector(0.9).fit(wide).support_).tolist() == [1], "without labels the later one"


def test_correlations_are_those_of_pandas() -> None:
    """Over the rows where both have a value, also for large numbers with little spread, and weighted as repeated."""
    from retrodict.estimators.selection import correlations

    rng = np.random.default_rng(3)
    matrix = rng.normal(size=(200, 4)) @ rng.normal(size=(4, 4)) + [0, 1e6, 0, 0]
    matrix[rng.random(matrix.shape) < 0.3] = np.nan
    np.testing.assert_allclose(correlations(matrix, matrix), pd.DataFrame(matrix).corr(), atol=1e-9)
    weights = rng.integers(0, 3, 200)
    repeated = np.repeat(matrix, weights, axis=0)
    np.testing.assert_allclose(correlations(matrix, matrix, weights * 1.0), pd.DataFrame(repeated).corr(), atol=1e-9)


def test_mutual_information_is_that_of_scikit_learn() -> None:
    """The k best, or those above; ties and gaps do not stop it."""
    matrix, labels = data()
    matrix[:, 7] = np.digitize(matrix[:, 7], [0.0])
    selector = InformationSelector(3, categorical=[7]).fit(matrix, labels)
    expected = mutual_info_classif(matrix, labels, discrete_features=[False] * 7 + [True], random_state=0)
    np.testing.assert_allclose(selector.report_["information"], expected)
    assert np.flatnonzero(selector.support_).tolist() == sorted(np.argsort(-expected)[:3].tolist())
    above = InformationSelector(above=0.05, categorical=[7]).fit(matrix, labels)
    np.testing.assert_array_equal(above.support_, expected > 0.05)
    matrix[5:9, [0, 7]] = np.nan
    assert InformationSelector(2, categorical=[7]).fit(matrix, labels).support_[0]


def test_numbers_are_told_by_regression() -> None:
    """A label of many values, and one that is said to be a number."""
    matrix, _ = data()
    value = 3 * matrix[:, 1] - 2 * matrix[:, 5]
    selector = RecursiveSelector(2, estimator=LinearRegression()).fit(matrix, value)
    assert np.flatnonzero(selector.support_).tolist() == [1, 5]
    assert selector.report_["task"] == "regression"
    assert RecursiveSelector(2, task="regression").fit(matrix, np.round(abs(value))).report_["task"] == "regression"


def test_a_fold_without_a_class_is_an_error() -> None:
    """Not a score of nothing."""
    matrix, labels = data()
    with pytest.raises(InputError, match="every part of a fold must have rows, and of more than one class"):
        RecursiveSelector(splitter=[(np.arange(100), np.flatnonzero(labels == 1)[-5:])]).fit(matrix, labels)


def test_a_sample_is_looked_at() -> None:
    """More rows than ``max_rows`` are drawn by the seed; the choice is deterministic."""
    matrix, labels = data(rows=2000)
    settings: dict[str, Any] = {"estimator": "linear", "max_rows": 300, "min_features": 3, "splitter": 2}
    one, other = (RecursiveSelector(**settings).fit(matrix, labels) for _ in range(2))
    assert one.to_dict() == other.to_dict()
    assert np.flatnonzero(one.support_).tolist()[:3] == [0, 1, 2]
