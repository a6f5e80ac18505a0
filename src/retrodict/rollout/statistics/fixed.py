"""Comparisons for one look at the planned end, and the two ways to need fewer rows: covariates and strata.

A unit is what was assigned. Where a metric is per request and customers were assigned, :func:`linearise` makes one
value a unit of it, whose mean is the ratio and whose variance is the right one: rows of one customer are alike, and
taking them as independent makes intervals too narrow.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from retrodict.core.errors import InputError
from retrodict.core.statistics.intervals import difference_interval, wilson_interval
from retrodict.rollout.statistics.contrast import Allowed, Contrast, Sums, check_level, judge, unknown
from retrodict.rollout.statistics.sequential import mixture_margin, mixture_p, mixture_scale, spread

__all__ = ["adjust", "compare_shares", "linearise", "pool_strata", "stratified", "variance_left", "welch"]

Floats = NDArray[np.float64]


def welch(control: Sums, treatment: Sums, allowed: Allowed, *, alpha: float = 0.05) -> Contrast:
    """Compare two means once, variances unequal.

    Welch 1947 (Biometrika 34, 28-35), degrees of freedom by Satterthwaite.

    Parameters
    ----------
    control, treatment : Sums
    allowed : Allowed
        Effects that are no failure.
    alpha : float, default 0.05
        Chance of a wrong success, and of a wrong failure, at this one look.

    Examples
    --------
    >>> welch(Sums.of([1, 2, 3]), Sums.of([5, 6, 7]), Allowed(at_least=0)).verdict
    'success'
    """
    check_level(alpha)
    from scipy.special import stdtr, stdtrit

    n, side, method = (control.n, treatment.n), alpha / allowed.sides, "Welch"
    if min(n) < 2:
        return unknown(f"{min(n)} rows are fewer than the 2 needed", method, "difference", n, 1 - 2 * side)
    variances = control.variance / n[0], treatment.variance / n[1]
    total, value = sum(variances), treatment.mean - control.mean
    if total == 0:
        return unknown("all values are the same", method, "difference", n, 1 - 2 * side)
    degrees = total**2 / sum(part**2 / (size - 1) for part, size in zip(variances, n, strict=True))
    half = -float(stdtrit(degrees, side)) * math.sqrt(total)
    p_value = 2 * float(stdtr(degrees, -abs(value) / math.sqrt(total)))
    ends = value - half, value + half
    return judge(Contrast("inconclusive", "", method, "difference", *n, value, *ends, 1 - 2 * side, p_value), allowed)


def compare_shares(control: Sums, treatment: Sums, allowed: Allowed, *, alpha: float = 0.05) -> Contrast:
    """Compare the difference of two rates once, by scores.

    The interval is Newcombe's of Wilson's (1998, Statistics in Medicine 17, 873-890, method 10), the p value that of
    the pooled score test; both hold at small counts, where Welch's do not.

    Parameters
    ----------
    control, treatment : Sums
        Of zeros and ones.
    allowed : Allowed
        Differences that are no failure.
    alpha : float, default 0.05
        Chance of a wrong success, and of a wrong failure, at this one look.
    """
    check_level(alpha)
    n, side, method = (control.n, treatment.n), alpha / allowed.sides, "two-proportion score"
    if min(n) < 1:
        return unknown("an arm has no rows", method, "difference", n, 1 - 2 * side)
    intervals = [wilson_interval(arm.total, arm.n, confidence=1 - 2 * side) for arm in (treatment, control)]
    ends = difference_interval(treatment.mean, intervals[0], control.mean, intervals[1])
    value, pooled = treatment.mean - control.mean, (control.total + treatment.total) / sum(n)
    deviation = math.sqrt(pooled * (1 - pooled) * (1 / n[0] + 1 / n[1]))
    p_value = math.erfc(abs(value) / deviation / math.sqrt(2)) if deviation else 1.0
    contrast = Contrast("inconclusive", "", method, "difference", *n, value, ends.low, ends.high, 1 - 2 * side, p_value)
    return judge(contrast, allowed)


def linearise(numerators: ArrayLike, denominators: ArrayLike) -> Floats:
    """One value a unit of a ratio of sums, by the delta method.

    ``R + (numerator - R denominator) / mean denominator`` with ``R`` the ratio of the sums: the mean of the values is
    ``R`` and their variance over n that of ``R`` (Deng, Knoblich & Lu 2018, Applying the Delta Method in Metric
    Analytics, KDD; Budylin et al. 2018, WSDM). Of each arm by itself.

    Parameters
    ----------
    numerators, denominators : array_like of float, shape (units,)
        Sums of each unit.

    Raises
    ------
    InputError
        If the denominators add up to 0.

    Examples
    --------
    >>> linearise([1.0, 3.0], [2.0, 2.0]).tolist()
    [0.5, 1.5]
    """
    above, below = np.asarray(numerators, dtype=np.float64), np.asarray(denominators, dtype=np.float64)
    if not below.size or below.sum() == 0:
        raise InputError("the denominators of a ratio must not add up to 0", where="statistics", got=below.size,
                         remedy="Leave out the arm")  # fmt: skip
    if (below == 1).all():
        return above  # zeros and ones stay what they are
    ratio = above.sum() / below.sum()
    values: Floats = ratio + (above - ratio * below) / below.mean()
    return values


def adjust(values: Sequence[Floats], covariates: Sequence[Floats]) -> tuple[list[Floats], float]:
    """Values less what a covariate from before the experiment foretells of them (CUPED), and the variance that is left.

    ``y - theta (x - mean x)`` with one ``theta`` and one mean over all arms (Deng, Xu, Kohavi & Walker 2013, Improving
    the Sensitivity of Online Controlled Experiments, WSDM). The covariate must not know of the treatment.

    Parameters
    ----------
    values, covariates : sequence of ndarray
        By arm, aligned by unit.

    Returns
    -------
    adjusted : list of ndarray
    left : float
        Variance within arms after the adjustment over that before it: 0.6 needs 0.6 times the units.
    """
    centred = [x - x.mean() for x in covariates]
    deviations = [y - y.mean() for y in values]
    spread = sum(float(x @ x) for x in centred)
    before = sum(float(y @ y) for y in deviations)
    if spread == 0 or before == 0:
        return list(values), 1.0
    theta = sum(float(x @ y) for x, y in zip(centred, deviations, strict=True)) / spread
    middle = float(np.concatenate(list(covariates)).mean())
    adjusted = [y - theta * (x - middle) for x, y in zip(covariates, values, strict=True)]
    return adjusted, 1 - theta**2 * spread / before


def stratified(
    strata: Sequence[tuple[Sums, Sums]],
    allowed: Allowed,
    *,
    alpha: float = 0.05,
    best_at: int | None = None,
    p_before: float = 1.0,
) -> Contrast:
    """Compare means within strata and add the differences up, each by the stratum's part of all units.

    Post-stratification (Miratrix, Sekhon & Yu 2013, JRSS B 75, 369-396). Spans of time with other weights of the arms
    are strata: pooled over them, a change of traffic reads as an effect.

    At any look (``best_at``) the bound is that of :func:`compare_means` in another clock. The difference times ``n``
    grows by one term a unit, whose mean is the effect then and whose variance is known: the confidence sequence is of
    the mean effect over the units so far (Waudby-Smith et al. 2024, Annals of Statistics 52, theorem 2.5, which allows
    terms that are not alike), and ``r`` runs in the sum of their variances.

    Parameters
    ----------
    strata : sequence of (Sums, Sums)
        Control and treatment of each.
    allowed : Allowed
        Differences that are no failure.
    alpha : float, default 0.05
        Chance of a wrong success, and of a wrong failure: at this one look, or ever.
    best_at : int, optional
        Rows of an arm at which the interval is to be the narrowest of all looks. None: there is one look.
    p_before : float, default 1.0
        p value of the look before, where there are several.
    """
    check_level(alpha)
    from scipy.special import ndtri

    n = sum(pair[0].n for pair in strata), sum(pair[1].n for pair in strata)
    side, method = alpha / allowed.sides, f"{len(strata)} strata"
    if not strata or min(arm.n for pair in strata for arm in pair) < 2:
        return unknown("a stratum has fewer than the 2 rows needed in an arm", method, "difference", n, 1 - 2 * side)
    value = variance = of_unit = 0.0
    for control, treatment in strata:
        part = (control.n + treatment.n) / sum(n)
        spreads = [arm.variance if best_at is None else spread(arm) for arm in (control, treatment)]
        value += part * (treatment.mean - control.mean)
        variance += part**2 * (spreads[0] / control.n + spreads[1] / treatment.n)
        of_unit += part * sum(spreads)
    if variance == 0:
        return unknown("all values are the same", method, "difference", n, 1 - 2 * side)
    if best_at is None:
        z, p_value = -float(ndtri(side)), math.erfc(abs(value) / math.sqrt(2 * variance))
    else:  # of ``best_at`` rows in each of two arms the sum of variances is 4 best_at (first + second)
        r = mixture_scale(side) * variance * sum(n) ** 2 / (4 * best_at * of_unit)
        z, p_value = float(mixture_margin(r, side)), min(p_before, mixture_p(value / math.sqrt(variance), r))
    ends = value - z * math.sqrt(variance), value + z * math.sqrt(variance)
    return judge(Contrast("inconclusive", "", method, "difference", *n, value, *ends, 1 - 2 * side, p_value), allowed)


def pool_strata(arms: Sequence[NDArray[np.int64]], least: int) -> list[NDArray[np.int64]]:
    """Strata of the units of every arm, those with fewer units in an arm pooled into one.

    While that rest has too few itself, it takes in the smallest other one; each has units in every arm then, or there
    is one for all.

    Examples
    --------
    >>> [arm.tolist() for arm in pool_strata([np.array([0, 1, 2, 2]), np.array([0, 1, 2, 2])], 2)]
    [[0, 0, 1, 1], [0, 0, 1, 1]]
    """
    names = 1 + max((int(arm.max()) for arm in arms if arm.size), default=0)
    counts = np.stack([np.bincount(arm, minlength=names) for arm in arms])
    order = np.argsort(counts.min(axis=0), kind="stable")
    rest = int((counts.min(axis=0) < least).sum())
    while 0 < rest < names and counts[:, order[:rest]].sum(axis=1).min() < least:
        rest += 1
    places = np.empty(names, dtype=np.int64)
    places[order] = np.maximum(np.arange(names) - max(rest - 1, 0), 0)
    return [places[arm] for arm in arms]


def variance_left(strata: Sequence[tuple[Sums, Sums]]) -> float:
    """Variance of the difference of two means within strata over that of the same units as they are."""
    totals = [sum(arms[1:], arms[0]) for arms in zip(*strata, strict=True)]
    n, before = sum(arm.n for arm in totals), sum(arm.variance / arm.n for arm in totals)
    within = sum((sum(arm.n for arm in pair) / n) ** 2 * sum(arm.variance / arm.n for arm in pair) for pair in strata)
    return within / before if len(strata) > 1 and before > 0 else 1.0
