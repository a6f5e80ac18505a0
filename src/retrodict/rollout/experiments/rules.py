"""What a rule for who gets which variant would bring, from an experiment that gave variants at random."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from retrodict.core.clock import format_time
from retrodict.core.display import Block, Facts, Grid, Shown, when
from retrodict.core.errors import InputError, check_known
from retrodict.core.expressions import parse
from retrodict.core.statistics.intervals import mean_interval
from retrodict.decisions.definitions import OTHERWISE
from retrodict.rollout.experiments.definitions import Experiment
from retrodict.rollout.experiments.runs import check_unchanged, find_run
from retrodict.rollout.experiments.units import UnitRows, propensities, read_units
from retrodict.rollout.statistics import cross_fit, rule_value
from retrodict.stores.sql import query
from retrodict.workspace import Workspace

__all__ = ["RuleEstimate", "evaluate_rule"]

_LEAST = 30


@dataclass(frozen=True, slots=True, repr=False)
class RuleEstimate(Shown):
    """What a rule would bring in place of control for all.

    Attributes
    ----------
    experiment, metric : str
    now : int
    rule : dict
        Variant to condition.
    units, matched : int
        Units that count, and those that got what the rule gives.
    effective : float
        Units of equal weight that would know as much as those: the square of the sum of weights by that of squares.
    values : sequence of dict
        By estimator: value of the rule and of control for all, their difference and its 95 % interval, for one look.
    """

    experiment: str
    metric: str
    now: int
    rule: Mapping[str, str]
    units: int
    matched: int
    effective: float
    values: Sequence[Mapping[str, Any]]

    def to_dict(self) -> dict[str, Any]:
        """Plain form, unrounded."""
        return {**Shown.to_dict(self), "now": format_time(self.now)}

    def blocks(self) -> Sequence[Block | None]:
        """The rule, and its value by each estimator."""
        facts = {"experiment": self.experiment, "metric": self.metric, "as of": when(self.now),
                 **{f"give {name}": text for name, text in self.rule.items()}, "units": self.units,
                 "units that got what the rule gives": self.matched,
                 "effective units": round(self.effective)}  # fmt: skip
        rows = [(row["estimator"], row["rule"], row["control"], row["difference"],
                 f"{row['low']:+.4f} to {row['high']:+.4f}") for row in self.values]  # fmt: skip
        return [Facts(facts), Grid(("estimator", "rule>", "control for all>", "difference>", "95 % interval"), rows)]


def evaluate_rule(workspace: Workspace, name: str, rule: Mapping[str, str], *, now: int) -> RuleEstimate:
    """Value of a rule on the primary metric, as of a time.

    Parameters
    ----------
    workspace : Workspace
    name : str
    rule : mapping of str to str
        Variant to a condition over ``segments``, in order; the last one is for ``"otherwise"``.
    now : int
        Microseconds since 1970-01-01 UTC.

    Raises
    ------
    InputError
        If the rule is not of variants and segments, or too few units got what it gives.
    """
    experiment, run = workspace.definitions.get(Experiment, name), find_run(workspace, name)
    check_unchanged(experiment, run)
    where, names = f"experiment:{name}", list(experiment.variants)
    for variant in rule:
        check_known(variant, names, "a rule must give variants", where=where, what="variant")
    if not rule or [text for text in rule.values() if text == OTHERWISE] != [*rule.values()][-1:]:
        raise InputError("the last variant of a rule, and only it, must be for 'otherwise'", where=where,
                         got=dict(rule),
                         remedy="Pass --give soft=\"depot = 'north'\" --give control=otherwise")  # fmt: skip
    rows = read_units(workspace, experiment, run, now=now)
    above, below = rows.sums[experiment.primary.name]
    counts = below != 0
    arm = np.array([names.index(variant) for variant in rows.variant[counts].tolist()], dtype=np.intp)
    choice = _choices(experiment, rows, rule)[counts]
    weight, matched = propensities(rows, run)[counts], arm == choice
    fewest = min(int(matched.sum()), *(int((arm == place).sum()) for place in range(len(names))))
    if fewest < _LEAST:
        raise InputError("every variant and the rule must have units that count", where=where, got=f"{fewest} units",
                         remedy=f"Wait for {_LEAST}")  # fmt: skip
    of = above[counts], below[counts], arm
    expected = cross_fit(*of, _features(rows)[counts], len(names))
    control = np.full(arm.size, names.index(str(experiment.control)))
    ours, theirs = (rule_value(*of, places, weight, expected) for places in (choice, control))
    values = []
    for key, of_rule in ours.items():
        span, difference = mean_interval(of_rule - theirs[key]), float((of_rule - theirs[key]).mean())
        values.append({"estimator": key, "rule": float(of_rule.mean()), "control": float(theirs[key].mean()),
                       "difference": difference, "low": span.low, "high": span.high})  # fmt: skip
    factor = 1 / weight[matched]
    return RuleEstimate(name, experiment.primary.name, now, dict(rule), arm.size, int(matched.sum()),
                        float(factor.sum() ** 2 / (factor**2).sum()), values)  # fmt: skip


def _choices(experiment: Experiment, rows: UnitRows, rule: Mapping[str, str]) -> np.ndarray[Any, np.dtype[np.intp]]:
    """Place of the variant that the rule gives to every unit; segments that read as numbers are numbers."""
    columns = {name: pa.array(values) for name, values in rows.segments.items()}
    for name, column in columns.items():
        try:
            columns[name] = pc.cast(pc.if_else(pc.equal(column, "unknown"), None, column), pa.float64())
        except pa.ArrowInvalid:
            continue
    cases = []
    for variant, text in rule.items():
        if text != OTHERWISE:
            condition = parse(text, where=f"experiment {experiment.name}, rule of {variant}")
            for name in condition.columns:
                check_known(name, columns, "a rule must read segments of the experiment", what="segment",
                            where=f"experiment:{experiment.name}")  # fmt: skip
            cases.append(f"WHEN {condition.to_sql()} THEN {list(experiment.variants).index(variant)}")
    last = list(experiment.variants).index([*rule][-1])
    if not cases:
        return np.full(rows.variant.size, last)
    table = pa.table({**columns, "record__place": np.arange(rows.variant.size)})  # which no segment is called
    choice = query(f"SELECT CASE {' '.join(cases)} ELSE {last} END FROM rows ORDER BY record__place", rows=table)
    return np.asarray(choice.column(0).to_numpy(), dtype=np.intp)


def _features(rows: UnitRows) -> np.ndarray[Any, np.dtype[np.float64]]:
    """What was known of units before: the fifty most frequent values of each segment, and the covariate."""
    columns = [np.zeros(rows.variant.size)] if rows.before is None else [rows.before]
    for values in rows.segments.values():
        kinds, counts = np.unique(values, return_counts=True)
        columns += [values == kind for kind in kinds[np.argsort(-counts)[:50]]]
    return np.column_stack(columns).astype(np.float64)
