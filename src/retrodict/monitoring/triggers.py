"""Triggers over the numbers of a period: each fires, is quiet, not evaluable or cooling down, with its reason.

A firing is a fact in the ledger, so the cooldown survives restarts and two processes cannot fire one trigger twice;
what to do about it is the business of whoever asked. A trigger fires once per period: the same evidence, looked at
again tomorrow, is not new evidence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from retrodict.core.clock import format_time
from retrodict.core.display import Record
from retrodict.core.durations import format_duration, parse_duration
from retrodict.core.expressions import parse
from retrodict.core.identity import content_hash, short
from retrodict.evaluation.metrics import Metric
from retrodict.ledger.chain import Entry
from retrodict.monitoring.definitions import Monitor, Trigger
from retrodict.monitoring.drift import DriftReport
from retrodict.monitoring.performance import Slice
from retrodict.monitoring.periods import Period

__all__ = ["FIRE", "NUMBERS", "PeriodNumbers", "TriggerResult", "judge_trigger", "measure", "trigger_ref"]

FIRE = "trigger.fire"
NUMBERS = (
    "auc",
    "auc_drop",
    "calibration_error",
    "calibration_ratio",
    "decisions",
    "label_rate",
    "labels",
    "psi",
)


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
    """

    trigger: str
    action: str
    on: str
    status: Literal["fires", "quiet", "not evaluable", "cooling down"]
    reason: str
    period: str | None
    numbers: Mapping[str, float | None]


@dataclass(frozen=True, slots=True)
class PeriodNumbers:
    """Numbers of one period, by name, and why those that are None have no value."""

    period: Period
    values: Mapping[str, float | None]
    reasons: Mapping[str, str]


def trigger_ref(monitor: Monitor, trigger: Trigger) -> str:
    """Return the reference under which a trigger's firings stand in the ledger."""
    return f"trigger:{monitor.name}@{short(content_hash([trigger.action, trigger.on]))}"


def measure(part: Slice, drift: DriftReport, test_auc: float | None) -> PeriodNumbers:
    """Numbers that triggers read, of one period.

    Parameters
    ----------
    part : Slice
        All decisions of the period.
    drift : DriftReport
        Of the same decisions.
    test_auc : float or None
        AUC of the test rows of the version in force.
    """
    names = ("auc", "calibration_error", "calibration_ratio", "label_rate")
    metrics: dict[str, Metric] = {name: part[name] for name in names}
    values: dict[str, float | None] = {name: metric.value for name, metric in metrics.items()}
    reasons = {name: metric.reason or "no value" for name, metric in metrics.items() if metric.value is None}
    auc = values["auc"]
    values["auc_drop"] = None if auc is None or test_auc is None else test_auc - auc
    if values["auc_drop"] is None:
        reasons["auc_drop"] = reasons.get("auc", "the model version does not say the AUC of its test rows")
    values["psi"] = drift.psi
    if drift.psi is None:
        reasons["psi"] = drift.reason or "no feature is evaluable"
    values.update(labels=part.labelled, decisions=part.decisions)
    return PeriodNumbers(part.period, dict(sorted(values.items())), reasons)


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
        Earlier firings of this trigger.
    now : int
        Microseconds since 1970-01-01 UTC.

    Raises
    ------
    DefinitionError
        If the condition names a number that does not exist.
    """
    expression = parse(trigger.on, where=f"monitor {monitor.name}, trigger")
    expression.check_columns(NUMBERS, where=f"monitor {monitor.name}, trigger {trigger.on!r}")

    def result(status: Literal["fires", "quiet", "not evaluable", "cooling down"], reason: str) -> TriggerResult:
        period = None if numbers is None else numbers.period.name
        values = {} if numbers is None else numbers.values
        return TriggerResult(trigger_ref(monitor, trigger), trigger.action, trigger.on, status, reason, period, values)

    if numbers is None:
        return result("not evaluable", "no period is complete yet")
    labels = numbers.values["labels"] or 0
    if labels < trigger.min_labels:
        return result("not evaluable", f"{labels} known outcomes are fewer than the {trigger.min_labels} needed")
    holds = expression.to_row()(dict(numbers.values))
    text = ", ".join(f"{name} is {_number(numbers.values[name])}" for name in expression.columns)
    if holds is None:
        why = [f"{name}: {numbers.reasons[name]}" for name in expression.columns if numbers.values[name] is None]
        return result("not evaluable", "; ".join(why) or f"the condition has no truth value: {text}")
    if not holds:
        return result("quiet", text)
    for entry in firings:
        # Either way: a report over the past must not fire again what fired later.
        if abs(now - entry.payload["at"]) < parse_duration(trigger.cooldown):
            rest = format_duration(parse_duration(trigger.cooldown))
            return result("cooling down", f"it fired at {format_time(entry.payload['at'])}, cooldown {rest}; {text}")
        if entry.payload["period"] == numbers.period.name:
            return result("cooling down", f"it fired for this period at {format_time(entry.payload['at'])}; {text}")
    return result("fires", text)


def _number(value: float | None) -> str:
    return "not evaluable" if value is None else f"{value:.6g}"
