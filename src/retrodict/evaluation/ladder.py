"""The ladder: a model has to beat the simple rules below it, and by more than chance, before it is worth its keep."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from numpy.typing import ArrayLike

from retrodict.core.display import Record
from retrodict.core.errors import InputError
from retrodict.core.statistics.intervals import delong_pair
from retrodict.evaluation._rows import ScoredRows, read_rows
from retrodict.evaluation.metrics import Metric, roc_auc

__all__ = ["Ladder", "LadderVerdict", "Rung", "beats", "climb"]


@dataclass(frozen=True, slots=True)
class LadderVerdict(Record):
    """Whether a candidate beats a rung: ``difference`` is candidate minus rung AUC, with its interval."""

    status: Literal["beats", "does not beat", "not evaluable"]
    reason: str
    n: int
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    p_value: float | None = None

    @property
    def value(self) -> bool | None:
        """For the gate ``beats_ladder``: None when not evaluable."""
        return None if self.status == "not evaluable" else self.status == "beats"


def beats(*, candidate: ArrayLike, rung: ArrayLike, labels: ArrayLike, confidence: float = 0.95) -> LadderVerdict:
    """Judge by the paired DeLong test: "beats" when the whole interval of the AUC difference lies above 0.

    Parameters
    ----------
    candidate, rung : array_like of float, shape (n,)
        Scores of the same rows, in the same order.
    labels : array_like of {0, 1, null}, shape (n,)
        Rows with a null label are left out.
    confidence : float, default 0.95
        Of the two-sided interval; equal scores are said to beat with probability (1 - confidence) / 2.
    """
    ours, _ = read_rows(labels, candidate).matured()
    theirs, _ = read_rows(labels, rung).matured()
    why_not = _why_not(ours, theirs)
    if why_not:
        return LadderVerdict("not evaluable", why_not, ours.n)
    pair = delong_pair(ours.labels, ours.scores, theirs.scores, confidence=confidence)
    won = pair.low > 0
    reason = (
        f"AUC {pair.first:.4f} against {pair.second:.4f}: difference {pair.difference:+.4f}, "
        f"{confidence:.0%} interval {pair.low:+.4f} to {pair.high:+.4f}"
    )
    status: Literal["beats", "does not beat"] = "beats" if won else "does not beat"
    return LadderVerdict(status, reason, ours.n, pair.difference, pair.low, pair.high, pair.p_value)


def _why_not(ours: ScoredRows, theirs: ScoredRows) -> str | None:
    if ours.incomplete() or theirs.incomplete():
        return ours.incomplete() or f"rung: {theirs.incomplete()}"
    if ours.one_class():
        return ours.one_class()
    fewest = min(ours.positives, ours.n - ours.positives)
    return "a class has one row only" if fewest < 2 else None


@dataclass(frozen=True, slots=True)
class Rung:
    """One baseline and its area under the curve."""

    name: str
    auc: Metric


@dataclass(frozen=True, slots=True)
class Ladder(Record):
    """Baselines from worst to best, and the candidate's verdict against the best of them.

    The best rung is chosen on the rows of the test, which makes the bar higher for the candidate, not lower.
    """

    rungs: tuple[Rung, ...]
    best: str | None
    candidate: Metric
    verdict: LadderVerdict


def climb(
    *, candidate: ArrayLike, rungs: Mapping[str, ArrayLike], labels: ArrayLike, confidence: float = 0.95
) -> Ladder:
    """Rank the rungs by AUC and judge the candidate against the best one.

    Raises
    ------
    InputError
        If there is no rung.
    """
    if not rungs:
        raise InputError("a ladder must have at least one rung", where="ladder", got=0,
                         remedy="Add the base rate as a constant score")  # fmt: skip
    labelled, _ = read_rows(labels, candidate).matured()
    climbed = []
    for name, scores in rungs.items():
        rows, _ = read_rows(labels, scores).matured()
        climbed.append(Rung(name, roc_auc(rows.labels, rows.scores)))
    climbed.sort(key=lambda rung: (rung.auc.value is not None, rung.auc.value or 0.0, rung.name))
    top, ours = climbed[-1], roc_auc(labelled.labels, labelled.scores)
    absent = [rung for rung in climbed if rung.auc.value is None]
    if absent:
        # A rung that cannot be judged might be the best one: no claim over the ladder then.
        reason = f"rung {absent[0].name!r}: {absent[0].auc.reason}"
        return Ladder(tuple(climbed), None, ours, LadderVerdict("not evaluable", reason, labelled.n))
    verdict = beats(candidate=candidate, rung=rungs[top.name], labels=labels, confidence=confidence)
    return Ladder(tuple(climbed), top.name, ours, verdict)
