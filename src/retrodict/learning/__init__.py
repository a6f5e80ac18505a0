"""Recipes, runs, the evaluation store, and the replay of runs.

Names load on first use: looking at runs must not load LightGBM.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from retrodict.core.lazy import lazy_names

if TYPE_CHECKING:
    from retrodict.learning.card import ModelCard, model_card
    from retrodict.learning.execution import Execution, execute, train
    from retrodict.learning.leakage import LeakageReport, measure_leakage
    from retrodict.learning.optimisation import Optimisation, optimise
    from retrodict.learning.replay import RunReplay, replay_run
    from retrodict.learning.runs import KINDS, LISTED, Run, best_run, get_run, list_runs, tag_run
    from retrodict.learning.runs.comparison import compare_runs, export_runs
    from retrodict.learning.runs.retention import RunRetention, prune_runs
    from retrodict.learning.runs.tracker import OpenRun, open_run
    from retrodict.learning.score_delta import open_output
    from retrodict.learning.score_job import score_files
    from retrodict.learning.score_output import ScoreJob
    from retrodict.learning.scorer import Importance, Scorer, importance
    from retrodict.learning.standings import EstimatorComparison, Leaderboard, compare_estimators, leaderboard

__all__ = [
    "KINDS",
    "LISTED",
    "EstimatorComparison",
    "Execution",
    "Importance",
    "Leaderboard",
    "LeakageReport",
    "ModelCard",
    "OpenRun",
    "Optimisation",
    "Run",
    "RunReplay",
    "RunRetention",
    "ScoreJob",
    "Scorer",
    "best_run",
    "compare_estimators",
    "compare_runs",
    "execute",
    "export_runs",
    "get_run",
    "importance",
    "leaderboard",
    "list_runs",
    "measure_leakage",
    "model_card",
    "open_output",
    "open_run",
    "optimise",
    "prune_runs",
    "replay_run",
    "score_files",
    "tag_run",
    "train",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "card": ("ModelCard", "model_card"),
        "runs.comparison": ("compare_runs", "export_runs"),
        "execution": ("Execution", "execute", "train"),
        "leakage": ("LeakageReport", "measure_leakage"),
        "optimisation": ("Optimisation", "optimise"),
        "replay": ("RunReplay", "replay_run"),
        "runs.retention": ("RunRetention", "prune_runs"),
        "runs.store": ("KINDS", "LISTED", "Run", "best_run", "get_run", "list_runs", "tag_run"),
        "runs.tracker": ("OpenRun", "open_run"),
        "score_delta": ("open_output",),
        "score_job": ("score_files",),
        "score_output": ("ScoreJob",),
        "scorer": ("Importance", "Scorer", "importance"),
        "standings": ("EstimatorComparison", "Leaderboard", "compare_estimators", "leaderboard"),
    },
)
