"""Prediction intervals and sets that hold the truth as often as they say, whatever the model and the distribution.

Split conformal prediction: how far the outputs were off on rows that the model was not trained on says how far they
will be off, as long as rows to come are exchangeable with those; over time they are not quite, so coverage is watched
too. Full conformal (refits per row) and jackknife+ (refits per fold) were left out: both need the training itself.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from retrodict.core.display import Record
from retrodict.core.errors import InputError
from retrodict.core.tasks import Target
from retrodict.evaluation._rows import Rows, read_rows

__all__ = ["Conformal", "fit_aps", "fit_cqr", "fit_lac", "fit_residuals", "rows_needed"]

Floats = NDArray[np.float64]
Kind = Literal["residuals", "cqr", "lac", "aps"]


@dataclass(frozen=True, slots=True)
class Conformal(Record):
    """A fitted threshold, and what it was fitted on.

    Attributes
    ----------
    kind : {"residuals", "cqr", "lac", "aps"}
    level : float
        Share of rows to come whose truth lies inside, on average over the rows it was fitted on.
    n : int
        Those rows.
    threshold : float or None
        None where it is not evaluable.
    reason : str or None
        Why not.
    """

    kind: Kind
    level: float
    n: int
    threshold: float | None
    reason: str | None = None

    def apply(self, outputs: ArrayLike) -> NDArray[Any]:
        """Intervals, or sets of classes.

        Parameters
        ----------
        outputs : array_like of float
            As those it was fitted on: shape (n,) of ``residuals``, (n, columns) of the others.

        Returns
        -------
        ndarray of float64, shape (n, 2), or of bool, shape (n, classes)
            Low and high end; whether each class is in the set. NaN, or no class, where an output is null.

        Raises
        ------
        InputError
            If there is no threshold.
        """
        if self.threshold is None:
            raise InputError("a conformal threshold must have been evaluable", where=f"conformal, {self.kind}",
                             got=self.reason, remedy="Fit it on more rows")  # fmt: skip
        values = np.asarray(outputs, dtype=np.float64)
        match self.kind:
            case "residuals":
                return np.stack([values - self.threshold, values + self.threshold], axis=1)
            case "cqr":
                return np.stack([values[:, 0] - self.threshold, values[:, -1] + self.threshold], axis=1)
            case "lac":
                return np.asarray(1 - values <= self.threshold)
            case _:
                inside = _reached(values) <= self.threshold
                # The likeliest class is in every set: an empty one would say nothing.
                inside |= (values == values.max(axis=1, keepdims=True)) & ~np.isnan(values)
                return inside


def rows_needed(level: float) -> int:
    """Fewest rows from which a level can be promised: ``level / (1 - level)``, 19 for 0.95."""
    if not 0 < level < 1:
        raise InputError("a level must lie between 0 and 1", where="conformal", got=level, remedy="Pass 0.9")
    return math.ceil(round(level / (1 - level), 9))


def fit_residuals(labels: ArrayLike, outputs: ArrayLike, level: float) -> Conformal:
    """Regression: ``output ± threshold``, equally wide everywhere (Lei et al. 2018, JASA 113, 1094-1111).

    Parameters
    ----------
    labels, outputs : array_like of float, shape (n,)
        Of rows that the model was not trained on; null labels are left out.
    level : float
        Such as 0.9.
    """
    rows, _ = read_rows(labels, outputs, Target("regression")).matured()
    return _fit("residuals", rows, level, lambda: np.abs(rows.labels - rows.outputs))


def fit_cqr(labels: ArrayLike, outputs: ArrayLike, target: Target, level: float) -> Conformal:
    """Quantiles: the lowest less the threshold to the highest plus it, as wide as the model says where it is unsure.

    Conformalised quantile regression (Romano, Patterson & Candès 2019, NeurIPS); the threshold is below 0 where the
    quantiles were too wide.

    Parameters
    ----------
    labels : array_like of float, shape (n,)
    outputs : array_like of float, shape (n, levels)
    target : Target
        Of the task ``quantile``, with two levels or more.
    level : float
    """
    rows, _ = read_rows(labels, outputs, target).matured()
    if len(target.quantiles) < 2:
        return Conformal("cqr", level, rows.n, None, "one level has no interval")
    return _fit("cqr", rows, level,
                lambda: np.maximum(rows.outputs[:, 0] - rows.labels, rows.labels - rows.outputs[:, -1]))  # fmt: skip


def fit_lac(labels: ArrayLike, outputs: ArrayLike, target: Target, level: float) -> Conformal:
    """Classes whose probability reaches ``1 - threshold``: the smallest sets on average.

    Sadinle, Lei & Wasserman 2019, Journal of the American Statistical Association 114, 223-234. A row of which no class
    is sure has an empty set.

    Parameters
    ----------
    labels : array_like of float, shape (n,)
        Codes of the classes.
    outputs : array_like of float, shape (n, classes)
        Probabilities.
    target : Target
        Of the task ``multiclass``.
    level : float
    """
    rows, _ = read_rows(labels, outputs, target).matured()
    return _fit("lac", rows, level, lambda: 1 - _of_label(rows, rows.outputs))


def fit_aps(labels: ArrayLike, outputs: ArrayLike, target: Target, level: float) -> Conformal:
    """Classes from the likeliest on until the threshold is reached: sets that adapt to each row, never empty.

    Romano, Sesia & Candès 2020 (NeurIPS) without its randomisation, which would give one row two answers: it covers
    more than the level. Parameters are those of ``fit_lac``.
    """
    rows, _ = read_rows(labels, outputs, target).matured()
    return _fit("aps", rows, level, lambda: _of_label(rows, _reached(rows.outputs)))


def _of_label(rows: Rows, values: Floats) -> Floats:
    return np.asarray(values[np.arange(rows.n), rows.labels.astype(np.int64)])


def _reached(probabilities: Floats) -> Floats:
    """Sum of the probabilities of the classes that are as likely or likelier, for each class."""
    order = np.argsort(-probabilities, axis=1, kind="stable")
    ordered = np.take_along_axis(probabilities, order, axis=1)
    sums = np.empty_like(ordered)
    np.put_along_axis(sums, order, np.cumsum(ordered, axis=1), axis=1)
    return sums


def _fit(kind: Kind, rows: Rows, level: float, scores: Any) -> Conformal:
    """The ``ceil((n + 1) level)``-th smallest score of n rows (Vovk, Gammerman & Shafer 2005)."""
    least = rows_needed(level)
    refuse = rows.improper() if rows.target.task == "multiclass" else rows.incomplete()
    if refuse is None and rows.n < least:
        refuse = f"{rows.n} labelled rows are fewer than the {least} that a level of {level:g} needs"
    if refuse:
        return Conformal(kind, level, rows.n, None, refuse)
    # Rounded, for (n + 1) level is whole where floating point has it an ulp above.
    place = math.ceil(round((rows.n + 1) * level, 9))
    return Conformal(kind, level, rows.n, float(np.partition(scores(), place - 1)[place - 1]))
