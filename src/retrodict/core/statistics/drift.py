"""Drift between two count vectors of one profile, judged against its own noise floor.

Every measure here is an exact function of counts, so batch, stream and SQL agree. Bins that are empty in both vectors
are left out everywhere: they say nothing, and would only add degrees of freedom.

A large effect in few rows is noise, a tiny one in many rows is harmless: ``judge`` says drift only if the population
stability index reaches the threshold *and* exceeds what sampling alone would give, and says "not evaluable" when there
are too few rows to know.

The chi-square distribution comes from ``scipy.special``: ``scipy.stats`` has the same and takes a second to import.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from retrodict.core.display import Record
from retrodict.core.errors import InputError
from retrodict.core.statistics.noise import block_noise, row_noise

__all__ = [
    "DriftVerdict",
    "benjamini_hochberg",
    "hellinger_distance",
    "js_distance_bits",
    "js_divergence_bits",
    "judge",
    "judge_features",
    "psi",
    "psi_critical",
    "psi_p_value",
    "total_variation",
]

Floats = NDArray[np.float64]
Status = Literal["drift", "no drift", "not evaluable"]


def _blocks(reference: ArrayLike, current: ArrayLike) -> tuple[Floats, Floats]:
    """Return counts as floats of shape (blocks, bins), without the bins that are empty everywhere."""
    first, second = (np.atleast_2d(np.asarray(side, dtype=np.float64)) for side in (reference, current))
    if first.ndim != 2 or second.ndim != 2 or first.shape[1] != second.shape[1]:
        raise InputError(
            "two count vectors of one profile must have one length",
            where="drift",
            got=(first.shape, second.shape),
            remedy="Count both with the same profile",
        )
    if (first < 0).any() or (second < 0).any():
        raise InputError(
            "counts must not be negative", where="drift", got="a count below 0", remedy="Count with a profile"
        )
    used = (first > 0).any(0) | (second > 0).any(0)
    return first[:, used], second[:, used]


def _pair(reference: ArrayLike, current: ArrayLike) -> tuple[Floats, Floats]:
    """Return the counts of all blocks together."""
    first, second = _blocks(reference, current)
    return first.sum(0), second.sum(0)


def _shares(reference: ArrayLike, current: ArrayLike) -> tuple[Floats, Floats]:
    first, second = _pair(reference, current)
    if not first.sum() or not second.sum():
        raise InputError(
            "drift must have rows on both sides",
            where="drift",
            got=(int(first.sum()), int(second.sum())),
            remedy="Collect rows first",
        )
    return first / first.sum(), second / second.sum()


def psi(reference: ArrayLike, current: ArrayLike, *, pseudo: float = 0.5) -> float:
    """Compute the population stability index ``sum((q - p) ln(q / p))`` in nats (Jeffreys' divergence; Siddiqi 2006).

    Zero handling: ``pseudo`` is added to every bin of both vectors, bins empty in both left out, and the shares are
    taken after that. The index of a sample is therefore always finite, and tends to the plain one as rows grow. Half a
    count (Jeffreys' prior) is the default; a fixed tiny share, the usual choice, lets one row decide the result.

    Parameters
    ----------
    reference, current : array_like of int, shape (bins,)
        Counts of one profile.
    pseudo : float, default 0.5
        Rows added to each bin; 0 only if no used bin is empty.

    Raises
    ------
    InputError
        If lengths differ, a side has no rows, or ``pseudo`` is 0 and a bin is empty on one side.

    Examples
    --------
    >>> round(psi([500, 500], [400, 600], pseudo=0), 4)
    0.0405
    """
    _shares(reference, current)
    first, second = _pair(reference, current)
    if pseudo < 0 or (pseudo == 0 and (not first.all() or not second.all())):
        raise InputError(
            "an empty bin must have a pseudo count above 0", where="psi", got=pseudo, remedy="Pass pseudo=0.5"
        )
    p = (first + pseudo) / (first + pseudo).sum()
    q = (second + pseudo) / (second + pseudo).sum()
    return float(((q - p) * np.log(q / p)).sum())


def _check_sizes(n: int, m: int, bins: int) -> None:
    if n <= 0 or m <= 0 or bins < 1:
        raise InputError(
            "an index must have rows on both sides and a bin",
            where="psi",
            got=(n, m, bins),
            remedy="Collect rows first",
        )


def psi_critical(n: int, m: int, bins: int, *, alpha: float = 0.01) -> float:
    """Value that the index of two samples of one distribution exceeds with probability ``alpha``.

    ``(1/n + 1/m) chi2.ppf(1 - alpha, bins - 1)`` (Yurdakul & Naranjo 2020, Journal of Risk Model Validation 14(4)); the
    bins are those used by either sample. This is the noise floor that drift has to exceed.
    """
    _check_sizes(n, m, bins)
    if not 0 < alpha < 1:
        raise InputError("a level must lie between 0 and 1", where="psi", got=alpha, remedy="Pass alpha=0.05")
    return row_noise(n, m, bins).critical(alpha)


def psi_p_value(value: float, n: int, m: int, bins: int) -> float:
    """Probability that two samples of one distribution reach this index: the inverse of ``psi_critical``."""
    _check_sizes(n, m, bins)
    return row_noise(n, m, bins).p_value(value)


def js_divergence_bits(reference: ArrayLike, current: ArrayLike) -> float:
    """Jensen-Shannon divergence in bits, in [0, 1] (Lin 1991): ``H((p+q)/2) - (H(p) + H(q))/2`` with base 2."""
    p, q = _shares(reference, current)
    middle = (p + q) / 2
    parts = [share[share > 0] * np.log2(share[share > 0] / middle[share > 0]) for share in (p, q)]
    return float(min(max((parts[0].sum() + parts[1].sum()) / 2, 0.0), 1.0))


def js_distance_bits(reference: ArrayLike, current: ArrayLike) -> float:
    """Square root of ``js_divergence_bits``, a metric in [0, 1] (Endres & Schindelin 2003)."""
    return math.sqrt(js_divergence_bits(reference, current))


def total_variation(reference: ArrayLike, current: ArrayLike) -> float:
    """Half the sum of absolute differences of shares: the most that the probability of any set of bins differs."""
    p, q = _shares(reference, current)
    return float(np.abs(p - q).sum() / 2)


def hellinger_distance(reference: ArrayLike, current: ArrayLike) -> float:
    """``sqrt(sum((sqrt p - sqrt q)²) / 2)``, in [0, 1]."""
    p, q = _shares(reference, current)
    return float(math.sqrt(((np.sqrt(p) - np.sqrt(q)) ** 2).sum() / 2))


def benjamini_hochberg(p_values: Sequence[float], *, rate: float = 0.05) -> tuple[list[bool], float]:
    """Which of many hypotheses to reject so that the expected share of false ones among them is at most ``rate``.

    Benjamini & Hochberg 1995 (JRSS B 57, 289-300): the k smallest, k the largest with ``p_(k) <= k/m * rate``. Holds
    for independent and for positively dependent tests.

    Returns
    -------
    rejected : list of bool
        In the order given.
    level : float
        Level at which each p value was tested in the end: ``k/m * rate``, or ``rate/m`` when nothing is rejected.
    """
    if not 0 < rate < 1:
        raise InputError("a false-discovery rate must lie between 0 and 1", where="drift", got=rate, remedy="Pass 0.05")
    ordered = sorted(p_values)
    passed = [k for k, p in enumerate(ordered, start=1) if p <= k / len(ordered) * rate]
    level = max(passed, default=1) / max(len(ordered), 1) * rate
    return [bool(passed) and p <= level for p in p_values], level


@dataclass(frozen=True, slots=True)
class DriftVerdict(Record):
    """What one feature's counts say.

    Attributes
    ----------
    status : {"drift", "no drift", "not evaluable"}
    reason : str
        One sentence with the numbers that decided.
    psi, critical_value, p_value, js_distance_bits : float or None
        None when not evaluable. ``critical_value`` is the noise floor of the index at the level used.
    n_reference, n_current : int
        Rows counted.
    """

    status: Status
    reason: str
    psi: float | None = None
    critical_value: float | None = None
    p_value: float | None = None
    js_distance_bits: float | None = None
    n_reference: int = 0
    n_current: int = 0


def judge(
    reference: ArrayLike,
    current: ArrayLike,
    *,
    threshold: float = 0.1,
    alpha: float = 0.01,
    min_rows: int = 100,
) -> DriftVerdict:
    """Judge one feature: drift only if the index reaches the threshold and exceeds its noise floor.

    Parameters
    ----------
    reference, current : array_like of int, shape (bins,) or (blocks, bins)
        Counts of one profile. By block of time, all of one length, the noise floor is that of rows that depend on each
        other within a block (:func:`~retrodict.core.statistics.noise.block_noise`); without blocks rows are taken as
        independent (``psi_critical``). One side may have blocks and the other not.
    threshold : float, default 0.1
        Smallest index that matters (the usual rule of thumb: 0.1 moderate, 0.25 large).
    alpha : float, default 0.01
        Probability of calling equal distributions different, were the threshold 0.
    min_rows : int, default 100
        Fewer rows on either side are not evaluable.
    """
    blocks = _blocks(reference, current)
    first, second = (side.sum(0) for side in blocks)
    n, m = int(first.sum()), int(second.sum())
    if min(n, m) < max(min_rows, 1):
        side = "reference" if n < m else "current"
        reason = f"{min(n, m)} {side} rows are fewer than the {max(min_rows, 1)} needed"
        return DriftVerdict("not evaluable", reason, n_reference=n, n_current=m)
    value, noise = psi(first, second), block_noise(*blocks)
    rows = row_noise(n, m, len(first))
    # Far from equal the index grows faster than the chi-square that its noise follows: the floor grows with it.
    growth = 1.0 if noise == rows or not value else value / max(_triangular(first, second), 1e-300)
    floor, p_value = growth * noise.critical(alpha), noise.p_value(value / growth)
    worth = f"{n} and {m} rows"
    if noise != rows:
        worth += f" in {' and '.join(str(len(side)) for side in blocks if len(side) > 1)} blocks of time"
    status: Status = "no drift"
    if value < threshold:
        reason = f"psi {value:.4g} is below the threshold {threshold:g}"
    elif not value > floor:
        reason = f"psi {value:.4g} is within the noise floor {floor:.4g} of {worth}"
    else:
        status = "drift"
        reason = f"psi {value:.4g} reaches the threshold {threshold:g} and exceeds the noise floor {floor:.4g}"
    return DriftVerdict(status, reason, value, floor, p_value, js_distance_bits(first, second), n, m)


def _triangular(reference: Floats, current: Floats) -> float:
    """``sum((q - p)² / ((p + q) / 2))``, which the index tends to as the shares come near each other."""
    p, q = reference / reference.sum(), current / current.sum()
    return float((2 * (q - p) ** 2 / (p + q)).sum())


def judge_features(
    counts: Mapping[str, tuple[ArrayLike, ArrayLike]],
    *,
    threshold: float = 0.1,
    rate: float = 0.01,
    min_rows: int = 100,
) -> dict[str, DriftVerdict]:
    """Judge many features at once, the false-discovery rate over the evaluable ones held at ``rate``.

    Parameters
    ----------
    counts : mapping of name to (reference counts, current counts)
        As in ``judge``.
    threshold, min_rows
        As in ``judge``.
    rate : float, default 0.01
        Benjamini-Hochberg rate; the noise floor of each verdict is at the level it gives.
    """
    first = {name: judge(*pair, threshold=threshold, alpha=rate, min_rows=min_rows) for name, pair in counts.items()}
    _, level = benjamini_hochberg([v.p_value for v in first.values() if v.p_value is not None], rate=rate)
    return {name: judge(*pair, threshold=threshold, alpha=level, min_rows=min_rows) for name, pair in counts.items()}
