"""Group sequential designs: a few planned looks, for hardly more units than one look takes.

The boundary spends the level as information comes in (Lan & DeMets 1983, Biometrika 70, 659-663), so a look need not be
where it was planned: it takes what its fraction allows less what earlier looks took. Chances come from the joint
distribution of the looks, a Brownian motion at the fractions, whose density inside of the boundary is carried from look
to look (Armitage, McPherson & Rowe 1969, JRSS A 132, 235-244; Jennison & Turnbull 2000, chapter 19).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from retrodict.core.errors import InputError, check_known

__all__ = ["SPENDINGS", "boundaries", "exit_chances", "inflation", "repeated_p", "spent_level"]

SPENDINGS = ("obrien-fleming", "pocock")
_FURTHEST = 8.0
"""Standard errors beyond which no chance is left to spend."""


def spent_level(fraction: float, alpha: float, spending: str = "obrien-fleming") -> float:
    """Part of a two-sided level that may be spent by a fraction of the planned information; all of it from 1 on.

    Lan & DeMets 1983: ``4 (1 - Phi(z(alpha / 4) / sqrt(t)))`` is like O'Brien & Fleming's boundary, little at first;
    ``alpha log(1 + (e - 1) t)`` like Pocock's, alike at all looks.
    """
    from scipy.special import ndtr, ndtri

    check_known(spending, SPENDINGS, "a spending function must be one of these", where="statistics", what="name")
    t = min(fraction, 1.0)
    if spending == "pocock":
        return alpha * math.log1p((math.e - 1) * t)
    return 4 * float(ndtr(ndtri(alpha / 4) / math.sqrt(max(t, 1e-12))))


def exit_chances(bounds: Sequence[float], fractions: Sequence[float], drift: float = 0.0) -> list[float]:
    """Chance to be outside of ``±bounds`` at each look and at none before; ``drift``: mean of z at a fraction of 1."""
    return [chance for _, chance in _walk(fractions, lambda look, _: bounds[look], drift)]


@lru_cache(maxsize=512)
def boundaries(
    fractions: tuple[float, ...], *, alpha: float = 0.05, spending: str = "obrien-fleming"
) -> tuple[float, ...]:
    """Standard errors, by look, that an effect must exceed for a two-sided level over all looks.

    Parameters
    ----------
    fractions : tuple of float
        Information at each look so far, over the planned one, rising; the last one may be above 1.
    alpha : float, default 0.05
    spending : {"obrien-fleming", "pocock"}, default "obrien-fleming"

    Examples
    --------
    >>> [round(bound, 3) for bound in boundaries((0.5, 1.0))]
    [2.963, 1.969]
    """
    from scipy.optimize import brentq

    spent = [0.0, *(spent_level(fraction, alpha, spending) for fraction in fractions)]

    def bound(look: int, outside: Callable[[float], float]) -> float:
        level = spent[look + 1] - spent[look]
        return float(brentq(lambda z: outside(z) - level, 0.0, _FURTHEST)) if outside(_FURTHEST) < level else _FURTHEST

    return tuple(z for z, _ in _walk(fractions, bound))


def repeated_p(p_value: float, fractions: tuple[float, ...], spending: str = "obrien-fleming") -> float:
    """Least level at which the last look, of this two-sided p value by itself, crosses its boundary.

    A p value over all looks (Jennison & Turnbull 2000, section 9.5), as is the least one of several looks.
    """
    from scipy.special import ndtri

    z, low, high = -float(ndtri(p_value / 2)), 1e-12, 1.0
    for _ in range(20):
        middle = math.sqrt(low * high)
        crossed = boundaries(fractions, alpha=middle, spending=spending)[-1] <= z
        low, high = (low, middle) if crossed else (middle, high)
    return high


def inflation(looks: int, *, alpha: float = 0.05, power: float = 0.8, spending: str = "obrien-fleming") -> float:
    """Units of a design with so many equally spaced looks, over those of one look with the same power.

    Examples
    --------
    >>> round(inflation(5), 3), round(inflation(5, spending="pocock"), 3)
    (1.025, 1.212)
    """
    from scipy.optimize import brentq
    from scipy.special import ndtri

    fractions = tuple(look / looks for look in range(1, looks + 1))
    bounds, once = boundaries(fractions, alpha=alpha, spending=spending), float(ndtri(1 - alpha / 2) + ndtri(power))
    drift = float(brentq(lambda mean: sum(exit_chances(bounds, fractions, mean)) - power, 0.5 * once, 2 * once))
    return (drift / once) ** 2


def _walk(
    fractions: Sequence[float], choose: Callable[[int, Callable[[float], float]], float], drift: float = 0.0
) -> list[tuple[float, float]]:
    """Bound of each look, as chosen from the chance outside of any, and the chance outside of it."""
    steps = np.diff(fractions, prepend=0.0)
    if not steps.size or steps.min() <= 0:
        raise InputError("fractions of information must be above 0 and rise", where="statistics", got=list(fractions),
                         remedy="Pass those of the looks so far")  # fmt: skip
    steps = np.maximum(steps, 1e-3)
    points, parts = _legendre(64 if steps.min() >= 0.02 else 512)  # a short step needs them dense
    nodes, density, looks = np.zeros(1), np.ones(1), []
    for look, (fraction, step) in enumerate(zip(accumulate(steps), steps, strict=True)):
        means, deviation = nodes + drift * step, math.sqrt(step)
        outside = partial(_outside, math.sqrt(fraction), means, deviation, density)
        bound = choose(look, outside)
        looks.append((bound, outside(bound)))
        end = bound * math.sqrt(fraction)
        nodes = points * end
        kernel = np.exp(-(((nodes[:, None] - means) / deviation) ** 2) / 2) / (deviation * math.sqrt(2 * math.pi))
        density = parts * end * (kernel @ density)
    return looks


def _outside(
    root: float, means: NDArray[np.float64], deviation: float, density: NDArray[np.float64], z: float
) -> float:
    from scipy.special import ndtr

    return float(density @ (ndtr((-z * root - means) / deviation) + ndtr((means - z * root) / deviation)))


@lru_cache(maxsize=2)
def _legendre(size: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return np.polynomial.legendre.leggauss(size)
