"""Watching what was decided: outcomes, performance, drift, triggers, and a challenger on the logged decisions.

Names load on first use: a definitions module that only writes a Monitor does not pay for Arrow and DuckDB. Functions
that are named like their module (``outcomes``, ``performance``, ``drift``) are imported from it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from retrodict.core.lazy import lazy_names

if TYPE_CHECKING:
    from retrodict.monitoring.arrivals import OutcomesReport, ingest_outcomes, outcomes_name
    from retrodict.monitoring.compare import LogComparison, Reproduction, compare_on_log, reproduce_champion
    from retrodict.monitoring.definitions import Monitor, Trigger
    from retrodict.monitoring.drift import DriftReport, FeatureDrift, RateChange
    from retrodict.monitoring.history import ModelHistory, model_history
    from retrodict.monitoring.keys import join_key
    from retrodict.monitoring.outcomes import Outcomes
    from retrodict.monitoring.performance import Slice
    from retrodict.monitoring.periods import Period, period_of, periods_between
    from retrodict.monitoring.report import MonitorReport, monitor
    from retrodict.monitoring.score_jobs import JobScores, ScoreHistory, score_history
    from retrodict.monitoring.triggers import TriggerResult

__all__ = [
    "DriftReport",
    "FeatureDrift",
    "JobScores",
    "LogComparison",
    "ModelHistory",
    "Monitor",
    "MonitorReport",
    "Outcomes",
    "OutcomesReport",
    "Period",
    "RateChange",
    "Reproduction",
    "ScoreHistory",
    "Slice",
    "Trigger",
    "TriggerResult",
    "compare_on_log",
    "ingest_outcomes",
    "join_key",
    "model_history",
    "monitor",
    "outcomes_name",
    "period_of",
    "periods_between",
    "reproduce_champion",
    "score_history",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "arrivals": ("OutcomesReport", "ingest_outcomes", "outcomes_name"),
        "compare": ("LogComparison", "Reproduction", "compare_on_log", "reproduce_champion"),
        "definitions": ("Monitor", "Trigger"),
        "drift": ("DriftReport", "FeatureDrift", "RateChange"),
        "history": ("ModelHistory", "model_history"),
        "keys": ("join_key",),
        "outcomes": ("Outcomes",),
        "performance": ("Slice",),
        "periods": ("Period", "period_of", "periods_between"),
        "report": ("MonitorReport", "monitor"),
        "score_jobs": ("JobScores", "ScoreHistory", "score_history"),
        "triggers": ("TriggerResult",),
    },
)
