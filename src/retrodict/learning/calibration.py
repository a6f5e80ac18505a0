"""Which calibration a recipe gets: the one it names, or the one that predicts rows best that it was not fitted on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from retrodict.core.display import Record
from retrodict.evaluation.metrics import log_loss
from retrodict.models.calibration import Calibrator, NoCalibrator, fit_isotonic, fit_sigmoid

__all__ = ["Calibration", "calibrate", "share_validation"]

# Isotonic regression follows every step of its rows: with fewer of the rarer class it follows chance (Niculescu-Mizil &
# Caruana 2005, section 5, where it needs about a thousand rows to come up to Platt's sigmoid).
ISOTONIC_ROWS = 1_000
_FOLDS = 5

Fit = Callable[[NDArray[np.float64], NDArray[np.float64]], Calibrator]

# From the simplest on: of equal log losses the first is taken.
_METHODS: Mapping[str, Fit] = {
    "none": lambda _scores, _labels: NoCalibrator(),
    "sigmoid": fit_sigmoid,
    "isotonic": fit_isotonic,
}


@dataclass(frozen=True, slots=True)
class Calibration(Record):
    """What came of calibrating.

    Attributes
    ----------
    method : {"none", "sigmoid", "isotonic"}
        What is in force.
    rows, positives : int
        Rows it was fitted on, and those labelled 1.
    log_loss : mapping of str to float
        Cross-validated log loss of each method that was compared; empty where the recipe names one.
    """

    method: str
    rows: int
    positives: int
    log_loss: Mapping[str, float] = field(default_factory=dict)


def share_validation(rows: NDArray[np.int64], at: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Positions of the validation rows that may stop a training early, and of the later half, for calibration.

    Scores of rows that chose the number of trees are better than those of rows to come; calibrated on them, a model
    is too sure of itself.

    Parameters
    ----------
    rows : ndarray of shape (n,)
        Positions in the frame.
    at : ndarray
        Moments of decision of the frame, in microseconds.
    """
    ordered = rows[np.argsort(at[rows], kind="stable")]
    return np.sort(ordered[: len(rows) // 2]), np.sort(ordered[len(rows) // 2 :])


def calibrate(
    method: str,
    scores: NDArray[np.float64],
    labels: NDArray[np.float64],
    at: NDArray[np.int64],
    known_at: NDArray[np.int64],
) -> tuple[Calibrator, Calibration]:
    """Fit a calibration on rows that the engine was not trained on; all arrays have shape (n,).

    ``"auto"`` takes the method of the least cross-validated log loss, isotonic regression only from 1,000 rows of the
    rarer class on. Folds are spans of time; what is fitted for one uses no row whose outcome overlaps it in time
    (purging: López de Prado 2018, Advances in Financial Machine Learning, chapter 7). Where no fold leaves a row to fit
    on, nothing can be compared and scores stay as they are.

    Parameters
    ----------
    method : {"auto", "none", "sigmoid", "isotonic"}
    scores, labels : ndarray
        The engine's probabilities, and 0 or 1.
    at, known_at : ndarray of int64
        When each row was decided, and when its outcome became known, in microseconds.
    """
    positives = int(labels.sum())
    losses: dict[str, float] = {}
    if method == "auto":
        rarer = min(positives, len(labels) - positives)
        methods = [name for name in _METHODS if name != "isotonic" or rarer >= ISOTONIC_ROWS]
        losses = _cross_validate(methods, scores, labels, at, known_at)
        method = min(methods, key=lambda name: losses.get(name, 0.0))
    return _METHODS[method](scores, labels), Calibration(method, len(labels), positives, losses)


def _cross_validate(
    methods: list[str],
    scores: NDArray[np.float64],
    labels: NDArray[np.float64],
    at: NDArray[np.int64],
    known_at: NDArray[np.int64],
) -> dict[str, float]:
    """Mean log loss of each method over the rows of all folds that can be evaluable."""
    evaluable: list[NDArray[np.int64]] = []
    predicted: dict[str, list[NDArray[np.float64]]] = {name: [] for name in methods}
    for inside in np.array_split(np.argsort(at, kind="stable"), _FOLDS):
        if not len(inside):
            continue
        outside = (known_at < at[inside].min()) | (at > known_at[inside].max())
        if outside.any():
            evaluable.append(inside)
            for name in methods:
                fitted = _METHODS[name](scores[outside], labels[outside])
                predicted[name].append(fitted.apply(scores[inside]))
    if not evaluable:
        return {}
    truth = labels[np.concatenate(evaluable)]
    return {name: log_loss(truth, np.concatenate(parts)).value or 0.0 for name, parts in predicted.items()}
