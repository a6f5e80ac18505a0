"""A number with its interval or the reason why there is none, and the two ways to an interval that all tasks share.

Means have Student's. Every other metric that is a smooth function of the rows' weights has the infinitesimal jackknife:
what a little more weight of each row would change (its influence) says how much the metric varies. It needs no
resampling, holds under sample weights, and equals Student's where the metric is a mean.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from retrodict.core.errors import check_known
from retrodict.core.statistics.intervals import Interval, mean_interval, wilson_interval
from retrodict.evaluation._rows import Rows

__all__ = [
    "Measure",
    "Metric",
    "Scale",
    "influence_interval",
    "mean",
    "measure",
    "pick_metric",
    "share",
    "variance_interval",
]

Floats = NDArray[np.float64]
Measure = tuple[Callable[[Rows], str | None], Callable[[Rows], tuple[float, Interval | None]]]
"""Why a metric of the rows has no value, if it has none; and its value with its interval."""

Scale = Literal["plain", "log", "logit"]


@dataclass(frozen=True, slots=True)
class Metric:
    """One number about outputs, or the reason why there is none.

    Attributes
    ----------
    name : str
    value : float or None
        None means not evaluable.
    reason : str or None
        Why not; None when there is a value.
    n : int
        Rows it was computed from, or would have been; groups of a ranking.
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


def measure(measures: Mapping[str, Measure], name: str, rows: Rows) -> Metric:
    """Metric of a name, computed or refused."""
    refuse, compute = measures[name]
    if why_not := refuse(rows):
        return Metric(name, None, why_not, rows.n)
    return Metric.of(name, rows.n, *compute(rows))


def pick_metric(metrics: Sequence[Metric], name: str, *, where: str) -> Metric:
    """Metric of a name; NotFoundError names the nearest ones."""
    by_name = {metric.name: metric for metric in metrics}
    return by_name[check_known(name, by_name, "a metric must be one of those measured", where=where, what="metric")]


def share(name: str, part: int, n: int, why_not: str) -> Metric:
    """Share of rows, with Wilson's interval; without rows it is not evaluable, for this reason."""
    if n == 0:
        return Metric(name, None, why_not, 0)
    return Metric.of(name, n, part / n, wilson_interval(part, n))


def mean(
    values: Floats, weights: Floats | None = None, *, within: tuple[float, float] = (0.0, math.inf)
) -> tuple[float, Interval | None]:
    """Mean with Student's t interval, which one value has not; no bound of it is where no mean can be (``within``).

    With weights it is ``sum(w x) / sum(w)``, a ratio whose variance is that of ``w (x - mean)`` (Cochran 1977, Sampling
    Techniques, section 6.3); equal weights give Student's interval.
    """
    if weights is None:
        value, interval = float(values.mean()), mean_interval(values) if values.size > 1 else None
    else:
        value = float(np.average(values, weights=weights))
        variance = float(((weights * (values - value)) ** 2).sum()) / float(weights.sum()) ** 2
        interval = variance_interval(value, variance, values.size)
    if interval is None or math.isnan(interval.low):
        return value, interval
    return value, replace(interval, low=max(interval.low, within[0]), high=min(interval.high, within[1]))


def influence_interval(value: float, influence: Floats, scale: Scale = "plain") -> Interval | None:
    """Interval of a smooth function of the rows' weights; None where the sample shows no variance.

    ``value ± t sqrt(n / (n - 1) sum(influence²))``, on the logarithmic or logit scale where one is named (Efron 1982,
    The Jackknife, the Bootstrap and Other Resampling Plans, chapter 6).

    Parameters
    ----------
    value : float
    influence : ndarray of shape (n,)
        Derivative of the value with respect to the weight of each row, times that weight.
    scale : {"plain", "log", "logit"}, default "plain"
        ``log`` for values above 0, ``logit`` for values between 0 and 1: the interval stays there.
    """
    interval = variance_interval(value, float((influence**2).sum()), influence.size, scale)
    return None if interval is None or interval.low == interval.high else interval


def variance_interval(
    value: float, variance: float, n: int, scale: Scale = "plain", *, confidence: float = 0.95
) -> Interval | None:
    """The same from the sum of squared influences of n rows; None from one row, or at the end of a scale."""
    slope = {"plain": 1.0, "log": value, "logit": value * (1 - value)}[scale]
    if n < 2 or slope <= 0:
        return None
    from scipy.special import stdtrit

    half = float(stdtrit(n - 1, 0.5 + confidence / 2)) * math.sqrt(variance * n / (n - 1)) / slope
    if scale == "plain":
        return Interval(value - half, value + half)
    half = min(half, 700.0)  # the exponential of more would overflow
    if scale == "log":
        return Interval(value * math.exp(-half), value * math.exp(half))
    odds = value / (1 - value)
    low, high = odds * math.exp(-half), odds * math.exp(half)
    return Interval(low / (1 + low), high / (1 + high) if math.isfinite(high) else 1.0)
