"""One report on a monitor: outcomes, performance, drift and triggers as of a time, kept with its lineage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from retrodict.core.clock import format_time
from retrodict.core.display import Block, Facts, Grid, Shown, count, when
from retrodict.core.errors import NotFoundError
from retrodict.core.expressions import parse
from retrodict.core.identity import canonical_json
from retrodict.core.statistics.intervals import hanley_interval
from retrodict.decisions.score_drops import append_drop
from retrodict.evaluation.metrics import Metric
from retrodict.evaluation.reference import Reference
from retrodict.ledger import Edge, Entry, Transaction
from retrodict.models.artifact import ModelArtifact
from retrodict.monitoring.definitions import Monitor
from retrodict.monitoring.drift import SCORE, DriftReport, LabelRates, drift, read_reference
from retrodict.monitoring.performance import Slice, performance
from retrodict.monitoring.triggers import (
    FIRE,
    PeriodNumbers,
    TriggerResult,
    fired_near,
    judge_trigger,
    measure,
    trigger_ref,
)
from retrodict.monitoring.views import ViewCounts, count_views
from retrodict.outcomes.status import Outcomes, outcomes
from retrodict.registry import Revision, in_force
from retrodict.workspace import Workspace

__all__ = ["MonitorReport", "monitor"]

REPORT = "monitor.report"

SHOWN_METRICS = ("label_rate", "mean_score", "auc", "brier", "calibration_error")


def shown_metrics(slices: Sequence[Slice], usual: Sequence[str] = SHOWN_METRICS) -> list[str]:
    """Metrics to show of some slices: the usual ones that they have, or of another task than yes or no its first."""
    names = [metric.name for metric in slices[0].metrics] if slices else list(usual)
    return [name for name in usual if name in names] if "auc" in names else names[1 : 1 + len(usual)]


"""Metrics of the report's tables; the plain form has all."""

VIEW_COLUMNS = ("period", "view not simply read", "status", "decisions>", "share>")


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
        Decisions by status, those with outcomes that disagree, those without a key, matured ones whose key no outcome
        has, and those that a fallback made because a required state was not current.
    slices : sequence of Slice
    drifts : dict of period name to DriftReport
        Of every period that has decisions.
    triggers : sequence of TriggerResult
        Judged on the last complete period.
    digest : str
        SHA-256 of the stored report.
    views : dict of period name to ViewCounts
        Of every period that has decisions.
    warnings : sequence of str
        What keeps outcomes from ever joining.
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
    views: Mapping[str, ViewCounts] = field(default_factory=dict)
    warnings: Sequence[str] = ()

    @property
    def fired(self) -> list[TriggerResult]:
        """Triggers that fire by what was known at ``now``; of a report over the past they may have fired since."""
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
            "views": {name: views.to_dict() for name, views in self.views.items()},
            "warnings": list(self.warnings),
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
        metric_names = shown_metrics(periods)
        columns = ("period", "complete?", "decisions>", "known>", *(f"{name}>" for name in metric_names), "drifted>",
                   "psi>")  # fmt: skip
        rows = [self._row(part, metric_names) for part in periods if part.decisions]
        drifted = [
            (name, feature, report.features[feature].verdict.reason)
            for name, report in self.drifts.items()
            for feature in report.drifted[:5]
        ]
        unasked = [(name, *item) for name, report in self.drifts.items() for item in report.not_asked.items()]
        triggers = [(result.on, result.status, result.period, result.reason) for result in self.triggers]
        views = [row for name, counts in self.views.items() for row in counts.rows(name)]
        empty = len(periods) - len(rows)
        return [
            Facts(about),
            Grid(columns, rows) if rows else "There is no decision yet.",
            f"{count(empty)} periods without decisions are not shown." if rows and empty else None,
            *self.warnings,
            Grid(VIEW_COLUMNS, views) if views else None,
            Grid(("period", "drifted feature", "why"), drifted) if drifted else None,
            Grid(("period", "feature", "left out, of versions that did not read it>"), unasked) if unasked else None,
            Grid(("trigger", "status", "period", "reason"), triggers) if triggers else None,
            f"A trigger fired. Next: retrodict train {self.model.partition('@')[0]}"
            if self.fired and self.model
            else None,
        ]

    def _row(self, part: Slice, metric_names: Sequence[str]) -> tuple[Any, ...]:
        report = self.drifts.get(part.period.name)
        drift_cells = (None, None) if report is None else (len(report.drifted), report.psi)
        values = [part[name].value for name in metric_names]
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
    version = _Version.of(workspace, revision)
    parts = _parts(decisions, slices, start=start, end=end)
    drifts = {part.slice.period.name: part.drift(version, definition.psi_threshold) for part in parts}
    report = MonitorReport(
        monitor=definition.name,
        policy=policy,
        now=now,
        period=period,
        revision=None if revision is None else f"policy:{policy}#{revision.revision}",
        model=version.name,
        counts=_counts(decisions),
        slices=slices,
        drifts=drifts,
        views={part.slice.period.name: count_views(part.outcomes.decisions) for part in parts},
        warnings=_warnings(decisions, definition),
    )
    numbers = _last_complete(slices, drifts, version)
    # One transaction from reading the earlier firings to recording the new ones: two processes cannot both fire.
    with workspace.ledger.transaction() as tx:
        firings = [
            workspace.ledger.entries(object_id=trigger_ref(definition, trigger), action=FIRE)
            for trigger in definition.triggers
        ]
        results = [
            judge_trigger(definition, trigger, numbers, now=now, firings=earlier)
            for trigger, earlier in zip(definition.triggers, firings, strict=True)
        ]
        report = replace(report, triggers=results)
        report = replace(report, digest=workspace.objects.put(canonical_json(report.content())))
        _record(tx, definition, report, decisions, firings)
    return report


def _counts(decisions: Outcomes) -> dict[str, int]:
    statuses = {name: int((decisions.status == name).sum()) for name in ("known", "pending", "void")}
    stale = count_views(decisions.decisions).stale_fallbacks
    return {"decisions": len(decisions), **statuses, "revised": decisions.revised, "without_key": decisions.without_key,
            "unmatched": decisions.unmatched, "stale_fallbacks": stale}  # fmt: skip


def _warnings(decisions: Outcomes, definition: Monitor) -> list[str]:
    table = definition.policy.model.label.table
    warnings = []
    if decisions.unreachable:
        warnings.append(
            f"{count(decisions.unreachable)} of {count(len(decisions))} decisions carry no key: no row of "
            f"{table.name!r} will ever give them an outcome. Send 'key' with each request "
            f"({', '.join(table.key)} of {table.name!r}), or ingest outcomes by decision id."
        )
    if decisions.unmatched:
        warnings.append(
            f"{count(decisions.unmatched)} of {count(decisions.matured_with_key)} matured decisions carry a key that "
            f"no outcome has: compare 'key' of the decisions with {', '.join(table.key)} of {table.name!r}."
        )
    return warnings


def _revision(workspace: Workspace, policy: str, now: int) -> Revision | None:
    try:
        return in_force(workspace, policy, now)
    except NotFoundError:
        return None


@dataclass(frozen=True, slots=True)
class _Version:
    """The version in force, and what it says of its training and test rows."""

    name: str | None
    reference: Reference | None
    metadata: Mapping[str, Any]

    @classmethod
    def of(cls, workspace: Workspace, revision: Revision | None) -> _Version:
        if revision is None:
            return cls(None, None, {})
        metadata = ModelArtifact.load(workspace.objects, revision.deployment.artifact).metadata
        return cls(revision.deployment.model, read_reference(workspace.objects, metadata), metadata)

    def test_metric(self, name: str) -> float | None:
        """Metric of the test rows; None if it is not said."""
        value = self.metadata.get("test_metrics", {}).get(name)
        return float(value) if isinstance(value, int | float) else None

    def test_auc(self) -> Metric:
        """Area of the test rows with its interval, from their number and label rate."""
        auc, rate = self.test_metric("auc"), self.test_metric("base_rate")
        if auc is None:
            return Metric("auc", None, "the model version does not say the AUC of its test rows", 0)
        scores = None if self.reference is None else self.reference.features.get(SCORE)
        rows = 0 if scores is None else int(scores.counts.sum())
        positives = round(rows * (rate or 0.0))
        if not 0 < positives < rows:
            return Metric("auc", None, "the model version does not say how many test rows of each class it has", rows)
        return Metric.of("auc", rows, auc, hanley_interval(auc, positives, rows - positives))


@dataclass(frozen=True, slots=True)
class _Part:
    """Decisions of one period with their outcomes, and what of the period the report sees."""

    slice: Slice
    outcomes: Outcomes
    span: tuple[int, int]

    def drift(self, version: _Version, threshold: float) -> DriftReport:
        """Judge them against the version in force."""
        labelled = self.outcomes.select(self.outcomes.status == "known")
        before = version.test_metric("base_rate")
        rates = LabelRates(self.slice["label_rate"], labelled.column("time"), labelled.label, before)
        return drift(
            self.outcomes.decisions,
            version.reference,
            model=version.name,
            span=self.span,
            label_rate=rates if self.outcomes.target.task == "binary" else None,
            threshold=threshold,
        )


def _parts(decisions: Outcomes, slices: Sequence[Slice], *, start: int | None, end: int | None) -> list[_Part]:
    """Periods that have decisions."""
    times = decisions.column("time")
    until = decisions.now if end is None else min(end, decisions.now)
    parts = []
    for part in slices:
        if part.by is None and part.decisions:
            low, high = part.period.start, min(part.period.end, until)
            inside = (times >= low) & (times < high)
            span = (low if start is None else max(low, start)), high
            parts.append(_Part(part, decisions.select(inside), span))
    return parts


def _last_complete(
    slices: Sequence[Slice], drifts: Mapping[str, DriftReport], version: _Version
) -> PeriodNumbers | None:
    complete = [part for part in slices if part.by is None and part.complete]
    if not complete:
        return None
    last = complete[-1]
    nothing = DriftReport(None, "no decisions", 0, 0)
    return measure(last, drifts.get(last.period.name, nothing), version.test_auc())


def _record(
    tx: Transaction, definition: Monitor, report: MonitorReport, decisions: Outcomes, firings: Sequence[Sequence[Entry]]
) -> None:
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
    for trigger, result, earlier in zip(definition.triggers, report.triggers, firings, strict=True):
        # A report over the past does not know what fired later, and does not fire it again either.
        if result.status == "fires" and fired_near(trigger, earlier, result.period, now=report.now) is None:
            fired = {"at": report.now, "monitor": definition.name, "policy": report.policy, **asdict(result)}
            tx.append(FIRE, result.trigger, fired, inputs=[(name, "evidence")])
            drifted = [name for period, one in report.drifts.items() if period == result.period for name in one.drifted]
            if drifted and "psi" in parse(trigger.on, where="trigger").columns:
                append_drop(tx, policy=None, features=drifted, reason=f"{result.trigger} fired: {result.reason}")
