"""Metrics of probabilities of a yes against yes and no.

A metric that cannot be computed (one class only, null scores, scores that are no probabilities) has the value None and
a reason; it is never 0, never NaN, and never passes a gate. Conventions and sources are in docs/evaluation.md.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from retrodict.core.statistics.intervals import Interval, delong_auc, wilson_interval
from retrodict.evaluation._rows import Rows, read_rows
from retrodict.evaluation.estimates import Measure, Metric, influence_interval, mean, measure, share, variance_interval

__all__ = [
    "BINARY",
    "CalibrationBin",
    "Confusion",
    "base_rate",
    "brier",
    "calibration_curve",
    "calibration_error",
    "calibration_ratio",
    "confusion",
    "log_loss",
    "pr_auc",
    "roc_auc",
    "weighted_auc",
]

Floats = NDArray[np.float64]

# Share of the rows that the metrics of the highest scores look at, where nothing else is asked for.
_TOP = 0.1
_BETAS = {"f1": 1.0, "f2": 2.0, "f0_5": 0.5}


def roc_auc(labels: ArrayLike, scores: ArrayLike) -> Metric:
    """Area under the ROC curve, ties one half, with DeLong's 95 % interval; needs both classes.

    Parameters
    ----------
    labels : array_like of {0, 1, null}, shape (n,)
        A null label or score makes the metric not evaluable; ``evaluate`` sets pending labels aside instead.
    scores : array_like of float, shape (n,)
        Higher means more likely 1.
    """
    return measure(BINARY, "auc", read_rows(labels, scores))


def _roc_auc(rows: Rows) -> tuple[float, Interval | None]:
    if rows.weights is not None:
        value, influence = weighted_auc(rows)
        return value, influence_interval(value, influence, "logit")
    estimate = delong_auc(rows.labels, rows.scores)
    return estimate.auc, Interval(estimate.low, estimate.high)


def weighted_auc(rows: Rows) -> tuple[float, Floats]:
    """Area under the ROC curve of weighted rows, and the influence of each row on it: DeLong's components."""
    cut = rows.thresholds
    ones, zeros = float(cut.positive.sum()), float(cut.negative.sum())
    below = zeros - np.cumsum(cut.negative) + cut.negative / 2
    above = np.cumsum(cut.positive) - cut.positive / 2
    value = float((cut.positive * below).sum()) / ones / zeros
    by_row = np.where(rows.labels == 1, (below / zeros - value)[cut.place] / ones,
                      (above / ones - value)[cut.place] / zeros)  # fmt: skip
    return value, rows.mass * by_row


def pr_auc(labels: ArrayLike, scores: ArrayLike) -> Metric:
    """Average precision, ``sum((R_k - R_{k-1}) P_k)`` over distinct scores from high to low: no interpolation.

    Parameters are those of ``roc_auc``; needs a positive row.
    """
    return measure(BINARY, "pr_auc", read_rows(labels, scores))


def _pr_auc(rows: Rows) -> tuple[float, Interval | None]:
    """Value, and the influence of each row: on its own precision, and on that of every positive row at or below it."""
    cut = rows.thresholds
    hits, total = np.cumsum(cut.positive), np.cumsum(cut.positive + cut.negative)
    value = float((cut.positive * hits / total).sum() / hits[-1])
    gain = np.cumsum((cut.positive * (total - hits) / total**2)[::-1])[::-1]
    loss = np.cumsum((cut.positive * hits / total**2)[::-1])[::-1]
    influence = np.where(rows.labels == 1, (hits / total - value + gain)[cut.place], -loss[cut.place])
    return value, influence_interval(value, rows.mass * influence / hits[-1], "logit")


def brier(labels: ArrayLike, scores: ArrayLike) -> Metric:
    """Mean squared difference of probability and label (Brier 1950), with Student's t interval; 0 is perfect."""
    return measure(BINARY, "brier", read_rows(labels, scores))


def log_loss(labels: ArrayLike, scores: ArrayLike) -> Metric:
    """Mean negative log likelihood in nats; probabilities are cut to ``[eps, 1 - eps]``, eps = 2.2e-16."""
    return measure(BINARY, "log_loss", read_rows(labels, scores))


def log_losses(rows: Rows) -> Floats:
    """Negative log likelihood of each row."""
    edge = float(np.finfo(np.float64).eps)
    p = np.clip(rows.scores, edge, 1 - edge)
    return -np.where(rows.labels == 1, np.log(p), np.log1p(-p))


def base_rate(labels: ArrayLike) -> Metric:
    """Share of positive rows, with Wilson's interval."""
    return measure(BINARY, "base_rate", read_rows(labels, np.zeros(np.asarray(labels).size)))


def _base_rate(rows: Rows) -> tuple[float, Interval | None]:
    if rows.weights is not None:
        return mean(rows.labels, rows.weights, within=(0.0, 1.0))
    return rows.positives / rows.n, wilson_interval(rows.positives, rows.n)


def calibration_ratio(labels: ArrayLike, scores: ArrayLike) -> Metric:
    """Observed over expected positives: "calibration in the large"; above 1 the scores are too low.

    The interval is Wilson's of the observed rate over the mean score, the scores taken as given.
    """
    return measure(BINARY, "calibration_ratio", read_rows(labels, scores))


def _calibration_ratio(rows: Rows) -> tuple[float, Interval | None]:
    if rows.weights is not None:
        expected = float((rows.mass * rows.scores).sum())
        value = float((rows.mass * rows.labels).sum()) / expected
        return value, influence_interval(value, rows.mass * (rows.labels - value * rows.scores) / expected)
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


def calibration_curve(rows: Rows) -> tuple[CalibrationBin, ...]:
    """Observed rate against mean score in ten bins of equal row counts; their edges are quantiles, none is empty.

    The interval of weighted rows is that of as many rows as they are worth, ``sum(w)² / sum(w²)`` (Kish 1965).
    """
    edges = np.unique(np.quantile(rows.scores, np.linspace(0.0, 1.0, 11)[1:-1]))
    places = np.searchsorted(edges, rows.scores, side="right")
    sizes = np.bincount(places, minlength=edges.size + 1)
    masses, expected, hits, squares = (
        np.bincount(places, values, edges.size + 1)
        for values in (rows.mass, rows.mass * rows.scores, rows.mass * rows.labels, rows.mass**2)
    )
    curve = []
    for place in np.flatnonzero(sizes):
        rate = float(hits[place] / masses[place])
        worth = int(sizes[place]) if rows.weights is None else float(masses[place] ** 2 / squares[place])
        interval = wilson_interval(min(rate, 1.0) * worth if rows.weights is not None else int(hits[place]), worth)
        curve.append(CalibrationBin(
            float(expected[place] / masses[place]), rate, int(sizes[place]), interval.low, interval.high
        ))  # fmt: skip
    return tuple(curve)


def calibration_error(labels: ArrayLike, scores: ArrayLike) -> Metric:
    """Compute the expected calibration error over ten bins of equal mass.

    ``sum(n_b / n |observed_b - mean score_b|)``.

    Naeini, Cooper & Hauskrecht 2015 use equal width; equal mass (Nixon et al. 2019) is the default because skewed
    scores leave most equal-width bins nearly empty. It is biased upwards in few rows: a perfect model of 500 rows has
    an error of about 0.05. The interval is of the error without that bias, and holds the value all the same.
    """
    return measure(BINARY, "calibration_error", read_rows(labels, scores))


def _calibration_error(rows: Rows) -> tuple[float, Interval | None]:
    """Value, and the interval that takes from each bin what noise adds to its gap; weighted rows have none.

    An observed gap is ``|gap + noise|``, a folded normal (Leone, Nelson & Nottingham 1961, Technometrics 3, 543-550):
    its mean less the gap is the bias, with the gap estimated by ``sqrt(observed² - sd²)``, and its variance adds up
    over the bins.
    """
    if rows.weights is not None:
        edges = np.unique(np.quantile(rows.scores, np.linspace(0.0, 1.0, 11)[1:-1]))
        places = np.searchsorted(edges, rows.scores, side="right")
        return float(np.abs(np.bincount(places, rows.mass * (rows.labels - rows.scores))).sum() / rows.mass.sum()), None
    curve = calibration_curve(rows)
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


def _ks(rows: Rows) -> tuple[float, None]:
    cut = rows.thresholds
    ones, zeros = np.cumsum(cut.positive), np.cumsum(cut.negative)
    return float(np.abs(ones / ones[-1] - zeros / zeros[-1]).max()), None


def _top(rows: Rows) -> tuple[Floats, float, float]:
    """How much of each row is among the highest scores, their share of the weight, and the rate at their edge.

    Rows of one score share what room is left for them: the mean over every order in which they could come.
    """
    cut, k = rows.thresholds, _TOP if rows.k is None else rows.k
    sizes = cut.positive + cut.negative
    total = float(sizes.sum())
    portion = min(k / rows.n if k >= 1 else k, 1.0)
    ends = np.cumsum(sizes)
    inside = np.clip((portion * total - ends + sizes) / sizes, 0.0, 1.0)
    # The rate at the edge, from the scores around it: what moves in and out with the edge itself.
    edge, reach = int(np.searchsorted(ends, portion * total)), max(math.isqrt(cut.scores.size), 5)
    around = slice(max(edge - reach, 0), edge + reach + 1)
    return inside[cut.place], portion, float(cut.positive[around].sum() / sizes[around].sum())


def _precision_at_k(rows: Rows) -> tuple[float, Interval | None]:
    inside, portion, rate = _top(rows)
    total = float(rows.mass.sum())
    value = float((rows.mass * inside * rows.labels).sum()) / total / portion
    if value in (0.0, 1.0) and rows.weights is None:
        return value, wilson_interval(value * portion * rows.n, portion * rows.n)
    moved = inside * rows.labels + rate * (portion - inside)
    return value, influence_interval(value, rows.mass * (moved / portion - value) / total, "logit")


def _recall_at_k(rows: Rows) -> tuple[float, Interval | None]:
    inside, portion, rate = _top(rows)
    positive = float((rows.mass * rows.labels).sum())
    value = float((rows.mass * inside * rows.labels).sum()) / positive
    moved = inside * rows.labels + rate * (portion - inside)
    return value, influence_interval(value, rows.mass * (moved - value * rows.labels) / positive, "logit")


def _lift_at_k(rows: Rows) -> tuple[float, Interval | None]:
    """Lift is recall over the share of rows looked at, so its interval is that of recall."""
    _, portion, _ = _top(rows)
    value, interval = _recall_at_k(rows)
    return value / portion, interval and Interval(interval.low / portion, interval.high / portion)


def _no_positive(rows: Rows) -> str | None:
    return rows.incomplete() or (None if rows.positives else "no positive row")


BINARY: dict[str, Measure] = {
    "base_rate": (Rows.unlabelled, _base_rate),
    "auc": (lambda rows: rows.incomplete() or rows.one_class(), _roc_auc),
    "pr_auc": (_no_positive, _pr_auc),
    "brier": (Rows.improper, lambda rows: mean((rows.scores - rows.labels) ** 2, rows.weights, within=(0.0, 1.0))),
    "log_loss": (Rows.improper, lambda rows: mean(log_losses(rows), rows.weights)),
    "calibration_error": (Rows.improper, _calibration_error),
    "calibration_ratio": (
        lambda rows: rows.improper() or (None if rows.scores.mean() > 0 else "every score is 0"),
        _calibration_ratio,
    ),
    "ks": (lambda rows: rows.incomplete() or rows.one_class(), _ks),
    "precision_at_k": (Rows.incomplete, _precision_at_k),
    "recall_at_k": (_no_positive, _recall_at_k),
    "lift_at_k": (_no_positive, _lift_at_k),
}
"""Each metric of scores: why it has no value, if it has none, and its value with its interval."""


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
        return tuple(share(name, int(part), int(n), why_not) for name, part, n, why_not in _shares(tp, fp, tn, fn))


def _shares(tp: float, fp: float, tn: float, fn: float) -> tuple[tuple[str, float, float, str], ...]:
    return (
        ("accuracy", tp + tn, tp + fp + tn + fn, "no rows"),
        ("precision", tp, tp + fp, "no row reaches the threshold"),
        ("recall", tp, tp + fn, "no positive row"),
        ("false_positive_rate", fp, fp + tn, "no negative row"),
        ("positive_share", tp + fp, tp + fp + tn + fn, "no rows"),
    )


def confusion(rows: Rows, threshold: float) -> tuple[Confusion | None, tuple[Metric, ...]]:
    """Table of decisions ``score >= threshold``, and its shares and F values; all not evaluable without scores."""
    if why_not := rows.incomplete():
        names = [*(name for name, *_ in _shares(0, 0, 0, 0)), *_BETAS]
        return None, tuple(Metric(name, None, why_not, rows.n) for name in names)
    above, positive = rows.scores >= threshold, rows.labels == 1
    cells = (above & positive, above & ~positive, ~above & ~positive, ~above & positive)
    table = Confusion(float(threshold), *(int(cell.sum()) for cell in cells))
    sums = [float(rows.mass[cell].sum()) for cell in cells]
    squares = [float((rows.mass[cell] ** 2).sum()) for cell in cells]
    shares = table.metrics()
    if rows.weights is not None:  # Wilson's interval is of rows that count alike
        shares = tuple(
            Metric(metric.name, part / count if count else None, metric.reason, metric.n)
            for metric, (_, part, count, _) in zip(shares, _shares(*sums), strict=True)
        )
    return table, (*shares, *(_f_beta(name, beta, rows.n, sums, squares) for name, beta in _BETAS.items()))


def _f_beta(name: str, beta: float, n: int, sums: list[float], squares: list[float]) -> Metric:
    """``(1 + b²) tp / ((1 + b²) tp + b² fn + fp)`` (van Rijsbergen 1979), its variance by the delta method."""
    tp, fp, _, fn = sums
    more = 1 + beta**2
    total = more * tp + beta**2 * fn + fp
    if not total:
        return Metric(name, None, "no positive row, and none reaches the threshold", n)
    value = more * tp / total
    slopes = (more * (1 - value) / total, -value / total, 0.0, -(beta**2) * value / total)
    variance = sum(slope**2 * square for slope, square in zip(slopes, squares, strict=True))
    return Metric.of(name, n, value, variance_interval(value, variance, n, "logit"))
