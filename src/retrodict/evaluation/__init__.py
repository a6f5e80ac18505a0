"""Judging models: metrics with intervals, groups, the ladder, champion and challenger, gates, plots. Pure functions.

Names load on first use: a definitions module that only writes gates does not pay for NumPy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from retrodict.core.lazy import lazy_names

if TYPE_CHECKING:
    from retrodict.evaluation.compare import Comparison, compare_scores
    from retrodict.evaluation.gates import GateResult, check_gates
    from retrodict.evaluation.groups import GroupEvaluation, evaluate_groups
    from retrodict.evaluation.ladder import Ladder, LadderVerdict, Rung, beats, climb
    from retrodict.evaluation.metrics import CalibrationBin, Confusion, Evaluation, Metric, evaluate

__all__ = [
    "CalibrationBin",
    "Comparison",
    "Confusion",
    "Evaluation",
    "GateResult",
    "GroupEvaluation",
    "Ladder",
    "LadderVerdict",
    "Metric",
    "Rung",
    "beats",
    "check_gates",
    "climb",
    "compare_scores",
    "evaluate",
    "evaluate_groups",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "compare": ("Comparison", "compare_scores"),
        "gates": ("GateResult", "check_gates"),
        "groups": ("GroupEvaluation", "evaluate_groups"),
        "ladder": ("Ladder", "LadderVerdict", "Rung", "beats", "climb"),
        "metrics": ("CalibrationBin", "Confusion", "Evaluation", "Metric", "evaluate"),
    },
)
