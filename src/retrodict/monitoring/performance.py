"""How the decisions turned out, per period and group: counts of every status, each metric or why there is none.

Decisions without a score (a fallback answered without a model) are in the label rate and in no metric of the score:
they are counted apart. Leaving them out silently would flatter the model, putting a number in would invent one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from retrodict.core.clock import format_time
from retrodict.core.errors import InputError, near
from retrodict.core.tasks import Target
from retrodict.evaluation._rows import Rows
from retrodict.evaluation.metrics import Metric, evaluate, mean, pick_metric, share
from retrodict.evaluation.survival import horizon_weights, unfollowed
from retrodict.monitoring.definitions import OF_HORIZONS, OF_SCORES
from retrodict.monitoring.periods import Period, periods_between
from retrodict.outcomes.status import Outcomes

__all__ = ["OTHERS", "Slice", "performance", "report_periods", "group_column"]

OTHERS = "(others)"
_BUILT_IN = ("id", "time", "key", "revision", "model", "decision", "raw", "score", "fallback")


@dataclass(frozen=True, slots=True)
class Slice:
    """Decisions of one period, all of them or one group's.

    Attributes
    ----------
    period : Period
    complete : bool
        Whether the period is over and wholly inside the span of the report.
    by, value : str or None
        Column and value of the group, both None for the whole period; ``value`` is None where the decision has none,
        and ``"(others)"`` for the rarer values beyond the number shown.
    decisions, labelled, pending, void : int
        ``decisions = labelled + pending + void``; labelled are those whose outcome is known.
    unscored, unscored_known : int
        Decisions without a score, and those of them whose outcome is known.
    metrics : tuple of Metric
        ``fallback_share`` and ``mean_score`` of all decisions; ``label_rate`` of the known ones; ``auc``, ``pr_auc``,
        ``brier``, ``log_loss``, ``calibration_error``, ``calibration_ratio`` of the known ones with a score. Of a time
        to an event ``event_rate_90d``, ``brier_90d``, ``auc_90d``, … of those that are older than the horizon.
    curve : tuple of dict
        Points of the calibration curve, for plots.
    """

    period: Period
    complete: bool
    by: str | None
    value: str | None
    decisions: int
    labelled: int
    pending: int
    void: int
    unscored: int
    unscored_known: int
    metrics: tuple[Metric, ...]
    curve: tuple[dict[str, Any], ...] = ()

    def __getitem__(self, name: str) -> Metric:
        return pick_metric(self.metrics, name, where=f"slice {self.period.name}")

    def to_dict(self) -> dict[str, Any]:
        """Plain form for ``--json`` and plots."""
        counts = ("pending", "void", "unscored", "unscored_known")
        return {
            "period": self.period.name,
            "start": format_time(self.period.start),
            "end": format_time(self.period.end),
            "complete": self.complete,
            "by": self.by,
            "value": self.value,
            "decisions": self.decisions,
            "known": self.labelled,
            **{name: getattr(self, name) for name in counts},
            "metrics": {metric.name: asdict(metric) for metric in self.metrics},
            "curve": list(self.curve),
        }


def report_periods(
    outcomes: Outcomes, period: str, *, start: int | None = None, end: int | None = None
) -> list[Period]:
    """Periods from the first decision (or ``start``) to the newest instant seen (``now`` or ``end``), without gaps.

    A period without decisions is listed: that nothing was decided is a finding. Without a start and a decision there
    are none.
    """
    last = outcomes.now if end is None else min(end, outcomes.now)
    times = outcomes.decisions.column("time")
    first = start if start is not None else (times[0].as_py() if len(outcomes) else None)
    return [] if first is None or first >= last else periods_between(first, last - 1, period)


def performance(
    outcomes: Outcomes,
    *,
    period: str = "month",
    by: Sequence[str] = (),
    start: int | None = None,
    end: int | None = None,
    min_labels: int = 100,
    max_groups: int = 50,
) -> list[Slice]:
    """Measure performance per period, and in each period per group.

    Parameters
    ----------
    outcomes : Outcomes
        Made with the same ``start`` and ``end``.
    period : str, default "month"
        ``"month"`` (calendar, UTC) or a duration such as ``"7d"``.
    by : sequence of str
        Names of entities, context values or features (see :func:`group_column`).
    start, end : int, optional
        Span of the report; by default everything up to ``now``.
    min_labels : int, default 100
        With fewer known outcomes with a score, metrics are not evaluable.
    max_groups : int, default 50
        Groups shown per column, the most frequent ones; the rest is one group ``"(others)"``.

    Returns
    -------
    list of Slice
        In order of time; in each period the whole first, then groups by column and value.
    """
    until = outcomes.now if end is None else min(end, outcomes.now)
    groups = [(name, *_groups(outcomes.decisions, name, max_groups)) for name in by if len(outcomes)]
    times = outcomes.column("time")
    outputs, target = outcomes.outputs(), outcomes.target
    fallback = np.asarray(pc.is_valid(outcomes.decisions.column("fallback")).to_numpy())
    slices = []
    for span in report_periods(outcomes, period, start=start, end=end):
        low, high = np.searchsorted(times, [span.start, span.end])
        complete = span.covered_by(start, until)
        for name, value, rows in _parts(groups, int(low), int(high)):
            followed = None if outcomes.followed is None else outcomes.followed[rows]
            part = _Part(outcomes.status[rows], outcomes.label[rows], outputs[rows], fallback[rows], target,
                         outcomes.countable[rows], followed)  # fmt: skip
            slices.append(_slice(span, complete, name, value, part, min_labels))
    return slices


def group_column(decisions: pa.Table, name: str) -> str:
    """Column of the decisions that a group's name means: an entity, else a context value, else a feature.

    A feature may go by its full name (``view__feature``) or by its own where only one view has it.

    Raises
    ------
    InputError
        If there is none, or two views have it; the message names the nearest ones.
    """
    for column in (f"entity__{name}", f"context__{name}", name):
        if column in decisions.column_names and column not in _BUILT_IN:
            return column
    columns = [column for column in decisions.column_names if not column.startswith("record__")]
    matches = [column for column in columns if column.endswith(f"__{name}")]
    if len(matches) == 1:
        return str(matches[0])
    names = [c.removeprefix("entity__").removeprefix("context__") for c in columns if c not in _BUILT_IN]
    remedy = f"Write one of {matches}" if matches else near(name, names, what="group")
    raise InputError(
        "a group must be an entity, a context value or a feature", where="monitor, by", got=name, remedy=remedy
    )


def _groups(decisions: pa.Table, name: str, max_groups: int) -> tuple[list[str | None], NDArray[np.int64]]:
    """Values shown, most frequent first cut and then by name, and the place of each decision's value among them."""
    column = decisions.column(group_column(decisions, name))
    encoded: Any = pc.dictionary_encode(column, null_encoding="encode").combine_chunks()
    codes = np.asarray(encoded.indices.to_numpy(zero_copy_only=False)).astype(np.int64)
    values = [_shown(value) for value in encoded.dictionary.to_pylist()]
    sizes = np.bincount(codes, minlength=len(values))
    ranked = sorted(range(len(values)), key=lambda at: (-sizes[at], values[at] is None, values[at] or ""))[:max_groups]
    places = sorted(ranked, key=lambda at: (values[at] is None, values[at] or ""))
    place = np.full(len(values), len(places), dtype=np.int64)
    place[places] = np.arange(len(places))
    return [*(values[at] for at in places), *([OTHERS] if len(places) < len(values) else [])], place[codes]


def _shown(value: object) -> str | None:
    if isinstance(value, float):
        return None if value != value else f"{value:.12g}"  # noqa: PLR0124  # NaN is no value
    return None if value is None else str(value)


def _parts(
    groups: list[tuple[str, list[str | None], NDArray[np.int64]]], low: int, high: int
) -> Iterator[tuple[str | None, str | None, Any]]:
    """Rows of a period: all of them as a slice, then those of every group that occurs in it."""
    yield None, None, slice(low, high)
    for name, values, codes in groups:
        inside = codes[low:high]
        order = np.argsort(inside, kind="stable")
        stops = np.cumsum(np.bincount(inside, minlength=len(values)))
        for value, first, stop in zip(values, [0, *stops[:-1]], stops, strict=True):
            if stop > first:
                yield name, value, order[first:stop] + low


@dataclass(frozen=True, slots=True)
class _Part:
    status: NDArray[np.str_]
    label: NDArray[np.float64]
    outputs: NDArray[np.float64]
    fallback: NDArray[np.bool_]
    target: Target
    countable: NDArray[np.bool_]
    followed: NDArray[np.float64] | None


def _slice(period: Period, complete: bool, by: str | None, value: str | None, part: _Part, min_labels: int) -> Slice:
    first = part.outputs if part.outputs.ndim == 1 else part.outputs[:, 0]
    labelled, scored = part.status == "known", ~np.isnan(first)
    total = part.status.size
    evaluable = part.countable & scored
    evaluation = evaluate(part.label[evaluable], part.outputs[evaluable], part.target, min_rows=min_labels)
    names = OF_SCORES if part.target.task == "binary" else tuple(evaluation.values())
    horizons = [] if part.followed is None else list(_by_horizon(part, scored, part.followed, min_labels))
    by_horizon = {metric.name for metric in horizons}
    metrics = (
        share("fallback_share", int(part.fallback.sum()), total, "no decisions"),
        *horizons,
        *_means(part.outputs[scored], part.target),
        _label_rate(part.label[labelled], part.target, min_labels),
        *(evaluation[name] for name in names if name not in by_horizon),
    )
    return Slice(
        period=period,
        complete=complete,
        by=by,
        value=value,
        decisions=total,
        labelled=int(labelled.sum()),
        pending=int((part.status == "pending").sum()),
        void=int((part.status == "void").sum()),
        unscored=int((~scored).sum()),
        unscored_known=int((labelled & ~scored).sum()),
        metrics=metrics,
        curve=tuple(asdict(point) for point in evaluation.curve),
    )


def _by_horizon(
    part: _Part, scored: NDArray[np.bool_], followed: NDArray[np.float64], min_labels: int
) -> Iterator[Metric]:
    """Yes or no at each horizon, of the decisions that are older than it, like ``event_rate_90d``.

    A younger one with an early event is no yes: those without one are not known to be a no. For a row that was lost
    before the horizon those count that were followed, as in the metrics of a run: the rate is Kaplan-Meier's.
    """
    outputs = part.outputs.reshape(len(part.label), part.target.columns)
    for place, (text, days) in enumerate(zip(part.target.horizons, part.target.days, strict=True)):
        old = scored & (followed >= days) & ~np.isnan(part.label)
        rows = Rows(part.label[old], outputs[old], part.target)
        event, weights = horizon_weights(rows, place)
        evaluation = evaluate(event.astype(np.float64), rows.outputs[:, place], min_rows=min_labels,
                              weights=None if (weights == 1).all() else weights)  # fmt: skip
        reason = unfollowed(rows, place)
        for name in OF_HORIZONS:
            measured = "base_rate" if name == "event_rate" else name
            metric = evaluation[measured] if reason is None else Metric(name, None, reason, rows.n)
            yield replace(metric, name=f"{name}_{text}")


def _means(outputs: NDArray[np.float64], target: Target) -> Iterator[Metric]:
    """Mean of every output: ``mean_score``, ``mean_value``, ``mean_q90``, ``mean_p["late"]``."""
    for name, values in zip(target.outputs, outputs.T if outputs.ndim == 2 else [outputs], strict=True):
        if len(values):
            yield Metric.of(f"mean_{name}", len(values), *mean(values))
        else:
            yield Metric(f"mean_{name}", None, "no decision has a score", 0)


def _label_rate(labels: NDArray[np.float64], target: Target, min_labels: int) -> Metric:
    """Share of yes; of numbers their mean, and of classes nothing, since each has its own."""
    if target.task in ("multiclass", "survival"):
        several = "classes" if target.task == "multiclass" else "horizons, each with its event_rate"
        return Metric("label_rate", None, f"there are several {several}", labels.size)
    if labels.size < max(min_labels, 1):
        reason = f"{labels.size} known outcomes are fewer than the {max(min_labels, 1)} needed"
        return Metric("label_rate", None, reason, labels.size)
    if target.task != "binary":
        return Metric.of("label_rate", labels.size, *mean(labels))
    return share("label_rate", int(labels.sum()), labels.size, "no outcomes")
