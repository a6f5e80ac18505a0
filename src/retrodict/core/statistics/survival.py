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

    In ``n log n`` steps: two places differ first in one bit, so that each pair is counted in one pass over the bits.

    Parameters
    ----------
    places : ndarray of int64, shape (n,)
        Zero or more; rows at one place are no pair.
    values, mass : ndarray of shape (n,)
    """
    won, total = np.zeros(len(values)), np.zeros(len(values))
    order = np.argsort(values, kind="stable")
    for bit in reversed(range(int(places.max(initial=0)).bit_length())):
        # Sorted by block of places that are equal so far, and by value within each.
        block, later = places[order] >> (bit + 1), (places[order] >> bit) & 1 == 1
        sums = np.concatenate([[0.0], np.cumsum(np.where(later, 0.0, mass[order]))])
        first, last = _runs(block[1:] != block[:-1])
        low, high = _runs((block[1:] != block[:-1]) | (np.diff(values[order]) != 0))
        rows, first, last, low, high = (part[later] for part in (order, first, last, low, high))
        won[rows] += sums[last] - sums[high] + 0.5 * (sums[high] - sums[low])
        total[rows] += sums[last] - sums[first]
        order = order[np.argsort(places[order] >> bit, kind="stable")]
    return won, total


def _runs(changes: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """For each place where the run that it is in begins, and where it ends."""
    starts = np.flatnonzero(np.concatenate([[True], changes]))
    run = np.cumsum(np.concatenate([[0], changes]))
    return starts[run], np.append(starts[1:], len(changes) + 1)[run]
