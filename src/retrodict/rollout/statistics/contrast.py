"""What two arms came to: the one summary that every comparison reads, and the one result that every comparison gives.

A verdict is read off an interval and a region of allowed effects, in one place. So "better than control", "not worse by
a margin", "within a margin" and "at most 1.1 times" are four regions and no four tests, and direction is the region's
business: the methods know no good and no bad.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from retrodict.core.display import Record
from retrodict.core.errors import InputError, check_known

__all__ = ["SCALES", "Allowed", "Contrast", "Scale", "Sums", "check_level", "fieller", "judge", "unknown"]

Scale = Literal["difference", "ratio"]
Verdict = Literal["success", "failure", "inconclusive"]

SCALES: dict[str, float] = {"difference": 0.0, "ratio": 1.0}
"""Scales of a contrast, with the value that means no effect: treatment minus control, treatment over control."""


@dataclass(frozen=True, slots=True)
class Sums:
    """Count, sum and sum of squares of one arm's values: all that a comparison of means reads. Sums add.

    Examples
    --------
    >>> both = Sums.of([1.0, 2.0]) + Sums.of([6.0])
    >>> both.n, both.mean, both.variance
    (3, 3.0, 7.0)
    >>> Sums.rate(200, 5).mean
    0.025
    """

    n: int
    total: float
    squares: float

    def __post_init__(self) -> None:
        if self.n < 0 or not math.isfinite(self.total) or not math.isfinite(self.squares) or self.squares < 0:
            raise InputError("sums must be of finite values, with a count of 0 or more", where="statistics",
                             got=(self.n, self.total, self.squares), remedy="Leave out what is null first")  # fmt: skip

    @classmethod
    def of(cls, values: ArrayLike) -> Sums:
        """Sums of finite values."""
        array = np.asarray(values, dtype=np.float64)
        return cls(array.size, float(array.sum()), float((array * array).sum()))

    @classmethod
    def rate(cls, n: int, successes: int) -> Sums:
        """Sums of n values of which so many are 1 and the others 0."""
        if not 0 <= successes <= n:
            raise InputError("successes must lie between 0 and n", where="statistics", got=(successes, n),
                             remedy="Pass n and the count of successes")  # fmt: skip
        return cls(n, float(successes), float(successes))

    def __add__(self, other: Sums) -> Sums:
        return Sums(self.n + other.n, self.total + other.total, self.squares + other.squares)

    @property
    def mean(self) -> float:
        """Mean; NaN of nothing."""
        return self.total / self.n if self.n else math.nan

    @property
    def is_rate(self) -> bool:
        """Whether they are of zeros and ones."""
        return self.total == self.squares and 0 <= self.total <= self.n

    @property
    def variance(self) -> float:
        """Variance with n - 1; NaN below two values. Of values far from 0 take off a round number first."""
        return max(self.squares - self.n * self.mean**2, 0.0) / (self.n - 1) if self.n > 1 else math.nan


@dataclass(frozen=True, slots=True)
class Allowed:
    """Effects that are allowed: the region that a verdict is about, both ends included.

    Parameters
    ----------
    at_least, at_most : float, optional
        Ends on the scale of the comparison. ``at_least=0`` of a difference: no worse where higher is better;
        ``at_most=0.005``: not worse by more than 0.005 where lower is better; both: within; ``at_most=1.1`` of a
        ratio: at most 1.1 times. One at least is needed.
    """

    at_least: float = -math.inf
    at_most: float = math.inf

    def __post_init__(self) -> None:
        if not self.at_least <= self.at_most or not self.sides:
            raise InputError("a region of allowed effects must have an end, the lower one first", where="statistics",
                             got=(self.at_least, self.at_most), remedy="Pass Allowed(at_most=0.01)")  # fmt: skip

    @property
    def sides(self) -> int:
        """Ends that there are: an error at either one is an error of the verdict."""
        return math.isfinite(self.at_least) + math.isfinite(self.at_most)

    def __str__(self) -> str:
        if self.sides == 2:
            return f"between {self.at_least:g} and {self.at_most:g}"
        return f"at least {self.at_least:g}" if math.isfinite(self.at_least) else f"at most {self.at_most:g}"


@dataclass(frozen=True, slots=True)
class Contrast(Record):
    """Treatment against control, on a named scale.

    Attributes
    ----------
    verdict : {"success", "failure", "inconclusive"}
        Success: the whole interval is allowed. Failure: none of it is. Everything else, too little data included, is
        inconclusive.
    reason : str
        One sentence with the numbers that decided.
    method, scale : str
        Which test, and whether the effect is a difference or a ratio.
    n_control, n_treatment : int
    value, low, high : float or None
        Effect and the ends of its interval; None where not evaluable. Ends may be infinite.
    confidence : float
        Of the interval.
    p_value : float or None
        Of no effect at all, two-sided; of a sequential method valid at any look, and never rising.
    """

    verdict: Verdict
    reason: str
    method: str
    scale: Scale
    n_control: int
    n_treatment: int
    value: float | None = None
    low: float | None = None
    high: float | None = None
    confidence: float = 0.95
    p_value: float | None = None


def judge(contrast: Contrast, allowed: Allowed) -> Contrast:
    """The contrast with the verdict that its interval gives on a region; without an interval it stays inconclusive."""
    if contrast.value is None or contrast.low is None or contrast.high is None:
        return contrast
    inside = allowed.at_least <= contrast.low and contrast.high <= allowed.at_most
    outside = contrast.high < allowed.at_least or contrast.low > allowed.at_most
    verdict: Verdict = "success" if inside else "failure" if outside else "inconclusive"
    word = {"success": "is shown to be", "failure": "is shown not to be", "inconclusive": "may or may not be"}[verdict]
    span = f"{contrast.low:.4g} to {contrast.high:.4g} at {contrast.confidence:.4g}"
    reason = f"the {contrast.scale} {contrast.value:.4g} ({span}) {word} {allowed}"
    return replace(contrast, verdict=verdict, reason=reason)


def unknown(reason: str, method: str, scale: Scale, n: tuple[int, int], confidence: float) -> Contrast:
    """A contrast that is not evaluable, and why."""
    return Contrast("inconclusive", reason, method, scale, *n, confidence=confidence)


def check_level(alpha: float, scale: str = "difference") -> None:
    """Refuse a level outside 0 to 0.5, and a scale that is none."""
    check_known(scale, tuple(SCALES), "a scale must be a difference or a ratio", where="statistics", what="scale")
    if not 0 < alpha < 0.5:
        raise InputError("a level must lie between 0 and 0.5", where="statistics", got=alpha, remedy="Pass 0.05")


def fieller(means: tuple[float, float], variances: tuple[float, float], z: float) -> tuple[float, float]:
    """Ends of the interval of ``means[1] / means[0]``: ratios whose contrast is within z standard errors of 0.

    Fieller 1954 (JRSS B 16, 175-185), for independent means; infinite where control's mean is not told from 0.
    """
    lead = means[0] ** 2 - z * z * variances[0]
    if lead <= 0:
        return -math.inf, math.inf
    middle = means[0] * means[1]
    root = math.sqrt(max(middle**2 - lead * (means[1] ** 2 - z * z * variances[1]), 0.0))
    return (middle - root) / lead, (middle + root) / lead
