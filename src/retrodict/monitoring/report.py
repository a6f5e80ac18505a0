"""One report on a monitor: outcomes, performance, drift and triggers as of a time, kept with its lineage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from retrodict.core.clock import format_time
from retrodict.core.display import Block, Facts, Grid, Shown, count, when
from retrodict.core.errors import NotFoundError
from retrodict.core.identity import canonical_json
from retrodict.ledger import Edge, Transaction
from retrodict.models.artifact import ModelArtifact
from retrodict.monitoring.definitions import Monitor
from retrodict.monitoring.drift import DriftReport, drift, read_reference
from retrodict.monitoring.outcomes import Outcomes, outcomes
from retrodict.monitoring.performance import Slice, performance
from retrodict.monitoring.triggers import FIRE, PeriodNumbers, TriggerResult, judge_trigger, measure, trigger_ref
from retrodict.registry import Revision, in_force
from retrodict.workspace import Workspace

__all__ = ["MonitorReport", "monitor"]

REPORT = "monitor.report"

SHOWN_METRICS = ("label_rate", "mean_score", "auc", "brier", "calibration_error")
"""Metrics of the report's tables; the plain form has all."""


@dataclass(frozen=True, slots=True, repr=False)
class MonitorReport(Shown):
    """What a monitor found.

    Attributes
    ----------
    monitor, policy : str
    now : int
        As of when: microseconds since 1970-01-01 UTC.
    period : str
    revision, model : str or None
        Revision of the policy in force at ``now`` and its model; drift is judged against that model's training rows,
        whichever version decisions.
    counts : dict of str to int
        Decisions by status, those with outcomes that disagree, those without a key.
    slices : sequence of Slice
    drifts : dict of period name to DriftReport
        Of every period that has decisions.
    triggers : sequence of TriggerResult
        Judged on the last complete period.
    digest : str
        SHA-256 of the stored report.
    """

    monitor: str
    policy: str
    now: int
    period: str
    revision: str | None
    model: str | None
    counts: Mapping[str, int]
    slices: Sequence[Slice]
    drifts: Mapping[str, DriftReport]
    triggers: Sequence[TriggerResult] = ()
    digest: str = ""

    @property
    def fired(self) -> list[TriggerResult]:
        """Triggers that fired with this report."""
        return [result for result in self.triggers if result.status == "fires"]

    def content(self) -> dict[str, Any]:
        """Plain form as it is stored."""
        return {
            "monitor": self.monitor,
            "policy": self.policy,
            "now": format_time(self.now),
            "period": self.period,
            "revision": self.revision,
            "model": self.model,
            "counts": dict(self.counts),
            "performance": [part.to_dict() for part in self.slices],
            "drift": {name: drift.to_dict() for name, drift in self.drifts.items()},
            "triggers": [result.to_dict() for result in self.triggers],
        }

    def to_dict(self) -> dict[str, Any]:
        """Plain form for ``--json``: the stored content and its reference."""
        return {"report": f"report:{self.digest}", **self.content()}

    @property
    def ok(self) -> bool:
        """Whether no trigger fired."""
        return not self.fired

    def blocks(self) -> Sequence[Block | None]:
        """Performance by period, drifted features, triggers."""
        about = {"monitor": self.monitor, "as of": when(self.now), "in force": self.revision, "model": self.model,
                 **{name.replace("_", " "): value for name, value in self.counts.items()}}  # fmt: skip
        periods = [part for part in self.slices if part.by is None]
        columns = ("period", "complete?", "decisions>", "known>", *(f"{name}>" for name in SHOWN_METRICS), "drifted>",
                   "psi>")  # fmt: skip
        rows = [self._row(part) for part in periods if part.decisions]
        drifted = [
            (name, feature, report.features[feature].verdict.reason)
            for name, report in self.drifts.items()
            for feature in report.drifted[:5]
        ]
        triggers = [(result.on, result.status, result.period, result.reason) for result in self.triggers]
        empty = len(periods) - len(rows)
        return [
            Facts(about),
            Grid(columns, rows) if rows else "There is no decision yet.",
            f"{count(empty)} periods without decisions are not shown." if rows and empty else None,
            Grid(("period", "drifted feature", "why"), drifted) if drifted else None,
            Grid(("trigger", "status", "period", "reason"), triggers) if triggers else None,
            f"A trigger fired. Next: retrodict train {self.model.partition('@')[0]}"
            if self.fired and self.model
            else None,
        ]

    def _row(self, part: Slice) -> tuple[Any, ...]:
        report = self.drifts.get(part.period.name)
        drift_cells = (None, None) if report is None else (len(report.drifted), report.psi)
        values = [part[name].value for name in SHOWN_METRICS]
        return (part.period.name, part.complete, part.decisions, part.labelled, *values, *drift_cells)


def monitor(
    workspace: Workspace,
    which: Monitor | str,
    *,
    now: int,
    start: int | None = None,
    end: int | None = None,
    period: str = "month",
    min_labels: int = 100,
) -> MonitorReport:
    """Measure the decisions of a monitor's policy, judge its triggers, and keep the report.

    Parameters
    ----------
    workspace : Workspace
    which : Monitor or str
        The definition or its name.
    now : int
        As of when; nothing known at or after it is seen. Instants are microseconds since 1970-01-01 UTC.
    start, end : int, optional
        Decisions with ``start <= time < end``; everything up to ``now`` by default.
    period : str, default "month"
        ``"month"`` or a duration.
    min_labels : int, default 100
        With fewer known outcomes the metrics of a slice are not evaluable.

    Returns
    -------
    MonitorReport
        Also stored as an object, with a ledger entry ``monitor.report`` and one ``trigger.fire`` per trigger that
        fired. Acting on those is left to the caller.
    """
    definition = which if isinstance(which, Monitor) else workspace.definitions.get(Monitor, which)
    policy = definition.policy.name
    decisions = outcomes(workspace, policy, now=now, start=start, end=end)
    slices = performance(decisions, period=period, by=definition.by, start=start, end=end, min_labels=min_labels)
    revision = _revision(workspace, policy, now)
    metadata = _metadata(workspace, revision)
    drifts = _drifts(workspace, definition, decisions, slices, revision, metadata)
    report = MonitorReport(
        monitor=definition.name,
        policy=policy,
        now=now,
        period=period,
        revision=None if revision is None else f"policy:{policy}#{revision.revision}",
        model=None if revision is None else revision.deployment.model,
        counts=_counts(decisions),
        slices=slices,
        drifts=drifts,
    )
    numbers = _last_complete(slices, drifts, metadata)
    # One transaction from reading the earlier firings to recording the new ones: two processes cannot both fire.
    with workspace.ledger.transaction() as tx:
        results = [
            judge_trigger(definition, trigger, numbers, now=now,
                          firings=workspace.ledger.entries(object_id=trigger_ref(definition, trigger), action=FIRE))
            for trigger in definition.triggers
        ]  # fmt: skip
        report = replace(report, triggers=results)
        report = replace(report, digest=workspace.objects.put(canonical_json(report.content())))
        _record(tx, definition, report, decisions)
    return report


def _counts(decisions: Outcomes) -> dict[str, int]:
    statuses = {name: int((decisions.status == name).sum()) for name in ("known", "pending", "void")}
    return {"decisions": len(decisions), **statuses, "revised": decisions.revised, "without_key": decisions.without_key}


def _revision(workspace: Workspace, policy: str, now: int) -> Revision | None:
    try:
        return in_force(workspace, policy, now)
    except NotFoundError:
        return None


def _metadata(workspace: Workspace, revision: Revision | None) -> Mapping[str, Any]:
    return {} if revision is None else ModelArtifact.load(workspace.objects, revision.deployment.artifact).metadata


def _test_metric(metadata: Mapping[str, Any], name: str) -> float | None:
    value = metadata.get("test_metrics", {}).get(name)
    return float(value) if isinstance(value, int | float) else None


def _drifts(
    workspace: Workspace,
    definition: Monitor,
    decisions: Outcomes,
    slices: Sequence[Slice],
    revision: Revision | None,
    metadata: Mapping[str, Any],
) -> dict[str, DriftReport]:
    reference = read_reference(workspace.objects, metadata)
    times = decisions.column("time")
    reports = {}
    for part in slices:
        if part.by is not None or not part.decisions:
            continue
        low, high = np.searchsorted(times, [part.period.start, part.period.end])
        reports[part.period.name] = drift(
            decisions.decisions.slice(int(low), int(high - low)),
            reference,
            model=None if revision is None else revision.deployment.model,
            label_rate=part["label_rate"],
            reference_rate=_test_metric(metadata, "base_rate"),
            threshold=definition.psi_threshold,
        )
    return reports


def _last_complete(
    slices: Sequence[Slice], drifts: Mapping[str, DriftReport], metadata: Mapping[str, Any]
) -> PeriodNumbers | None:
    complete = [part for part in slices if part.by is None and part.complete]
    if not complete:
        return None
    last = complete[-1]
    nothing = DriftReport(None, "no decisions", 0, 0)
    return measure(last, drifts.get(last.period.name, nothing), _test_metric(metadata, "auc"))


def _record(tx: Transaction, definition: Monitor, report: MonitorReport, decisions: Outcomes) -> None:
    name = f"report:{report.digest}"
    inputs: list[Edge] = list(decisions.inputs)
    if report.revision is not None:
        inputs += [(report.revision, "watched"), (f"model:{report.model}", "reference")]
    facts = {
        "monitor": definition.name,
        "definition": definition.version,
        "policy": report.policy,
        "now": format_time(report.now),
        "period": report.period,
        "counts": dict(report.counts),
        "triggers": {result.trigger: result.status for result in report.triggers},
        "objects": [report.digest],
    }
    tx.append(REPORT, name, facts, inputs=inputs)
    for result in report.fired:
        fired = {"at": report.now, "monitor": definition.name, "policy": report.policy, **asdict(result)}
        tx.append(FIRE, result.trigger, fired, inputs=[(name, "evidence")])
