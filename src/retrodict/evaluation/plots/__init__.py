"""Plots of evaluations as SVG text: small, self-contained, the same bytes for the same numbers."""

from retrodict.evaluation.plots.drift import plot_drift, plot_periods
from retrodict.evaluation.plots.models import (
    plot_calibration,
    plot_correlation,
    plot_elimination,
    plot_history,
    plot_importance,
    plot_ladder,
    plot_path,
)
from retrodict.evaluation.plots.outputs import (
    plot_actual,
    plot_confusion,
    plot_coverage,
    plot_gain,
    plot_precision_recall,
    plot_residuals,
    plot_roc,
)
from retrodict.evaluation.plots.sides import plot_histories, plot_sides
from retrodict.evaluation.plots.trials import plot_shares, plot_slice, plot_trials

__all__ = [
    "plot_actual",
    "plot_calibration",
    "plot_confusion",
    "plot_correlation",
    "plot_coverage",
    "plot_drift",
    "plot_elimination",
    "plot_gain",
    "plot_histories",
    "plot_history",
    "plot_importance",
    "plot_ladder",
    "plot_path",
    "plot_periods",
    "plot_precision_recall",
    "plot_residuals",
    "plot_roc",
    "plot_shares",
    "plot_sides",
    "plot_slice",
    "plot_trials",
]
