"""How many units an experiment needs and how long that takes, from the traffic and outcomes of the policy so far."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from retrodict.core.display import Block, Facts, Grid, Shown
from retrodict.core.durations import DAY, parse_duration
from retrodict.core.errors import InputError
from retrodict.core.identity import content_hash
from retrodict.rollout.experiments.definitions import Experiment
from retrodict.rollout.experiments.runs import check_requests, deployed, record_plan
from retrodict.rollout.experiments.units import history_rows
from retrodict.rollout.statistics import adjust, detectable_effect, inflation, linearise, sample_size
from retrodict.rollout.statistics.group import SPENDINGS
from retrodict.workspace import Workspace

__all__ = ["ExperimentPlan", "plan_experiment"]

_WEEKS = (1, 2, 3, 4, 6, 8)


@dataclass(frozen=True, slots=True, repr=False)
class ExperimentPlan(Shown):
    """What an experiment needs, as recorded for its start.

    Attributes
    ----------
    experiment, version, analysis : str
    baseline, deviation : float
        Of the primary metric by unit, now.
    variance_left : float
        After the covariate of the pre-period; 1 without.
    mde, alpha, power : float
    units : int
        Over all variants.
    looks : tuple of int
        Units at which a look is due; none where all looks count.
    units_per_day : float or None
        New units a day; None where nothing tells.
    days : int or None
        Until the units are in and their outcomes have had their time; whole weeks of traffic.
    curve : tuple of (int, float, float)
        Weeks, units by then, and the smallest effect that they show.
    history : int
        Units that this was estimated from; 0 where it was passed.
    """

    experiment: str
    version: str
    analysis: str
    baseline: float
    deviation: float
    variance_left: float
    mde: float
    alpha: float
    power: float
    units: int
    looks: Sequence[int]
    units_per_day: float | None
    days: int | None
    curve: Sequence[tuple[int, float, float]]
    history: int

    def blocks(self) -> Sequence[Block | None]:
        """Size and duration, then what other durations would show."""
        source = f"{self.history:,} units of the past" if self.history else "as passed"
        about = {
            "experiment": self.experiment, "baseline": self.baseline, "deviation of a unit": self.deviation,
            "estimated from": source, "variance left by the covariate": self.variance_left,
            "to be seen": self.mde, "level and power": f"{self.alpha:g} and {self.power:g}", "analysis": self.analysis,
            "units needed": self.units, "looks at": ", ".join(f"{units:,}" for units in self.looks) or None,
            "new units a day": self.units_per_day, "days": self.days,
        }  # fmt: skip
        rows = [(weeks, f"{units:,.0f}", f"{effect:.4g}") for weeks, units, effect in self.curve]
        return [Facts(about), Grid(("weeks>", "units>", "smallest effect>"), rows) if rows else None]


def plan_experiment(
    workspace: Workspace,
    name: str,
    *,
    history: str = "28d",
    baseline: float | None = None,
    deviation: float | None = None,
    units_per_day: float | None = None,
) -> ExperimentPlan:
    """Plan an experiment and put the plan on record; without one it does not start.

    Parameters
    ----------
    workspace : Workspace
    name : str
    history : duration, default "28d"
        How far back the policy's decisions are read.
    baseline : float, optional
        Value of the primary metric now; with ``deviation`` (of a rate not needed) it takes the place of the history.
    deviation, units_per_day : float, optional

    Raises
    ------
    InputError
        If the history tells nothing and nothing is passed.
    """
    experiment = workspace.definitions.get(Experiment, name)
    where, now = f"experiment:{name}", workspace.clock.now()
    check_requests(workspace, experiment, deployed(workspace, experiment))
    span, counted, left = parse_duration(history, where=f"{where}, history"), 0, 1.0
    rows = history_rows(workspace, experiment, start=now - span, now=now)
    above, below = rows.sums[experiment.primary.name]
    counted_units = below != 0
    if baseline is None and counted_units.sum() >= 2:
        values, counted = linearise(above[counted_units], below[counted_units]), int(counted_units.sum())
        baseline = float(values.mean())
        if rows.before is not None:
            left = adjust([values], [rows.before[counted_units]])[1]
        deviation = float(values.std(ddof=1)) * math.sqrt(left)
    elif baseline is not None and deviation is None and experiment.primary.kind == "rate" and 0 < baseline < 1:
        deviation = math.sqrt(baseline * (1 - baseline))
    elif baseline is not None and deviation is None and experiment.primary.kind == "rate":
        raise InputError("a rate must lie between 0 and 1", where=f"{where}, baseline", got=baseline,
                         remedy="Pass --baseline 0.14 for 14 %")  # fmt: skip
    if baseline is None or deviation is None or not deviation > 0:
        raise InputError("a plan must have values of the primary metric that differ, or be told them", where=where,
                         got=f"{counted} units in {history} with a known value",
                         remedy="Pass a longer --history, or --baseline and --deviation")  # fmt: skip
    if units_per_day is None and rows.first.size:
        units_per_day = rows.first.size / max((now - int(rows.first.min())) / DAY, 1.0)
    return _plan(workspace, experiment, (baseline, deviation, left), units_per_day, counted)


def _plan(
    workspace: Workspace,
    experiment: Experiment,
    primary: tuple[float, float, float],
    units_per_day: float | None,
    counted: int,
) -> ExperimentPlan:
    baseline, deviation, left = primary
    sequential, more = experiment.analysis == "sequential", 1.0
    alpha = experiment.alpha / len(experiment.treatments)
    if experiment.analysis in SPENDINGS:
        more = inflation(experiment.looks, alpha=alpha, power=experiment.power, spending=experiment.analysis)
    weights = experiment.variants
    pairs = [(weights[experiment.control], weights[name]) for name in experiment.treatments]  # type: ignore[index]
    # The smallest treatment decides: of a pair's units it has its part, and the pair its part of all.
    pair = min(pairs, key=lambda weights_of: weights_of[1])
    share, part = pair[1] / sum(pair), sum(pair)
    of_pair = sample_size(deviation**2, experiment.mde, alpha=alpha, power=experiment.power, share=share,
                          sequential=sequential)  # fmt: skip
    units = math.ceil(of_pair * more / part)
    maturity = experiment.policy.model.label.maturity if "label" in experiment.primary.columns else 0
    window = 0 if experiment.primary.within is None else parse_duration(experiment.primary.within)
    days, curve = None, []
    if units_per_day:
        width = experiment.slot[1] - experiment.slot[0]
        units_per_day *= width
        weeks = math.ceil(units / units_per_day / 7)
        days = weeks * 7 + math.ceil((maturity + window) / DAY)
        curve = [
            (week, week * 7 * units_per_day,
             detectable_effect(deviation**2, week * 7 * units_per_day * part / more, alpha=alpha,
                               power=experiment.power, share=share, sequential=sequential))
            for week in sorted({*_WEEKS, weeks})
        ]  # fmt: skip
    plan = ExperimentPlan(
        experiment.name, content_hash(experiment), experiment.analysis, baseline, deviation, left, experiment.mde,
        experiment.alpha, experiment.power, units, experiment.looks_at(units), units_per_day, days, curve, counted,
    )  # fmt: skip
    record_plan(workspace, experiment, plan.to_dict())
    return plan
