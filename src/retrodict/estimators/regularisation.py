"""The path of a penalty: what each strength leaves of the coefficients, and how well it predicts unseen rows.

``lasso_path`` and ``LogisticRegressionCV`` of scikit-learn each do a part of it, for one task and one penalty.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrodict.core.errors import InputError, check_known
from retrodict.estimators._folds import Splitter, is_classification, split_rows
from retrodict.estimators._operations import Matrix
from retrodict.estimators.shape import Scaler

__all__ = ["PathPoint", "RegularisationPath", "regularisation_path"]

Vector = NDArray[np.float64]
_PENALTIES = ("elastic_net", "l1", "l2")


@dataclass(frozen=True, slots=True)
class PathPoint:
    """One strength of the penalty.

    Attributes
    ----------
    strength : float
        The factor lambda of the penalty, per row.
    coefficients : tuple of tuple of float
        Of scaled columns, one row per class (one row for two classes and for numbers).
    zeroed : int
        Columns without a coefficient other than zero in any row.
    score, low, high : float or None
        Mean score of the test parts, and one standard error to each side; None without folds.
    """

    strength: float
    coefficients: tuple[tuple[float, ...], ...]
    zeroed: int
    score: float | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class RegularisationPath:
    """Points from the strongest penalty to the weakest, ready to be drawn.

    Attributes
    ----------
    penalty : str
    scoring : str
    points : tuple of PathPoint
    best : int or None
        Place of the best score; of equal ones the strongest penalty.
    sparse : int or None
        Place of the strongest penalty within one standard error of the best (Hastie, Tibshirani and Friedman 2009,
        7.10).
    """

    penalty: str
    scoring: str
    points: tuple[PathPoint, ...]
    best: int | None = None
    sparse: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON form."""
        points = [{**asdict(point), "coefficients": [list(row) for row in point.coefficients]} for point in self.points]
        return {"penalty": self.penalty, "scoring": self.scoring, "points": points, "best": self.best,
                "sparse": self.sparse}  # fmt: skip


def regularisation_path(
    matrix: Matrix,
    labels: Vector,
    *,
    penalty: str = "l1",
    strengths: Sequence[float] | None = None,
    mix: float = 0.5,
    task: str = "auto",
    splitter: Splitter | None = 5,
    seed: int = 0,
) -> RegularisationPath:
    """Fit a linear or logistic regression for each strength of a penalty.

    The penalised loss is ``mean loss + strength (mix |w|_1 + (1 - mix) |w|_2^2 / 2)``, with half the squared error for
    numbers and the log loss for classes (Friedman, Hastie and Tibshirani 2010, JSS 33); ``mix`` is 1 for ``l1`` and 0
    for ``l2``. Columns are scaled by the training rows of each fit.

    Parameters
    ----------
    matrix : array of shape (n, columns), float64
        Numbers without gaps: impute and encode before.
    labels : array of shape (n,)
    penalty : {"l1", "l2", "elastic_net"}, default "l1"
    strengths : sequence of float, optional
        None: 20 values, from the one at which ``l1`` leaves nothing down to its thousandth.
    mix : float, default 0.5
        Share of ``l1`` in ``elastic_net``, above 0 and below 1.
    task : {"auto", "classification", "regression"}, default "auto"
    splitter : int, splitter of scikit-learn, iterable of (train, test) positions, or None; default 5
        None: no scores.
    seed : int, default 0

    Raises
    ------
    InputError
        If a value is missing, or a setting is out of its bounds.
    """
    check_known(penalty, _PENALTIES, "a penalty must be one that exists", where="regularisation path", what="penalty",
                error=InputError)  # fmt: skip
    matrix, labels = np.asarray(matrix, dtype=np.float64), np.asarray(labels, dtype=np.float64)
    if not np.isfinite(matrix).all() or not 0 < mix < 1:
        raise InputError("rows must be without gaps, and a mix be above 0 and below 1", where="regularisation path",
                         got=(int((~np.isfinite(matrix)).sum()), mix),
                         remedy="Impute in a step before")  # fmt: skip
    share = {"l1": 1.0, "l2": 0.0, "elastic_net": mix}[penalty]
    classes = is_classification(labels, task)
    grid = _grid(matrix, labels, share, classes=classes) if strengths is None else sorted(map(float, strengths))[::-1]
    if not grid or not all(0 < strength < math.inf for strength in grid):
        raise InputError("strengths must be above zero", where="regularisation path", got=list(grid),
                         remedy="Pass strengths=[0.1, 0.01]")  # fmt: skip
    parts = [] if splitter is None else split_rows(splitter, matrix, labels, task=task, seed=seed)
    scores = [_scores(matrix, labels, strength, share, parts, classes=classes, seed=seed) for strength in grid]
    points = []
    for strength, values in zip(grid, scores, strict=True):
        model = _fitted(Scaler().fit_transform(matrix), labels, strength, share, classes=classes, seed=seed)
        rows = np.atleast_2d(model.coef_)
        mean = float(np.mean(values)) if values else None
        error = float(np.std(values, ddof=1) / math.sqrt(len(values))) if len(values) > 1 else None
        low, high = (None, None) if mean is None or error is None else (mean - error, mean + error)
        zeroed = int((rows == 0).all(axis=0).sum())
        points.append(PathPoint(strength, tuple(map(tuple, rows.tolist())), zeroed, mean, low, high))
    scoring = "neg_log_loss" if classes else "neg_mean_squared_error"
    if not parts:
        return RegularisationPath(penalty, scoring, tuple(points))
    means = [point.score for point in points if point.score is not None]
    best = int(np.argmax(means))
    floor = points[best].low
    sparse = best if floor is None else next(place for place, mean in enumerate(means) if mean >= floor)
    return RegularisationPath(penalty, scoring, tuple(points), best, sparse)


def _grid(matrix: Matrix, labels: Vector, share: float, *, classes: bool) -> list[float]:
    """From the least strength at which every coefficient is zero; ridge, which has none, as if ``mix`` were 0.001."""
    scaled = Scaler().fit_transform(matrix)
    targets = [(labels == label).astype(np.float64) for label in np.unique(labels)] if classes else [labels]
    reach = max(float(np.abs(scaled.T @ (target - target.mean())).max()) for target in targets) / len(labels)
    top = (reach or 1.0) / max(share, 1e-3)
    return list(np.geomspace(top, top * 1e-3, 20).tolist())


def _fitted(scaled: Matrix, labels: Vector, strength: float, share: float, *, classes: bool, seed: int) -> Any:
    from sklearn.linear_model import ElasticNet, LogisticRegression, Ridge

    if classes:
        inverse = 1 / (strength * len(labels))
        if share == 0:
            return LogisticRegression(C=inverse, max_iter=2_000).fit(scaled, labels)
        solver = LogisticRegression(C=inverse, l1_ratio=share, solver="saga", max_iter=5_000, tol=1e-5,
                                    random_state=seed)  # fmt: skip
        return solver.fit(scaled, labels)
    if share == 0:
        return Ridge(alpha=strength * len(labels)).fit(scaled, labels)
    return ElasticNet(alpha=strength, l1_ratio=share, max_iter=20_000).fit(scaled, labels)


def _scores(
    matrix: Matrix, labels: Vector, strength: float, share: float, parts: Any, *, classes: bool, seed: int
) -> list[float]:
    from sklearn.metrics import log_loss, mean_squared_error

    values = []
    for train, test in parts:
        scaler = Scaler().fit(matrix[train])
        model = _fitted(scaler.transform(matrix[train]), labels[train], strength, share, classes=classes, seed=seed)
        inputs = scaler.transform(matrix[test])
        if classes:
            values.append(-float(log_loss(labels[test], model.predict_proba(inputs), labels=model.classes_)))
        else:
            values.append(-float(mean_squared_error(labels[test], model.predict(inputs))))
    return values
