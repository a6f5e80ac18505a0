"""Judging models: metrics with intervals, groups, the ladder, champion and challenger, gates, plots. Pure functions.

Names load on first use: a definitions module that only writes gates does not pay for NumPy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from retrodict.core.lazy import lazy_names

if TYPE_CHECKING:
    from retrodict.evaluation.compare import Comparison, OutputComparison, compare_outputs, compare_scores
    from retrodict.evaluation.conformal import Conformal, fit_aps, fit_cqr, fit_lac, fit_residuals
    from retrodict.evaluation.directions import better
    from retrodict.evaluation.fairness import Fairness, measure_fairness
    from retrodict.evaluation.gates import GateResult, check_gate, check_gates, gate_metrics
    from retrodict.evaluation.groups import GroupEvaluation, evaluate_groups
    from retrodict.evaluation.ladder import Cost, Ladder, LadderVerdict, Rung, beats, climb
    from retrodict.evaluation.losses import LossComparison, compare_losses, correlate_errors, row_losses
    from retrodict.evaluation.metrics import (
        CalibrationBin,
        ClassTable,
        Confusion,
        Evaluation,
        Metric,
        evaluate,
        primary,
    )

__all__ = [
    "CalibrationBin",
    "ClassTable",
    "Comparison",
    "Conformal",
    "Confusion",
    "Cost",
    "Evaluation",
    "Fairness",
    "GateResult",
    "GroupEvaluation",
    "Ladder",
    "LadderVerdict",
    "LossComparison",
    "Metric",
    "OutputComparison",
    "Rung",
    "beats",
    "better",
    "check_gate",
    "check_gates",
    "climb",
    "compare_losses",
    "compare_outputs",
    "compare_scores",
    "correlate_errors",
    "evaluate",
    "evaluate_groups",
    "fit_aps",
    "fit_cqr",
    "fit_lac",
    "fit_residuals",
    "gate_metrics",
    "measure_fairness",
    "primary",
    "row_losses",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "compare": (
            "Comparison",
            "OutputComparison",
            "compare_outputs",
            "compare_scores",
        ),
        "conformal": (
            "Conformal",
            "fit_aps",
            "fit_cqr",
            "fit_lac",
            "fit_residuals",
        ),
        "directions": ("better",),
        "fairness": (
            "Fairness",
            "measure_fairness",
        ),
        "gates": (
            "GateResult",
            "check_gate",
            "check_gates",
            "gate_metrics",
        ),
        "groups": (
            "GroupEvaluation",
            "evaluate_groups",
        ),
        "ladder": (
            "Cost",
            "Ladder",
            "LadderVerdict",
            "Rung",
            "beats",
            "climb",
        ),
        "losses": (
            "LossComparison",
            "compare_losses",
            "correlate_errors",
            "row_losses",
        ),
        "metrics": (
            "CalibrationBin",
            "ClassTable",
            "Confusion",
            "Evaluation",
            "Metric",
            "evaluate",
            "primary",
        ),
    },
)
