"""Comparisons that may be looked at after every row: the chance that one is ever wrong is at most ``alpha``.

Both read sums only, so a look costs nothing and nothing is kept between looks but the smallest p value.

- :func:`compare_means` (differences and ratios of means; of rates too where counts are large): a confidence sequence
  from a normal mixture. It is asymptotic, so there is a minimum of rows, and rates have their variance from one success
  and one failure more in each arm.
- :func:`compare_rates` (ratios of rates): exact at any count, one error included. It looks only at which arm each
  success fell in, which is a coin whose bias is the ratio; nothing is estimated, so nothing has to be large.
- :func:`bound_share` (one arm against a limit): exact at any count, for values from 0 to 1.

Rejected: thresholds on rates by window (identical versions are aborted in up to 81 % of rollouts); universal inference,
exact on every scale, which needs two and a half times the rows; e-values of blocks of fixed size (Turner & Grünwald),
which need the order of the rows and arms that keep step.

Rows are independent, and the arms share the traffic in one proportion for as long as sums are added up. Where weights
change, rows before and after are strata of their own.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from retrodict.core.errors import InputError
from retrodict.rollout.statistics.contrast import Allowed, Contrast, Scale, Sums, check_level, fieller, judge, unknown

__all__ = ["bound_share", "compare_means", "compare_rates", "critical_margin", "mixture_margin", "mixture_p",
           "mixture_scale", "ratio_margins", "spread"]  # fmt: skip

Floats = NDArray[np.float64]

_PRIOR = 0.5
"""Weight of the beta mixture, split like the traffic: half an imagined success in all of either arm."""


def mixture_margin(information: ArrayLike, alpha: float) -> Floats:
    """Standard errors that a one-sided confidence sequence reaches on its side of an estimate.

    ``sqrt(2 (r + 1) / r * log(1 + sqrt(r + 1) / (2 alpha)))``, the boundary of a half-normal mixture over the effects
    (Robbins 1970, Annals of Mathematical Statistics 41, 1397-1409; in this form Waudby-Smith, Arbour, Sinha, Kennedy &
    Ramdas 2024, Annals of Statistics 52, 2613-2640, one-sided version). For the difference of two arms ``r`` runs in
    units of information, ``1 / variance``, in which the estimate is a Brownian motion whatever the arms' sizes.

    Parameters
    ----------
    information : array_like of float
        ``r``: information over that of the mixture, above 0.
    alpha : float
        Chance that the estimate ever lies further off on this side.
    """
    r = np.asarray(information, dtype=np.float64)
    margin: Floats = np.sqrt(2 * (r + 1) / r * np.log1p(np.sqrt(r + 1) / (2 * alpha)))
    return margin


def mixture_scale(alpha: float) -> float:
    """Information over the mixture's at which the sequence is the narrowest (Waudby-Smith et al. 2024, appendix)."""
    doubled = -2 * math.log(2 * alpha)
    return doubled + math.log(doubled + 1) + 1


def critical_margin(alpha: float) -> float:
    """Standard errors of :func:`mixture_margin` at the rows at which it is the narrowest."""
    return float(mixture_margin(mixture_scale(alpha), alpha))


def mixture_p(z: float, r: float) -> float:
    """Least two-sided level at which a margin of ``|z|`` is reached: :func:`mixture_margin` solved for alpha."""
    exponent = r * z * z / (2 * (r + 1))
    return min(1.0, math.sqrt(r + 1) / math.expm1(exponent)) if 0 < exponent < 700 else float(exponent == 0)


def compare_means(
    control: Sums,
    treatment: Sums,
    allowed: Allowed,
    *,
    scale: Scale = "difference",
    alpha: float = 0.05,
    min_n: int = 100,
    best_at: int = 1000,
    p_before: float = 1.0,
) -> Contrast:
    """Compare two means at any look.

    Parameters
    ----------
    control, treatment : Sums
        Of all rows so far.
    allowed : Allowed
        Effects that are no failure.
    scale : {"difference", "ratio"}, default "difference"
        Ratios have Fieller's interval, whose ends are infinite until the control's mean is known to be other than 0.
    alpha : float, default 0.05
        Chance that the verdict is ever a wrong success, and that it is ever a wrong failure.
    min_n : int, default 100
        Below so many rows in either arm the contrast is inconclusive.
    best_at : int, default 1000
        Rows of an arm at which the interval is to be the narrowest; fix it before the first look.
    p_before : float, default 1.0
        p value of the look before: a p value never rises.

    Examples
    --------
    >>> at_most = Allowed(at_most=0.01)
    >>> compare_means(Sums.rate(5000, 50), Sums.rate(5000, 250), at_most).verdict
    'failure'
    >>> compare_means(Sums.rate(50, 1), Sums.rate(50, 1), at_most).reason
    '50 rows are fewer than the 100 needed'
    """
    check_level(alpha, scale)
    n, side = (control.n, treatment.n), alpha / allowed.sides
    confidence, method = 1 - 2 * side, "asymptotic confidence sequence"
    if min(n) < max(min_n, 2):
        return unknown(f"{min(n)} rows are fewer than the {max(min_n, 2)} needed", method, scale, n, confidence)
    first, second = spread(control), spread(treatment)
    if first + second == 0:
        return unknown("all values are the same", method, scale, n, confidence)
    variances = first / n[0], second / n[1]
    r = mixture_scale(side) * (first + second) / best_at / sum(variances)
    z = float(mixture_margin(r, side))
    means = control.mean, treatment.mean
    p_value = min(p_before, mixture_p((means[1] - means[0]) / math.sqrt(sum(variances)), r))
    if scale == "difference":
        value, half = means[1] - means[0], z * math.sqrt(sum(variances))
        ends = value - half, value + half
    elif means[0] == 0:
        return unknown("the mean of control is 0: there is no ratio to it", method, scale, n, confidence)
    else:
        value, ends = means[1] / means[0], fieller(means, variances, z)
    contrast = Contrast("inconclusive", "", method, scale, *n, value, *ends, confidence, p_value)
    return judge(contrast, allowed)


def spread(sums: Sums) -> float:
    """Variance of a value; of zeros and ones with one more of either, as one kind alone shows no variance.

    The pseudo-counts are those of Agresti & Caffo 2000 (American Statistician 54, 280-288).
    """
    if sums.is_rate:
        share = (sums.total + 1) / (sums.n + 2)
        return share * (1 - share)
    return sums.variance


def compare_rates(
    control: Sums, treatment: Sums, allowed: Allowed, *, alpha: float = 0.05, p_before: float = 1.0, min_n: int = 1
) -> Contrast:
    """Compare the ratio of two rates at any look, exactly, from the first success on.

    Of all successes so far, those in treatment are a binomial count with the share ``w q / (w q + 1 - w)`` where ``q``
    is the ratio of the rates and ``w`` treatment's part of the traffic. The share has a confidence sequence from a beta
    mixture that is cut at the share in question (Robbins 1970; Howard, Ramdas, McAuliffe & Sekhon 2021, Annals of
    Statistics 49, 1055-1080, section 3 and proposition 7), and the ratio has its image.

    It is for rare things: of errors at 1 % no information is lost; of a rate of a half it takes twice the rows of
    :func:`compare_means` on the scale of ratios.

    Parameters
    ----------
    control, treatment : Sums
        Of zeros and ones (``Sums.rate``).
    allowed : Allowed
        Ratios that are no failure: ``Allowed(at_most=1.1)``.
    alpha : float, default 0.05
        Chance that the verdict is ever a wrong success, and that it is ever a wrong failure.
    p_before : float, default 1.0
        p value of the look before: a p value never rises.
    min_n : int, default 1
        Below so many rows in either arm the contrast is inconclusive.

    Examples
    --------
    >>> one_error = compare_rates(Sums.rate(500, 0), Sums.rate(500, 1), Allowed(at_most=1.1))
    >>> one_error.verdict, round(one_error.low, 3)
    ('inconclusive', 0.029)
    """
    check_level(alpha)
    for sums in (control, treatment):
        if sums.total != sums.squares or not 0 <= sums.total <= sums.n:
            raise InputError("rates must be of zeros and ones", where="statistics", got=(sums.n, sums.total),
                             remedy="Pass Sums.rate(n, successes), or compare means")  # fmt: skip
    n, side = (control.n, treatment.n), alpha / allowed.sides
    confidence, method = 1 - 2 * side, "binomial mixture of successes"
    if min(n) < max(min_n, 1):
        return unknown(f"{min(n)} rows are fewer than the {max(min_n, 1)} needed", method, "ratio", n, confidence)
    if not control.total + treatment.total:
        return unknown("no success in either arm: the ratio is unknown", method, "ratio", n, confidence)
    low, high = ratio_margins(control.total, treatment.total, n[1] / sum(n), side)
    value = math.inf if not control.total else treatment.mean / control.mean
    p_value = _ratio_p(control.total, treatment.total, n[1] / sum(n))
    ends = float(low), float(high)
    contrast = Contrast("inconclusive", "", method, "ratio", *n, value, *ends, confidence, min(p_before, p_value))
    return judge(contrast, allowed)


def bound_share(arm: Sums, allowed: Allowed, *, alpha: float = 0.05) -> Contrast:
    """Judge the mean of values from 0 to 1 at any look, exactly, from the first value on.

    The beta mixture of :func:`compare_rates` on a fair coin; of values between 0 and 1 it stays an e-value, as
    ``exp`` lies below its chord (Hoeffding 1963, Journal of the American Statistical Association 58, 13-30, lemma 1).

    Parameters
    ----------
    arm : Sums
        Of values from 0 to 1.
    allowed : Allowed
        Means that are no failure.
    alpha : float, default 0.05
        Chance that the verdict is ever a wrong success, and that it is ever a wrong failure.

    Examples
    --------
    >>> bound_share(Sums.rate(20, 15), Allowed(at_most=0.3)).verdict
    'failure'
    """
    check_level(alpha)
    side, method = alpha / allowed.sides, "binomial mixture of one arm"
    if not arm.n:
        return unknown("there is no value", method, "difference", (0, 0), 1 - 2 * side)
    counts = np.array([arm.total, max(arm.n - arm.total, 0.0)])
    low, above = _share_bound(counts, counts[::-1], np.full(2, 0.5), side)
    contrast = Contrast("inconclusive", "", method, "difference", 0, arm.n, arm.mean, float(low), 1 - float(above),
                        1 - 2 * side)  # fmt: skip
    verdict = judge(contrast, allowed)
    return replace(verdict, reason=verdict.reason.replace("the difference", "the mean", 1))


def ratio_margins(control: ArrayLike, treatment: ArrayLike, weight: ArrayLike, alpha: float) -> tuple[Floats, Floats]:
    """Ends of the sequence of :func:`compare_rates`, each missed at any look with a chance of at most ``alpha``.

    Parameters
    ----------
    control, treatment : array_like of float
        Successes in either arm.
    weight : array_like of float
        Treatment's part of the traffic, between 0 and 1.
    alpha : float
    """
    first, second, share = np.broadcast_arrays(*(np.asarray(a, dtype=np.float64) for a in (control, treatment, weight)))
    low = _share_bound(second, first, share, alpha)
    high = 1 - _share_bound(first, second, 1 - share, alpha)
    with np.errstate(divide="ignore"):
        return low / (1 - low) * (1 - share) / share, high / (1 - high) * (1 - share) / share


def _share_bound(hits: Floats, misses: Floats, weight: Floats, alpha: float) -> Floats:
    """Largest share below which all are refuted, by halving between 0 and the share observed; never above it."""
    low, high = np.zeros_like(hits), hits / np.maximum(hits + misses, 1)
    for _ in range(24):
        middle = (low + high) / 2
        refuted = _log_evidence(hits, misses, weight, middle) >= -math.log(alpha)
        low, high = np.where(refuted, middle, low), np.where(refuted, high, middle)
    return low


def _log_evidence(hits: Floats, misses: Floats, weight: Floats, share: Floats) -> Floats:
    """Log of the mixture over shares above ``share``, over the likelihood at it: an e-value of every share up to it."""
    from scipy.special import betaincc, betaln, xlog1py, xlogy

    a, b = _PRIOR * 2 * weight, _PRIOR * 2 * (1 - weight)
    with np.errstate(divide="ignore"):
        tail = np.log(betaincc(a + hits, b + misses, share)) - np.log(betaincc(a, b, share))
    likelihood = xlogy(hits, share) + xlog1py(misses, -share)
    evidence: Floats = betaln(a + hits, b + misses) - betaln(a, b) + tail - likelihood
    return evidence


def _ratio_p(control: float, treatment: float, weight: float) -> float:
    """Two-sided p value of equal rates: twice the smaller of the reciprocals of both sides' e-values."""
    sides = np.array([treatment, control]), np.array([control, treatment]), np.array([weight, 1 - weight])
    return min(1.0, 2 * math.exp(-max(float(_log_evidence(*sides, sides[2]).max()), 0.0)))
