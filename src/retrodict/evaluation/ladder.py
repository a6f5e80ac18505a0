"""The ladder: a model has to beat the simple rules below it, and by more than chance, before it is worth its keep."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from numpy.typing import ArrayLike

from retrodict.core.display import Record
from retrodict.core.errors import InputError
from retrodict.core.statistics.intervals import delong_pair
from retrodict.core.tasks import Target
from retrodict.evaluation._rows import Rows, read_rows
from retrodict.evaluation.binary import weighted_auc
from retrodict.evaluation.estimates import Metric, variance_interval
from retrodict.evaluation.losses import LOSSES, compare_rows
from retrodict.evaluation.metrics import measure_primary, primary
from retrodict.evaluation.survival import followed_rows

__all__ = ["Cost", "Ladder", "LadderVerdict", "Rung", "beats", "climb"]

_SAME_TIME = 1.25  # within which two times of one row are noise
_SPOKEN = {
    "constant": "a constant",
    "cox": "a Cox model",
    "group_rate": "the rate of the group",
    "heuristic": "the baseline that was written down",
    "last": "the last outcome known",
    "linear": "linear regression",
    "logistic": "logistic regression",
    "majority": "the majority",
    "random": "answers drawn at random",
    "tree": "a small tree",
    "unbalanced": "the same recipe without balancing",
}


@dataclass(frozen=True, slots=True)
class LadderVerdict(Record):
    """Whether a candidate beats a rung.

    Attributes
    ----------
    status : {"beats", "does not beat", "not evaluable"}
    reason : str
    n : int
        Rows, or groups of a ranking.
    difference, low, high : float or None
        By how much the candidate is better, with its interval: in area under the curve or NDCG, or by how much its
        mean loss is lower. Above 0 favours the candidate whatever the metric.
    p_value : float or None
    """

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

    @property
    def worse(self) -> bool:
        """Whether the whole interval of the difference lies on the rung's side."""
        return self.high is not None and self.high < 0


def beats(
    *,
    candidate: ArrayLike,
    rung: ArrayLike,
    labels: ArrayLike,
    target: Target | None = None,
    weights: ArrayLike | None = None,
    groups: ArrayLike | None = None,
    confidence: float = 0.95,
) -> LadderVerdict:
    """Judge by a paired test: "beats" when the whole interval of the difference lies on the candidate's side.

    Binary: DeLong's test of the areas under the curve. Other tasks: the t test of the losses of the same rows
    (``row_losses``), of a ranking those of the same groups.

    Parameters
    ----------
    candidate, rung : array_like of float, shape (n,) or (n, columns)
        Outputs of the same rows, in the same order.
    labels : array_like of float, shape (n,)
        Rows with a null label are left out.
    target, weights, groups
        As of ``evaluate``.
    confidence : float, default 0.95
        Of the two-sided interval; equal outputs are said to beat with probability (1 - confidence) / 2.
    """
    ours, theirs = (
        read_rows(labels, outputs, target, weights=weights, groups=groups).matured()[0] for outputs in (candidate, rung)
    )
    return _judge_rows(ours, theirs, confidence)


def _judge_rows(ours: Rows, theirs: Rows, confidence: float) -> LadderVerdict:
    if ours.target.task == "binary":
        return _judge_areas(ours, theirs, confidence)
    pair = compare_rows(ours, theirs, confidence=confidence)
    if pair.first is None or pair.second is None or pair.difference is None or pair.low is None or pair.high is None:
        return LadderVerdict("not evaluable", str(pair.reason), pair.n)
    name, first, second = LOSSES[ours.target.task], pair.first, pair.second
    if ours.target.task == "ranking":
        name, first, second = "NDCG", 1 - first, 1 - second
    elif ours.target.task == "survival":
        name += followed_rows(ours)[1]
    return _verdict(name, pair.n, (first, second), (-pair.difference, -pair.high, -pair.low), pair.p_value, confidence)


def _judge_areas(ours: Rows, theirs: Rows, confidence: float) -> LadderVerdict:
    if why_not := _why_not(ours, theirs):
        return LadderVerdict("not evaluable", why_not, ours.n)
    if ours.weights is None:
        pair = delong_pair(ours.labels, ours.scores, theirs.scores, confidence=confidence)
        return _verdict("AUC", ours.n, (pair.first, pair.second), (pair.difference, pair.low, pair.high), pair.p_value,
                        confidence)  # fmt: skip
    (first, one), (second, two) = weighted_auc(ours), weighted_auc(theirs)
    interval = variance_interval(first - second, float(((one - two) ** 2).sum()), ours.n, confidence=confidence)
    low, high = (first - second,) * 2 if interval is None else (interval.low, interval.high)
    return _verdict("AUC", ours.n, (first, second), (first - second, low, high), None, confidence)


def _verdict(
    name: str,
    n: int,
    values: tuple[float, float],
    gain: tuple[float, float, float],
    p_value: float | None,
    confidence: float,
) -> LadderVerdict:
    difference, low, high = gain
    reason = (
        f"{name} {values[0]:.4f} against {values[1]:.4f}: difference {difference:+.4f}, "
        f"{confidence:.0%} interval {low:+.4f} to {high:+.4f}"
    )
    status: Literal["beats", "does not beat"] = "beats" if low > 0 else "does not beat"
    return LadderVerdict(status, reason, n, difference, low, high, p_value)


def _why_not(ours: Rows, theirs: Rows) -> str | None:
    if ours.incomplete() or theirs.incomplete():
        return ours.incomplete() or f"rung: {theirs.incomplete()}"
    if ours.one_class():
        return ours.one_class()
    fewest = min(ours.positives, ours.n - ours.positives)
    return "a class has one row only" if fewest < 2 else None


@dataclass(frozen=True, slots=True)
class Cost(Record):
    """What a model costs to have: size in kilobytes, time of one row in microseconds, of its training in seconds."""

    size_kb: float | None = None
    latency_us: float | None = None
    train_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Rung:
    """One baseline: its primary metric, whether the candidate beats it, and what it costs."""

    name: str
    metric: Metric
    verdict: LadderVerdict | None = None
    cost: Cost | None = None


@dataclass(frozen=True, slots=True)
class Ladder(Record):
    """Baselines from worst to best, and the candidate's verdict against the best of them.

    The best rung is chosen on the rows of the test, which makes the bar higher for the candidate, not lower.

    Attributes
    ----------
    rungs : tuple of Rung
    best : str or None
    candidate : Metric
    verdict : LadderVerdict
        Against the best rung.
    higher : bool, default True
        Whether a higher metric is better.
    simplest : str or None
        First of the rungs, in the order they came in, that neither the candidate nor another rung which it does not
        beat is better than.
    cost : Cost or None
        The candidate's.
    """

    rungs: tuple[Rung, ...]
    best: str | None
    candidate: Metric
    verdict: LadderVerdict
    higher: bool = True
    simplest: str | None = None
    cost: Cost | None = None

    def sentences(self, name: str = "The model") -> tuple[str, ...]:
        """What the ladder says, a sentence for each rung from best to worst, and what follows from it."""
        lines = [line for rung in reversed(self.rungs) for line in _sentences(name, rung, self.cost)]
        return (*lines, *filter(None, [self.advice()]))

    def advice(self) -> str | None:
        """What follows where the candidate does not beat every rung."""
        if self.best is not None and self.verdict.worse:
            return f"Prefer {_spoken(self.best)}: it is better, by more than the noise."
        if self.simplest == "random":
            return f"Do not decide by it: nothing shows it to order the rows better than {_spoken('random')}."
        if self.simplest is not None and (costs := self._costs_more(self.simplest)):
            return f"Nothing shows it to be better than {_spoken(self.simplest)}, which is {costs}."
        if self.simplest is not None:
            return f"Prefer {_spoken(self.simplest)}: it is simpler, and nothing shows it to be worse."
        return None

    def _costs_more(self, name: str) -> str:
        """What a rung that is no smaller than the candidate is, in words; empty where it is smaller, or not known."""
        other, ours = next((rung.cost for rung in self.rungs if rung.name == name), None), self.cost
        if ours is None or other is None or ours.size_kb is None or other.size_kb is None:
            return ""
        if other.size_kb < ours.size_kb:
            return ""
        size = "larger" if other.size_kb > ours.size_kb else "no smaller"
        ratio = (other.latency_us or 1.0) / (ours.latency_us or other.latency_us or 1.0)
        return f"{size} and slower" if ratio > _SAME_TIME else f"{size}, if faster" if ratio < 1 / _SAME_TIME else size

    @classmethod
    def from_dict(cls, body: Mapping[str, Any]) -> Ladder:
        """Inverse of ``to_dict``; reads what earlier versions kept, too."""
        rungs = tuple(
            Rung(
                rung["name"],
                Metric(**rung.get("metric", rung.get("auc"))),  # areas under the curve, before there were other tasks
                LadderVerdict(**rung["verdict"]) if rung.get("verdict") else None,
                Cost(**rung["cost"]) if rung.get("cost") else None,
            )
            for rung in body["rungs"]
        )
        cost = Cost(**body["cost"]) if body.get("cost") else None
        return cls(rungs, body["best"], Metric(**body["candidate"]), LadderVerdict(**body["verdict"]),
                   body.get("higher", True), body.get("simplest"), cost)  # fmt: skip


def _times(ratio: float) -> str:
    return f"{ratio:,.0f}" if ratio >= 100 else f"{ratio:.2g}"


def _spoken(name: str) -> str:
    return _SPOKEN.get(name, f"the {name}" if name.startswith("member ") else f"{name!r}")


def _sentences(name: str, rung: Rung, cost: Cost | None) -> Sequence[str]:
    other, verdict = _spoken(rung.name), rung.verdict
    if verdict is None:
        return ()
    if verdict.value is None:
        lines = [f"Whether {name[0].lower()}{name[1:]} is better than {other} is not evaluable: {verdict.reason}."]
    else:
        word = "better" if verdict.value else "worse" if verdict.worse else "not better"
        lines = [f"{name} is {word} than {other}: {verdict.reason}."]
    ratios = [
        f"{_times(ours / theirs)} times {what}"
        for what, ours, theirs in (
            ("the size", cost.size_kb, rung.cost.size_kb),
            ("the time for a row", cost.latency_us, rung.cost.latency_us),
            ("the time to train", cost.train_seconds, rung.cost.train_seconds),
        )
        if ours is not None and theirs
    ] if cost and rung.cost else []  # fmt: skip
    return [*lines, f"It costs {', '.join(ratios)} of {other}."] if ratios else lines


def _simplest(unbeaten: Mapping[str, Rows], confidence: float) -> str | None:
    """First of them that no other one is better than; None if there are none."""
    for name, rows in unbeaten.items():
        if not any(_judge_rows(other, rows, confidence).value for other in unbeaten.values() if other is not rows):
            return name
    return next(iter(unbeaten), None)


def climb(
    *,
    candidate: ArrayLike,
    rungs: Mapping[str, ArrayLike],
    labels: ArrayLike,
    target: Target | None = None,
    weights: ArrayLike | None = None,
    groups: ArrayLike | None = None,
    costs: Mapping[str, Cost] | None = None,
    confidence: float = 0.95,
) -> Ladder:
    """Rank the rungs by the primary metric and judge the candidate against each, the best one first of all.

    Parameters
    ----------
    candidate, labels, target, weights, groups, confidence
        As of ``beats``.
    rungs : mapping of str to array_like
        Outputs of each rung on the same rows, the simplest first.
    costs : mapping of str to Cost, optional
        Of the rungs by name, and of the candidate under ``"candidate"``.

    Raises
    ------
    InputError
        If there is no rung.
    """
    if not rungs:
        raise InputError("a ladder must have at least one rung", where="ladder", got=0,
                         remedy="Add the base rate as a constant score")  # fmt: skip
    ours, *others = (
        read_rows(labels, outputs, target, weights=weights, groups=groups).matured()[0]
        for outputs in (candidate, *rungs.values())
    )
    _, higher = primary(ours.target)
    measured = [
        Rung(name, measure_primary(rows), _judge_rows(ours, rows, confidence), (costs or {}).get(name))
        for name, rows in zip(rungs, others, strict=True)
    ]
    ladder = Ladder(
        tuple(sorted(measured, key=lambda rung: _place(rung, higher))),
        None,
        measure_primary(ours),
        LadderVerdict("not evaluable", "", ours.n),
        higher,
        _simplest(
            {
                rung.name: rows
                for rung, rows in zip(measured, others, strict=True)
                if rung.verdict and rung.verdict.value is False
            },
            confidence,
        ),
        (costs or {}).get("candidate"),
    )
    absent = [rung for rung in ladder.rungs if rung.metric.value is None]
    if absent:
        # A rung that cannot be judged might be the best one: no claim over the ladder then.
        reason = f"rung {absent[0].name!r}: {absent[0].metric.reason}"
        return replace(ladder, verdict=LadderVerdict("not evaluable", reason, ours.n))
    top = ladder.rungs[-1]
    return replace(ladder, best=top.name, verdict=top.verdict or ladder.verdict)


def _place(rung: Rung, higher: bool) -> tuple[bool, float, str]:
    value = rung.metric.value
    sign = 1.0 if higher else -1.0
    return value is not None, -math.inf if value is None else sign * value, rung.name
