"""Metrics of the time to an event that is not always seen: order, Brier scores and calibration at the horizons.

Labels are signed days (:mod:`retrodict.core.statistics.survival`), outputs the probability of the event by each
horizon. A row that was lost before a horizon says nothing of it by itself: what the rows that were followed say counts
for it, by the inverse of the probability of being followed so long (Graf et al. 1999, Statistics in Medicine 18; Uno et
al. 2011, Statistics in Medicine 30). That holds where the end of follow-up does not go with the risk, and it is one
curve for all rows. Intervals take these weights as known.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from retrodict.core.statistics.intervals import Interval
from retrodict.core.statistics.survival import concordant_masses, kaplan_meier, step_at
from retrodict.core.tasks import Target
from retrodict.evaluation._rows import Rows
from retrodict.evaluation.binary import CalibrationBin
from retrodict.evaluation.estimates import Measure, influence_interval, mean

__all__ = ["brier_losses", "followed_rows", "horizon_curve", "horizon_weights", "survival_measures", "unfollowed"]

Floats = NDArray[np.float64]

# With fewer rows that were followed to a horizon the weights of the few say it all.
_FOLLOWED = 10
_BINS, _BIN_ROWS = 10, 30


def _columns(rows: Rows) -> Floats:
    return rows.outputs.reshape(rows.n, rows.target.columns)


def _beyond(labels: Floats, days: float) -> NDArray[np.bool_]:
    """Rows that are known to be without the event at a horizon."""
    return (labels > days) | (labels <= -days)


def unfollowed(rows: Rows, place: int) -> str | None:
    """Why the rows say nothing of a horizon, or None."""
    days, text = rows.target.days[place], rows.target.horizons[place]
    count = int(_beyond(rows.labels, days).sum())
    ends = int(((rows.labels < 0) & (rows.labels > -days)).sum())
    return f"{count} of {rows.n} rows were followed for {text}, fewer than {_FOLLOWED}" if (
        ends and count < _FOLLOWED) else None  # fmt: skip


def horizon_weights(rows: Rows, place: int) -> tuple[NDArray[np.bool_], Floats]:
    """Which rows had the event by a horizon, and one over the probability of being followed until that was known.

    The weight of a row that was lost before the horizon is 0; the weighted share of events is Kaplan-Meier's.
    """
    days = rows.target.days[place]
    times, shares, _ = kaplan_meier(rows.labels, rows.weights, of_censoring=True)
    followed = step_at(times, shares, np.minimum(np.abs(rows.labels), days), start=1.0, before=True)
    event = (rows.labels > 0) & (rows.labels <= days)
    return event, np.divide(1.0, followed, out=np.zeros(rows.n), where=event | _beyond(rows.labels, days))


def _losses_at(rows: Rows, place: int) -> Floats:
    """Squared error of each row at a horizon, over the probability of being followed until it was known."""
    event, weights = horizon_weights(rows, place)
    return weights * (event - _columns(rows)[:, place]) ** 2


def followed_rows(rows: Rows) -> tuple[Rows, str]:
    """Rows with the horizons alone that they were followed to, and which these are where others are left out."""
    reasons = [unfollowed(rows, place) for place in range(rows.target.columns)]
    places = [place for place, reason in enumerate(reasons) if not reason]
    if not places or len(places) == len(reasons):
        return rows, ""
    horizons = tuple(rows.target.horizons[place] for place in places)
    narrow = replace(rows, target=replace(rows.target, horizons=horizons), outputs=_columns(rows)[:, places])
    return narrow, f" over {', '.join(horizons)} ({next(filter(None, reasons))})"


def brier_losses(rows: Rows) -> Floats:
    """Integrated Brier loss of each row, over the horizons that the rows were followed to; trapezoids between them."""
    rows, _ = followed_rows(rows)
    losses = np.stack([_losses_at(rows, place) for place in range(rows.target.columns)], axis=1)
    days = np.array(rows.target.days)
    if len(days) == 1:
        return losses[:, 0]
    gaps = np.diff(days)
    shares = (np.append(gaps, 0.0) + np.append(0.0, gaps)) / (2.0 * gaps.sum())
    return np.asarray(losses @ shares)


# order ----------------------------------------------------------------------------------------------------------------


def _places(rows: Rows) -> NDArray[np.int64]:
    """Order in time: an event before the end of follow-up at the same moment; two events at one moment are no pair."""
    order = np.lexsort((rows.labels < 0, np.abs(rows.labels)))
    labels = rows.labels[order]
    places = np.empty(rows.n, dtype=np.int64)
    places[order] = np.cumsum(np.append(0, labels[1:] != labels[:-1]))
    return places


def _pairs(rows: Rows, worth: Floats) -> tuple[Floats, Floats]:
    """Mass of the pairs of each row that are ranked right, and of all, each weighted by what its earlier event is."""
    places, risk, earlier = _places(rows), _columns(rows).sum(axis=1), rows.mass * worth * (rows.labels > 0)
    after = concordant_masses(places, risk, earlier)
    before = concordant_masses(places.max() - places, -risk, rows.mass)
    right, every = (rows.mass * late + earlier * soon for late, soon in zip(after, before, strict=True))
    return right, every


def _concordance(rows: Rows, worth: Floats) -> tuple[float, Interval | None]:
    right, every = _pairs(rows, worth)
    total = float(every.sum()) / 2.0
    value = float(right.sum()) / 2.0 / total
    return value, influence_interval(value, (right - value * every) / total, "logit")


def _uno(rows: Rows) -> Floats:
    """One over the squared probability of being followed until each event; 0 after the last horizon."""
    times, shares, _ = kaplan_meier(rows.labels, rows.weights, of_censoring=True)
    followed = step_at(times, shares, np.abs(rows.labels), start=1.0, before=True)
    inside = (rows.labels > 0) & (rows.labels < rows.target.days[-1])
    return np.divide(1.0, followed**2, out=np.zeros(rows.n), where=inside)


def _pairless(worth: Callable[[Rows], Floats]) -> Callable[[Rows], str | None]:
    def refuse(rows: Rows) -> str | None:
        if why_not := rows.incomplete():
            return why_not
        places, earlier = _places(rows), (rows.labels > 0) & (worth(rows) > 0)
        paired = bool((places[earlier] < places.max()).any())
        return None if paired else "no event came while another row was followed"

    return refuse


# calibration ----------------------------------------------------------------------------------------------------------


def horizon_curve(rows: Rows, place: int) -> tuple[CalibrationBin, ...]:
    """Kaplan-Meier's share with the event by a horizon against the mean probability, in bins of equal row counts.

    At most ten, of 30 rows or more; one of which no row was followed to the horizon is left out. Intervals are
    Greenwood's on the scale of log(-log) (Kalbfleisch & Prentice 1980).
    """
    days, guess = np.array([rows.target.days[place]]), _columns(rows)[:, place]
    count = min(_BINS, max(rows.n // _BIN_ROWS, 1))
    edges = np.unique(np.quantile(guess, np.linspace(0.0, 1.0, count + 1)[1:-1]))
    bins = np.searchsorted(edges, guess, side="right")
    curve = []
    for place_of in np.unique(bins):
        part = rows.taken(bins == place_of)
        if part.labels[np.abs(part.labels).argmax()] < 0 and not _beyond(part.labels, days[0]).any():
            continue
        times, shares, sums = kaplan_meier(part.labels, part.weights)
        share, spread = (float(step_at(times, values, days, start=start)[0])
                         for values, start in ((shares, 1.0), (sums, 0.0)))  # fmt: skip
        low = high = share
        if 0.0 < share < 1.0:
            half = 1.959964 * np.sqrt(spread) / abs(np.log(share))
            low, high = share ** np.exp(half), share ** np.exp(-half)
        expected = float(np.average(guess[bins == place_of], weights=part.weights))
        curve.append(CalibrationBin(expected, 1.0 - share, part.n, float(1.0 - high), float(1.0 - low)))
    return tuple(curve)


def _calibration_error(rows: Rows, place: int) -> tuple[float, Interval | None]:
    curve = horizon_curve(rows, place)
    sizes = [point.n for point in curve]
    gaps = [abs(point.observed_rate - point.mean_score) for point in curve]
    return float(np.average(gaps, weights=sizes)), None


# every metric ---------------------------------------------------------------------------------------------------------


def _refuse_at(place: int) -> Callable[[Rows], str | None]:
    return lambda rows: rows.improper() or unfollowed(rows, place)


def _uncalibrated(place: int) -> Callable[[Rows], str | None]:
    def refuse(rows: Rows) -> str | None:
        why_not = rows.improper() or unfollowed(rows, place)
        return why_not or (
            None if horizon_curve(rows, place) else f"no bin was followed for {rows.target.horizons[place]}"
        )

    return refuse


def _unintegrated(rows: Rows) -> str | None:
    reasons = (unfollowed(rows, place) for place in range(rows.target.columns))
    return rows.improper() or next(filter(None, reasons), None)


def _brier_at(place: int) -> Callable[[Rows], tuple[float, Interval | None]]:
    return lambda rows: mean(_losses_at(rows, place), rows.weights)


def _error_at(place: int) -> Callable[[Rows], tuple[float, Interval | None]]:
    return lambda rows: _calibration_error(rows, place)


def _ones(rows: Rows) -> Floats:
    return np.ones(rows.n)


@lru_cache(maxsize=64)
def survival_measures(target: Target) -> dict[str, Measure]:
    """Each metric: why it has no value, if it has none, and its value with its interval."""
    measures: dict[str, Measure] = {
        "c_index": (_pairless(_ones), lambda rows: _concordance(rows, np.ones(rows.n))),
        "c_index_uno": (_pairless(_uno), lambda rows: _concordance(rows, _uno(rows))),
        "integrated_brier": (_unintegrated, lambda rows: mean(brier_losses(rows), rows.weights)),
    }
    for place, text in enumerate(target.horizons):
        measures[f"brier_{text}"] = (_refuse_at(place), _brier_at(place))
        measures[f"calibration_error_{text}"] = (_uncalibrated(place), _error_at(place))
    return measures
