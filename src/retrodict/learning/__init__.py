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
    from retrodict.learning.replay import RunReplay, replay_run
    from retrodict.learning.runs import Run, compare_runs, get_run, list_runs

__all__ = [
    "Execution",
    "LeakageReport",
    "ModelCard",
    "Run",
    "RunReplay",
    "compare_runs",
    "execute",
    "get_run",
    "list_runs",
    "measure_leakage",
    "model_card",
    "replay_run",
    "train",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "card": ("ModelCard", "model_card"),
        "execution": ("Execution", "execute", "train"),
        "leakage": ("LeakageReport", "measure_leakage"),
        "replay": ("RunReplay", "replay_run"),
        "runs": ("Run", "compare_runs", "get_run", "list_runs"),
    },
)
