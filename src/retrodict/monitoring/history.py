"""One metric over the life of every version of a model: on training, validation and test rows, then in production.

A version's test metric is a promise; what its own decisions turned out to be, period by period as outcomes became
known, shows whether it was kept. Only decisions that this version made count for it, whichever is in force now.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from retrodict.core.display import Block, Facts, Grid, Record, Shown, count, number
from retrodict.core.errors import InputError, NotFoundError, near
from retrodict.core.tasks import Target
from retrodict.decisions.definitions import Policy
from retrodict.evaluation.directions import better
from retrodict.evaluation.metrics import Metric, evaluate, primary
from retrodict.learning.runs import Run, get_run
from retrodict.models.artifact import ModelArtifact
from retrodict.monitoring.performance import performance
from retrodict.monitoring.periods import short_period
from retrodict.outcomes.status import Outcomes, outcomes
from retrodict.registry import ModelVersion, current, list_versions
from retrodict.workspace import Workspace

__all__ = ["Decay", "HistoryLine", "ModelHistory", "model_history"]

_STAGES = ("train", "validate", "test")


@dataclass(frozen=True, slots=True)
class HistoryLine(Record):
    """The metric of one version on some rows, or in one period.

    Attributes
    ----------
    version : str
        ``name@version``.
    stage : str
        ``train``, ``validate``, ``test``, or ``production``.
    policy, period : str or None
        Whose decisions, and when they were made; period None is all of them together.
    complete : bool
        False of a period that is not over.
    decisions, labelled : int
        Decisions of the version, and those of them whose outcome is known; 0 of stages before production.
    value, low, high : float or None
        With its 95 % interval, where there is one.
    reason : str or None
        Why there is no value.
    """

    version: str
    stage: str
    policy: str | None
    period: str | None
    complete: bool
    decisions: int
    labelled: int
    value: float | None
    low: float | None
    high: float | None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Decay(Record):
    """How far a version's decisions are from its test rows.

    Attributes
    ----------
    version, policy : str
    difference : float or None
        Metric of all its decisions with a known outcome, minus that of the test rows.
    low, high : float or None
        95 % interval of the difference of two independent estimates, from their own intervals.
    verdict : str
        ``worse``, ``better``, ``within noise``, or ``not evaluable``; ``changed`` where the metric has no direction.
    """

    version: str
    policy: str
    difference: float | None
    low: float | None
    high: float | None
    verdict: str


@dataclass(frozen=True, slots=True, repr=False)
class ModelHistory(Shown):
    """A metric of a model, version by version, from training rows to the newest decisions.

    Attributes
    ----------
    model, metric, period : str
    now : int
        As of when outcomes are known: microseconds since 1970-01-01 UTC.
    lines : tuple of HistoryLine
        By version; stages in order, then production overall and by period.
    decays : tuple of Decay
        One for each version and policy that decided.
    """

    model: str
    metric: str
    period: str
    now: int
    lines: tuple[HistoryLine, ...]
    decays: tuple[Decay, ...]

    def blocks(self) -> Sequence[Block | None]:
        """Every number, then what decayed."""
        columns = ("version", "rows", "decisions>", "known>", f"{self.metric}>", "95 % interval")
        rows = [
            (line.version, _place(line), count(line.decisions) if line.policy else "",
             count(line.labelled) if line.policy else "", number(line.value),
             line.reason or _interval(line.low, line.high))
            for line in self.lines
        ]  # fmt: skip
        decays = [(d.version, d.policy, number(d.difference), _interval(d.low, d.high), d.verdict) for d in self.decays]
        decay = Grid(("version", "policy", "production - test>", "95 % interval", "verdict"), decays)
        return [
            Grid(columns, rows, title=f"{self.model}, {self.metric}"),
            decay if decays else Facts({"production": "no version has decided yet"}),
        ]

    def plot(self) -> str:
        """SVG: the metric of each version by period, beside that of its test rows.

        Raises
        ------
        InputError
            If no version has a value in a period.
        """
        from retrodict.evaluation.plots import plot_histories

        periods = sorted({line.period for line in self.lines if line.period is not None})
        lines: dict[str, list[tuple[int, float]]] = {}
        for line in self.lines:
            if line.period is not None and line.value is not None:
                name = f"{line.version} ({line.policy})"
                lines.setdefault(name, []).append((periods.index(line.period), line.value))
        return plot_histories(
            list(lines), list(lines.values()), metric=self.metric, ticks=[*map(short_period, periods)]
        )


def model_history(
    workspace: Workspace,
    model: str,
    *,
    now: int,
    metric: str | None = None,
    period: str = "month",
    min_labels: int = 100,
) -> ModelHistory:
    """Follow a metric of every version of a model into production.

    Parameters
    ----------
    workspace : Workspace
    model : str
    now : int
        As of when outcomes are known, microseconds since 1970-01-01 UTC.
    metric : str, optional
        None: the one that the task is judged by.
    period : str, default "month"
        ``"month"`` (calendar, UTC) or a duration such as ``"7d"``.
    min_labels : int, default 100
        With fewer known outcomes a metric of decisions is not evaluable.

    Raises
    ------
    NotFoundError
        If the model has no version.
    InputError
        If no version has the metric.
    """
    versions = list_versions(workspace, model)
    if not versions:
        raise NotFoundError("a model must have a version to have a history", where="history", got=model,
                            remedy=f"Run 'retrodict train {model}'")  # fmt: skip
    runs = {version.ref: get_run(workspace, version.run) for version in versions}
    newest = ModelArtifact.target_of(workspace.objects, versions[-1].artifact)
    metric = metric or primary(newest)[0]
    names = {point.name for run in runs.values() for point in run.points if point.split == "test"}
    if metric not in names:
        raise InputError("a version must have the metric", where=f"history of {model}", got=metric,
                         remedy=near(metric, names, what="metric"))  # fmt: skip
    policies = [policy.name for policy in workspace.definitions.of(Policy) if policy.model.name == model]
    policies += [model] if model in current(workspace) and model not in policies else []
    facts = [outcomes(workspace, policy, now=now) for policy in policies]
    lines: list[HistoryLine] = []
    decays = []
    for version in versions:
        target = ModelArtifact.target_of(workspace.objects, version.artifact)
        stages = list(_stages(workspace, version.ref, runs[version.ref], metric))
        if metric == "integrated_brier" and target.horizons != newest.horizons:  # a mean over others is no such number
            reason = f"other horizons: {', '.join(target.horizons)}"
            lines += [replace(line, value=None, low=None, high=None, reason=reason) for line in stages]
            continue
        lines += stages
        for policy_outcomes in facts:
            production = _production(policy_outcomes, version, target, metric, period, min_labels)
            lines += production
            decays += [_decay(stages[-1], overall, metric) for overall in production[:1]]
    return ModelHistory(model, metric, period, now, tuple(lines), tuple(decays))


def _stages(workspace: Workspace, version: str, run: Run, metric: str) -> Iterator[HistoryLine]:
    """The last value on the rows of each stage that has one; of the test rows also where there is none."""
    for stage in _STAGES:
        points = [point for point in run.points if point.split == stage and point.name == metric]
        if points:
            point = max(points, key=lambda point: point.step)
            reason = _reason(workspace, run, stage, metric) if point.value is None else None
            yield HistoryLine(version, stage, None, None, True, 0, 0, point.value, point.low, point.high, reason)
        elif stage == "test":
            yield HistoryLine(version, stage, None, None, True, 0, 0, None, None, None, "no such metric then")


def _reason(workspace: Workspace, run: Run, stage: str, metric: str) -> str:
    """Why the run has no value of a metric, as its evaluations say."""
    for file in run.artifacts:
        if file.name == "evaluations.json":
            metrics = json.loads(workspace.objects.get(file.digest)).get(stage, {}).get("metrics", ())
            return next((line["reason"] for line in metrics if line["name"] == metric), None) or "not evaluable"
    return "not evaluable"


def _production(
    facts: Outcomes, version: ModelVersion, target: Target, metric: str, period: str, min_labels: int
) -> list[HistoryLine]:
    """What its decisions under a policy turned out to be: all of them, then by period; none where it made none."""
    decisions = facts.select(facts.column("model") == version.ref)
    if not len(decisions):
        return []
    overall = HistoryLine(version.ref, "production", facts.policy, None, True, len(decisions), 0, None, None, None)
    if decisions.target != target:
        reason = "the version in force predicts something else"
        return [replace(overall, reason=reason)]
    labelled = decisions.status == "known"
    outputs = decisions.outputs()
    first = outputs if outputs.ndim == 1 else outputs[:, 0]
    rows = decisions.countable & ~np.isnan(first)
    evaluation = evaluate(decisions.label[rows], outputs[rows], target, min_rows=min_labels)
    lines = [_measured(replace(overall, labelled=int(labelled.sum())), evaluation[metric])]
    for part in performance(decisions, period=period, min_labels=min_labels):
        if part.decisions:
            line = replace(overall, period=part.period.name, complete=part.complete, decisions=part.decisions,
                           labelled=part.labelled)  # fmt: skip
            lines.append(_measured(line, part[metric]))
    return lines


def _measured(line: HistoryLine, metric: Metric) -> HistoryLine:
    if not line.labelled:
        return replace(line, reason="no outcome is known yet")
    return replace(line, value=metric.value, low=metric.low, high=metric.high, reason=metric.reason)


def _decay(test: HistoryLine, overall: HistoryLine, metric: str) -> Decay:
    """Difference of two independent estimates; its variance is the sum of theirs, read off their intervals."""
    policy = overall.policy or ""
    if test.value is None or overall.value is None:
        return Decay(overall.version, policy, None, None, None, "not evaluable")
    difference = overall.value - test.value
    if test.low is None or test.high is None or overall.low is None or overall.high is None:
        return Decay(overall.version, policy, difference, None, None, "not evaluable")
    half = math.hypot(test.high - test.low, overall.high - overall.low) / 2
    low, high = difference - half, difference + half
    if low <= 0 <= high:
        verdict = "within noise"
    else:
        try:
            verdict = "better" if (difference > 0) == (better(metric) == "higher") else "worse"
        except InputError:  # it is right at one value
            verdict = "changed"
    return Decay(overall.version, policy, difference, low, high, verdict)


def _place(line: HistoryLine) -> str:
    if line.policy is None:
        return line.stage
    if line.period is None:
        return f"policy {line.policy}"
    return f"  {short_period(line.period)}{'' if line.complete else ', not over'}"


def _interval(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f"{number(low)} to {number(high)}"
