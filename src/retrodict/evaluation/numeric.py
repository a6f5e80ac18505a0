"""Metrics of predicted numbers: a value, quantiles of it, or the mean of a count."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from retrodict.core.statistics.intervals import Interval, wilson_interval
from retrodict.core.tasks import Target
from retrodict.evaluation._rows import Rows
from retrodict.evaluation.estimates import Measure, influence_interval, mean

__all__ = ["COUNT", "REGRESSION", "deviances", "median_interval", "pinball_losses", "quantile_measures"]

Floats = NDArray[np.float64]


def _errors(rows: Rows) -> Floats:
    return rows.outputs - rows.labels


def _rmse(rows: Rows) -> tuple[float, Interval | None]:
    squared = _errors(rows) ** 2
    value = math.sqrt(np.average(squared, weights=rows.weights))
    if value == 0:
        return value, None
    influence = rows.mass * (squared - value**2) / rows.mass.sum() / (2 * value)
    return value, influence_interval(value, influence, "log")


def _r2(rows: Rows) -> tuple[float, Interval | None]:
    """``1 - sum(w e²) / sum(w (y - mean)²)``, its interval on the scale of the logarithm of the second term."""
    squared = _errors(rows) ** 2
    around = (rows.labels - np.average(rows.labels, weights=rows.weights)) ** 2
    total = float((rows.mass * around).sum())
    missing = float((rows.mass * squared).sum()) / total
    interval = influence_interval(missing, rows.mass * (squared - missing * around) / total, "log")
    return 1 - missing, interval and Interval(1 - interval.high, 1 - interval.low)


def median_interval(values: Floats) -> Interval | None:
    """Interval of a median between two order statistics, exact for any distribution (Conover 1999, section 3.2).

    None where even the smallest and the largest value hold the median with less than 95 %: five values or fewer.
    """
    n = values.size
    if n < 6:
        return None
    from scipy.special import bdtrik

    outside = int(bdtrik(0.025, n, 0.5))  # so many values at each end, and no more, are left out
    ordered = np.sort(values)
    return Interval(float(ordered[outside]), float(ordered[n - 1 - outside]))


def _median_absolute_error(rows: Rows) -> tuple[float, Interval | None]:
    errors = np.abs(_errors(rows))
    if rows.weights is None:
        return float(np.median(errors)), median_interval(errors)
    order = np.argsort(errors, kind="stable")
    reached = np.cumsum(rows.mass[order])
    low, high = (int(np.searchsorted(reached, reached[-1] / 2, side=side)) for side in ("left", "right"))
    return float(errors[order[[low, min(high, rows.n - 1)]]].mean()), None


def _constant(rows: Rows) -> str | None:
    why_not = rows.incomplete()
    return why_not or (f"all {rows.n} labels are equal" if np.ptp(rows.labels) == 0 else None)


def _zeros(rows: Rows) -> str | None:
    zeros = int((rows.labels == 0).sum())
    return rows.incomplete() or (f"{zeros} of {rows.n} labels are 0, of which no error is a share" if zeros else None)


_MAE: Measure = (Rows.incomplete, lambda rows: mean(np.abs(_errors(rows)), rows.weights))

REGRESSION: dict[str, Measure] = {
    "mae": _MAE,
    "rmse": (Rows.incomplete, _rmse),
    "r2": (_constant, _r2),
    "mape": (_zeros, lambda rows: mean(np.abs(_errors(rows) / rows.labels), rows.weights)),
    "median_absolute_error": (Rows.incomplete, _median_absolute_error),
    "bias": (Rows.incomplete, lambda rows: mean(_errors(rows), rows.weights, within=(-math.inf, math.inf))),
}


# counts ---------------------------------------------------------------------------------------------------------------


def deviances(rows: Rows) -> Floats:
    """Poisson deviance of each row, ``2 (y ln(y / m) - y + m)``, the first term 0 where y is."""
    from scipy.special import xlogy

    return np.asarray(2 * (xlogy(rows.labels, rows.labels / rows.outputs) - rows.labels + rows.outputs))


def _not_positive(rows: Rows) -> str | None:
    low = int((rows.outputs <= 0).sum())
    return rows.incomplete() or (f"{low} of {rows.n} outputs are not above 0" if low else None)


def _ratio(rows: Rows) -> tuple[float, Interval | None]:
    expected = float((rows.mass * rows.outputs).sum())
    value = float((rows.mass * rows.labels).sum()) / expected
    return value, influence_interval(value, rows.mass * (rows.labels - value * rows.outputs) / expected, "log")


COUNT: dict[str, Measure] = {
    "deviance": (_not_positive, lambda rows: mean(deviances(rows), rows.weights)),
    "mae": _MAE,
    "rmse": (Rows.incomplete, _rmse),
    "calibration_ratio": (_not_positive, _ratio),
}


# quantiles ------------------------------------------------------------------------------------------------------------


def pinball_losses(rows: Rows) -> Floats:
    """Pinball loss of each row and level, shape (n, levels): ``max(t (y - q), (t - 1) (y - q))``."""
    gaps, levels = rows.labels[:, None] - rows.outputs, np.array(rows.target.quantiles)
    return np.maximum(levels * gaps, (levels - 1) * gaps)


def _held(rows: Rows, inside: NDArray[np.bool_]) -> tuple[float, Interval | None]:
    if rows.weights is not None:
        return mean(inside.astype(np.float64), rows.weights, within=(0.0, 1.0))
    return float(inside.mean()), wilson_interval(int(inside.sum()), rows.n)


def _one_level(rows: Rows) -> str | None:
    return rows.incomplete() or ("one level has no interval" if len(rows.target.quantiles) < 2 else None)


def _interval_coverage(rows: Rows) -> tuple[float, Interval | None]:
    return _held(rows, (rows.outputs[:, 0] <= rows.labels) & (rows.labels <= rows.outputs[:, -1]))


def _pinball_of(place: int) -> Callable[[Rows], tuple[float, Interval | None]]:
    return lambda rows: mean(pinball_losses(rows)[:, place], rows.weights)


def _coverage_of(place: int) -> Callable[[Rows], tuple[float, Interval | None]]:
    return lambda rows: _held(rows, rows.labels <= rows.outputs[:, place])


@lru_cache(maxsize=64)
def quantile_measures(target: Target) -> dict[str, Measure]:
    """Each metric: why it has no value, if it has none, and its value with its interval."""
    measures: dict[str, Measure] = {
        "pinball": (Rows.incomplete, lambda rows: mean(pinball_losses(rows).mean(axis=1), rows.weights)),
        "interval_coverage": (_one_level, _interval_coverage),
        "interval_width": (_one_level, lambda rows: mean(rows.outputs[:, -1] - rows.outputs[:, 0], rows.weights)),
        "crossings": (
            Rows.incomplete,
            lambda rows: (float((np.diff(rows.outputs, axis=1) < 0).any(axis=1).sum()), None),
        ),
    }
    for place, name in enumerate(target.outputs):
        measures[f"pinball_{name}"] = (Rows.incomplete, _pinball_of(place))
        measures[f"coverage_{name}"] = (Rows.incomplete, _coverage_of(place))
    return measures
