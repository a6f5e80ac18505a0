"""Metrics of scores against labels, in plain NumPy, each with its interval or the reason why it has no value.

A metric that cannot be computed (one class only, null scores, scores that are no probabilities) has the value None and
a reason; it is never 0, never NaN, and never passes a gate. Conventions and sources are in docs/evaluation.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from retrodict.core.display import Record
from retrodict.core.errors import check_known
from retrodict.core.statistics.intervals import Interval, delong_auc, mean_interval, wilson_interval
from retrodict.evaluation._rows import ScoredRows, read_rows

__all__ = [
    "CalibrationBin",
    "Confusion",
    "Evaluation",
    "Metric",
    "base_rate",
    "brier",
    "calibration_error",
    "calibration_ratio",
    "evaluate",
    "log_loss",
    "mean",
    "pick_metric",
    "pr_auc",
    "roc_auc",
    "share",
]


@dataclass(frozen=True, slots=True)
class Metric:
    """One number about scores, or the reason why there is none.

    Attributes
    ----------
    name : str
    value : float or None
        None means not evaluable.
    reason : str or None
        Why not; None when there is a value.
    n : int
        Rows it was computed from, or would have been.
    low, high : float or None
        95 % interval where a sound one exists; ``calibration_error`` has that of the error without bias.
    """

    name: str
    value: float | None
    reason: str | None
    n: int
    low: float | None = None
    high: float | None = None

    @classmethod
    def of(cls, name: str, n: int, value: float, interval: Interval | None) -> Metric:
        """Metric with a value, and with an interval where there is one."""
        if interval is None or math.isnan(interval.low):
            return cls(name, value, None, n)
        return cls(name, value, None, n, interval.low, interval.high)


def pick_metric(metrics: Sequence[Metric], name: str, *, where: str) -> Metric:
    """Metric of a name; NotFoundError names the nearest ones."""
    by_name = {metric.name: metric for metric in metrics}
    return by_name[check_known(name, by_name, "a metric must be one of those measured", where=where, what="metric")]


def share(name: str, part: int, n: int, why_not: str) -> Metric:
    """Share of rows, with Wilson's interval; without rows it is not evaluable, for this reason."""
    if n == 0:
        return Metric(name, None, why_not, 0)
    return Metric.of(name, n, part / n, wilson_interval(part, n))


def roc_auc(labels: ArrayLike, scores: ArrayLike) -> Metric:
    """Area under the ROC curve, ties one half, with DeLong's 95 % interval; needs both classes.

    Parameters
    ----------
    labels : array_like of {0, 1, null}, shape (n,)
        A null label or score makes the metric not evaluable; ``evaluate`` sets pending labels aside instead.
    scores : array_like of float, shape (n,)
        Higher means more likely 1.
    """
    return _measure("auc", read_rows(labels, scores))


def _roc_auc(rows: ScoredRows) -> tuple[float, Interval]:
    estimate = delong_auc(rows.labels, rows.scores)
    return estimate.auc, Interval(estimate.low, estimate.high)


def pr_auc(labels: ArrayLike, scores: ArrayLike) -> Metric:
    """Average precision, ``sum((R_k - R_{k-1}) P_k)`` over distinct scores from high to low: no interpolation.

    Parameters are those of ``roc_auc``; needs a positive row.
    """
    return _measure("pr_auc", read_rows(labels, scores))


def _pr_auc(rows: ScoredRows) -> tuple[float, None]:
    order = np.argsort(-rows.scores, kind="stable")
    ordered = rows.scores[order]
    last = np.append(np.flatnonzero(ordered[1:] != ordered[:-1]), ordered.size - 1)
    hits = np.cumsum(rows.labels[order])[last]
    gained = np.diff(hits, prepend=0)
    return float((gained * hits / (last + 1)).sum() / hits[-1]), None


def brier(labels: ArrayLike, scores: ArrayLike) -> Metric:
    """Mean squared difference of probability and label (Brier 1950), with Student's t interval; 0 is perfect."""
    return _measure("brier", read_rows(labels, scores))


def mean(values: NDArray[np.float64]) -> tuple[float, Interval | None]:
    """Mean with Student's t interval, which one value has not."""
    return float(values.mean()), mean_interval(values) if values.size > 1 else None


def log_loss(labels: ArrayLike, scores: ArrayLike) -> Metric:
    """Mean negative log likelihood in nats; probabilities are cut to ``[eps, 1 - eps]``, eps = 2.2e-16."""
    return _measure("log_loss", read_rows(labels, scores))


def _log_loss(rows: ScoredRows) -> tuple[float, Interval | None]:
    edge = float(np.finfo(np.float64).eps)
    p = np.clip(rows.scores, edge, 1 - edge)
    return mean(-np.where(rows.labels == 1, np.log(p), np.log1p(-p)))


def base_rate(labels: ArrayLike) -> Metric:
    """Share of positive rows, with Wilson's interval."""
    return _measure("base_rate", read_rows(labels, np.zeros(np.asarray(labels).size)))


def calibration_ratio(labels: ArrayLike, scores: ArrayLike) -> Metric:
    """Observed over expected positives: "calibration in the large"; above 1 the scores are too low.

    The interval is Wilson's of the observed rate over the mean score, the scores taken as given.
    """
    return _measure("calibration_ratio", read_rows(labels, scores))


def _calibration_ratio(rows: ScoredRows) -> tuple[float, Interval]:
    expected = float(rows.scores.mean())
    observed = wilson_interval(rows.positives, rows.n)
    return rows.positives / rows.n / expected, Interval(observed.low / expected, observed.high / expected)


@dataclass(frozen=True, slots=True)
class CalibrationBin:
    """Rows of similar score: what was promised (mean score) and what came (observed rate with Wilson's interval)."""

    mean_score: float
    observed_rate: float
    n: int
    low: float
    high: float


def _curve(rows: ScoredRows) -> tuple[CalibrationBin, ...]:
    """Observed rate against mean score in ten bins of equal row counts; their edges are quantiles, none is empty."""
    edges = np.unique(np.quantile(rows.scores, np.linspace(0.0, 1.0, 11)[1:-1]))
    places = np.searchsorted(edges, rows.scores, side="right")
    sizes = np.bincount(places, minlength=edges.size + 1)
    expected = np.bincount(places, rows.scores, minlength=edges.size + 1)
    hits = np.bincount(places, rows.labels, minlength=edges.size + 1)
    curve = []
    for place in np.flatnonzero(sizes):
        n, observed = int(sizes[place]), int(hits[place])
        interval = wilson_interval(observed, n)
        curve.append(CalibrationBin(float(expected[place]) / n, observed / n, n, interval.low, interval.high))
    return tuple(curve)


def calibration_error(labels: ArrayLike, scores: ArrayLike) -> Metric:
    """Compute the expected calibration error over ten bins of equal mass.

    ``sum(n_b / n |observed_b - mean score_b|)``.

    Naeini, Cooper & Hauskrecht 2015 use equal width; equal mass (Nixon et al. 2019) is the default because skewed
    scores leave most equal-width bins nearly empty. It is biased upwards in few rows: a perfect model of 500 rows has
    an error of about 0.05. The interval is of the error without that bias, and holds the value all the same.
    """
    return _measure("calibration_error", read_rows(labels, scores))


def _calibration_error(rows: ScoredRows) -> tuple[float, Interval]:
    """Value, and the interval that takes from each bin what noise adds to its gap.

    An observed gap is ``|gap + noise|``, a folded normal (Leone, Nelson & Nottingham 1961, Technometrics 3, 543-550):
    its mean less the gap is the bias, with the gap estimated by ``sqrt(observed² - sd²)``, and its variance adds up
    over the bins.
    """
    curve = _curve(rows)
    weights, scores, observed = (np.array(part) for part in zip(
        *((b.n, b.mean_score, b.observed_rate) for b in curve), strict=True))  # fmt: skip
    gaps = np.abs(observed - scores)
    error = math.fsum(weights * gaps) / rows.n
    # Two rows more that keep the promise: a bin without a positive row is not free of noise.
    rates = (weights * observed + 2 * scores) / (weights + 2)
    deviations = np.maximum(np.sqrt(rates * (1 - rates) / weights), 1e-12)
    gap = np.sqrt(np.maximum(gaps**2 - deviations**2, 0.0))
    ratio = gap / deviations
    centre = np.array([math.erf(value / math.sqrt(2)) for value in ratio])
    mean_gap = deviations * math.sqrt(2 / math.pi) * np.exp(-(ratio**2) / 2) + gap * centre
    variance = np.maximum(gap**2 + deviations**2 - mean_gap**2, 0.0)
    true = error - float((weights * (mean_gap - gap)).sum()) / rows.n
    half = 1.959964 * math.sqrt(float((weights**2 * variance).sum())) / rows.n
    return error, Interval(max(true - half, 0.0), min(max(true + half, error), 1.0))


_MEASURES: dict[
    str, tuple[Callable[[ScoredRows], str | None], Callable[[ScoredRows], tuple[float, Interval | None]]]
] = {
    "base_rate": (
        ScoredRows.unlabelled,
        lambda rows: (rows.positives / rows.n, wilson_interval(rows.positives, rows.n)),
    ),
    "auc": (lambda rows: rows.incomplete() or rows.one_class(), _roc_auc),
    "pr_auc": (lambda rows: rows.incomplete() or (None if rows.positives else "no positive row"), _pr_auc),
    "brier": (ScoredRows.improper, lambda rows: mean((rows.scores - rows.labels) ** 2)),
    "log_loss": (ScoredRows.improper, _log_loss),
    "calibration_error": (ScoredRows.improper, _calibration_error),
    "calibration_ratio": (
        lambda rows: rows.improper() or (None if rows.scores.mean() > 0 else "every score is 0"),
        _calibration_ratio,
    ),
}
"""Each metric of scores: why it has no value, if it has none, and its value with its interval."""


def _measure(name: str, rows: ScoredRows) -> Metric:
    refuse, compute = _MEASURES[name]
    if why_not := refuse(rows):
        return Metric(name, None, why_not, rows.n)
    return Metric.of(name, rows.n, *compute(rows))


@dataclass(frozen=True, slots=True)
class Confusion:
    """Counts of decisions ``score >= threshold`` against labels."""

    threshold: float
    true_positives: int
    false_positives: int
    true_negatives: int
    false_negatives: int

    def metrics(self) -> tuple[Metric, ...]:
        """Accuracy, precision, recall, false positive rate and positive share, each with Wilson's interval."""
        tp, fp, tn, fn = self.true_positives, self.false_positives, self.true_negatives, self.false_negatives
        n = tp + fp + tn + fn
        return (
            share("accuracy", tp + tn, n, "no rows"),
            share("precision", tp, tp + fp, "no row reaches the threshold"),
            share("recall", tp, tp + fn, "no positive row"),
            share("false_positive_rate", fp, fp + tn, "no negative row"),
            share("positive_share", tp + fp, n, "no rows"),
        )


def _confusion(rows: ScoredRows, threshold: float) -> Confusion:
    above, positive = rows.scores >= threshold, rows.labels == 1
    hits, alarms = int((above & positive).sum()), int(above.sum())
    return Confusion(
        float(threshold), hits, alarms - hits, rows.n - rows.positives - alarms + hits, rows.positives - hits
    )


@dataclass(frozen=True, slots=True)
class Evaluation(Record):
    """Every metric of one set of scores, with what it was computed from.

    Attributes
    ----------
    n, positives : int
        Rows with a label, and those labelled 1.
    pending : int
        Rows whose label is not known yet; in no metric.
    metrics : tuple of Metric
    curve : tuple of CalibrationBin
        Equal-mass bins; empty when not evaluable.
    confusion : Confusion or None
        None without a threshold.
    """

    n: int
    positives: int
    pending: int
    metrics: tuple[Metric, ...]
    curve: tuple[CalibrationBin, ...]
    confusion: Confusion | None = None

    def __getitem__(self, name: str) -> Metric:
        return pick_metric(self.metrics, name, where="evaluation")

    def values(self) -> dict[str, float | None]:
        """Metric values by name, as gates read them."""
        return {metric.name: metric.value for metric in self.metrics}


def evaluate(labels: ArrayLike, scores: ArrayLike, *, threshold: float | None = None, min_rows: int = 1) -> Evaluation:
    """Compute all metrics of one set of scores.

    Parameters
    ----------
    labels : array_like of {0, 1, null}, shape (n,)
        A null label is pending: counted, in no metric.
    scores : array_like of float, shape (n,)
        A null score on a labelled row makes every metric that needs scores not evaluable: leaving the row out would
        flatter the model.
    threshold : float, optional
        Adds the confusion table of ``score >= threshold`` and its shares.
    min_rows : int, default 1
        With fewer labelled rows nothing is evaluable.

    Examples
    --------
    >>> result = evaluate([0, 0, 1, 1, None], [0.1, 0.4, 0.35, 0.8, 0.5])
    >>> result["auc"].value, result.n, result.pending
    (0.75, 4, 1)
    """
    every = read_rows(labels, scores)
    rows, pending = every.matured()
    if 0 < rows.n < min_rows:
        rows = rows.refused(f"{rows.n} labelled rows are fewer than the {min_rows} needed")
    metrics = [_measure(name, rows) for name in _MEASURES]
    table = None
    if threshold is not None:
        why_not = rows.incomplete()
        table = None if why_not else _confusion(rows, threshold)
        shares = Confusion(threshold, 0, 0, 0, 0).metrics() if table is None else table.metrics()
        metrics += [Metric(m.name, None, why_not, rows.n) if why_not else m for m in shares]
    curve = () if rows.improper() else _curve(rows)
    return Evaluation(rows.n, rows.positives, pending, tuple(metrics), curve, table)
