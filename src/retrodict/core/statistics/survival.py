"""Times to an event that is not always seen: how they are written, Kaplan-Meier, and counts of ordered pairs.

A time is one number, the *signed days* of a row: days until its event, or less the days after which it was last seen
without one. So it passes wherever a label does: rows are taken, stored and weighted as those of any other task.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from retrodict.core.durations import DAY

__all__ = ["SHORTEST", "censor", "concordant_masses", "event_by", "kaplan_meier", "step_at"]

Floats = NDArray[np.float64]

SHORTEST = 1 / DAY
"""Days of an event at the moment of the decision: the resolution of the clock, since zero has no sign to trust."""


def censor(labels: Floats, limits: Floats) -> Floats:
    """Signed days as they were seen after so many days at most; an event at the very limit was not seen yet."""
    return np.where(np.abs(labels) < limits, labels, np.where(np.isnan(labels), np.nan, -limits))


def kaplan_meier(
    labels: Floats, weights: Floats | None = None, *, of_censoring: bool = False
) -> tuple[Floats, Floats, Floats]:
    """Product-limit estimate of the share without an event (Kaplan & Meier 1958), with Greenwood's variance.

    Parameters
    ----------
    labels : ndarray of shape (n,)
        Signed days, none NaN.
    weights : ndarray of shape (n,), optional
    of_censoring : bool, default False
        Whether the end of follow-up is what happens. Events come first where both are at one time.

    Returns
    -------
    times, shares, sums : ndarray of shape (m,)
        Distinct days, the share right after each, and the sum of which Greenwood's variance is ``share² sum``.
    """
    times, place = np.unique(np.abs(labels), return_inverse=True)
    mass = np.ones(len(labels)) if weights is None else weights
    events, ends = (np.bincount(place, mass * part, len(times)) for part in (labels > 0, labels < 0))
    risk = np.cumsum((events + ends)[::-1])[::-1]
    hits, risk = (ends, risk - events) if of_censoring else (events, risk)
    rates: Floats = np.divide(hits, risk, out=np.zeros(len(times)), where=risk > 0).clip(0.0, 1.0)
    left: Floats = risk * (1.0 - rates)
    sums: Floats = np.divide(rates, left, out=np.zeros(len(times)), where=left > 0)
    return times.astype(np.float64), np.cumprod(1.0 - rates, dtype=np.float64), np.cumsum(sums, dtype=np.float64)


def step_at(times: Floats, values: Floats, moments: Floats, *, start: float, before: bool = False) -> Floats:
    """Value of a step function at some moments, or just before them."""
    places = np.searchsorted(times, moments, side="left" if before else "right")
    return np.concatenate([[start], values])[places]


def event_by(labels: Floats, horizons: Floats, weights: Floats | None = None) -> Floats:
    """Share of rows with an event within each horizon, in days, by Kaplan-Meier."""
    times, shares, _ = kaplan_meier(labels, weights)
    return 1.0 - step_at(times, shares, horizons, start=1.0)


def concordant_masses(places: NDArray[np.int64], values: Floats, mass: Floats) -> tuple[Floats, Floats]:
    """For each row the mass of the rows at an earlier place with a greater value (half of an equal one), and of all.

    In ``n log² n`` steps: two places differ first in one bit, so that each pair is counted in one pass over the bits.

    Parameters
    ----------
    places : ndarray of int64, shape (n,)
        Zero or more; rows at one place are no pair.
    values, mass : ndarray of shape (n,)
    """
    ranks = np.unique(values, return_inverse=True)[1].astype(np.int64)
    width = int(ranks.max(initial=0)) + 2
    won, total = np.zeros(len(values)), np.zeros(len(values))
    for bit in range(int(places.max(initial=0)).bit_length()):
        block, later = places >> (bit + 1), (places >> bit) & 1 == 1
        keys = block * width + ranks
        order = np.flatnonzero(~later & (mass > 0))
        order = order[np.argsort(keys[order], kind="stable")]
        sums, earlier = np.concatenate([[0.0], np.cumsum(mass[order])]), keys[order]
        rows = np.flatnonzero(later)
        first, low = (sums[np.searchsorted(earlier, key)] for key in (block[rows] * width, keys[rows]))
        high, last = (sums[np.searchsorted(earlier, key)] for key in (keys[rows] + 1, (block[rows] + 1) * width))
        won[rows] += last - high + 0.5 * (high - low)
        total[rows] += last - first
    return won, total
