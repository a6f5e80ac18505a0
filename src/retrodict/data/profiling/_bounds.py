"""Bounds for the next batch, from one batch: each a known interval, rounded outward to a number people would write.

A bound that holds for the data at hand is too tight for the next batch about half of the time, so every one allows for
the sampling error of both: this batch, of which it is an estimate, and a next one of the same size.
"""

from __future__ import annotations

import math
from statistics import NormalDist

_Z = NormalDist().inv_cdf(0.975)


def unseen_below(rows: int) -> float:
    """Rate below which an event is that n rows did not show, with 95 % confidence.

    ``1 - 0.05**(1/n)``, nearly 3/n: the rule of three (Hanley and Lippman-Hand 1983, JAMA 249, 1743-1745).
    """
    return -math.expm1(math.log(0.05) / rows) if rows else 1.0


def next_rate(count: int, rows: int) -> float:
    """Upper bound of a rate in a next batch of the same size, 97.5 % one-sided.

    Wilson's score bound with n/2 in place of n: the difference of two rates of n rows each has the variance
    ``p (1 - p) (1/n + 1/n)``, that of one rate of n/2 rows.
    """
    n = rows / 2
    share, spread = count / rows, _Z * _Z / n
    centre = (share + spread / 2) / (1 + spread)
    half = _Z * math.sqrt(share * (1 - share) / n + spread / (4 * n)) / (1 + spread)
    return min(1.0, centre + half)


def covered_share(values: int) -> float:
    """Share of all future values that lie between the smallest and largest of n, with 95 % confidence.

    The p that solves ``n p**(n-1) - (n-1) p**n = 0.05`` (Wilks 1941, Ann. Math. Stat. 12, 91-96): a tolerance interval
    without any distribution, the 5 % quantile of Beta(n - 1, 2).
    """
    from scipy.special import betaincinv

    return float(betaincinv(values - 1, 2, 0.05)) if values > 1 else 0.0


def next_extreme(extreme: float, scale: float) -> float:
    """Distance beyond the largest value of this batch that the largest of the next one exceeds in 1 of 100 batches.

    With a tail that falls off like an exponential of some scale, the largest of n values is a Gumbel variable, and the
    difference of two such is logistic with that scale whatever n: it is above ``scale * log(0.99 / 0.01)`` in 1 %.
    Returns ``extreme + distance`` for a positive scale, ``extreme - distance`` for a negative one.
    """
    return extreme + scale * math.log(99.0)


def mean_bounds(mean: float, std: float, rows: int) -> tuple[float, float]:
    """Where the mean of a next batch of the same size lies: ``mean ± 3.3 s sqrt(1/n + 1/n)``, but at least ± s/4.

    The first is the prediction interval at 99.9 %; the floor allows for what batches differ in beyond chance, since
    for a million rows the interval alone would alarm at a rainy week.
    """
    half = max(NormalDist().inv_cdf(0.9995) * std * math.sqrt(2 / rows), std / 4)
    return mean - half, mean + half


def round_out(value: float, *, up: bool, step: float | None = None) -> float:
    """Nearest number that people would write and that is not inside.

    Parameters
    ----------
    value : float
    up : bool
        Whether outward is upward.
    step : float, optional
        What does not matter: it is rounded to the power of ten below this. None: to two digits.

    Examples
    --------
    >>> round_out(1234.5, up=True), round_out(-0.0371, up=False), round_out(1974, up=False, step=15)
    (1300.0, -0.038, 1970.0)
    """
    if value == 0 or not math.isfinite(value) or (step is not None and not math.isfinite(step)):
        return value
    power = math.floor(math.log10(step)) if step else math.floor(math.log10(abs(value))) - 1
    power = max(power, math.floor(math.log10(abs(value))) - 12)  # beyond that a double has no digits to spare
    rounding = math.ceil if up else math.floor
    if power >= 0:
        rounded = float(rounding(value / 10**power)) * 10.0**power
    elif power < -300:
        return value
    else:
        rounded = round(rounding(value * 10.0**-power) / 10.0**-power, -power)
    outward = rounded >= value if up else rounded <= value
    return rounded if outward and math.isfinite(rounded) else value
