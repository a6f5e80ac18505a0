"""Metrics of probabilities of several classes, ordered or not.

Everything that the decision for the likeliest class gives is a function of one table (class by decision), so its
interval follows from the derivatives by the cells of that table: the delta method (for F1: Takahashi et al. 2022,
Applied Intelligence 52, 4961-4972; for kappa: Fleiss, Cohen & Everitt 1969, Psychological Bulletin 72, 323-327).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrodict.core.statistics.intervals import Interval, wilson_interval
from retrodict.core.tasks import Target
from retrodict.evaluation._rows import Rows
from retrodict.evaluation.binary import BINARY, weighted_auc
from retrodict.evaluation.estimates import Measure, Scale, influence_interval, mean, variance_interval

__all__ = ["ClassTable", "class_log_losses", "class_table", "multiclass_measures"]

Floats = NDArray[np.float64]

# Every class sorts all rows once more.
_MOST_AREAS = 100

# A metric of the table with its derivative by each cell.
Slope = Callable[["_Cells"], tuple[float, Floats]]


def _ratio(part: float, total: float) -> float | None:
    return float(part / total) if total else None


@dataclass(frozen=True, slots=True)
class ClassTable:
    """Counts of rows by their class (line) and the likeliest class (column); of equals the first is taken."""

    classes: tuple[str | float, ...]
    counts: tuple[tuple[int, ...], ...]

    def lines(self) -> list[tuple[str | float, int, int, float | None, float | None, float | None]]:
        """Class, rows of it, rows decided for it, and its precision, recall and F1; None where nothing divides."""
        counts = np.array(self.counts)
        return [
            (name, int(actual), int(decided), _ratio(right, decided), _ratio(right, actual),
             _ratio(2 * right, actual + decided))
            for name, right, actual, decided in zip(self.classes, counts.diagonal(), counts.sum(axis=1),
                                                    counts.sum(axis=0), strict=True)
        ]  # fmt: skip


@dataclass(frozen=True)
class _Cells:
    """Weight of the rows in each cell of the table, and the sum of its squares."""

    sums: Floats
    squares: Floats

    @property
    def right(self) -> Floats:
        return self.sums.diagonal()

    @property
    def actual(self) -> Floats:
        return np.asarray(self.sums.sum(axis=1))

    @property
    def decided(self) -> Floats:
        return np.asarray(self.sums.sum(axis=0))


def _decisions(rows: Rows) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    return rows.labels.astype(np.int64), rows.outputs.argmax(axis=1)


def _count(rows: Rows, masses: Floats | None) -> NDArray[Any]:
    k = len(rows.target.classes)
    labels, decided = _decisions(rows)
    return np.bincount(labels * k + decided, masses, k * k).reshape(k, k)


def _cells(rows: Rows) -> _Cells:
    return _Cells(_count(rows, rows.mass), _count(rows, rows.mass**2))


def class_table(rows: Rows) -> ClassTable:
    """Table of the decisions for the likeliest class, each row counted once."""
    counts = tuple(tuple(line) for line in _count(rows, None).tolist())
    return ClassTable(rows.target.classes, counts)


def class_log_losses(rows: Rows) -> Floats:
    """Negative log likelihood of each row's class, probabilities cut to ``[eps, 1 - eps]``."""
    edge = float(np.finfo(np.float64).eps)
    p = rows.outputs[np.arange(rows.n), rows.labels.astype(np.int64)]
    return -np.log(np.clip(p, edge, 1 - edge))


def _brier(rows: Rows) -> tuple[float, Interval | None]:
    truth = np.eye(len(rows.target.classes))[rows.labels.astype(np.int64)]
    return mean(((rows.outputs - truth) ** 2).sum(axis=1), rows.weights)


def _accuracy(rows: Rows) -> tuple[float, Interval | None]:
    labels, decided = _decisions(rows)
    hits = labels == decided
    if rows.weights is not None:
        return mean(hits.astype(np.float64), rows.weights, within=(0.0, 1.0))
    return float(hits.mean()), wilson_interval(int(hits.sum()), rows.n)


def _calibration_error(rows: Rows) -> tuple[float, Interval | None]:
    """Of the probability of the likeliest class against how often it is right (Guo et al. 2017, ICML)."""
    labels, decided = _decisions(rows)
    top = replace(rows, labels=(labels == decided).astype(np.float64), outputs=rows.outputs.max(axis=1),
                  target=Target())  # fmt: skip
    return BINARY["calibration_error"][1](top)


def _macro_auc(rows: Rows) -> tuple[float, Interval | None]:
    """Mean area of each class against the rest; the influences of a row on every area add up."""
    k = len(rows.target.classes)
    parts = [
        weighted_auc(replace(rows, labels=(rows.labels == place).astype(np.float64), outputs=rows.outputs[:, place],
                             target=Target()))
        for place in range(k)
    ]  # fmt: skip
    value = sum(area for area, _ in parts) / k
    return value, influence_interval(value, np.sum([influence for _, influence in parts], axis=0) / k, "logit")


# metrics of the table -------------------------------------------------------------------------------------------------


def _recalls(cells: _Cells) -> tuple[Floats, Callable[[Floats], Floats]]:
    """Recall of each class that has rows, and what weights of the classes make of their derivatives."""
    actual = np.where(cells.actual > 0, cells.actual, 1.0)
    values = cells.right / actual
    return values, lambda weights: (weights / actual)[:, None] * (np.eye(values.size) - values[:, None])


def _precisions(cells: _Cells) -> tuple[Floats, Callable[[Floats], Floats]]:
    decided = np.where(cells.decided > 0, cells.decided, 1.0)
    values = cells.right / decided
    return values, lambda weights: (weights / decided)[None, :] * (np.eye(values.size) - values[None, :])


def _f1s(cells: _Cells) -> tuple[Floats, Callable[[Floats], Floats]]:
    sizes = cells.actual + cells.decided
    sizes = np.where(sizes > 0, sizes, 1.0)
    values = 2 * cells.right / sizes

    def slopes(weights: Floats) -> Floats:
        part = weights / sizes
        return 2 * np.diag(part) - (part * values)[:, None] - (part * values)[None, :]

    return values, slopes


Shares = Callable[[_Cells], tuple[Floats, Callable[[Floats], Floats]]]


def _macro(shares: Shares, counted: Callable[[_Cells], NDArray[np.bool_]]) -> Slope:
    def slope(cells: _Cells) -> tuple[float, Floats]:
        values, slopes = shares(cells)
        weights = counted(cells) / counted(cells).sum()
        return float(weights @ values), slopes(weights)

    return slope


def _by_rows(shares: Shares) -> Slope:
    """Mean over the classes, weighted by their rows; the weights themselves vary with the sample."""

    def slope(cells: _Cells) -> tuple[float, Floats]:
        values, slopes = shares(cells)
        weights = cells.actual / cells.actual.sum()
        value = float(weights @ values)
        return value, slopes(weights) + (values - value)[:, None] / cells.actual.sum()

    return slope


def _kappa(cells: _Cells) -> tuple[float, Floats]:
    """``1 - sum(w o) / sum(w e)`` with ``w = (i - j)²`` (Cohen 1968, Psychological Bulletin 70, 213-220)."""
    total = cells.sums.sum()
    places = np.arange(len(cells.sums))
    distance = (places[:, None] - places[None, :]) ** 2
    observed = float((distance * cells.sums).sum()) / total
    by_actual, by_decided = distance @ (cells.decided / total), (cells.actual / total) @ distance
    expected = float(cells.actual @ by_actual) / total
    slope = observed / expected**2 * (by_actual[:, None] + by_decided[None, :]) - distance / expected
    return 1 - observed / expected, slope / total


def _of_table(slope: Slope, scale: Scale = "logit") -> Callable[[Rows], tuple[float, Interval | None]]:
    def compute(rows: Rows) -> tuple[float, Interval | None]:
        cells = _cells(rows)
        value, derivative = slope(cells)
        # No metric of the table changes when every cell grows alike: what rounding leaves of that is taken off.
        derivative = derivative - float((derivative * cells.sums).sum()) / float(cells.sums.sum())
        variance = float((derivative**2 * cells.squares).sum())
        # Where the table shows no variance there is no telling how much it would be.
        return value, None if variance == 0 else variance_interval(value, variance, rows.n, scale)

    return compute


def _class_error(rows: Rows) -> tuple[float, Interval | None]:
    labels, decided = _decisions(rows)
    return mean(np.abs(labels - decided).astype(np.float64), rows.weights)


def _recall_of(place: int) -> Callable[[Rows], tuple[float, Interval | None]]:
    def compute(rows: Rows) -> tuple[float, Interval | None]:
        inside = rows.taken(rows.labels == place)
        return _accuracy(inside)

    return compute


# reasons --------------------------------------------------------------------------------------------------------------


def _empty(rows: Rows, places: NDArray[np.int64], what: str) -> str | None:
    """Name the first class of a table's line or column that no row is in."""
    absent = np.flatnonzero(np.bincount(places, minlength=len(rows.target.classes)) == 0)
    return f"class {rows.target.classes[absent[0]]!r} {what}" if absent.size else None


def _class_without_row(rows: Rows) -> str | None:
    return rows.improper() or _empty(rows, _decisions(rows)[0], "has no row")


def _areas(rows: Rows) -> str | None:
    classes = len(rows.target.classes)
    too_many = f"{classes} classes are more than the {_MOST_AREAS} whose areas are computed"
    return (too_many if classes > _MOST_AREAS else None) or _class_without_row(rows)


def _class_never_decided(rows: Rows) -> str | None:
    return rows.improper() or _empty(rows, _decisions(rows)[1], "is decided for in no row")


def _one_class(rows: Rows) -> str | None:
    why_not = rows.improper()
    if why_not or np.unique(rows.labels).size > 1:
        return why_not
    return f"all {rows.n} rows are of class {rows.target.classes[int(rows.labels[0])]!r}"


def _one_cell(rows: Rows) -> str | None:
    why_not = rows.improper()
    if why_not or np.unique(np.concatenate(_decisions(rows))).size > 1:
        return why_not
    return f"all {rows.n} rows are and are decided to be of class {rows.target.classes[int(rows.labels[0])]!r}"


def _no_row_of(place: int) -> Callable[[Rows], str | None]:
    def refuse(rows: Rows) -> str | None:
        absent = not (rows.labels == place).any()
        return rows.improper() or (f"class {rows.target.classes[place]!r} has no row" if absent else None)

    return refuse


@lru_cache(maxsize=64)
def multiclass_measures(target: Target) -> dict[str, Measure]:
    """Each metric: why it has no value, if it has none, and its value with its interval."""
    everywhere: Callable[[_Cells], NDArray[np.bool_]] = lambda cells: cells.actual >= 0  # noqa: E731
    with_rows: Callable[[_Cells], NDArray[np.bool_]] = lambda cells: cells.actual > 0  # noqa: E731
    either: Callable[[_Cells], NDArray[np.bool_]] = lambda cells: cells.actual + cells.decided > 0  # noqa: E731
    measures: dict[str, Measure] = {
        "log_loss": (Rows.improper, lambda rows: mean(class_log_losses(rows), rows.weights)),
        "brier": (Rows.improper, _brier),
        "accuracy": (Rows.improper, _accuracy),
        "balanced_accuracy": (_one_class, _of_table(_macro(_recalls, with_rows))),
        "macro_precision": (_class_never_decided, _of_table(_macro(_precisions, everywhere))),
        "macro_recall": (_class_without_row, _of_table(_macro(_recalls, everywhere))),
        "macro_f1": (Rows.improper, _of_table(_macro(_f1s, either))),
        "weighted_precision": (_class_never_decided, _of_table(_by_rows(_precisions))),
        "weighted_recall": (Rows.improper, _of_table(_by_rows(_recalls))),
        "weighted_f1": (Rows.improper, _of_table(_by_rows(_f1s))),
        "macro_auc": (_areas, _macro_auc),
        "calibration_error": (Rows.improper, _calibration_error),
    }
    if target.ordered:
        measures["quadratic_kappa"] = (_one_cell, _of_table(_kappa, "plain"))
        measures["class_error"] = (Rows.improper, _class_error)
    for place, name in enumerate(target.classes):
        measures[f'recall["{name}"]'] = (_no_row_of(place), _recall_of(place))
    return measures
