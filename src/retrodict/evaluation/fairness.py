"""Whether decisions fall alike on the groups of a column: the bounds that a gate can hold a model to.

Nothing here is a verdict of law; it is what the four-fifths rule of US hiring (29 CFR 1607.4 D) and its kin are read
from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from retrodict.core.display import Record
from retrodict.core.errors import InputError
from retrodict.evaluation._rows import read_rows
from retrodict.evaluation.estimates import Metric
from retrodict.evaluation.groups import group_codes

__all__ = ["Fairness", "GroupRate", "measure_fairness"]

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class GroupRate(Record):
    """Decisions of one group: how many are a yes, of all rows and of those whose label is 1; None without such rows."""

    group: str
    n: int
    positives: int
    selection_rate: float
    true_positive_rate: float | None


@dataclass(frozen=True, slots=True)
class Fairness(Record):
    """Rates by group, and what gates read of them.

    Attributes
    ----------
    groups : tuple of GroupRate
    metrics : tuple of Metric
        ``dp_ratio(column)``: lowest over highest rate of a yes. ``dp_difference(column)``: highest less lowest.
        ``equal_opportunity(column)``: the same of the rows whose label is 1 (Hardt, Price & Srebro 2016, NeurIPS).
    ungrouped : int
        Rows without a group; in no rate.
    """

    groups: tuple[GroupRate, ...]
    metrics: tuple[Metric, ...]
    ungrouped: int = 0


def measure_fairness(
    labels: ArrayLike,
    scores: ArrayLike,
    groups: Iterable[object],
    *,
    column: str,
    threshold: float,
    weights: ArrayLike | None = None,
    min_rows: int = 30,
) -> Fairness:
    """Compare how often each group gets a yes, ``score >= threshold``.

    Parameters
    ----------
    labels : array_like of {0, 1, null}, shape (n,)
        A null label is in the rates of all decisions, and not in those of the positive rows.
    scores : array_like of float, shape (n,)
    groups : iterable of object, length n
        Compared as text; None and NaN: no group.
    column : str
        Name of what the groups are of.
    threshold : float
    weights : array_like of float, shape (n,), optional
    min_rows : int, default 30
        With a group of fewer rows, or fewer than two groups, nothing is evaluable: a group is not passed over because
        little is known of it. For ``equal_opportunity`` it counts the rows whose label is 1.

    Raises
    ------
    InputError
        If the lengths differ.
    """
    rows = read_rows(labels, scores, weights=weights)
    names, codes = group_codes(groups)
    if codes.size != rows.n:
        raise InputError("there must be one group per row", where="fairness", got=(rows.n, codes.size),
                         remedy="Pass columns of the same rows")  # fmt: skip
    ordered = [name for name in names if name is not None]
    inside = codes < len(ordered)  # rows without a group come last
    rows, codes = rows.taken(inside), codes[inside]
    selected_rows, positive = rows.scores >= threshold, rows.labels == 1

    def count(flags: NDArray[np.bool_]) -> NDArray[np.int64]:
        return np.bincount(codes[flags], minlength=len(ordered))

    def mass(flags: NDArray[np.bool_]) -> Floats:
        return np.bincount(codes[flags], rows.mass[flags], len(ordered)).astype(np.float64)

    everyone = np.ones(rows.n, dtype=bool)
    sizes, positives = count(everyone), count(positive)
    with np.errstate(invalid="ignore"):
        selected, true = mass(selected_rows) / mass(everyone), mass(selected_rows & positive) / mass(positive)
    rates = tuple(
        GroupRate(name, int(sizes[place]), int(positives[place]), float(selected[place]),
                  float(true[place]) if positives[place] else None)
        for place, name in enumerate(ordered)
    )  # fmt: skip
    nulls = int(np.isnan(rows.scores).sum())
    why_not = f"{nulls} of {rows.n} scores are null" if nulls else _too_few(sizes, "rows", min_rows)
    no_yes = None if why_not or selected.max() > 0 else "no row is decided with yes"
    label_reason = why_not or _too_few(positives, "rows labelled 1", min_rows)
    metrics = (
        _metric(f"dp_ratio({column})", rows.n, why_not or no_yes, lambda: float(selected.min() / selected.max())),
        _metric(f"dp_difference({column})", rows.n, why_not, lambda: float(np.ptp(selected))),
        _metric(f"equal_opportunity({column})", int(positives.sum()), label_reason, lambda: float(np.ptp(true))),
    )
    return Fairness(rates, metrics, int((~inside).sum()))


def _too_few(sizes: NDArray[np.int64], what: str, min_rows: int) -> str | None:
    """Why sizes of groups tell too little; no group is ordered, for a small one may be a person."""
    if sizes.size < 2:
        return f"{sizes.size} groups are fewer than the 2 needed to compare"
    least = int(sizes.min())
    return f"a group has {least} {what}, fewer than the {min_rows} needed" if least < min_rows else None


def _metric(name: str, n: int, why_not: str | None, compute: Callable[[], float]) -> Metric:
    return Metric(name, None, why_not, n) if why_not else Metric(name, compute(), None, n)
