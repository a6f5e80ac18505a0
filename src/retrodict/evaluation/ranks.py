"""Metrics of an order within groups: each group gives one number, and the metric is their mean.

Rows of one score have no order: a group's number is the mean over all orders of them (McSherry & Najork 2008, ECIR), so
that a constant score is worth what chance is. Groups without a relevant row have no best order and are left out.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from retrodict.evaluation._rows import Rows
from retrodict.evaluation.estimates import Metric, mean

__all__ = ["group_ndcg", "measure_ranking"]

Floats = NDArray[np.float64]

_K = 10


@dataclass(frozen=True)
class Ranked:
    """Rows in the order of group and score, from the highest down; groups without a relevant row are left out.

    Attributes
    ----------
    group, tie : ndarray of int64, shape (n,)
        Place of each row's group, and of its rows of equal score.
    rank : ndarray of float64, shape (n,)
        Place within the group, from 1 on.
    gains, best : ndarray of float64, shape (n,)
        Relevance in this order, the mean over equal scores; and in the best order.
    relevant : ndarray of float64, shape (n,)
        1 where the row's own relevance is above 0.
    codes, masses : ndarray, shape (groups,)
        Code of each group, and the mean weight of its rows.
    """

    group: NDArray[np.int64]
    tie: NDArray[np.int64]
    rank: Floats
    gains: Floats
    best: Floats
    relevant: Floats
    codes: NDArray[np.int64]
    masses: Floats | None
    k: int

    @classmethod
    def of(cls, rows: Rows) -> Ranked:
        """Sort the rows of each group."""
        codes = np.zeros(rows.n, dtype=np.int64) if rows.groups is None else rows.groups
        useful = np.isin(codes, np.unique(codes[rows.labels > 0]))
        rows, codes = rows.taken(useful), codes[useful]
        order = np.lexsort((-rows.scores, codes))
        names, group = np.unique(codes[order], return_inverse=True)
        starts = np.searchsorted(group, np.arange(names.size))
        scores, labels = rows.scores[order], rows.labels[order]
        tie = np.cumsum(np.concatenate(([False], (np.diff(scores) != 0) | (np.diff(group) != 0)))[: scores.size])
        best = labels[np.lexsort((-labels, group))]
        masses = None
        if rows.weights is not None:
            masses = np.bincount(group, rows.weights[order]) / np.bincount(group)
        rank = (np.arange(scores.size) - starts[group] + 1).astype(np.float64)
        return cls(group, tie, rank, _level(labels, tie), best, (labels > 0).astype(np.float64), names, masses,
                   int(rows.k or _K))  # fmt: skip

    def total(self, values: Floats) -> Floats:
        """Sum over each group."""
        return np.bincount(self.group, values, self.codes.size).astype(np.float64)


def _level(values: Floats, tie: NDArray[np.int64]) -> Floats:
    """Mean over the rows of equal score."""
    return (np.bincount(tie, values) / np.bincount(tie))[tie] if tie.size else values


def _ndcg(ranked: Ranked) -> Floats:
    """``sum(relevance / log2(1 + rank))`` of the first k over its best value (Järvelin & Kekäläinen 2002, TOIS 20)."""
    discount = np.where(ranked.rank <= ranked.k, 1 / np.log2(1 + ranked.rank), 0.0)
    return ranked.total(ranked.gains * discount) / ranked.total(ranked.best * discount)


def _precision(ranked: Ranked) -> Floats:
    """Share of relevant rows among the first k, or among all rows of a smaller group."""
    inside = (ranked.rank <= ranked.k).astype(np.float64)
    return ranked.total(_level(ranked.relevant, ranked.tie) * inside) / ranked.total(inside)


def _average_precision(ranked: Ranked) -> Floats:
    """Precision at each relevant row, rows of equal score at one threshold, as ``pr_auc`` of each group."""
    starts = np.searchsorted(ranked.group, ranked.group)
    ends = np.searchsorted(ranked.tie, ranked.tie, side="right")
    hits = np.concatenate(([0.0], np.cumsum(ranked.relevant)))
    precision = (hits[ends] - hits[starts]) / (ends - starts)
    return ranked.total(precision * ranked.relevant) / ranked.total(ranked.relevant)


def _reciprocal_rank(ranked: Ranked) -> Floats:
    """1 / rank of the first relevant row; where it has equals, the mean over their orders."""
    rows = np.flatnonzero(ranked.relevant)
    _, first = np.unique(ranked.group[rows], return_index=True)
    ties = ranked.tie[rows[first]]
    sizes, relevant = np.bincount(ranked.tie), np.bincount(ranked.tie, ranked.relevant).astype(np.int64)
    starts = np.searchsorted(ranked.tie, ties)
    parts = zip(ranked.rank[starts].astype(np.int64).tolist(), sizes[ties].tolist(), relevant[ties].tolist(),
                strict=True)  # fmt: skip
    return np.array([_mean_reciprocal(*part) for part in parts])


def _mean_reciprocal(rank: int, size: int, relevant: int) -> float:
    """Mean of 1 / rank of the first of some relevant rows, in random order from a rank on."""
    if size == 1:
        return 1 / rank
    ways = math.comb(size, relevant)
    return math.fsum(math.comb(size - place, relevant - 1) / ways / (rank + place - 1)
                     for place in range(1, size - relevant + 2))  # fmt: skip


_BY_GROUP: dict[str, Callable[[Ranked], Floats]] = {
    "ndcg_at_k": _ndcg,
    "map": _average_precision,
    "mrr": _reciprocal_rank,
    "precision_at_k": _precision,
}


def _unranked(rows: Rows) -> str | None:
    relevant = bool((rows.labels > 0).any())
    return rows.incomplete() or (None if relevant else "no group has a relevant row")


def measure_ranking(rows: Rows) -> tuple[Metric, ...]:
    """Every metric, of as many groups as have a relevant row; the rows are sorted once."""
    if why_not := _unranked(rows):
        return tuple(Metric(name, None, why_not, 0) for name in _BY_GROUP)
    ranked = Ranked.of(rows)
    return tuple(
        Metric.of(name, ranked.codes.size, *mean(by_group(ranked), ranked.masses))
        for name, by_group in _BY_GROUP.items()
    )


def group_ndcg(rows: Rows) -> tuple[Floats, NDArray[np.int64]]:
    """NDCG of each group that has a relevant row, and its code."""
    ranked = Ranked.of(rows)
    return _ndcg(ranked), ranked.codes
