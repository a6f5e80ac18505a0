"""Triggers over the numbers of a period: each fires, is quiet, not evaluable or cooling down, with its reason.

A firing is a fact in the ledger, so the cooldown survives restarts and two processes cannot fire one trigger twice;
what to do about it is the business of whoever asked. A trigger fires once per period: the same evidence, looked at
again tomorrow, is not new evidence.

A number is an estimate: a condition holds only if it holds at both ends of the 95 % interval of every number in it, and
of a number that should have an interval and has none nothing is known.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any, Literal, TypeAlias

from retrodict.core.clock import format_time
from retrodict.core.display import Record
from retrodict.core.durations import format_duration, parse_duration
from retrodict.core.expressions import parse
from retrodict.core.identity import content_hash, short
from retrodict.core.statistics.intervals import Interval, difference_interval
from retrodict.evaluation.metrics import Metric
from retrodict.ledger.chain import Entry
from retrodict.monitoring.definitions import NUMBERS, Monitor, Trigger, numbers_of
from retrodict.monitoring.drift import DriftReport
from retrodict.monitoring.performance import Slice
from retrodict.monitoring.periods import Period

__all__ = ["FIRE", "NUMBERS", "PeriodNumbers", "TriggerResult", "fired_near", "judge_trigger", "measure", "trigger_ref"]

Status: TypeAlias = Literal["fires", "quiet", "not evaluable", "cooling down"]

FIRE = "trigger.fire"
_ABSENT = "a model of this task does not have it"


@dataclass(frozen=True, slots=True)
class TriggerResult(Record):
    """What one trigger said of one period.

    Attributes
    ----------
    trigger : str
        Reference: ``trigger:monitor@hash of action and condition``; changing the cooldown does not reset it.
    action, on : str
        As defined.
    status : {"fires", "quiet", "not evaluable", "cooling down"}
    reason : str
    period : str or None
        Period whose numbers were judged.
    numbers : dict
        Every number there is, None where it is not evaluable.
    bounds : dict
        Ends of the 95 % intervals of those that are estimates.
    """

    trigger: str
    action: str
    on: str
    status: Status
    reason: str
    period: str | None
    numbers: Mapping[str, float | None]
    bounds: Mapping[str, tuple[float, float]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PeriodNumbers:
    """Numbers of one period, by name, the bounds of the estimates, and why those that are None have no value."""

    period: Period
    values: Mapping[str, float | None]
    reasons: Mapping[str, str]
    bounds: Mapping[str, tuple[float, float]] = field(default_factory=dict)


def trigger_ref(monitor: Monitor, trigger: Trigger) -> str:
    """Return the reference under which a trigger's firings stand in the ledger."""
    return f"trigger:{monitor.name}@{short(content_hash([trigger.action, trigger.on]))}"


def measure(part: Slice, drift: DriftReport, test_auc: Metric) -> PeriodNumbers:
    """Numbers that triggers read, of one period.

    Parameters
    ----------
    part : Slice
        All decisions of the period.
    drift : DriftReport
        Of the same decisions.
    test_auc : Metric
        Of the test rows of the version in force.
    """
    names = ("auc", "calibration_error", "calibration_ratio", "label_rate")
    absent = {name: Metric(name, None, _ABSENT, 0) for name in names}
    metrics: dict[str, Metric] = {**absent, **{metric.name: metric for metric in part.metrics}}
    metrics["auc_drop"] = _drop(metrics["auc"], test_auc)
    values: dict[str, float | None] = {"psi": drift.psi, "labels": part.labelled, "decisions": part.decisions}
    reasons = {} if drift.psi is not None else {"psi": drift.reason or "no feature is evaluable"}
    bounds = {}
    for name, metric in metrics.items():
        if metric.value is None or metric.low is None or metric.high is None:
            values[name], reasons[name] = None, metric.reason or "it has no interval"
        else:
            values[name], bounds[name] = metric.value, (metric.low, metric.high)
    return PeriodNumbers(part.period, dict(sorted(values.items())), reasons, bounds)


def _drop(auc: Metric, test: Metric) -> Metric:
    without = next((metric for metric in (auc, test) if metric.value is None), None)
    if without is not None or auc.value is None or test.value is None:
        return Metric("auc_drop", None, "no value" if without is None else without.reason, auc.n)
    if auc.low is None or auc.high is None or test.low is None or test.high is None:
        return Metric("auc_drop", None, "one of the two areas has no interval", auc.n)
    interval = difference_interval(test.value, Interval(test.low, test.high), auc.value, Interval(auc.low, auc.high))
    return Metric.of("auc_drop", auc.n, test.value - auc.value, interval)


def judge_trigger(
    monitor: Monitor, trigger: Trigger, numbers: PeriodNumbers | None, *, firings: Sequence[Entry], now: int
) -> TriggerResult:
    """Judge one trigger.

    Parameters
    ----------
    monitor, trigger : Monitor, Trigger
    numbers : PeriodNumbers or None
        Of the last complete period; None if there is none yet.
    firings : sequence of ledger Entry
        Firings of this trigger; those after ``now`` are not known yet.
    now : int
        Microseconds since 1970-01-01 UTC.

    Raises
    ------
    DefinitionError
        If the condition names a number that does not exist.
    """
    expression = parse(trigger.on, where=f"monitor {monitor.name}, trigger")
    names = numbers_of(monitor.policy.model.known_target)
    expression.check_columns([*names], where=f"monitor {monitor.name}, trigger {trigger.on!r}")
    if numbers is not None:
        numbers = replace(numbers, values={**dict.fromkeys(expression.columns), **numbers.values},
                          reasons={**dict.fromkeys(expression.columns, _ABSENT), **numbers.reasons})  # fmt: skip

    def result(status: Status, reason: str) -> TriggerResult:
        about = (trigger_ref(monitor, trigger), trigger.action, trigger.on, status, reason)
        if numbers is None:
            return TriggerResult(*about, None, {})
        return TriggerResult(*about, numbers.period.name, numbers.values, numbers.bounds)

    if numbers is None:
        return result("not evaluable", "no period is complete yet")
    labels = numbers.values["labels"] or 0
    if labels < trigger.min_labels:
        return result("not evaluable", f"{labels} known outcomes are fewer than the {trigger.min_labels} needed")
    run = expression.to_row()
    holds = run(dict(numbers.values))
    text = ", ".join(_text(name, numbers) for name in expression.columns)
    if holds is None:
        why = [f"{name}: {numbers.reasons[name]}" for name in expression.columns if numbers.values[name] is None]
        return result("not evaluable", "; ".join(why) or f"the condition has no truth value: {text}")
    if not holds:
        return result("quiet", text)
    if not _holds_for_sure(run, numbers, expression.columns):
        return result("quiet", f"{text}: it need not hold within the intervals")
    near = fired_near(trigger, [entry for entry in firings if entry.payload["at"] <= now], numbers.period.name, now=now)
    if near is None:
        return result("fires", text)
    at, cooldown = near.payload["at"], parse_duration(trigger.cooldown)
    if now - at < cooldown:
        return result("cooling down", f"it fired at {format_time(at)}, cooldown {format_duration(cooldown)}; {text}")
    return result("cooling down", f"it fired for this period at {format_time(at)}; {text}")


def fired_near(trigger: Trigger, firings: Sequence[Entry], period: str | None, *, now: int) -> Entry | None:
    """First firing for a period, or within the cooldown of an instant on either side; None if there is none."""
    cooldown = parse_duration(trigger.cooldown)
    return next((e for e in firings if e.payload["period"] == period or abs(now - e.payload["at"]) < cooldown), None)


def _holds_for_sure(run: Callable[[dict[str, Any]], Any], numbers: PeriodNumbers, names: Sequence[str]) -> bool:
    """Whether a condition holds wherever in their intervals the estimates lie: at the ends, and at the values."""
    estimates = [name for name in names if name in numbers.bounds]
    points = product(*((*numbers.bounds[name], numbers.values[name]) for name in estimates))
    return all(run({**numbers.values, **dict(zip(estimates, point, strict=True))}) for point in points)


def _text(name: str, numbers: PeriodNumbers) -> str:
    value = numbers.values[name]
    if value is None:
        return f"{name} is not evaluable"
    if name not in numbers.bounds:
        return f"{name} is {value:.6g}"
    low, high = numbers.bounds[name]
    return f"{name} is {value:.6g} ({low:.4g} to {high:.4g})"
