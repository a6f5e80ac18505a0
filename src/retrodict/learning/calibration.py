"""Which calibration a recipe gets: the one it names, or the one that predicts rows best that it was not fitted on."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import NDArray

from retrodict.core.display import Record
from retrodict.core.errors import InputError, near
from retrodict.core.tasks import Target
from retrodict.models.calibration import (
    Calibrator,
    Unchanged,
    fit_isotonic,
    fit_none,
    fit_one_vs_rest,
    fit_sigmoid,
    fit_temperature,
)
from retrodict.models.splits import SplitRows, Splitter

__all__ = ["ISOTONIC_ROWS", "SIGMOID_ROWS", "Calibration", "calibrate", "calibration_folds"]

# Isotonic regression follows every step of its rows: with fewer of the rarer class it follows chance (Niculescu-Mizil &
# Caruana 2005, section 5, where it needs about a thousand rows to come up to Platt's sigmoid).
ISOTONIC_ROWS = 1_000
# Ten rows of the rarer class for each number that is fitted (Peduzzi et al. 1996, J Clin Epidemiol 49).
SIGMOID_ROWS, TEMPERATURE_ROWS = 20, 10
_FOLDS = 5
_TINY = 2.0**-52

Floats = NDArray[np.float64]
Pairs = Sequence[tuple[NDArray[np.int64], NDArray[np.int64]]]
Fit = Callable[[Floats, Floats], Calibrator]

# From the simplest on.
_METHODS: Mapping[str, Mapping[str, tuple[Fit, int]]] = {
    "binary": {
        "none": (fit_none, 0),
        "sigmoid": (fit_sigmoid, SIGMOID_ROWS),
        "isotonic": (fit_isotonic, ISOTONIC_ROWS),
    },
    "multiclass": {
        "none": (fit_none, 0),
        "temperature": (fit_temperature, TEMPERATURE_ROWS),
        "sigmoid": (partial(fit_one_vs_rest, fit_sigmoid), SIGMOID_ROWS),
        "isotonic": (partial(fit_one_vs_rest, fit_isotonic), ISOTONIC_ROWS),
    },
}
_VALUES: Mapping[str, tuple[Fit, int]] = {"none": (lambda _scores, _labels: Unchanged(), 0)}


@dataclass(frozen=True, slots=True)
class Calibration(Record):
    """What came of calibrating.

    Attributes
    ----------
    method : {"none", "sigmoid", "isotonic", "temperature"}
        What is in force.
    rows, positives : int
        Rows it was fitted on, and those labelled 1; 0 of another task than a yes or no.
    log_loss : mapping of str to float
        Cross-validated log loss of each method that was compared; empty where the recipe names one.
    reason : str
        Why this method, as a sentence.
    """

    method: str
    rows: int
    positives: int
    log_loss: Mapping[str, float] = field(default_factory=dict)
    reason: str = ""


def calibration_folds(split: Splitter, rows: SplitRows, positions: NDArray[np.int64]) -> Pairs:
    """Folds of the rows that calibration may use, as the split cuts them; none where they cannot be compared on."""
    pairs = split.cut(rows, positions, _FOLDS, 0) if len(positions) else []
    return [pair for pair in pairs if len(pair[0]) and len(pair[1])]


def calibrate(
    method: str, scores: Floats, labels: Floats, pairs: Pairs, target: Target | None = None
) -> tuple[Calibrator, Calibration]:
    """Fit a calibration on rows that the engine was not trained on.

    ``"auto"`` compares the cross-validated log loss of those that have rows enough: a sigmoid from 20 rows of the
    rarest class on, isotonic regression from 1,000, a temperature from 10; of several classes the first two are fitted
    to each class against the rest. The simplest method is taken that is within one standard error of the least loss, by
    the differences of each row: what a few rows say by chance bends no scores. Where no fold leaves a row to fit on,
    nothing can be compared and scores stay as they are. Values that are no probabilities stay as they are, too.

    Parameters
    ----------
    method : {"auto", "none", "sigmoid", "isotonic", "temperature"}
    scores : ndarray of shape (n,) or (n, outputs)
        What the engine gives.
    labels : ndarray of shape (n,)
    pairs : sequence of (ndarray, ndarray)
        Rows to fit on and to judge on, of each fold (:func:`calibration_folds`).
    target : Target, optional
        None: a yes or no.

    Raises
    ------
    InputError
        If the task does not know the method.

    Notes
    -----
    Breiman, Friedman, Olshen & Stone 1984, Classification and Regression Trees, section 3.4.3: the one standard error
    rule.
    """
    target = target or Target()
    methods = _METHODS.get(target.task, _VALUES)
    positives = int(labels.sum()) if target.task == "binary" else 0
    if method != "auto":
        if method not in methods:
            raise InputError(f"a calibration must be one of the task {target.task!r}", where="Recipe, calibrate",
                             got=method, remedy=near(method, ["auto", *methods], what="method"))  # fmt: skip
        calibrator = methods[method][0](scores, labels)
        return calibrator, Calibration(method, len(labels), positives, reason="The recipe names it.")
    if len(methods) == 1:
        reason = "Values that are no probabilities are not calibrated."
        if target.task == "survival":
            reason = "Probabilities by a horizon are left as they are: rows that were lost do not say what came true."
        return methods["none"][0](scores, labels), Calibration("none", len(labels), positives, reason=reason)
    classes = max(len(target.classes), 2)
    rarest = int(np.bincount(labels.astype(np.int64), minlength=classes).min())
    able = [name for name, (_, least) in methods.items() if rarest >= least]
    by_row = _cross_validate({name: methods[name][0] for name in able}, scores, labels, pairs)
    losses = {name: float(values.mean()) for name, values in by_row.items()}
    fitted = {name: methods[name][0](scores, labels) for name in able}
    flat = [name for name in able if name != "none" and _flattens(fitted[name], scores)]
    method = _simplest({name: values for name, values in by_row.items() if name not in flat})
    calibrator = fitted[method]
    reason = _sentence(method, losses, len(labels), rarest, {name: methods[name][1] for name in methods})
    if flat:
        reason += f" The method {flat[0]!r} was left out: it would give every row the same score."
    return calibrator, Calibration(method, len(labels), positives, losses, reason)


def _simplest(losses: Mapping[str, Floats]) -> str:
    """The first method whose mean loss is within a standard error of the least, by differences of each row."""
    if not losses:
        return "none"
    least = min(losses.values(), key=lambda values: float(values.mean()))
    for name, values in losses.items():
        excess = values - least
        if excess.mean() <= (excess.std(ddof=1) / math.sqrt(len(excess)) if len(excess) > 1 else 0.0):
            return name
    raise AssertionError("the least loss is within itself")


def _flattens(calibrator: Calibrator, scores: Floats) -> bool:
    """Whether scores that differ all become one: a slope of zero hides a model that ranks, or that ranks backwards."""
    return len(np.unique(scores)) > 1 and len(np.unique(calibrator.apply(scores))) == 1


def _sentence(method: str, losses: Mapping[str, float], rows: int, rarest: int, needed: Mapping[str, int]) -> str:
    """What was chosen and why, what was not compared and why not."""
    short = [f"{name} needs {least:,}" for name, least in needed.items() if least > rarest]
    missing = f" Of the rarest class there are {rarest:,} rows: {', '.join(short)}." if short else ""
    if len(losses) > 1:
        others = ", ".join(f"{name} {loss:.4f}" for name, loss in losses.items() if name != method)
        least = min(losses, key=lambda name: losses[name])
        why = "has the least" if least == method else "is the simplest within one standard error of the least"
        return (
            f"The method {method!r} {why} cross-validated log loss of {rows:,} rows: {losses[method]:.4f} "
            f"({others}).{missing}"
        )
    if not losses:
        return f"Nothing could be compared on {rows:,} rows: no fold leaves rows to fit on.{missing}"
    return f"Scores stay as they are.{missing}"


def _cross_validate(methods: Mapping[str, Fit], scores: Floats, labels: Floats, pairs: Pairs) -> dict[str, Floats]:
    """Log loss of each method on each row that a fold judges; empty where there are no folds."""
    if not pairs:
        return {}
    losses: dict[str, list[Floats]] = {name: [] for name in methods}
    for fit_rows, judged_rows in pairs:
        truth = labels[judged_rows].astype(np.int64)
        for name, fit in methods.items():
            predicted = fit(scores[fit_rows], labels[fit_rows]).apply(scores[judged_rows])
            if predicted.ndim == 1:
                predicted = np.stack([1 - predicted, predicted], axis=1)
            losses[name].append(-np.log(np.maximum(predicted[np.arange(len(truth)), truth], _TINY)))
    return {name: np.concatenate(values) for name, values in losses.items()}
