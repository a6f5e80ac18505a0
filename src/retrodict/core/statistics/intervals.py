"""Intervals that say how much a number may be trusted: shares, means, areas under the curve."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

from retrodict.core.errors import InputError

__all__ = [
    "AucEstimate",
    "AucPair",
    "Interval",
    "delong_auc",
    "delong_pair",
    "difference_interval",
    "hanley_interval",
    "mean_interval",
    "midranks",
    "wilson_interval",
]

Floats = NDArray[np.float64]

# Rows of the rarer class by which DeLong's variance is drawn towards a model's: chosen by simulated coverage.
_PRIOR_ROWS = 10


@dataclass(frozen=True, slots=True)
class Interval:
    """A two-sided confidence interval, both ends included."""

    low: float
    high: float


def _quantile(confidence: float) -> float:
    if not 0.0 < confidence < 1.0:
        raise InputError("a confidence must lie between 0 and 1", where="interval", got=confidence, remedy="Pass 0.95")
    return NormalDist().inv_cdf(0.5 + confidence / 2)


def wilson_interval(successes: float, n: float, *, confidence: float = 0.95) -> Interval:
    """Wilson's score interval of a share; it stays inside [0, 1] and is sound for small n.

    ``(p + z²/2n ± z sqrt(p(1-p)/n + z²/4n²)) / (1 + z²/n)`` (Wilson 1927, JASA 22, 209-212). Rows that depend on each
    other are passed as the number of independent ones they are worth, which need not be whole.

    Raises
    ------
    InputError
        If n is not positive or successes lie outside 0..n.

    Examples
    --------
    >>> interval = wilson_interval(0, 10)
    >>> interval.low, round(interval.high, 4)
    (0.0, 0.2775)
    """
    if n <= 0 or not 0 <= successes <= n:
        raise InputError(
            "a share must have successes between 0 and n, n above 0",
            where="interval",
            got=(successes, n),
            remedy="Pass the count of successes and the count of rows",
        )
    z = _quantile(confidence)
    share, spread = successes / n, z * z / n
    centre = (share + spread / 2) / (1 + spread)
    half = z * math.sqrt(share * (1 - share) / n + spread / (4 * n)) / (1 + spread)
    # At the ends the formula is exactly 0 and 1, which floating point misses by an ulp.
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    return Interval(low, 1.0 if successes == n else min(1.0, centre + half))


def difference_interval(first: float, of_first: Interval, second: float, of_second: Interval) -> Interval:
    """Interval of ``first - second``, two independent estimates with intervals of one confidence.

    ``d - sqrt((a - low_a)² + (high_b - b)²)`` and its mirror image (Zou & Donner 2008, Statistics in Medicine 27,
    1693-1702); of shares with Wilson's intervals it is Newcombe's tenth method (1998, Statistics in Medicine 17,
    873-890).

    Examples
    --------
    >>> of = difference_interval(56 / 70, wilson_interval(56, 70), 48 / 80, wilson_interval(48, 80))
    >>> round(of.low, 4), round(of.high, 4)  # Newcombe 1998, table II
    (0.0524, 0.3339)
    """
    down = math.hypot(first - of_first.low, of_second.high - second)
    up = math.hypot(of_first.high - first, second - of_second.low)
    return Interval(first - second - down, first - second + up)


def hanley_interval(auc: float, positives: int, negatives: int, *, confidence: float = 0.95) -> Interval:
    """Interval of an area under the ROC curve of which only the value and the rows are known, cut to [0, 1].

    Variance of Hanley & McNeil 1982 (Radiology 143, 29-36): that of exponential scores.

    Raises
    ------
    InputError
        If a class has no rows.
    """
    if min(positives, negatives) < 1:
        raise InputError("an area must have rows of both classes", where="interval", got=(positives, negatives),
                         remedy="Collect rows of the other class")  # fmt: skip
    both_positive, both_negative = auc / (2 - auc), 2 * auc * auc / (1 + auc)
    variance = auc * (1 - auc) + (positives - 1) * (both_positive - auc**2) + (negatives - 1) * (both_negative - auc**2)
    half = _quantile(confidence) * math.sqrt(variance / (positives * negatives))
    return Interval(max(auc - half, 0.0), min(auc + half, 1.0))


def mean_interval(values: ArrayLike, *, confidence: float = 0.95) -> Interval:
    """Student's t interval of a mean; of paired differences, the interval of the paired t test.

    Raises
    ------
    InputError
        With fewer than two values.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.size < 2:
        raise InputError(
            "a mean must have two values or more to have an interval",
            where="interval",
            got=int(array.size),
            remedy="Collect more rows",
        )
    _quantile(confidence)
    from scipy.special import stdtrit

    half = float(stdtrit(array.size - 1, 0.5 + confidence / 2) * array.std(ddof=1) / math.sqrt(array.size))
    return Interval(float(array.mean()) - half, float(array.mean()) + half)


def midranks(values: Floats) -> Floats:
    """Ranks from 1, ties sharing the mean of their ranks."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    starts = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))
    stops = np.append(starts[1:], values.size)
    ranks = np.empty(values.size)
    ranks[order] = np.repeat((starts + stops + 1) / 2, stops - starts)
    return ranks


@dataclass(frozen=True, slots=True)
class AucEstimate:
    """Area under the ROC curve with DeLong's variance, and an interval on the logit scale: it stays inside [0, 1]."""

    auc: float
    variance: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class AucPair:
    """Two areas on the same rows: ``difference = first - second``, its interval, and the two-sided p value."""

    first: float
    second: float
    difference: float
    variance: float
    low: float
    high: float
    p_value: float


def delong_auc(labels: ArrayLike, scores: ArrayLike, *, confidence: float = 0.95) -> AucEstimate:
    """Area under the ROC curve, ties counting one half, with DeLong's variance.

    DeLong, DeLong & Clarke-Pearson 1988 (Biometrics 44, 837-845), by midranks in O(n log n) as in Sun & Xu 2014 (IEEE
    Signal Processing Letters 21, 1389-1393). With one row in a class the variance is NaN, and so is the interval.

    The interval is ``logit(auc) ± z sd / (auc (1 - auc))`` (Pepe 2003, section 5.2). Near 1, and with few rows of a
    class, DeLong's variance is too small more often than not: it is drawn towards that of exponential scores as by ten
    further rows, ``((m - 1) delong + 10 model) / (m + 9)`` with m rows of the rarer class. Perfect separation has
    Newcombe's interval, of that model alone; equal scores of all rows have a point.

    Raises
    ------
    InputError
        If a class has no rows, the lengths differ, or a score is NaN.
    """
    auc, by_positive, by_negative = _components(_classes(labels), scores)
    variance = _variance(by_positive, by_negative)
    interval = _auc_interval(auc, variance, by_positive.size, by_negative.size, _quantile(confidence))
    return AucEstimate(auc, variance, interval.low, interval.high)


def _auc_interval(auc: float, variance: float, positives: int, negatives: int, z: float) -> Interval:
    if math.isnan(variance):
        return Interval(math.nan, math.nan)
    if auc in (0.0, 1.0):
        edge = _separation_edge(positives, negatives, z)
        return Interval(edge, 1.0) if auc == 1.0 else Interval(0.0, 1.0 - edge)
    if variance == 0.0:  # every score is the same
        return Interval(auc, auc)
    rarer = min(positives, negatives)
    model = _exponential_variance(auc, positives, negatives)
    drawn = ((rarer - 1) * variance + _PRIOR_ROWS * model) / (rarer - 1 + _PRIOR_ROWS)
    centre, half = math.log(auc / (1 - auc)), z * math.sqrt(drawn) / (auc * (1 - auc))
    # The exponential of a margin this large would overflow, and the end is 0 or 1 to the last bit.
    low, high = (1 / (1 + math.exp(min(-margin, 700.0))) for margin in (centre - half, centre + half))
    return Interval(low, high)


def _exponential_variance(auc: float, positives: int, negatives: int) -> float:
    """Variance of an area under the curve where scores of both classes are exponential.

    Hanley & McNeil 1982 (Radiology 143, 29-36), with both class sizes replaced by their mean, as in method 5 of
    Newcombe 2006 (Statistics in Medicine 25, 559-573).
    """
    others = (positives + negatives) / 2 - 1
    spread = 1 + others * ((1 - auc) / (2 - auc) + auc / (1 + auc))
    return auc * (1 - auc) * spread / (positives * negatives)


def _separation_edge(positives: int, negatives: int, z: float) -> float:
    """Least area for which perfect separation is within z standard deviations (Newcombe 2006, method 5)."""
    low, high = 0.0, 1.0
    for _ in range(60):  # halves the interval down to the last bit
        middle = (low + high) / 2
        if (1 - middle) ** 2 > z * z * _exponential_variance(middle, positives, negatives):
            low = middle
        else:
            high = middle
    return high


def delong_pair(labels: ArrayLike, first: ArrayLike, second: ArrayLike, *, confidence: float = 0.95) -> AucPair:
    """Paired DeLong test of two scores on the same rows (sources in ``delong_auc``).

    The variance of the difference is the variance of the differences of the structural components, so the covariance
    of the two areas is in it. With no variance (one score is a function of the other's order) p is 1 for equal areas
    and 0 otherwise.

    Raises
    ------
    InputError
        If a class has no rows, the lengths differ, or a score is NaN.
    """
    classes = _classes(labels)
    one, one_positive, one_negative = _components(classes, first)
    two, two_positive, two_negative = _components(classes, second)
    difference = one - two
    variance = _variance(one_positive - two_positive, one_negative - two_negative)
    deviation = math.sqrt(variance)
    half = _quantile(confidence) * deviation
    if math.isnan(deviation):
        p_value = math.nan
    elif deviation < 1e-12:  # rounding noise of equal components
        p_value = 1.0 if abs(difference) < 1e-12 else 0.0
    else:
        p_value = math.erfc(abs(difference) / deviation / math.sqrt(2))
    return AucPair(one, two, difference, variance, difference - half, difference + half, p_value)


def _classes(labels: ArrayLike) -> NDArray[np.bool_]:
    array = np.asarray(labels)
    positive: NDArray[np.bool_] = np.asarray(array == 1)
    if array.ndim != 1 or not (positive | (array == 0)).all():
        raise InputError(
            "labels must be 0 or 1, one per row", where="labels", got=array.shape, remedy="Turn the labels into 0 and 1"
        )
    if positive.all() or not positive.any():
        raise InputError(
            "an area under the curve must have rows of both classes",
            where="labels",
            got=f"{int(positive.sum())} positive of {positive.size}",
            remedy="Collect rows of the other class",
        )
    return positive


def _components(positive: NDArray[np.bool_], scores: ArrayLike) -> tuple[float, Floats, Floats]:
    """Area, and each row's share of the other class that it is ranked right against (structural components)."""
    array = np.asarray(scores, dtype=np.float64)
    if array.shape != positive.shape or np.isnan(array).any():
        raise InputError(
            "there must be one score per label, none of them null",
            where="scores",
            got=array.shape,
            remedy="Pass the scores of the same rows",
        )
    upper, lower = array[positive], array[~positive]
    ranks = midranks(array)
    by_positive = (ranks[positive] - midranks(upper)) / lower.size
    by_negative = 1.0 - (ranks[~positive] - midranks(lower)) / upper.size
    # From ranks, not from the mean of the components: half integers are exact in any order.
    area = (float(ranks[positive].sum()) - upper.size * (upper.size + 1) / 2) / (upper.size * lower.size)
    return area, by_positive, by_negative


def _variance(by_positive: Floats, by_negative: Floats) -> float:
    if by_positive.size < 2 or by_negative.size < 2:
        return math.nan
    return float(by_positive.var(ddof=1) / by_positive.size + by_negative.var(ddof=1) / by_negative.size)
