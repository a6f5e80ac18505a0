"""Sample-ratio checks: whether arms have the share of units that their weights say.

A mismatch means that units are lost or assigned wrongly, and then no comparison of the arms means anything.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from retrodict.core.display import Record
from retrodict.core.errors import InputError

__all__ = ["SampleRatio", "check_balance"]

_CONCENTRATION = 1000.0
"""Units that the mixture over wrong shares is worth: it looks for shares off by a few points."""


@dataclass(frozen=True, slots=True)
class SampleRatio(Record):
    """Units by arm against their weights.

    Attributes
    ----------
    verdict : {"success", "failure", "inconclusive"}
        Failure: the shares are not those of the weights. Inconclusive: no units.
    reason : str
    n : int
        Units in arms with weight.
    p_value : float or None
    degrees : int
        Arms with weight, less one.
    """

    verdict: Literal["success", "failure", "inconclusive"]
    reason: str
    n: int
    p_value: float | None
    degrees: int


def check_balance(
    units: Mapping[str, int],
    weights: Mapping[str, float],
    *,
    alpha: float = 0.001,
    sequential: bool = True,
    p_before: float = 1.0,
) -> SampleRatio:
    """Test that units fell into arms as their weights say.

    Parameters
    ----------
    units, weights : mapping of str to number
        Units seen, and weights, by arm. Only arms with weight count; a unit in an arm without any is a failure.
    alpha : float, default 0.001
        Chance of a false alarm: at one look, or at all looks together.
    sequential : bool, default True
        True: the sequential multinomial test, a Dirichlet mixture ``Dir(k weights)`` over the likelihood at the weights
        (Lindon & Malek 2022, Anytime-Valid Inference for Multinomial Count Data, NeurIPS 35). False: Pearson's
        chi-square, for one look.
    p_before : float, default 1.0
        p value of the look before, of the sequential test.

    Raises
    ------
    InputError
        If weights are negative, name other arms than units, or fewer than two are above 0.

    Examples
    --------
    >>> check_balance({"control": 5300, "soft": 4700}, {"control": 1, "soft": 1}).verdict
    'failure'
    """
    shares = [weight for weight in weights.values() if weight > 0]
    if set(units) - set(weights) or len(shares) < 2 or min(weights.values()) < 0:
        raise InputError("two arms at least must have weight, units be of weighed arms", where="balance",
                         got=(dict(units), dict(weights)), remedy="Pass both of the same arms")  # fmt: skip
    stray = {name: units[name] for name in units if units[name] and not weights[name]}
    counts = [units.get(name, 0) for name, weight in weights.items() if weight > 0]
    n, expected, degrees = sum(counts), [weight / sum(shares) for weight in shares], len(shares) - 1
    if stray:
        return SampleRatio("failure", f"units in arms without weight: {stray}", n, 0.0, degrees)
    if not n:
        return SampleRatio("inconclusive", "no units", 0, None, degrees)
    p_value = min(p_before, _mixture_p(counts, expected)) if sequential else _pearson_p(counts, expected)
    observed = ", ".join(f"{count / n:.4f}" for count in counts)
    stated = ", ".join(f"{share:.4f}" for share in expected)
    verdict: Literal["success", "failure"] = "failure" if p_value <= alpha else "success"
    reason = f"shares {observed} of {n} units against {stated}: p = {p_value:.3g}, failure at {alpha:g}"
    return SampleRatio(verdict, reason, n, p_value, degrees)


def _pearson_p(counts: list[int], expected: list[float]) -> float:
    from scipy.special import chdtrc

    n = sum(counts)
    statistic = sum((count - n * share) ** 2 / (n * share) for count, share in zip(counts, expected, strict=True))
    return float(chdtrc(len(counts) - 1, statistic))


def _mixture_p(counts: list[int], expected: list[float]) -> float:
    n, k = sum(counts), _CONCENTRATION
    evidence = math.lgamma(k) - math.lgamma(k + n)
    for count, share in zip(counts, expected, strict=True):
        evidence += math.lgamma(k * share + count) - math.lgamma(k * share) - count * math.log(share)
    return min(1.0, math.exp(-evidence)) if evidence > -700 else 1.0
