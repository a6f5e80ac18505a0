"""Two versions on the same rows: McNemar's test of decisions, and the bootstrap for any number of the rows.

For means of paired differences see ``core.statistics.intervals.mean_interval``, for areas ``delong_pair``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrodict.core.errors import InputError
from retrodict.rollout.statistics.contrast import Allowed, Contrast, check_level, judge, unknown

__all__ = ["mcnemar", "paired_bootstrap"]


def mcnemar(n: int, control_only: int, treatment_only: int, allowed: Allowed, *, alpha: float = 0.05) -> Contrast:
    """Compare two rates on the same n rows, of which so many are successes under one version only.

    The p value is the binomial's of the discordant rows with a half: the mid-p, as the exact one is mostly too careful
    (Fagerland, Lydersen & Laake 2013, BMC Medical Research Methodology 13:91). The interval
    of the difference is the adjusted one of Bonett & Price 2012 (Journal of Educational and Behavioral Statistics 37,
    479-488); the verdict is the interval's.

    Parameters
    ----------
    n : int
        Rows that both versions decided.
    control_only, treatment_only : int
        Successes of one and not of the other.
    allowed : Allowed
        Differences of rates, treatment minus control, that are no failure.
    alpha : float, default 0.05
        Chance of a wrong verdict either way, at one look.

    Examples
    --------
    >>> mcnemar(1000, 15, 5, Allowed(at_most=0.0)).p_value
    0.0266036987...
    """
    check_level(alpha)
    if min(control_only, treatment_only) < 0 or control_only + treatment_only > n:
        raise InputError("discordant rows must be among the rows", where="McNemar",
                         got=(n, control_only, treatment_only), remedy="Count the same rows")  # fmt: skip
    side, method = alpha / allowed.sides, "McNemar, mid-p"
    if n == 0:
        return unknown("no rows", method, "difference", (n, n), 1 - 2 * side)
    from scipy.special import bdtr, ndtri

    discordant, fewer = control_only + treatment_only, min(control_only, treatment_only)
    tail = float(bdtr(fewer, discordant, 0.5)) if discordant else 1.0
    at = math.exp(math.lgamma(discordant + 1) - math.lgamma(fewer + 1) - math.lgamma(discordant - fewer + 1)
                  - discordant * math.log(2))  # fmt: skip
    p_value = min(1.0, 2 * tail - at)
    first, second = (control_only + 1) / (n + 2), (treatment_only + 1) / (n + 2)
    middle = second - first
    half = float(ndtri(1 - side)) * math.sqrt((first + second - middle**2) / (n + 2))
    value, ends = (treatment_only - control_only) / n, (max(middle - half, -1.0), min(middle + half, 1.0))
    return judge(Contrast("inconclusive", "", method, "difference", n, n, value, *ends, 1 - 2 * side, p_value), allowed)


def paired_bootstrap(
    n: int,
    difference: Callable[[NDArray[np.intp]], float],
    allowed: Allowed,
    *,
    seed: int,
    resamples: int = 2000,
    alpha: float = 0.05,
) -> Contrast:
    """Compare any number of the same n rows by resampling them: percentiles of the difference.

    Efron & Tibshirani 1993, An Introduction to the Bootstrap, chapter 13. No p value: the interval says what is known.

    Parameters
    ----------
    n : int
        Rows that both versions decided.
    difference : callable
        From row numbers, some of them more than once, to treatment minus control; NaN where there is none.
    allowed : Allowed
        Differences that are no failure.
    seed : int
        Recorded with the result it gives.
    resamples : int, default 2000
    alpha : float, default 0.05
        Chance of a wrong verdict either way, at one look.
    """
    check_level(alpha)
    side, method = alpha / allowed.sides, f"paired bootstrap, {resamples} resamples, seed {seed}"
    if n < 2:
        return unknown(f"{n} rows are fewer than the 2 needed", method, "difference", (n, n), 1 - 2 * side)
    draw = np.random.default_rng(seed)
    value = float(difference(np.arange(n)))
    values = np.array([difference(draw.integers(0, n, n)) for _ in range(resamples)], dtype=np.float64)
    if math.isnan(value) or np.isnan(values).any():
        return unknown("the difference is not evaluable on every resample", method, "difference", (n, n), 1 - 2 * side)
    ends: Any = np.quantile(values, [side, 1 - side])
    contrast = Contrast("inconclusive", "", method, "difference", n, n, value, float(ends[0]), float(ends[1]),
                        1 - 2 * side)  # fmt: skip
    return judge(contrast, allowed)
