"""Champion and challenger on the same decisions: paired differences, which need far fewer rows than separate ones."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from retrodict.core.display import Record
from retrodict.core.statistics.intervals import delong_pair, mean_interval
from retrodict.core.tasks import Target
from retrodict.evaluation._rows import Rows, read_rows
from retrodict.evaluation.losses import LOSSES, compare_rows
from retrodict.evaluation.metrics import Metric, share

__all__ = ["Comparison", "OutputComparison", "compare_outputs", "compare_scores"]


@dataclass(frozen=True, slots=True)
class Comparison(Record):
    """Challenger minus champion on the same decisions.

    Attributes
    ----------
    verdict : {"better", "worse", "inconclusive"}
        Of the challenger.
    reason : str
    n, pending : int
        Decisions with and without a known label.
    auc_difference : Metric
        Above 0 favours the challenger; paired DeLong interval.
    brier_difference : Metric
        Below 0 favours the challenger; paired t interval.
    agreement : Metric
        Share of all decisions, pending ones too, on the same side of the threshold; not evaluable without one.
    score_distance : Metric
        Mean absolute difference of the two scores over all decisions.
    """

    verdict: Literal["better", "worse", "inconclusive"]
    reason: str
    n: int
    pending: int
    auc_difference: Metric
    brier_difference: Metric
    agreement: Metric
    score_distance: Metric


def compare_scores(
    *,
    champion: ArrayLike,
    challenger: ArrayLike,
    labels: ArrayLike,
    threshold: float | None = None,
    min_rows: int = 100,
    confidence: float = 0.95,
) -> Comparison:
    """Compare two scores of the same decisions.

    The challenger is better when one of the two intervals (AUC, Brier) lies wholly on its side and the other not
    wholly on the champion's; worse the other way round; everything else is inconclusive. Two equal models are called
    better in at most ``1 - confidence`` of comparisons (two one-sided tails). Look once: repeated looks at growing data
    need an anytime-valid test.

    Parameters
    ----------
    champion, challenger : array_like of float, shape (n,)
        Scores of the same decisions, in the same order.
    labels : array_like of {0, 1, null}, shape (n,)
        Null labels are pending.
    threshold : float, optional
        Decision threshold for the agreement share.
    min_rows : int, default 100
        With fewer labelled decisions the verdict is inconclusive.
    confidence : float, default 0.95
    """
    old, new = read_rows(labels, champion), read_rows(labels, challenger)
    agreement, distance = _agreement(old, new, threshold)
    old, pending = old.matured()
    new, _ = new.matured()
    if old.n < min_rows:
        reason = f"{old.n} labelled rows are fewer than the {min_rows} needed"
        old, new = old.refused(reason), new.refused(reason)
    auc, brier = _auc_difference(old, new, confidence), _brier_difference(old, new, confidence)
    verdict, reason = _judge(auc, brier)
    return Comparison(verdict, reason, old.n, pending, auc, brier, agreement, distance)


def _agreement(old: Rows, new: Rows, threshold: float | None) -> tuple[Metric, Metric]:
    n, nulls = old.n, int((np.isnan(old.scores) | np.isnan(new.scores)).sum())
    why_not = "no rows" if not n else f"{nulls} of {n} scores are null" if nulls else None
    if why_not:
        return Metric("agreement", None, why_not, n), Metric("score_distance", None, why_not, n)
    distance = Metric("score_distance", float(np.abs(old.scores - new.scores).mean()), None, n)
    if threshold is None:
        return Metric("agreement", None, "no threshold given", n), distance
    same = int(((old.scores >= threshold) == (new.scores >= threshold)).sum())
    return share("agreement", same, n, "no rows"), distance


def _auc_difference(old: Rows, new: Rows, confidence: float) -> Metric:
    name = "auc_difference"
    why_not = old.incomplete() or new.incomplete() or old.one_class()
    if why_not:
        return Metric(name, None, why_not, old.n)
    pair = delong_pair(old.labels, new.scores, old.scores, confidence=confidence)
    if math.isnan(pair.variance):
        return Metric(name, None, "a class has one row only", old.n)
    return Metric(name, pair.difference, None, old.n, pair.low, pair.high)


def _brier_difference(old: Rows, new: Rows, confidence: float) -> Metric:
    name = "brier_difference"
    why_not = old.improper() or new.improper() or ("one row only" if old.n < 2 else None)
    if why_not:
        return Metric(name, None, why_not, old.n)
    differences = (new.scores - new.labels) ** 2 - (old.scores - old.labels) ** 2
    return Metric.of(name, old.n, float(differences.mean()), mean_interval(differences, confidence=confidence))


def _judge(auc: Metric, brier: Metric) -> tuple[Literal["better", "worse", "inconclusive"], str]:
    # Orient both so that above 0 favours the challenger.
    sides = [("AUC", auc, auc.low, auc.high), ("Brier", brier, _negated(brier.high), _negated(brier.low))]
    gains = [name for name, _, low, _ in sides if low is not None and low > 0]
    losses = [name for name, _, _, high in sides if high is not None and high < 0]
    details = "; ".join(_sentence(name, metric) for name, metric, _, _ in sides)
    if gains and losses:
        return "inconclusive", f"{gains[0]} speaks for the challenger, {losses[0]} against it: {details}"
    if gains:
        return "better", details
    return ("worse", details) if losses else ("inconclusive", details)


def _negated(value: float | None) -> float | None:
    return None if value is None else -value


def _sentence(name: str, metric: Metric) -> str:
    if metric.value is None:
        return f"{name} not evaluable ({metric.reason})"
    return f"{name} difference {metric.value:+.4f} ({metric.low:+.4f} to {metric.high:+.4f})"


@dataclass(frozen=True, slots=True)
class OutputComparison(Record):
    """Challenger against champion on the same rows, of any task.

    Attributes
    ----------
    verdict : {"better", "worse", "inconclusive"}
        Of the challenger.
    reason : str
    n, pending : int
        Rows, or groups of a ranking, that were compared; and rows whose label is not known.
    difference : Metric
        Challenger minus champion, of the measure that the verdict is by: of a binary task the area under the curve or,
        where that does not tell them apart, Brier's score; of any other the mean loss.
    """

    verdict: Literal["better", "worse", "inconclusive"]
    reason: str
    n: int
    pending: int
    difference: Metric

    @property
    def value(self) -> bool | None:
        """For the gate ``better_than_champion``: None when the difference is not evaluable."""
        return None if self.difference.value is None else self.verdict == "better"


def compare_outputs(
    *,
    champion: ArrayLike,
    challenger: ArrayLike,
    labels: ArrayLike,
    target: Target | None = None,
    weights: ArrayLike | None = None,
    groups: ArrayLike | None = None,
    min_rows: int = 100,
    confidence: float = 0.95,
) -> OutputComparison:
    """Compare two models of one task on the same rows.

    Binary without weights: the verdict of ``compare_scores``. Otherwise the challenger is better when the interval of
    the difference of mean losses (``row_losses``, paired) lies wholly below 0, worse when wholly above.

    Parameters
    ----------
    champion, challenger : array_like of float, shape (n,) or (n, columns)
        Outputs of the same rows, in the same order.
    labels, target, weights, groups
        As of ``evaluate``.
    min_rows : int, default 100
        With fewer labelled rows the difference is not evaluable.
    confidence : float, default 0.95
    """
    if (target is None or target.task == "binary") and weights is None:
        pair = compare_scores(champion=champion, challenger=challenger, labels=labels, min_rows=min_rows,
                              confidence=confidence)  # fmt: skip
        areas, brier = pair.auc_difference, pair.brier_difference
        by_order = pair.verdict == "inconclusive" or (areas.low is not None and areas.low * (areas.high or 0.0) > 0)
        return OutputComparison(pair.verdict, pair.reason, pair.n, pair.pending, areas if by_order else brier)
    (old, pending), (new, _) = (
        read_rows(labels, outputs, target, weights=weights, groups=groups).matured()
        for outputs in (champion, challenger)
    )
    if old.n < min_rows:
        old = old.refused(f"{old.n} labelled rows are fewer than the {min_rows} needed")
    name = LOSSES[old.target.task]
    metric = f"{name.replace(' ', '_').lower()}_difference" if old.target.task != "ranking" else "ndcg_loss_difference"
    losses = compare_rows(new if old.refusal is None else old, old, confidence=confidence)
    if losses.difference is None or losses.low is None or losses.high is None:
        reason = str(losses.reason).replace("rung: ", "champion: ")
        why_not = Metric(metric, None, reason, losses.n)
        return OutputComparison("inconclusive", _sentence(name, why_not), losses.n, pending, why_not)
    difference = Metric(metric, losses.difference, None, losses.n, losses.low, losses.high)
    verdict: Literal["better", "worse", "inconclusive"] = "inconclusive"
    if losses.high < 0 or losses.low > 0:
        verdict = "better" if losses.high < 0 else "worse"
    return OutputComparison(verdict, _sentence(name, difference), losses.n, pending, difference)
