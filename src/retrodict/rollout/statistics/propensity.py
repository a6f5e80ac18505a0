"""From units that were assigned at random with known weights: what a rule would bring, and who gets more next.

A unit counts by one over the weight of the variant it got, so that changed weights and a trend in time cancel out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from retrodict.core.errors import InputError
from retrodict.rollout.statistics.contrast import Sums
from retrodict.rollout.statistics.fixed import linearise

__all__ = ["chances_of_best", "cross_fit", "rule_value", "thompson_weights"]

Floats = NDArray[np.float64]
Places = NDArray[np.intp]
_POINTS = 4_000


def rule_value(
    above: Floats, below: Floats, arm: Places, choice: Places, weight: Floats, expected: Floats | None = None
) -> dict[str, Floats]:
    """Value of a rule that chooses a variant for every unit, from units that got one at random.

    Inverse propensities (Horvitz & Thompson 1952, JASA 47, 663-685), the same normalised by themselves (Swaminathan &
    Joachims 2015, NeurIPS 28), and doubly robust (Dudik, Langford & Li 2011, ICML), each of a ratio of sums: the
    mean of what is returned is the value, its variance by n that of the value, and differences of two rules are paired.

    Parameters
    ----------
    above, below : ndarray of float, shape (units,)
        Numerator and denominator of the metric; ``"ips"`` and ``"dr"`` take it that variants do not change ``below``.
    arm, choice : ndarray of int, shape (units,)
        Places of the variant that a unit got, and of the one that the rule chooses.
    weight : ndarray of float, shape (units,)
        Probability of the variant that was assigned, above 0.
    expected : ndarray of float, shape (units, variants), optional
        Foretold value of the metric, made without the unit itself (:func:`cross_fit`). None: no ``"dr"``.

    Raises
    ------
    InputError
        If a weight is not above 0, or no unit got what the rule chooses.
    """
    if not (weight > 0).all():
        raise InputError("weights of variants must be above 0", where="statistics", got=float(weight.min()),
                         remedy="Leave out units that could not get their variant")  # fmt: skip
    factor = (arm == choice) / weight
    values = {"ips": linearise(factor * above, below), "snips": linearise(factor * above, factor * below)}
    if expected is not None:
        rows = np.arange(arm.size)
        rest = factor * (above - below * expected[rows, arm])
        values["dr"] = linearise(below * expected[rows, choice] + rest, below)
    return values


def cross_fit(above: Floats, below: Floats, arm: Places, features: Floats, variants: int, folds: int = 2) -> Floats:
    """Foretell the metric of every unit under every variant by least squares on the units of the other folds.

    Parameters
    ----------
    above, below, arm
        As of :func:`rule_value`.
    features : ndarray of float, shape (units, features)
        Known before assignment; a constant is added.
    variants : int
    folds : int, default 2
        A unit's fold is its place modulo this.

    Returns
    -------
    ndarray of float, shape (units, variants)
    """
    design = np.column_stack([np.ones(above.size), features])
    fold, expected = np.arange(above.size) % folds, np.zeros((above.size, variants))
    for place in range(folds):
        for variant in range(variants):
            rows = (fold != place) & (arm == variant)
            root = np.sqrt(below[rows])
            target = np.divide(above[rows], below[rows], out=np.zeros(root.size), where=root > 0)
            fit = np.linalg.lstsq(design[rows] * root[:, None], target * root, rcond=1e-9)[0]
            expected[fold == place, variant] = design[fold == place] @ fit
    return expected


def chances_of_best(means: Sequence[float], deviations: Sequence[float]) -> list[float]:
    """Chance of each of several independent normal values to be the highest, without a seed, to three digits.

    Examples
    --------
    >>> [round(chance, 3) for chance in chances_of_best([0.0, 1.0], [1.0, 1.0])]
    [0.24, 0.76]
    """
    from scipy.special import ndtr, ndtri

    quantiles = ndtri((np.arange(_POINTS) + 0.5) / _POINTS)
    chances = [
        float(np.prod([ndtr((mean + deviation * quantiles - other) / of_other)
                       for j, (other, of_other) in enumerate(zip(means, deviations, strict=True)) if j != i],
                      axis=0).mean())
        for i, (mean, deviation) in enumerate(zip(means, deviations, strict=True))
    ]  # fmt: skip
    return [chance / sum(chances) for chance in chances]


def thompson_weights(
    arms: Mapping[str, Sums], *, floor: float, higher: bool = True, least: int = 30
) -> dict[str, float]:
    """Weights of variants by the chance of each to be the best (Thompson 1933, Biometrika 25, 285-294), with a floor.

    A mean's deviation is never taken below that of all variants together: one that saw no event yet knows little.

    Parameters
    ----------
    arms : mapping of str to Sums
    floor : float
        Least weight of every variant; at most 1 by their number.
    higher : bool, default True
        Whether more is better.
    least : int, default 30
        Values that every variant must have.

    Returns
    -------
    dict of str to float
        Adding up to 1; empty while a variant has fewer values, or all of them are the same.

    Examples
    --------
    >>> weights = thompson_weights({"a": Sums.rate(500, 50), "b": Sums.rate(500, 100)}, floor=0.1)
    >>> round(weights["b"], 4)
    0.9
    """
    if not 0 <= floor <= 1 / len(arms):
        raise InputError("a floor must be from 0 to 1 by the number of variants", where="statistics", got=floor,
                         remedy="Write floor=0.05")  # fmt: skip
    n = sum(arm.n for arm in arms.values())
    pooled = sum(arm.n * arm.variance for arm in arms.values()) / n if min(a.n for a in arms.values()) > 1 else 0.0
    if pooled == 0 or min(arm.n for arm in arms.values()) < least:
        return {}
    means = [arm.mean if higher else -arm.mean for arm in arms.values()]
    chances = chances_of_best(means, [math.sqrt(max(arm.variance, pooled) / arm.n) for arm in arms.values()])
    spare = 1 - len(arms) * floor
    return {name: floor + spare * chance for name, chance in zip(arms, chances, strict=True)}
