"""The path of a penalty against scikit-learn's own: lasso_path, ridge in closed form, the conditions of the optimum."""

from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn.linear_model import lasso_path

from retrodict.core.errors import InputError
from retrodict.estimators import regularisation_path


def data(rows: int = 200, width: int = 6) -> tuple[np.ndarray, np.ndarray]:
    """Columns in different units; the first two tell the number."""
    rng = np.random.default_rng(1)
    matrix = rng.normal(size=(rows, width)) * np.geomspace(1, 1e4, width)
    return matrix, matrix[:, 0] * 3 - matrix[:, 1] / 6 + rng.normal(size=rows)


def scaled(matrix: np.ndarray) -> np.ndarray:
    return (matrix - matrix.mean(axis=0)) / matrix.std(axis=0)


def test_lasso_follows_its_path() -> None:
    """Coefficients of every strength; at the first one nothing is left, later ever more."""
    matrix, values = data()
    path = regularisation_path(matrix, values, penalty="l1", task="regression", splitter=None)
    strengths = [point.strength for point in path.points]
    _, expected, _ = lasso_path(scaled(matrix), values - values.mean(), alphas=strengths)
    np.testing.assert_allclose([point.coefficients[0] for point in path.points], expected.T, atol=1e-3)
    zeroed = [point.zeroed for point in path.points]
    assert zeroed[0] == 6
    assert zeroed[1] < 6
    assert zeroed == sorted(zeroed, reverse=True)
    assert path.best is None
    assert json.loads(json.dumps(path.to_dict()))["points"][0]["zeroed"] == 6


def test_ridge_is_the_closed_form() -> None:
    """(X'X / n + strength I)^-1 X'y / n; nothing is ever zero."""
    matrix, values = data()
    x, y = scaled(matrix), values - values.mean()
    path = regularisation_path(matrix, values, penalty="l2", strengths=[0.01, 1.0], splitter=None)
    for point in path.points:
        expected = np.linalg.solve(x.T @ x / len(x) + point.strength * np.eye(6), x.T @ y / len(x))
        np.testing.assert_allclose(point.coefficients[0], expected, rtol=1e-6)
        assert point.zeroed == 0
    assert [point.strength for point in path.points] == [1.0, 0.01], "from the strongest to the weakest"


@pytest.mark.parametrize(("penalty", "mix"), [("l1", 1.0), ("elastic_net", 0.5), ("l2", 0.0)])
def test_logistic_coefficients_are_an_optimum(penalty: str, mix: float) -> None:
    """The gradient of the loss is within the subgradient of the penalty, column by column."""
    matrix, values = data()
    labels = (values > 0).astype(float)
    x = scaled(matrix)
    for point in regularisation_path(matrix, labels, penalty=penalty, strengths=[0.1, 0.02], splitter=None).points:
        weights = np.array(point.coefficients[0])
        intercept = _intercept(x @ weights, labels)
        gradient = x.T @ (labels - 1 / (1 + np.exp(-(x @ weights + intercept)))) / len(x)
        rest = gradient - point.strength * (1 - mix) * weights
        assert np.abs(rest[weights == 0]).max(initial=0) <= point.strength * mix + 1e-3
        np.testing.assert_allclose(rest[weights != 0], point.strength * mix * np.sign(weights[weights != 0]), atol=1e-3)


def _intercept(margins: np.ndarray, labels: np.ndarray) -> float:
    low, high = -50.0, 50.0
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if (1 / (1 + np.exp(-(margins + middle)))).mean() < labels.mean() else (low, middle)
    return low


def test_the_best_strength_is_between_nothing_and_all() -> None:
    """Scores on unseen rows: none at the strong end, over-fit at the weak one; the sparse choice is no weaker."""
    rng = np.random.default_rng(3)
    matrix = rng.normal(size=(80, 40))
    labels = (matrix[:, 0] * 2 + rng.normal(size=80) > 0).astype(float)
    strengths = np.geomspace(0.3, 0.003, 6)
    path = regularisation_path(matrix, labels, strengths=strengths, splitter=4)
    assert path.best is not None
    assert path.sparse is not None
    assert path.sparse <= path.best
    assert 0 < path.best < 5
    point = path.points[path.best]
    assert point.low < point.score < point.high  # type: ignore[operator]
    assert path.points[path.sparse].score >= point.low  # type: ignore[operator]
    assert path.scoring == "neg_log_loss"


def test_several_classes_have_a_row_each() -> None:
    """A column is zeroed when it is in every row."""
    rng = np.random.default_rng(4)
    matrix = rng.normal(size=(150, 4))
    labels = np.digitize(matrix[:, 0], [-0.5, 0.5]).astype(float)
    path = regularisation_path(matrix, labels, strengths=[0.05], splitter=None)
    rows = np.array(path.points[0].coefficients)
    assert rows.shape == (3, 4)
    assert path.points[0].zeroed == (rows == 0).all(axis=0).sum() > 0


def test_what_has_no_path_is_refused() -> None:
    """An unknown penalty, gaps, strengths of zero."""
    matrix, values = data()
    with pytest.raises(InputError, match="a penalty must be one that exists; got 'l3'"):
        regularisation_path(matrix, values, penalty="l3")
    with pytest.raises(InputError, match=r"rows must be without gaps.*Impute in a step before"):
        regularisation_path(np.where(matrix > 0, matrix, np.nan), values)
    with pytest.raises(InputError, match=r"strengths must be above zero; got \[0.0\]"):
        regularisation_path(matrix, values, strengths=[0])
