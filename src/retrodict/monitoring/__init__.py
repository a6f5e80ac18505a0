"""Watching what was decided: performance, drift, triggers.

Names load on first use: a definitions module that only writes a Monitor does not pay for Arrow and DuckDB. Functions
that are named like their module (``performance``, ``drift``) are imported from it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from retrodict.core.lazy import lazy_names

if TYPE_CHECKING:
    from retrodict.monitoring.definitions import Monitor, Trigger
    from retrodict.monitoring.drift import DriftReport, FeatureDrift, RateChange
    from retrodict.monitoring.history import ModelHistory, model_history
    from retrodict.monitoring.performance import Slice
    from retrodict.monitoring.periods import Period, period_of, periods_between
    from retrodict.monitoring.report import MonitorReport, monitor
    from retrodict.monitoring.score_jobs import JobScores, ScoreHistory, score_history
    from retrodict.monitoring.triggers import TriggerResult

__all__ = [
    "DriftReport",
    "FeatureDrift",
    "JobScores",
    "ModelHistory",
    "Monitor",
    "MonitorReport",
    "Period",
    "RateChange",
    "ScoreHistory",
    "Slice",
    "Trigger",
    "TriggerResult",
    "model_history",
    "monitor",
    "period_of",
    "periods_between",
    "score_history",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "definitions": ("Monitor", "Trigger"),
        "drift": ("DriftReport", "FeatureDrift", "RateChange"),
        "history": ("ModelHistory", "model_history"),
        "performance": ("Slice",),
        "periods": ("Period", "period_of", "periods_between"),
        "report": ("MonitorReport", "monitor"),
        "score_jobs": ("JobScores", "ScoreHistory", "score_history"),
        "triggers": ("TriggerResult",),
    },
)
