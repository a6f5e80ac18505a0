"""A monitor's report as a page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from retrodict.core.display import Facts, Grid, when
from retrodict.core.errors import MissingExtraError, RetrodictError
from retrodict.evaluation.plots import plot_drift
from retrodict.monitoring.drift import DriftReport
from retrodict.monitoring.performance import Slice
from retrodict.monitoring.report import MonitorReport
from retrodict.pages import Figure, Note, Section, document, themed
from retrodict.pages.blocks import Block

__all__ = ["report_html", "write_report"]

_METRICS = ("label_rate", "mean_score", "auc", "brier", "calibration_error", "calibration_ratio")
_FEATURES = 15


def report_html(report: MonitorReport, *, threshold: float) -> str:
    """Page of a report; without the extra ``plots`` it has no figures and says so.

    Parameters
    ----------
    report : MonitorReport
    threshold : float
        Index from which a feature drifts, drawn as a line: ``psi_threshold`` of the monitor.
    """
    about = {
        "policy": report.policy,
        "in force": report.revision,
        "model": report.model,
        **{name.replace("_", " "): value for name, value in report.counts.items()},
    }
    triggers = [(result.on, result.status, result.period, result.reason) for result in report.triggers]
    return document(
        f"{report.monitor}, as of {when(report.now)}",
        [
            Facts(about),
            Section("Triggers", [Grid(("when", "status", "period", "reason"), triggers)]) if triggers else None,
            Section("Performance", list(_performance(report)) or ["There is no decision yet."]),
            Section("Drift", list(_drift(report, threshold)) or ["There is no decision yet."]),
            Note(f"Report report:{report.digest}. A dash: not evaluable, too few known outcomes."),
        ],
    )


def write_report(path: Path, report: MonitorReport, *, threshold: float) -> None:
    """Write :func:`report_html` into a file; its folder is made if it does not exist."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(report_html(report, threshold=threshold), encoding="utf-8")


def _performance(report: MonitorReport) -> Iterator[Block]:
    periods = [part for part in report.slices if part.by is None and part.decisions]
    if periods:
        yield _slices(periods, "complete", [part.complete for part in periods])
    for column in dict.fromkeys(part.by for part in report.slices if part.by is not None):
        groups = [part for part in report.slices if part.by == column]
        yield _slices(groups, column, [part.value for part in groups], title=f"By {column}")


def _slices(slices: Sequence[Slice], name: str, values: Sequence[Any], *, title: str | None = None) -> Grid:
    rows = [
        (part.period.name, value, part.decisions, part.labelled, *(part[metric].value for metric in _METRICS))
        for part, value in zip(slices, values, strict=True)
    ]
    metrics = (f"{metric.replace('_', ' ')}>" for metric in _METRICS)
    return Grid(("period", name, "decisions>", "known>", *metrics), rows, title=title)


def _drift(report: MonitorReport, threshold: float) -> Iterator[Block]:
    for name, drift in report.drifts.items():
        if drift.reason is not None:
            yield f"{name}: not evaluable, {drift.reason}."
            continue
        ordered = sorted(drift.features.items(), key=lambda pair: -(pair[1].verdict.psi or -1.0))[:_FEATURES]
        rows = [
            (name, feature.verdict.status, feature.verdict.psi, feature.verdict.critical_value, feature.verdict.reason)
            for name, feature in ordered
        ]
        yield Grid(("feature", "verdict", "PSI>", "noise floor>", "why"), rows, title=name)
        if (figure := _figure(drift, threshold, f"drift-{name}")) is not None:
            yield figure


def _figure(drift: DriftReport, threshold: float, key: str) -> Figure | Note | None:
    try:
        verdicts = {name: feature.verdict for name, feature in drift.features.items()}
        return Figure(themed(plot_drift(verdicts, threshold=threshold), key))
    except MissingExtraError as error:
        return Note(str(error))
    except RetrodictError:  # nothing to draw: the table says so
        return None
