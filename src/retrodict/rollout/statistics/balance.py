"""Sample-ratio checks: whether arms have the share of units that their weights say.

A mismatch means that units are lost or assigned wrongly, and then no comparison of the arms means anything.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from retrodict.core.display import Record
from retrodict.core.errors import InputError

__all__ = ["SampleRatio", "check_balance", "check_outcomes"]

_CONCENTRATIONS = (10.0, 1000.0)
"""Units that mixtures over wrong shares are worth: arms that are all but empty, and shares off by a few points."""


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
    units: Mapping[str, int] | Sequence[Mapping[str, int]],
    weights: Mapping[str, float] | Sequence[Mapping[str, float]],
    *,
    alpha: float = 0.001,
    sequential: bool = True,
    p_before: float = 1.0,
) -> SampleRatio:
    """Test that units fell into arms as their weights say.

    Parameters
    ----------
    units, weights : mapping of str to number, or sequences of them
        Units seen, and weights, by arm. Only arms with weight count; a unit in an arm without any is a failure. Where
        weights changed: one of each for every stratum of time. The evidence of strata multiplies, as the weights of a
        stratum are known before its units come.
    alpha : float, default 0.001
        Chance of a false alarm: at one look, or at all looks together.
    sequential : bool, default True
        True: the sequential multinomial test, Dirichlet mixtures ``Dir(k weights)``, one narrow and one wide, over the
        likelihood at the weights (Lindon & Malek 2022, Anytime-Valid Inference for Multinomial Count Data, NeurIPS 35).
        False: Pearson's chi-square, for one look.
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
    strata = zip([units] if isinstance(units, Mapping) else units,
                 [weights] if isinstance(weights, Mapping) else weights, strict=True)  # fmt: skip
    counts, stated, stray, evidence, statistic, degrees = Counter[str](), Counter[str](), Counter[str](), 0.0, 0.0, 0
    for arms, parts in strata:
        positive = {name: weight for name, weight in parts.items() if weight > 0}
        if set(arms) - set(parts) or len(positive) < 2 or min(parts.values()) < 0:
            raise InputError("two arms at least must have weight, units be of weighed arms", where="balance",
                             got=(dict(arms), dict(parts)), remedy="Pass both of the same arms")  # fmt: skip
        shares = {name: weight / sum(positive.values()) for name, weight in positive.items()}
        stray.update({name: count for name, count in arms.items() if count and name not in shares})
        of_arms, expected = [arms.get(name, 0) for name in shares], list(shares.values())
        counts.update(dict(zip(shares, of_arms, strict=True)))
        stated.update({name: share * sum(of_arms) for name, share in shares.items()})
        evidence += _log_evidence(of_arms, expected)
        statistic += _pearson(of_arms, expected)
        degrees += len(shares) - 1
    n = sum(counts.values())
    if stray:
        return SampleRatio("failure", f"units in arms without weight: {dict(stray)}", n, 0.0, degrees)
    if not n:
        return SampleRatio("inconclusive", "no units", 0, None, degrees)
    if sequential:
        p_value = min(p_before, 1.0, math.exp(-max(evidence, 0.0)))
    else:
        from scipy.special import chdtrc

        p_value = float(chdtrc(degrees, statistic))
    observed, due = (", ".join(f"{arms[name] / n:.4f}" for name in counts) for arms in (counts, stated))
    verdict: Literal["success", "failure"] = "failure" if p_value <= alpha else "success"
    reason = f"shares {observed} of {n} units against {due}: p = {p_value:.3g}, failure at {alpha:g}"
    return SampleRatio(verdict, reason, n, p_value, degrees)


def check_outcomes(
    came: Sequence[Mapping[str, int]],
    missing: Sequence[Mapping[str, int]],
    weights: Sequence[Mapping[str, float]],
    *,
    alpha: float = 0.001,
) -> SampleRatio:
    """Test that outcomes come alike in all arms: units with one fell into them by their weights, as those without.

    Parameters
    ----------
    came, missing : sequence of mapping of str to int
        Units by arm whose outcome is known, and whose outcome is due and did not come; of each stratum of time.
    weights : sequence of mapping of str to float
    alpha : float, default 0.001
        Chance of a false alarm at all looks together, for outcomes that do not change any more; half of it for either.
        One that comes late after all takes its part of an alarm back.

    Examples
    --------
    >>> halves = {"control": 0.5, "soft": 0.5}
    >>> check_outcomes([{"control": 500, "soft": 420}], [{"control": 0, "soft": 80}], [halves]).verdict
    'failure'
    """
    parts = [check_balance(counts, weights, alpha=alpha / 2) for counts in (came, missing)]
    n = sum(one.n for one in parts)
    if not n:
        return SampleRatio("inconclusive", "no outcome is due yet", 0, None, parts[0].degrees)
    p_value = min(1.0, 2 * min(1.0 if one.p_value is None else one.p_value for one in parts))
    arms = [f"{name} {sum(arms.get(name, 0) for arms in came):,} and {sum(arms.get(name, 0) for arms in missing):,}"
            for name in dict.fromkeys(name for arms in weights for name in arms)]  # fmt: skip
    failed = any(one.verdict == "failure" for one in parts)
    reason = f"units with an outcome and without one though it is due: {', '.join(arms)}; p = {p_value:.3g}"
    return SampleRatio("failure" if failed else "success", reason, n, p_value, parts[0].degrees)


def _pearson(counts: list[int], expected: list[float]) -> float:
    n = sum(counts)
    return sum((count - n * share) ** 2 / (n * share) for count, share in zip(counts, expected, strict=True) if n)


def _log_evidence(counts: list[int], expected: list[float]) -> float:
    """Of the mean of the mixtures, which is evidence as each of them is."""
    evidence = [_log_mixture(counts, expected, k) for k in _CONCENTRATIONS]
    largest = max(evidence)
    return largest + math.log(sum(math.exp(one - largest) for one in evidence) / len(evidence))


def _log_mixture(counts: list[int], expected: list[float], k: float) -> float:
    evidence = math.lgamma(k) - math.lgamma(k + sum(counts))
    for count, share in zip(counts, expected, strict=True):
        evidence += math.lgamma(k * share + count) - math.lgamma(k * share) - count * math.log(share)
    return evidence
