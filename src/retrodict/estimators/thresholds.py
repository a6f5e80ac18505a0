"""Where to cut scores into yes and no: by cost, by a constraint, by capacity; on validation rows, not training rows.

scikit-learn's ``TunedThresholdClassifierCV`` looks at a grid of a hundred thresholds of one metric. Here every distinct
score is looked at, and a constraint that no threshold meets is said to be out of reach.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrodict.core.errors import InputError
from retrodict.core.statistics.intervals import wilson_interval

__all__ = ["Cutoff", "cut_at", "cut_by_capacity", "cut_by_constraint", "cut_by_cost"]

Vector = NDArray[np.float64]
_DRAWS = 1_000


@dataclass(frozen=True, slots=True)
class Cutoff:
    """A threshold, and what it does on the rows that it was chosen on: a yes is a score of at least the threshold.

    Attributes
    ----------
    threshold : float or None
        None if nothing was reached.
    reached : bool
        Whether a threshold does what was asked for.
    reason : str
        Why this one, or what could not be reached, as a sentence.
    yes : float
        Share of the rows that are a yes.
    precision, recall : float or None
        None where no row is a yes, or no label is.
    cost : float or None
        Mean cost of a row, in the units of the costs; a little optimistic, as the threshold was chosen on these rows.
    low, high : float or None
        Bootstrap interval of the cost at 95 %, for this threshold.
    basis : int, optional
        Rows that a precision (those above the threshold) or a recall (those labelled 1) that was asked for rests on.
    """

    threshold: float | None
    reached: bool
    reason: str
    yes: float = 0.0
    precision: float | None = None
    recall: float | None = None
    cost: float | None = None
    low: float | None = None
    high: float | None = None
    basis: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON form."""
        return asdict(self)

    @classmethod
    def from_dict(cls, body: Mapping[str, Any]) -> Cutoff:
        """Inverse of ``to_dict``."""
        return cls(**body)


@dataclass(frozen=True, slots=True)
class _Curve:
    """What every threshold does, from the one that says yes to nothing to the one that says yes to all.

    ``scores[i]`` is the lowest score that is a yes; ``true[i]`` and ``false[i]`` the weight of yes labels and no labels
    at or above it, ``rows[i]`` their number. The first entry has no score.
    """

    scores: Vector
    true: Vector
    false: Vector
    rows: NDArray[np.int64]

    @classmethod
    def of(cls, scores: Any, labels: Any, weights: Any) -> _Curve:
        scores, labels = np.asarray(scores, dtype=np.float64), np.asarray(labels, dtype=np.float64)
        shares = np.ones(len(scores)) if weights is None else np.asarray(weights, dtype=np.float64)
        if scores.ndim != 1 or not scores.size or labels.shape != scores.shape or shares.shape != scores.shape:
            raise InputError("there must be rows, with one score, label and weight each", where="threshold",
                             got=(scores.shape, labels.shape, shares.shape),
                             remedy="Pass those of the validation rows")  # fmt: skip
        if not np.isfinite(scores).all() or not np.isin(labels, (0.0, 1.0)).all() or not (shares >= 0).all():
            raise InputError("scores must be finite, labels 0 or 1, and weights zero or more", where="threshold",
                             got=f"{len(scores)} rows",
                             remedy="Drop rows without an outcome")  # fmt: skip
        order = np.argsort(-scores, kind="stable")
        ordered = scores[order]
        # Rows of one score are cut together: the last of each run of equal ones.
        ends = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True))
        true = np.cumsum(shares[order] * labels[order])[ends]
        false = np.cumsum(shares[order] * (1 - labels[order]))[ends]
        zero = np.zeros(1)
        return cls(np.append(math.nan, ordered[ends]), np.append(zero, true), np.append(zero, false),
                   np.append(0, ends + 1))  # fmt: skip

    @property
    def total(self) -> float:
        return float(self.true[-1] + self.false[-1])

    def cutoff(
        self, place: int, reason: str, costs: tuple[float, float], seed: int, threshold: float | None = None
    ) -> Cutoff:
        """Threshold at one place, or another one with the same yes and no, with its cost."""
        if threshold is None:
            # Nothing is worth a yes: just above the highest score.
            threshold = float(self.scores[place]) if place else math.nextafter(float(self.scores[1]), math.inf)
        true, false = float(self.true[place]), float(self.false[place])
        positives = float(self.true[-1])
        cells = np.array([true, false, positives - true, self.total - positives - false])
        amounts = np.array([0.0, costs[0], costs[1], 0.0])
        rows = int(self.rows[-1])
        drawn = np.random.default_rng(seed).multinomial(rows, np.maximum(cells, 0) / self.total, size=_DRAWS)
        low, high = np.quantile(drawn @ amounts / rows, [0.025, 0.975])
        return Cutoff(
            threshold, reached=True, reason=reason, yes=(true + false) / self.total,
            precision=true / (true + false) if true + false else None, recall=true / positives if positives else None,
            cost=float(cells @ amounts / self.total), low=float(low), high=float(high),
        )  # fmt: skip


def cut_by_cost(
    scores: Any,
    labels: Any,
    *,
    false_positive: float = 1.0,
    false_negative: float = 1.0,
    weights: Any = None,
    seed: int = 0,
) -> Cutoff:
    """Threshold of the least cost; of equal ones the highest, with the fewest alarms.

    Parameters
    ----------
    scores, labels : arrays of shape (n,)
        Scores and outcomes (0 or 1) of validation rows.
    false_positive, false_negative : float, default 1.0
        What a wrong yes and a wrong no cost; a right answer costs nothing. Zero or more, not both zero.
    weights : array of shape (n,), optional
        With unequal weights the interval is that of as many equal rows.
    seed : int, default 0
        Of the bootstrap.

    Examples
    --------
    >>> cut_by_cost([0.1, 0.4, 0.8, 0.9], [0, 1, 0, 1], false_positive=1, false_negative=6).threshold
    0.4
    """
    costs = _checked(false_positive, false_negative)
    curve = _Curve.of(scores, labels, weights)
    spent = false_positive * curve.false + false_negative * (curve.true[-1] - curve.true)
    least = spent.min()
    place = int(np.flatnonzero(spent <= least + 1e-12 * max(1.0, abs(least)))[0])
    reason = f"The least cost of {len(curve.scores) - 1:,} thresholds, at {false_positive:g} for a wrong yes and "
    reason += f"{false_negative:g} for a wrong no." + ("" if place else " No score is worth a yes.")
    return curve.cutoff(place, reason, costs, seed)


def cut_at(
    scores: Any,
    labels: Any,
    threshold: float,
    *,
    false_positive: float = 1.0,
    false_negative: float = 1.0,
    weights: Any = None,
    seed: int = 0,
) -> Cutoff:
    """What a threshold that was decided elsewhere does; parameters as in :func:`cut_by_cost`.

    Examples
    --------
    >>> cut_at([0.1, 0.4, 0.8], [0, 1, 1], 0.5).recall
    0.5
    """
    costs = _checked(false_positive, false_negative)
    curve = _Curve.of(scores, labels, weights)
    place = int(np.count_nonzero(curve.scores[1:] >= threshold))
    return curve.cutoff(place, "Given.", costs, seed, threshold)


def cut_by_constraint(  # noqa: PLR0913 - one constraint out of three
    scores: Any,
    labels: Any,
    *,
    precision: float | None = None,
    recall: float | None = None,
    alarms_per_day: float | None = None,
    days: float | None = None,
    decided: Any = None,
    total: int | None = None,
    false_positive: float = 1.0,
    false_negative: float = 1.0,
    weights: Any = None,
    seed: int = 0,
) -> Cutoff:
    """Threshold that keeps a constraint with the most recall, or, at a given recall, with the most precision.

    Parameters
    ----------
    scores, labels : arrays of shape (n,)
    precision, recall : float, optional
        At least; above 0 and up to 1.
    alarms_per_day : float, optional
        At most, in rows; with ``days``, the time that the rows span.
    decided : array, optional
        Scores of the rows that alarms are counted of: all that were decided in these days, also those without an
        outcome yet. None: the rows themselves.
    total : int, optional
        How many rows were decided in these days, where ``decided`` is a sample of them.
    false_positive, false_negative : float, default 1.0
        For the cost that is reported.
    weights, seed
        As in :func:`cut_by_cost`.

    Returns
    -------
    Cutoff
        ``reached`` is False, and there is no threshold, if none keeps the constraint.
    """
    costs = _checked(false_positive, false_negative)
    curve = _Curve.of(scores, labels, weights)
    marked = curve.true + curve.false
    with np.errstate(invalid="ignore", divide="ignore"):
        precisions = np.where(marked > 0, curve.true / marked, math.nan)
        recalls = curve.true / curve.true[-1] if curve.true[-1] else np.full(marked.size, math.nan)
    constraints = {"precision": precision, "recall": recall, "alarms_per_day": alarms_per_day}
    if sum(value is not None for value in constraints.values()) != 1:
        raise InputError("a threshold must have one constraint", where="threshold", got=constraints,
                         remedy="Pass one of precision, recall, alarms_per_day")  # fmt: skip
    name, limit = next((name, float(value)) for name, value in constraints.items() if value is not None)
    counts = name == "alarms_per_day"
    if limit <= 0 or (limit > 1 and not counts) or (counts and (days is None or days <= 0)):
        raise InputError("a share must be above 0 and up to 1, and alarms be counted over days", where="threshold",
                         got=(name, limit, days),
                         remedy="Pass recall=0.8, or alarms_per_day=20 with days=")  # fmt: skip
    slack, crowd = 1e-12, np.sort(np.asarray(scores if decided is None else decided, dtype=np.float64))
    if counts:
        above = np.append(0, len(crowd) - np.searchsorted(crowd, curve.scores[1:], side="left"))
        rates = above * ((total or len(crowd)) / len(crowd) / (days or 1.0))
        places = np.flatnonzero(rates <= limit + slack)[1:]
    else:
        measured = precisions if name == "precision" else recalls
        places = np.flatnonzero(measured >= limit - slack)
    if not places.size:
        if counts:
            reach = f"the highest score alone has {rates[1]:.3g}"
        else:
            reach = "no label is a yes" if np.isnan(measured).all() else f"the most is {np.nanmax(measured):.3g}"
        words = name.replace("_", " ")
        return Cutoff(None, reached=False, reason=f"No threshold has {words} of {limit:g}: {reach}.")
    if counts:
        place = int(places[-1])
        reason = f"The most recall with at most {limit:g} alarms a day: {rates[place]:.3g}, "
        reason += f"counted of {total or len(crowd):,} rows that were decided in {days:.4g} days."
        return curve.cutoff(place, reason, costs, seed)
    if name == "recall":
        # Of the thresholds with enough recall the most precise one, of equal ones the highest.
        place, basis = int(places[np.argmax(precisions[places])]), round(float(np.sum(labels)))
        reason, kind = f"The most precise threshold with a recall of at least {limit:g}", "rows with a yes are above it"
    else:
        # The most recall, and of equal ones the highest threshold: without further alarms that find nothing.
        place = int(places[np.argmax(curve.true[places])])
        basis, kind = int(curve.rows[place]), "rows above it are a yes"
        reason = f"The most recall with a precision of at least {limit:g}"
    share = float(measured[place])
    span = wilson_interval(share * basis, basis)
    reason += f": {share:.1%} of {basis:,} {kind} ({span.low:.1%} to {span.high:.1%})."
    return replace(curve.cutoff(place, reason, costs, seed), basis=basis)


def cut_by_capacity(
    scores: Any,
    labels: Any,
    *,
    rows: int | None = None,
    share: float | None = None,
    false_positive: float = 1.0,
    false_negative: float = 1.0,
    weights: Any = None,
    seed: int = 0,
) -> Cutoff:
    """Threshold above which there are as many rows as can be looked at; rows of one score are cut together.

    Parameters
    ----------
    scores, labels : arrays of shape (n,)
    rows : int, optional
        At most so many of the validation rows.
    share : float, optional
        At most this share of them, above 0 and up to 1.
    false_positive, false_negative : float, default 1.0
        For the cost that is reported.
    weights, seed
        As in :func:`cut_by_cost`.
    """
    costs = _checked(false_positive, false_negative)
    curve = _Curve.of(scores, labels, weights)
    total = int(curve.rows[-1])
    capacity = share if rows is None else rows
    if (rows is None) == (share is None) or capacity is None or capacity <= 0 or (share or 0) > 1:
        raise InputError("a capacity must be a number of rows, or a share above 0 and up to 1", where="threshold",
                         got=(rows, share), remedy="Pass share=0.05")  # fmt: skip
    limit = int(capacity * total + 1e-9) if rows is None else int(capacity)
    place = int(np.flatnonzero(curve.rows <= limit)[-1])
    if not place:
        return Cutoff(None, reached=False, reason=f"No threshold has {limit:,} rows or fewer above it: "
                                                  f"{int(curve.rows[1]):,} share the highest score.")  # fmt: skip
    reason = f"{int(curve.rows[place]):,} of {total:,} rows, for a capacity of {limit:,}."
    return curve.cutoff(place, reason, costs, seed)


def _checked(false_positive: float, false_negative: float) -> tuple[float, float]:
    costs = float(false_positive), float(false_negative)
    if not all(0 <= cost < math.inf for cost in costs) or not any(costs):
        raise InputError("costs must be zero or more, and not both zero", where="threshold", got=costs,
                         remedy="Pass false_positive=1, false_negative=6")  # fmt: skip
    return costs
