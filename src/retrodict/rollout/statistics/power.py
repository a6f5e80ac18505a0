"""How many units an experiment needs, and what it can see with those it gets.

All by the normal approximation of a difference of two means with variances known from history (Chow, Shao & Wang 2008,
Sample Size Calculations in Clinical Research, chapters 3 and 4): of a rate the variance is ``p (1 - p)``, of a ratio
that of its linearised values, with a covariate what it leaves of either.
"""

from __future__ import annotations

import math

from retrodict.core.errors import InputError
from retrodict.rollout.statistics.sequential import critical_margin

__all__ = ["detectable_effect", "sample_size"]


def sample_size(
    variance: float,
    effect: float,
    *,
    alpha: float = 0.05,
    power: float = 0.8,
    share: float = 0.5,
    sequential: bool = False,
) -> int:
    """Units of both arms together.

    Parameters
    ----------
    variance : float
        Of one unit's value.
    effect : float
        Difference of means to be seen, in the units of the value.
    alpha : float, default 0.05
        Two-sided level.
    power : float, default 0.8
        Chance to see the effect at that number of units; with a sequential analysis by then or earlier, at least.
    share : float, default 0.5
        Treatment's part of the units.
    sequential : bool, default False
        Whether every look counts: the margin is then that of ``compare_means`` with ``best_at`` at this size.

    Examples
    --------
    >>> sample_size(0.1 * 0.9, 0.02), sample_size(0.1 * 0.9, 0.02, sequential=True)
    (7064, 13571)
    """
    _check(variance=variance, effect=abs(effect), share=share, rest=1 - share)
    _check(power=power, rest=1 - power, alpha=alpha)
    return math.ceil(variance * ((_margin(alpha, sequential) + _quantile(power)) / effect) ** 2 / (share * (1 - share)))


def detectable_effect(
    variance: float, n: float, *, alpha: float = 0.05, power: float = 0.8, share: float = 0.5, sequential: bool = False
) -> float:
    """Smallest effect that so many units of both arms show with this power; parameters as of :func:`sample_size`."""
    _check(variance=variance, n=n, share=share, rest=1 - share)
    return (_margin(alpha, sequential) + _quantile(power)) * math.sqrt(variance / (n * share * (1 - share)))


def _margin(alpha: float, sequential: bool) -> float:
    return critical_margin(alpha / 2) if sequential else _quantile(1 - alpha / 2)


def _quantile(p: float) -> float:
    from scipy.special import ndtri

    return float(ndtri(p))


def _check(**values: float) -> None:
    if any(not value > 0 for value in values.values()):
        raise InputError("variance, effect and units must be above 0, shares and chances between 0 and 1",
                         where="power", got=values, remedy="Correct the number")  # fmt: skip
