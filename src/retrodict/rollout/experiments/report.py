"""What an experiment shows so far: is it sound, does it harm, what is the effect, and what to do.

In this order: the sample ratio, which blocks everything; guardrails, which ask for a stop; the primary metric, which
decides; then secondary metrics and segments, corrected for their number. Where weights changed, arms are compared
within each period of weights, and differences add up: pooled, a trend in time reads as an effect.
Every look is on record, and p values of a sequential analysis never rise from look to look. A planned look is judged
when its units are in, by what looks on record have left of the level; in between the last verdict stands.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from retrodict.core.clock import format_time
from retrodict.core.display import Block, Facts, Grid, Shown, number, to_json, when
from retrodict.core.durations import DAY
from retrodict.core.errors import RefusedError, check_known, check_reason
from retrodict.core.identity import content_hash, digest
from retrodict.rollout.experiments.definitions import Experiment, UnitMetric
from retrodict.rollout.experiments.runs import ExperimentRun, check_unchanged, find_run
from retrodict.rollout.experiments.units import UnitRows, read_units
from retrodict.rollout.statistics import (
    Allowed,
    Contrast,
    SampleRatio,
    Sums,
    adjust,
    boundaries,
    check_balance,
    check_outcomes,
    compare_means,
    compare_shares,
    false_discovery,
    holm,
    linearise,
    pool_strata,
    repeated_p,
    stratified,
    variance_left,
    welch,
)
from retrodict.rollout.statistics.contrast import unknown
from retrodict.rollout.statistics.group import SPENDINGS
from retrodict.workspace import Workspace

__all__ = ["EFFECT_COLUMNS", "MetricEffect", "check_arrivals", "decide", "effect_row", "examine", "ExperimentReport",
           "judge", "record_look", "report_on"]  # fmt: skip

Floats = NDArray[np.float64]
Role = Literal["primary", "guardrail", "secondary", "segment"]
Strata = Sequence[tuple[Sums, Sums]]
_GO_ON = "Go on until the planned units are in"
_ENDED = "It has ended with nothing shown: keep control, wait for outcomes that are pending, or start it anew"
_MIN_STRATUM = 30
"""Units in either arm that a period of weights or a stratum must have to count beside others."""


@dataclass(frozen=True, slots=True)
class MetricEffect:
    """One metric of one variant against control.

    Attributes
    ----------
    metric, variant : str
    role : {"primary", "guardrail", "secondary", "segment"}
    segment : str
        ``name=value``; empty of all units.
    control, treatment : float or None
        Values of both.
    contrast : Contrast
        Treatment minus control.
    p_adjusted : float or None
        Of secondary metrics by Holm, of segments by Benjamini and Hochberg; else as it is.
    variance_left : float
        After the covariate and strata: 0.6 says that they saved 40 % of the units.
    """

    metric: str
    variant: str
    role: Role
    segment: str
    control: float | None
    treatment: float | None
    contrast: Contrast
    p_adjusted: float | None = None
    variance_left: float = 1.0

    @property
    def key(self) -> str:
        """What a look on record calls it."""
        return _key(self.role, self.metric, self.variant, self.segment)


def _key(role: str, metric: str, variant: str, segment: str) -> str:
    return f"{role} {metric} {variant} {segment}".strip()


@dataclass(frozen=True, slots=True, repr=False)
class ExperimentReport(Shown):
    """An experiment as of a time.

    Attributes
    ----------
    verdict : {"success", "failure", "inconclusive"}
        Of the primary metric, unless the sample ratio or a guardrail forbids.
    reason, advice : str
        What decided, and what to do.
    stop : bool
        Whether a guardrail is shown to be exceeded.
    units, crossed, void, pending : dict, int, int, int
        Units by variant; see :class:`UnitRows` for the rest.
    brief : int
        Units of periods of weights that had too few in an arm to count beside others.
    strata : dict
        Units by stratum; those too few to count alone are the rest.
    balance, arrivals : SampleRatio
        Of units by variant; and of those with an outcome, and those without one though it is due.
    effects : tuple of MetricEffect
    looks : int
        Reports before this one.
    look, next_look : int or None
        Where looks are planned: units at the look whose verdict this is, and at which the next one is due.
    days, weekdays : tuple of dict
        Effect of the best variant on the primary metric by day of a unit's first decision and by weekday, with 95 %
        intervals.
    """

    experiment: str
    version: str
    policy: str
    now: int
    since: int
    until: int | None
    share: float
    analysis: str
    verdict: Literal["success", "failure", "inconclusive"]
    reason: str
    advice: str
    stop: bool
    units: Mapping[str, int]
    planned: int
    crossed: int
    void: int
    pending: int
    brief: int
    strata: Mapping[str, int]
    balance: SampleRatio
    arrivals: SampleRatio
    effects: Sequence[MetricEffect]
    looks: int
    look: int | None
    next_look: int | None
    days: Sequence[Mapping[str, Any]]
    weekdays: Sequence[Mapping[str, Any]]

    @property
    def ok(self) -> bool:
        """Whether nothing asks for a stop."""
        return not self.stop and "failure" not in (self.balance.verdict, self.arrivals.verdict)

    @property
    def digest(self) -> str:
        """SHA-256 of the report: what a decision names as its evidence."""
        return digest(to_json({**self.to_dict(), "looks": None}).encode())

    def to_dict(self) -> dict[str, Any]:
        """Plain form, unrounded."""
        return {**Shown.to_dict(self), "now": format_time(self.now), "since": format_time(self.since),
                "until": None if self.until is None else format_time(self.until)}  # fmt: skip

    def blocks(self) -> Sequence[Block | None]:
        """Verdict, soundness, effects."""
        about = {
            "experiment": self.experiment, "as of": when(self.now), "since": when(self.since),
            "until": None if self.until is None else when(self.until), "verdict": self.verdict, "because": self.reason,
            "what to do": self.advice, "units": ", ".join(f"{name} {n:,}" for name, n in self.units.items()),
            "planned units": self.planned, "judged at units": self.look, "next look at units": self.next_look,
            "sample ratio": self.balance.reason, "outcomes": self.arrivals.reason, "looks before": self.looks,
            "in several variants": self.crossed or None, "decisions pending": self.pending or None,
            "decisions without outcome": self.void or None, "in periods too brief to count": self.brief or None,
            "strata": self._strata(),
        }  # fmt: skip
        rows = [effect_row(effect) for effect in self.effects]
        return [Facts(about), Grid(EFFECT_COLUMNS, rows) if rows else None]

    def _strata(self) -> str | None:
        left = next((effect.variance_left for effect in self.effects if effect.role == "primary"), 1.0)
        units = "; ".join(f"{name} {n:,}" for name, n in self.strata.items())
        return f"{units}. The primary metric has {left:.0%} of its variance left" if self.strata else None


EFFECT_COLUMNS = ("metric", "role", "variant", "control>", "value>", "difference>", "interval", "p>", "verdict")


def effect_row(effect: MetricEffect) -> tuple[object, ...]:
    """Cells of an effect."""
    contrast = effect.contrast
    span = "-" if contrast.low is None or contrast.high is None else f"{contrast.low:+.4f} to {contrast.high:+.4f}"
    name = f"{effect.metric} ({effect.segment})" if effect.segment else effect.metric
    value, p = contrast.value, effect.p_adjusted
    return (name, effect.role, effect.variant, effect.control, effect.treatment,
            None if value is None else f"{value:+.4f}", span, None if p is None else number(p),
            contrast.verdict if value is not None else contrast.reason)  # fmt: skip


def report_on(workspace: Workspace, name: str, *, now: int) -> ExperimentReport:
    """Report on the newest run of an experiment as of a time, and put the look on record.

    Raises
    ------
    RefusedError
        If the definition is not the one that was started.
    NotFoundError
        If it was never started.
    """
    experiment, run = workspace.definitions.get(Experiment, name), find_run(workspace, name)
    return examine(workspace, experiment, run, now=now, record=True)


Looks = Sequence[Mapping[str, Any]]


def examine(
    workspace: Workspace, experiment: Experiment, run: ExperimentRun, *, now: int, record: bool = False
) -> ExperimentReport:
    """Report on a run; with ``record`` the look is put on record, after all others: each spends of the level once."""
    check_unchanged(experiment, run)
    rows = read_units(workspace, experiment, run, now=now)
    with workspace.lock(f"rollout/{run.policy}") if record else nullcontext():
        entries = workspace.ledger.entries(object_id=f"experiment:{experiment.name}", action="experiment.look")
        looks = [entry.payload for entry in entries if entry.payload["since"] == run.since]
        report = judge(experiment, run, rows, now, looks)
        return record_look(workspace, run, report, looks) if record else report


def record_look(workspace: Workspace, run: ExperimentRun, report: ExperimentReport, looks: Looks) -> ExperimentReport:
    """Put a look on record, unless the last one saw the same."""
    contrasts = {effect.key: effect.contrast for effect in report.effects}
    facts: dict[str, object] = {
             "since": run.since, "now": report.now, "verdict": report.verdict, "stop": report.stop,
             "report": report.digest, "balance_p": report.balance.p_value, "units": dict(report.units),
             "p_values": {key: one.p_value for key, one in contrasts.items() if one.p_value is not None}}  # fmt: skip
    if report.look is not None and all(report.look != look.get("look") for look in looks):
        decided = {key: one.verdict for key, one in contrasts.items() if one.verdict != "inconclusive"}
        facts |= {"look": report.look, "fraction": report.look / report.planned, "verdicts": decided}
    if not looks or looks[-1]["report"] != facts["report"]:
        with workspace.ledger.transaction() as tx:
            tx.append("experiment.look", f"experiment:{run.name}", facts,
                      inputs=[(f"policy:{run.policy}", "decisions of")])  # fmt: skip
    return report


def judge(
    experiment: Experiment, run: ExperimentRun, rows: UnitRows, now: int, looks: Sequence[Mapping[str, Any]]
) -> ExperimentReport:
    """Report on a run from its units, as of a time and after earlier looks; a planned one that is later is taken."""
    spent_at = sorted(look["look"] for look in looks if "look" in look)
    looks = [look for look in looks if look["now"] <= now]
    units = {name: int((rows.variant == name).sum()) for name in experiment.variants}
    before = [look["balance_p"] for look in looks if look["balance_p"] is not None]
    weights = [shares for _, shares in run.periods] or [experiment.variants]
    by_period = [{name: int(((rows.variant == name) & (rows.period == place)).sum()) for name in experiment.variants}
                 for place in range(len(weights))]  # fmt: skip
    balance = check_balance(by_period, weights, p_before=min(before, default=1.0))
    brief = sum(sum(arms.values()) for arms in by_period if min(arms.values()) < _MIN_STRATUM)
    planned = run.state["units"]
    contrasts = _Judge(experiment, rows, planned, looks, spent_at)
    arrivals = check_arrivals(experiment, run, rows)
    effects = _evaluable(experiment, arrivals, contrasts.all())
    over = run.until is not None and run.until <= now
    verdict, reason, advice, stop = _verdict(experiment, balance, effects, over=over)
    if advice == _GO_ON and contrasts.look is not None and contrasts.next_look is None:
        advice = f"Stop: there is no further look, and {experiment.control} may stay"
    if "label" in experiment.primary.columns and "failure" == arrivals.verdict != balance.verdict and not stop:
        advice = "Find out why outcomes are missing from an arm; no effect on them means anything before"
    days, weekdays = contrasts.over_time(_leader(experiment, effects))
    return ExperimentReport(
        experiment=experiment.name, version=content_hash(experiment), policy=run.policy, now=now, since=run.since,
        until=run.until, share=run.state["share"], analysis=experiment.analysis, verdict=verdict, reason=reason,
        advice=advice, stop=stop, units=units, planned=planned, crossed=rows.crossed, void=rows.void,
        pending=rows.pending, brief=brief if len(weights) > 1 else 0, strata=contrasts.units_of_strata(),
        balance=balance, arrivals=arrivals, effects=effects, looks=len(looks), look=contrasts.look,
        next_look=contrasts.next_look, days=days,
        weekdays=weekdays,
    )  # fmt: skip


def check_arrivals(experiment: Experiment, run: ExperimentRun, rows: UnitRows) -> SampleRatio:
    """Whether outcomes come alike in all arms, by the weights of each period; asked where a metric reads them."""
    weights = [shares for _, shares in run.periods] or [experiment.variants]
    read = rows.outcome is not None and any("label" in metric.columns for metric in experiment.metrics)
    came, missing = ([
        {name: int(((rows.variant == name) & (rows.period == place) & (rows.outcome == state)).sum()) if read else 0
         for name in experiment.variants} for place in range(len(weights))] for state in (1, 2))  # fmt: skip
    return check_outcomes(came, missing, weights)


def _evaluable(
    experiment: Experiment, arrivals: SampleRatio, effects: Sequence[MetricEffect]
) -> Sequence[MetricEffect]:
    """Effects, of which those on outcomes are none where these come more often in one arm; a broken guardrail is."""
    reads = {metric.name for metric in experiment.metrics if "label" in metric.columns}
    why = f"not evaluable, outcomes are missing from an arm: {arrivals.reason}"
    return [
        replace(one, p_adjusted=None,
                contrast=replace(one.contrast, verdict="inconclusive", reason=why, p_value=None))
        if arrivals.verdict == "failure" and one.metric in reads
        and (one.role, one.contrast.verdict) != ("guardrail", "failure") else one
        for one in effects
    ]  # fmt: skip


def _leader(experiment: Experiment, effects: Sequence[MetricEffect]) -> str:
    """Treatment with the best primary effect so far."""
    sign = 1.0 if experiment.primary.better == "higher" else -1.0
    values = {effect.variant: sign * effect.contrast.value for effect in effects
              if effect.role == "primary" and effect.contrast.value is not None}  # fmt: skip
    return max(values, key=lambda name: values[name], default=experiment.treatments[0])


def _verdict(
    experiment: Experiment, balance: SampleRatio, effects: Sequence[MetricEffect], *, over: bool
) -> tuple[Literal["success", "failure", "inconclusive"], str, str, bool]:
    """Verdict, why, what to do, and whether to stop."""
    harmful = [effect for effect in effects if effect.role == "guardrail" and effect.contrast.verdict == "failure"]
    stop, keep = bool(harmful), f"Keep {experiment.control}" if over else f"Stop, and keep {experiment.control}"
    primary = {effect.variant: effect for effect in effects if effect.role == "primary"}
    harm = "".join(f"guardrail {one.metric} of {one.variant}: {one.contrast.reason}" for one in harmful[:1])
    if balance.verdict == "failure":
        harm = f"; {harm}, which stops it all the same: a stop for nothing costs less than harm" if harm else ""
        return "inconclusive", f"sample ratio: {balance.reason}{harm}", (
            "Find out why units are missing from an arm; no effect means anything before"), stop  # fmt: skip
    if harmful:
        return "failure", harm, (keep if over else
            f"Stop: retrodict experiment stop {experiment.name} --reason 'guardrail'"), stop  # fmt: skip
    better = {name: effect for name, effect in primary.items() if effect.contrast.verdict == "success"}
    worse = {name: effect for name, effect in primary.items() if effect.contrast.verdict == "failure"}
    if experiment.same and (better or worse):
        name, effect = next(iter((better | worse).items()))
        return "failure", f"variants are alike, and {name} differs: {effect.contrast.reason}", (
            "Find the fault in assignment or measurement before any other experiment"), stop  # fmt: skip
    if better:
        name = _leader(experiment, list(better.values()))
        return (
            "success",
            f"{name}: {better[name].contrast.reason}",
            f"{'D' if over else 'Stop, and d'}ecide for {name}",
            stop,
        )
    if worse and len(worse) == len(primary):
        name, effect = next(iter(worse.items()))
        return "failure", f"{name}: {effect.contrast.reason}", keep, stop
    name, effect = next(iter(primary.items()))
    advice = "Nothing differs so far, as it should be" if experiment.same else _ENDED if over else _GO_ON
    return "inconclusive", f"{name}: {effect.contrast.reason}", advice, stop


class _Judge:
    """Contrasts of one report."""

    def __init__(
        self, experiment: Experiment, rows: UnitRows, planned: int, looks: Looks, spent_at: Sequence[int] = ()
    ) -> None:
        self._experiment, self._rows, self._planned = experiment, rows, planned
        self._arms: dict[str | None, NDArray[np.bool_]] = {name: rows.variant == name for name in experiment.variants}
        labels = np.zeros(rows.variant.size) if rows.strata is None else rows.strata
        self._numbers = np.unique(labels, return_inverse=True)[1].astype(np.int64)
        self._p_values: dict[str, float] = {}
        self._plan, self._spent_at = experiment.looks_at(planned), spent_at
        for look in looks:
            for key, p in look["p_values"].items():
                if not self._plan or "look" in look or key.startswith("guardrail"):
                    self._p_values[key] = min(p, self._p_values.get(key, 1.0))
        last = next((look for look in reversed(looks) if "look" in look), {})
        self._verdicts = last.get("verdicts", {})
        self._units = int((rows.sums[experiment.primary.name][1] != 0).sum())
        self.look, self.next_look = last.get("look"), self._first(max(spent_at, default=0))
        self._due = self.next_look is not None and self._units >= self.next_look
        if self._due:
            self.look, self.next_look = self._units, self._first(self._units)

    def _first(self, units: int) -> int | None:
        return next((due for due in self._plan if due > units), None)

    def all(self) -> Sequence[MetricEffect]:
        """Effects of all metrics and segments, with their corrections."""
        experiment = self._experiment
        everybody = np.ones(self._rows.variant.size, dtype=np.bool_)
        effects = [self._effect(experiment.primary, name, "primary", everybody) for name in experiment.treatments]
        effects += [self._effect(metric, name, "guardrail", everybody) for metric in experiment.guardrails
                    for name in experiment.treatments]  # fmt: skip
        secondary = [self._effect(metric, name, "secondary", everybody) for metric in experiment.secondary
                     for name in experiment.treatments]  # fmt: skip
        segments = [
            self._effect(experiment.primary, name, "segment", values == value, f"{column}={value}")
            for column, values in self._rows.segments.items() for value in np.unique(values).tolist()
            for name in experiment.treatments
        ]  # fmt: skip
        effects += [*_corrected(secondary, holm), *_corrected(segments, false_discovery)]
        return effects if self._due or not self._plan else list(map(self._standing, effects))

    def _standing(self, effect: MetricEffect) -> MetricEffect:
        """An effect with its verdict at the last planned look; the same units once more are that look."""
        verdict = self._verdicts.get(effect.key, "inconclusive")
        if (effect.role == "guardrail" or (effect.contrast.value is None and verdict == "inconclusive")
                or (self._units == self.look and verdict == effect.contrast.verdict)):  # fmt: skip
            return effect
        following = "there is no further look" if self.next_look is None else f"the next look is at {self.next_look}"
        reason = f"{self._units} of {self._planned} planned units, and {following}"
        if self.look is not None:
            reason = f"{verdict} at the look at {self.look} units; {reason}"
        return replace(effect, contrast=replace(effect.contrast, verdict=verdict, reason=reason))

    def _effect(
        self, metric: UnitMetric, variant: str, role: Role, part: NDArray[np.bool_], segment: str = ""
    ) -> MetricEffect:
        experiment, rows = self._experiment, self._rows
        covariate = rows.before if role in ("primary", "segment") else None
        strata, left = self._strata(metric, variant, part, covariate)
        # Of each side the same, shared by the treatments.
        alpha = experiment.alpha / 2 / len(experiment.treatments) * metric.allowed.sides
        method = "Welch" if self._plan else "asymptotic confidence sequence"
        if not strata:
            contrast = unknown("an arm has nothing to count yet", method, "difference", (0, 0), 1 - 2 * alpha)
            return MetricEffect(metric.name, variant, role, segment, None, None, contrast)
        key = _key(role, metric.name, variant, segment)
        contrast = (self._at_look if self._plan and role != "guardrail" else self._at_any)(metric, strata, alpha, key)
        sizes = [control.n + treatment.n for control, treatment in strata]
        means = [sum(pair[arm].mean * size for pair, size in zip(strata, sizes, strict=True)) / sum(sizes)
                 for arm in (0, 1)]  # fmt: skip
        return MetricEffect(metric.name, variant, role, segment, means[0], means[1], contrast,
                            contrast.p_value, left)  # fmt: skip

    def _at_any(self, metric: UnitMetric, strata: Strata, alpha: float, key: str) -> Contrast:
        """Contrast of a metric that holds at any look."""
        best_at = max(self._planned // len(self._experiment.variants), 100)
        p_before = self._p_values.get(key, 1.0)
        if len(strata) == 1:
            return compare_means(*strata[0], metric.allowed, alpha=alpha, best_at=best_at, p_before=p_before)
        return stratified(strata, metric.allowed, alpha=alpha, best_at=best_at, p_before=p_before)

    def _at_look(self, metric: UnitMetric, strata: Strata, alpha: float, key: str) -> Contrast:
        """Contrast of a metric by what planned looks so far have left of the level; a p value is of a look alone."""
        from scipy.special import ndtr

        units = (*(units for units in self._spent_at if units < self._units), self._units)
        fractions, spending, p_value = tuple(n / self._planned for n in units), self._experiment.analysis, None
        if spending in SPENDINGS and self._units:
            level = 2 * alpha / metric.allowed.sides
            alpha = float(ndtr(-boundaries(fractions, alpha=level, spending=spending)[-1])) * metric.allowed.sides
        contrast = _once(strata, metric.allowed, alpha)
        if self._units == self.look and contrast.p_value is not None:
            p_value = repeated_p(contrast.p_value, fractions, spending) if spending in SPENDINGS else contrast.p_value
        p_values = [p for p in (p_value, self._p_values.get(key)) if p is not None]
        return replace(contrast, p_value=min(p_values, default=None))

    def _strata(
        self, metric: UnitMetric, variant: str, part: NDArray[np.bool_], covariate: Floats | None
    ) -> tuple[Strata, float]:
        """Sums of control and a treatment by period of weights and stratum, and the part of their variance left.

        Of several periods those count that have enough units in both arms for a variance of their own.
        """
        periods, strata, left = np.unique(self._rows.period), [], []
        for period in periods:
            pair, of_period, places = self._values(metric, variant, part & (self._rows.period == period), covariate)
            if pair is not None and (len(periods) == 1 or min(map(len, pair)) >= _MIN_STRATUM):
                parts = [(Sums.of(pair[0][places[0] == place]), Sums.of(pair[1][places[1] == place]))
                         for place in np.unique(places[0])]  # fmt: skip
                strata += parts
                left.append(of_period * variance_left(parts) * (len(pair[0]) + len(pair[1])))
        return strata, sum(left) / sum(one.n + other.n for one, other in strata) if strata else 1.0

    def _values(
        self, metric: UnitMetric, variant: str, part: NDArray[np.bool_], covariate: Floats | None
    ) -> tuple[list[Floats] | None, float, list[NDArray[np.int64]]]:
        """Values of control's and a treatment's units, less what the covariate foretells; variance left; strata."""
        above, below = self._rows.sums[metric.name]
        arms = [part & self._arms[name] & (below != 0) for name in (self._experiment.control, variant)]
        if any(not arm.any() or below[arm].sum() == 0 for arm in arms):
            return None, 1.0, []
        values, left = [linearise(above[arm], below[arm]) for arm in arms], 1.0
        if covariate is not None:
            values, left = adjust(values, [covariate[arm] for arm in arms])
        return values, left, pool_strata([self._numbers[arm] for arm in arms], _MIN_STRATUM)

    def units_of_strata(self) -> dict[str, int]:
        """Units by stratum as all arms together have them; those that are too few are the rest."""
        labels = self._rows.strata
        if labels is None or not labels.size:
            return {}
        places = np.concatenate(pool_strata([self._numbers[arm] for arm in self._arms.values()], _MIN_STRATUM))
        names = np.concatenate([labels[arm] for arm in self._arms.values()])
        groups = [names[places == place] for place in np.unique(places)]
        return {str(group[0]) if (group == group[0]).all() else "rest": group.size for group in groups}

    def over_time(self, variant: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Effect on the primary metric by day since the start and by weekday of the first decision."""
        days = self._rows.first // DAY
        weekday = (days + 3) % 7  # the first of January 1970 was a Thursday
        names = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
        by_day = [self._point(variant, days == day, format_time(int(day) * DAY)[:10]) for day in np.unique(days)]
        return by_day, [self._point(variant, weekday == place, name) for place, name in enumerate(names)]

    def _point(self, variant: str, part: NDArray[np.bool_], name: str) -> dict[str, Any]:
        strata, _ = self._strata(self._experiment.primary, variant, part, None)
        point: dict[str, Any] = {"name": name, "value": None, "low": None, "high": None}
        if not strata:
            return point
        contrast = _once(strata, self._experiment.primary.allowed, 0.025)
        return point | {"value": contrast.value, "low": contrast.low, "high": contrast.high}


def _once(strata: Strata, allowed: Allowed, alpha: float) -> Contrast:
    if len(strata) > 1:
        return stratified(strata, allowed, alpha=alpha)
    compare = compare_shares if all(arm.is_rate for arm in strata[0]) else welch
    return compare(*strata[0], allowed, alpha=alpha)


def _corrected(
    effects: Sequence[MetricEffect], correct: Callable[[Sequence[float]], list[float]]
) -> Sequence[MetricEffect]:
    """Effects with p values corrected for how many there are; a verdict that the correction takes away is none."""
    tested = [effect for effect in effects if effect.contrast.p_value is not None]
    adjusted = dict(zip(map(id, tested), correct([e.contrast.p_value or 0.0 for e in tested]), strict=True))
    corrected = []
    for effect in effects:
        p = adjusted.get(id(effect))
        contrast = effect.contrast
        if p is not None and contrast.verdict != "inconclusive" and p > 0.05:
            reason = f"p = {p:.3g} once corrected for {len(tested)} comparisons; {contrast.reason}"
            contrast = replace(contrast, verdict="inconclusive", reason=reason)
        corrected.append(replace(effect, contrast=contrast, p_adjusted=p))
    return corrected


def decide(workspace: Workspace, name: str, variant: str, *, reason: str, anyway: bool = False) -> dict[str, Any]:
    """Put on record what was decided after an experiment, with a report of now as the evidence.

    Raises
    ------
    RefusedError
        If the experiment still runs; or, unless ``anyway``, if a treatment was chosen that is not shown to be better.
    """
    run, where = find_run(workspace, name), f"experiment:{name}"
    check_reason(reason, "a decision on an experiment must have a reason", where=where)
    check_known(variant, run.state["variants"], "the choice must be a variant", where=where, what="variant")
    if run.until is None:
        raise RefusedError("an experiment must be stopped before it is decided on", where=where, got="running",
                           remedy=f"Run: retrodict experiment stop {name} --reason WHY")  # fmt: skip
    report = report_on(workspace, name, now=workspace.clock.now())
    better = {one.variant for one in report.effects if one.role == "primary" and one.contrast.verdict == "success"}
    evident = variant == run.state["control"] or (report.verdict == "success" and variant in better)
    if not evident and not anyway:
        raise RefusedError("a variant must be shown to be better to be decided for", where=f"{where}, {variant}",
                           got=f"{report.verdict}: {report.reason}",
                           remedy=f"Keep {run.state['control']}; or say --anyway, which stays on record")  # fmt: skip
    facts = {"variant": variant, "version": run.version, "since": run.since, "reason": reason,
             "verdict": report.verdict, "shown": evident, "report": report.digest}  # fmt: skip
    with workspace.ledger.transaction() as tx:
        tx.append("experiment.decide", where, facts, inputs=[(f"policy:{run.policy}", "experiment of")])
    return facts
