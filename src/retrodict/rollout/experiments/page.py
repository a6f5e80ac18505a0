"""The report of an experiment as a page: verdict first, then effects, then how they went over time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from retrodict.core.display import Grid
from retrodict.evaluation.plots import plot_periods
from retrodict.pages import Figure, Note, Row, Section, document, themed_plot
from retrodict.rollout.experiments.report import EFFECT_COLUMNS, ExperimentReport, effect_row

__all__ = ["report_page"]


def report_page(report: ExperimentReport) -> str:
    """Page of a report; without the extra ``plots`` it has no figures and says so."""
    about, effects = report.blocks()[0], [effect_row(effect) for effect in report.effects]
    primary = next((effect.metric for effect in report.effects if effect.role == "primary"), "")
    figures = [
        _figure("days", f"{primary}: effect by day of the first decision", report.days),
        _figure("weekdays", f"{primary}: effect by weekday", report.weekdays),
    ]
    return document(f"Experiment {report.experiment}", [
        about,
        Section("Effects", [Grid(EFFECT_COLUMNS, effects)] if effects else ["There is nothing to count yet."]),
        Section("Novelty and weekdays", [
            Row([figure for figure in figures if figure is not None]) if any(figures) else "There is no unit yet.",
            Note("Intervals of single days are for one look; the verdict is not by them."),
        ]),
        Note(f"Report sha256:{report.digest}, looked at {report.looks} times before."),
    ])  # fmt: skip


def _figure(key: str, title: str, points: Sequence[Mapping[str, Any]]) -> Figure | Note | None:
    if not any(point["value"] is not None for point in points):
        return None
    names = [point["name"] for point in points]
    return themed_plot(key, plot_periods, title, names, points, reference=("no effect", 0.0))
