"""Experiments: who gets which variant, what became of them, and whether the difference is more than chance."""

from __future__ import annotations

from typing import TYPE_CHECKING

from retrodict.core.lazy import lazy_names

if TYPE_CHECKING:
    from retrodict.rollout.experiments.definitions import Experiment, Metric, UnitMetric
    from retrodict.rollout.experiments.page import report_page
    from retrodict.rollout.experiments.plan import ExperimentPlan, plan_experiment
    from retrodict.rollout.experiments.report import ExperimentReport, decide, report_on
    from retrodict.rollout.experiments.rules import RuleEstimate, evaluate_rule
    from retrodict.rollout.experiments.runs import ExperimentRun, find_run, find_runs, start, stop

__all__ = [
    "Experiment",
    "ExperimentPlan",
    "ExperimentReport",
    "ExperimentRun",
    "Metric",
    "RuleEstimate",
    "UnitMetric",
    "decide",
    "evaluate_rule",
    "find_run",
    "find_runs",
    "plan_experiment",
    "report_on",
    "report_page",
    "start",
    "stop",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "definitions": ("Experiment", "Metric", "UnitMetric"),
        "page": ("report_page",),
        "plan": ("ExperimentPlan", "plan_experiment"),
        "report": ("ExperimentReport", "decide", "report_on"),
        "rules": ("RuleEstimate", "evaluate_rule"),
        "runs": ("ExperimentRun", "find_run", "find_runs", "start", "stop"),
    },
)
