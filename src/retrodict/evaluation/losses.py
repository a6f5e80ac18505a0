"""What each row costs under each of two models, and whether the difference is more than chance."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from retrodict.core.display import Record
from retrodict.core.errors import InputError
from retrodict.core.statistics._columns import read_floats
from retrodict.core.tasks import Target, Task
from retrodict.evaluation._rows import Rows, read_rows
from retrodict.evaluation.binary import log_losses
from retrodict.evaluation.multiclass import class_log_losses
from retrodict.evaluation.numeric import deviances, pinball_losses
from retrodict.evaluation.ranks import group_ndcg
from retrodict.evaluation.survival import brier_losses, unfollowed

__all__ = [
    "LOSSES",
    "LossComparison",
    "compare_losses",
    "compare_rows",
    "correlate_errors",
    "loss_refusal",
    "row_losses",
]

Floats = NDArray[np.float64]

LOSSES: dict[Task, str] = {
    "binary": "log loss",
    "multiclass": "log loss",
    "regression": "squared error",
    "quantile": "pinball loss",
    "count": "deviance",
    "ranking": "1 - NDCG",
    "survival": "integrated Brier loss",
}
"""The loss of a row, or of a group of a ranking, by which models of a task are compared."""

# Fewer pairs tell too little of their own variance for a t test that a skewed loss does not mislead.
_FEWEST = 10


def row_losses(
    labels: ArrayLike,
    outputs: ArrayLike,
    target: Target | None = None,
    *,
    groups: ArrayLike | None = None,
    k: float | None = None,
) -> Floats:
    """Loss of each row whose label is known, in their order; of a ranking, of each group that has a relevant row.

    Binary and several classes: negative log likelihood in nats. Regression: squared error. Quantiles: pinball loss,
    the mean over the levels. Count: Poisson deviance. Survival: the squared error at the horizons that the rows were
    followed to, by the inverse of the probability of that. Ranking: one less NDCG of the first k, groups ascending.

    Returns
    -------
    ndarray of float64, shape (labelled rows,) or (groups,)

    Raises
    ------
    InputError
        If an output is null, or none of the task.
    """
    rows, _ = read_rows(labels, outputs, target, groups=groups, k=k).matured()
    if rows.n and (why_not := loss_refusal(rows)):
        raise InputError("outputs must be such that each row has a loss", where="row_losses", got=why_not,
                         remedy="Score every row")  # fmt: skip
    return losses_of(rows)


def losses_of(rows: Rows) -> Floats:
    """Loss of each row, or of each group of a ranking."""
    match rows.target.task:
        case "binary":
            return log_losses(rows)
        case "multiclass":
            return class_log_losses(rows)
        case "quantile":
            return np.asarray(pinball_losses(rows).mean(axis=1))
        case "count":
            return deviances(rows)
        case "survival":
            return brier_losses(rows)
        case "ranking":
            return 1 - group_ndcg(rows)[0]
        case _:
            return (rows.outputs - rows.labels) ** 2


def loss_refusal(rows: Rows) -> str | None:
    """Why rows have no losses, or None."""
    if rows.target.task == "survival":
        reasons = [unfollowed(rows, place) for place in range(rows.target.columns)]
        return rows.improper() or (reasons[0] if all(reasons) else None)
    if rows.target.probabilistic:
        return rows.improper()
    if why_not := rows.incomplete():
        return why_not
    if rows.target.task == "count" and (low := int((rows.outputs <= 0).sum())):
        return f"{low} of {rows.n} outputs are not above 0"
    if rows.target.task == "ranking" and not (rows.labels > 0).any():
        return "no group has a relevant row"
    return None


@dataclass(frozen=True, slots=True)
class LossComparison(Record):
    """Two models on the same rows.

    Attributes
    ----------
    n : int
        Pairs of losses, or groups of them.
    first, second : float or None
        Mean losses.
    difference, low, high : float or None
        ``first - second`` with its interval: below 0 the first is better.
    p_value : float or None
        Two-sided.
    reason : str or None
        Why the difference is not evaluable; None when it is.
    """

    n: int
    first: float | None = None
    second: float | None = None
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    p_value: float | None = None
    reason: str | None = None


def compare_losses(
    first: ArrayLike,
    second: ArrayLike,
    groups: ArrayLike | None = None,
    *,
    weights: ArrayLike | None = None,
    confidence: float = 0.95,
) -> LossComparison:
    """Compare the losses of two models on the same rows: the paired t test, by groups where rows come in such.

    ``d ± t sqrt(g / (g - 1) sum(e²))``, e the sum of ``w (d_i - d) / sum(w)`` over each of g groups (each row where
    there are none): rows of one group, such as one customer or one fold, may depend on each other (Liang & Zeger 1986,
    Biometrika 73, 13-22). With fewer than ten pairs or groups the difference is not evaluable.

    Parameters
    ----------
    first, second : array_like of float, shape (n,)
        As ``row_losses`` gives them.
    groups, weights : array_like, shape (n,), optional
    confidence : float, default 0.95

    Examples
    --------
    >>> rng = np.random.default_rng(1)
    >>> losses = rng.exponential(size=200)
    >>> compare_losses(losses, losses + 0.1).difference < 0
    True
    """
    one, two = read_floats(first, "first"), read_floats(second, "second")
    mass = np.ones(one.size) if weights is None else read_floats(weights, "weights")
    codes = np.arange(one.size) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    if not one.size == two.size == mass.size == codes.size:
        raise InputError("losses must be of the same rows", where="compare_losses",
                         got=(one.size, two.size, mass.size, codes.size), remedy="Pass equal lengths")  # fmt: skip
    n = np.unique(codes).size
    if nulls := int((np.isnan(one) | np.isnan(two)).sum()):
        return LossComparison(n, reason=f"{nulls} of {one.size} losses are null")
    if n < _FEWEST:
        return LossComparison(n, reason=f"{n} {'rows' if groups is None else 'groups'} are fewer than the "
                                        f"{_FEWEST} needed to compare")  # fmt: skip
    from scipy.special import stdtr, stdtrit

    total = float(mass.sum())
    gaps = one - two
    difference = float((mass * gaps).sum()) / total
    influence = np.bincount(codes, mass * (gaps - difference)) / total
    deviation = math.sqrt(n / (n - 1) * float((influence**2).sum()))
    if deviation <= 1e-12 * abs(difference):  # the same gap in every row: what rounding leaves is no variance
        deviation = 0.0
    half = float(stdtrit(n - 1, 0.5 + confidence / 2)) * deviation
    p_value = 2 * float(stdtr(n - 1, -abs(difference) / deviation)) if deviation else float(difference == 0)
    return LossComparison(n, float((mass * one).sum()) / total, float((mass * two).sum()) / total, difference,
                          difference - half, difference + half, p_value)  # fmt: skip


def correlate_errors(
    *,
    outputs: Mapping[str, ArrayLike],
    labels: ArrayLike,
    target: Target | None = None,
    groups: ArrayLike | None = None,
) -> dict[str, dict[str, float | None]]:
    """Correlation of the errors of several models on the same rows: near 1, they are wrong about the same rows.

    An error is output less label, of several classes that of each class; of a ranking and a time to an event, whose
    outputs are no labels, it is the loss (``row_losses``). What joins models of errors that go together gains little
    (Krogh & Vedelsby 1995, NIPS 7, 231-238).

    Returns
    -------
    dict of str to dict of str to float or None
        Of each model to each other one; None where the errors of one are all the same, or not all known.
    """
    errors = {name: _errors(read_rows(labels, values, target, groups=groups).matured()[0])
              for name, values in outputs.items()}  # fmt: skip
    return {
        name: {other: _correlation(first, second) for other, second in errors.items() if other != name}
        for name, first in errors.items()
    }


def _errors(rows: Rows) -> Floats:
    if loss_refusal(rows):
        return np.array([])
    if rows.target.task in ("ranking", "survival"):
        return losses_of(rows)
    if rows.target.task == "multiclass":
        return np.asarray(rows.outputs - np.eye(rows.target.columns)[rows.labels.astype(np.int64)]).ravel()
    return (rows.outputs.reshape(rows.n, -1) - rows.labels[:, None]).ravel()


def _correlation(first: Floats, second: Floats) -> float | None:
    if first.size != second.size or first.size < 2 or not np.ptp(first) or not np.ptp(second):
        return None
    return float(np.corrcoef(first, second)[0, 1])


def compare_rows(first: Rows, second: Rows, *, confidence: float = 0.95) -> LossComparison:
    """Compare two models by the losses of the same labelled rows."""
    why_not = loss_refusal(first)
    if why_not is None and (other := loss_refusal(second)):
        why_not = f"rung: {other}"
    if why_not:
        return LossComparison(first.n, reason=why_not)
    weights = first.weights
    if first.target.task == "ranking" and weights is not None and first.groups is not None:
        codes = group_ndcg(first)[1]
        weights = (np.bincount(first.groups, weights) / np.maximum(np.bincount(first.groups), 1))[codes]
    return compare_losses(losses_of(first), losses_of(second), weights=weights, confidence=confidence)
