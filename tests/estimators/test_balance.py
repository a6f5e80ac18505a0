"""Balance of classes and the way back to the true shares: what stays, what is made, what it does to probabilities."""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from imblearn.over_sampling import SMOTE
from sklearn.linear_model import LogisticRegression
from sklearn.utils.class_weight import compute_class_weight

from retrodict.core.errors import InputError, MissingExtraError
from retrodict.estimators import PriorCorrection, resample

SYNTHETIC = ["adasyn", "borderline_smote", "smote", "smote_tomek"]


def data(rows: int = 600, rare: float = 0.15, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Two numbers in different units that tell the rare class, and noise."""
    rng = np.random.default_rng(seed)
    labels = (rng.random(rows) < rare).astype(float)
    matrix = rng.normal(size=(rows, 3))
    matrix[:, 0] += labels
    matrix[:, 1] = 1e6 * (matrix[:, 1] + labels)
    return matrix, labels


def rows_of(matrix: np.ndarray) -> set[bytes]:
    return {row.tobytes() for row in np.where(np.isnan(matrix), np.nan, matrix)}


@pytest.mark.parametrize("ratio", [1.0, 3 / 7])
@pytest.mark.parametrize("how", ["over", "under", "smote", "borderline_smote", "class_weight"])
def test_the_ratio_is_reached(how: str, ratio: float) -> None:
    """In rows, or in weight; before and after are in the report, and the input is not touched."""
    matrix, labels = data()
    before = matrix.copy()
    balanced = resample(matrix, labels, how, ratio=ratio, seed=3)
    assert matrix.tobytes() == before.tobytes()
    report = balanced.report
    assert report.before == {0.0: int((labels == 0).sum()), 1.0: int((labels == 1).sum())}
    assert report.after == {0.0: int((balanced.labels == 0).sum()), 1.0: int((balanced.labels == 1).sum())}
    assert report.trained[1.0] / report.trained[0.0] == pytest.approx(ratio, rel=0.01)
    assert report.prior[1.0] == pytest.approx(labels.mean())
    assert json.loads(json.dumps(report.to_dict()))["before"]["1"] == report.before[1.0]
    again = resample(matrix, labels, how, ratio=ratio, seed=3)
    assert again.matrix.tobytes() == balanced.matrix.tobytes(), "the same seed gives the same rows"


@pytest.mark.parametrize("how", ["over", *SYNTHETIC])
def test_rows_that_were_there_stay_as_they_were(how: str) -> None:
    """Every row of training is among those that come out, gaps and all; only smote_tomek takes some away."""
    matrix, labels = data()
    matrix[np.random.default_rng(2).random(matrix.shape) < 0.2] = np.nan
    balanced = resample(matrix, labels, how, seed=1)
    kept = len(rows_of(matrix) & rows_of(balanced.matrix))
    assert kept > 0.8 * len(matrix) if how == "smote_tomek" else kept == len(rows_of(matrix))
    assert balanced.weights is None
    if how == "over":
        assert rows_of(balanced.matrix) == rows_of(matrix)


def test_undersampling_keeps_every_rare_row() -> None:
    """And no row twice."""
    matrix, labels = data()
    balanced = resample(matrix, labels, "under", seed=1)
    assert rows_of(matrix[labels == 1]) <= rows_of(balanced.matrix)
    assert len(rows_of(balanced.matrix)) == len(balanced.matrix)


def test_synthetic_rows_are_those_of_imbalanced_learn_on_scaled_columns() -> None:
    """The same seed, on the same scale, gives the same rows: units do not choose neighbours."""
    matrix, labels = data()
    centre, scale = matrix.mean(axis=0), matrix.std(axis=0)
    expected, _ = SMOTE(random_state=5).fit_resample((matrix - centre) / scale, labels)
    balanced = resample(matrix, labels, "smote", seed=5)
    np.testing.assert_allclose(balanced.matrix, expected * scale + centre, rtol=1e-6, atol=1e-6)


def test_a_gap_does_not_tell_the_class() -> None:
    """Synthetic rows miss about as often as the rows of their class; filled ones would make a gap mean "frequent"."""
    matrix, labels = data(rows=2000)
    matrix[np.random.default_rng(3).random(2000) < 0.5, 2] = np.nan
    balanced = resample(matrix, labels, "smote")
    new = balanced.matrix[len(matrix) :]
    assert (balanced.labels[len(matrix) :] == 1).all()
    assert np.isnan(new[:, 2]).mean() == pytest.approx(np.isnan(matrix[labels == 1, 2]).mean(), abs=0.1)
    assert not np.isnan(new[:, :2]).any()


def test_categories_are_chosen_not_averaged() -> None:
    """Also where all columns are categories; a missing one stays a missing one."""
    matrix, labels = data()
    matrix[:, 2] = np.random.default_rng(4).integers(0, 4, len(matrix))
    matrix[::9, 2] = np.nan
    balanced = resample(matrix, labels, "smote", categorical=[2])
    codes = balanced.matrix[len(matrix) :, 2]
    assert set(codes[~np.isnan(codes)].tolist()) <= {0.0, 1.0, 2.0, 3.0}
    assert np.isnan(codes).any()
    only = resample(matrix[:, 2:], labels, "smote", categorical=[0])
    assert set(only.matrix[~np.isnan(only.matrix)].tolist()) == {0.0, 1.0, 2.0, 3.0}
    with pytest.raises(
        InputError, match=r"must know categories, which cannot be averaged; got 'adasyn'\. Take 'smote'"
    ):
        resample(matrix, labels, "adasyn", categorical=[2])


def test_weights_go_along() -> None:
    """A repeated row has its own, a synthetic one the mean of its class; class weights multiply."""
    matrix, labels = data()
    weights = np.random.default_rng(5).random(len(labels)) + 0.5
    over = resample(matrix, labels, "over", weights=weights)
    by_row = {row.tobytes(): weight for row, weight in zip(matrix, weights, strict=True)}
    assert over.weights is not None
    assert all(by_row[row.tobytes()] == weight for row, weight in zip(over.matrix, over.weights, strict=True))
    smote = resample(matrix, labels, "smote", weights=weights)
    assert smote.weights is not None
    np.testing.assert_allclose(smote.weights[len(labels) :], weights[labels == 1].mean())
    both = resample(matrix, labels, {0.0: 1.0, 1.0: 7.0}, weights=weights)
    np.testing.assert_allclose(both.weights, weights * np.where(labels == 1, 7.0, 1.0))


@pytest.mark.parametrize("classes", [2, 4])
def test_class_weights_are_those_of_scikit_learn(classes: int) -> None:
    """``balanced``; and a resampling of several classes brings each to the share of the most frequent one."""
    rng = np.random.default_rng(6)
    labels = rng.choice(classes, 500, p=[0.7, 0.3] if classes == 2 else [0.6, 0.2, 0.15, 0.05]).astype(float)
    matrix = rng.normal(size=(500, 2)) + labels[:, None]
    balanced = resample(matrix, labels, "class_weight")
    expected = compute_class_weight("balanced", classes=np.unique(labels), y=labels)
    np.testing.assert_allclose(balanced.weights, expected[labels.astype(int)])
    for how in ("over", "smote"):
        assert len(set(resample(matrix, labels, how).report.after.values())) == 1
    fewest = (labels == classes - 1).sum()
    assert resample(matrix, labels, "under", ratio=0.9).report.after[0.0] == int(fewest / 0.9)


def test_it_says_when_not_to() -> None:
    """A tiny class, many dimensions, and always that the shares may be those of life."""
    rng = np.random.default_rng(7)
    labels = np.arange(1000) < 20
    sentences = resample(rng.normal(size=(1000, 40)), labels * 1.0, "smote").report.warnings
    assert "has 2.00% of the training rows. If that is its share in life" in sentences[0]
    assert "has 20 rows, fewer than 50: detect anomalies" in sentences[1]
    assert "between neighbours in 40 dimensions" in sentences[2]
    assert len(sentences) == 3
    assert len(resample(rng.normal(size=(1000, 40)), (np.arange(1000) < 90) * 1.0, "over").report.warnings) == 1


@pytest.mark.parametrize(
    ("how", "options", "message"),
    [
        ("smoteen", {}, "Did you mean the method 'smote'"),
        ("over", {"ratio": 1.5}, r"a ratio above 0 and up to 1; got \(2, 1.5\)"),
        ({0.0: 1.0}, {}, r"every class must have a weight above zero; got \[0.0\]. Give weights for \[0.0, 1.0\]"),
        ("smote", {"neighbours": 200}, r"must have more than its 200 neighbours; got '\d+ rows'\. Take 'class_weight'"),
    ],
)
def test_what_cannot_be_is_refused(how: Any, options: dict[str, Any], message: str) -> None:
    """By its name, with the way out."""
    with pytest.raises(InputError, match=message):
        resample(*data(), how, **options)
    with pytest.raises(InputError, match="two classes or more"):
        resample(np.zeros((3, 1)), np.ones(3), "over")


def test_without_the_extra_the_install_line_is_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only for what needs it."""
    monkeypatch.setitem(sys.modules, "imblearn", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'retrodict\[balance\]'"):
        resample(*data(), "smote")
    resample(*data(), "over")


def test_two_hundred_of_a_hundred_thousand() -> None:
    """Trained on balanced rows, corrected scores add up to the events there are; plain ones to many times that."""
    rng = np.random.default_rng(8)
    labels = np.zeros(100_000)
    labels[:200] = 1
    matrix = rng.normal(size=(100_000, 2)) + labels[:, None]
    fresh_labels = (rng.random(400_000) < 0.002).astype(float)
    fresh = rng.normal(size=(400_000, 2)) + fresh_labels[:, None]
    for how in ("under", "over", "class_weight"):
        balanced = resample(matrix, labels, how, seed=1)
        assert balanced.report.before == {0.0: 99_800, 1.0: 200}
        model = LogisticRegression().fit(balanced.matrix, balanced.labels, balanced.weights)
        scores = model.predict_proba(fresh)[:, 1]
        corrected = PriorCorrection.of(balanced.report).apply(scores)
        assert scores.sum() > 50 * fresh_labels.sum()
        tolerance = 0.25 if how == "under" else 0.12
        assert corrected.sum() / fresh_labels.sum() == pytest.approx(1, abs=tolerance), how


def test_several_classes_come_back_to_their_shares() -> None:
    """The posterior under one prior becomes that under the other: by Bayes' rule on known densities."""
    rng = np.random.default_rng(9)
    points = rng.normal(size=200)
    densities = np.exp(-0.5 * (points[:, None] - np.array([-1.0, 0.0, 2.0])) ** 2)
    prior, trained = np.array([0.9, 0.08, 0.02]), np.array([0.2, 0.3, 0.5])

    def posterior(shares: np.ndarray) -> np.ndarray:
        joint = densities * shares
        return joint / joint.sum(axis=1, keepdims=True)

    correction = PriorCorrection(tuple(prior), tuple(trained))
    np.testing.assert_allclose(correction.apply(posterior(trained)), posterior(prior), rtol=1e-9)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=9), st.floats(0.001, 0.999), st.floats(0.001, 0.999))
def test_a_row_is_corrected_as_the_batch(scores: list[float], prior: float, trained: float) -> None:
    """Bit for bit, also at 0 and 1, after JSON, binary and as two columns; the order of scores stays."""
    correction = PriorCorrection((1 - prior, prior), (1 - trained, trained))
    read = PriorCorrection.from_dict(json.loads(json.dumps(correction.to_dict())))
    batch = correction.apply(np.array(scores))
    assert [read.apply_row(score) for score in scores] == batch.tolist()
    assert (np.diff(batch[np.argsort(scores)]) >= 0).all()
    assert ((batch >= 0) & (batch <= 1)).all()
    columns = np.column_stack((1 - np.array(scores), scores))
    matrix = correction.apply(columns)
    assert [list(read.apply_row(tuple(row))) for row in columns.tolist()] == matrix.tolist()
    np.testing.assert_allclose(matrix[:, 1], batch, atol=1e-12)


def test_shares_that_are_none_are_refused() -> None:
    """They must be positive, add up to 1 and be of the same classes."""
    for prior, trained in (((0.5, 0.6), (0.5, 0.5)), ((1.0, 0.0), (0.5, 0.5)), ((0.5, 0.5), (0.2, 0.3, 0.5))):
        with pytest.raises(InputError, match="must be"):
            PriorCorrection(prior, trained)
