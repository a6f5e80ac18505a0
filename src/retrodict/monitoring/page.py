"""A monitor's report as a page, in the family of the pages of profiles and health."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from retrodict.core.display import Facts, Grid, when
from retrodict.core.files import write_text
from retrodict.evaluation.plots import plot_drift, plot_periods
from retrodict.monitoring.drift import DriftReport
from retrodict.monitoring.performance import Slice
from retrodict.monitoring.periods import short_period
from retrodict.monitoring.report import VIEW_COLUMNS, MonitorReport, shown_metrics
from retrodict.pages import Details, Note, Row, amount, render, themed_plot
from retrodict.pages.blocks import Block

__all__ = ["report_html", "write_report"]

_METRICS = ("label_rate", "mean_score", "auc", "brier", "calibration_error", "calibration_ratio")
_CHARTS = {
    "auc": "Area under the ROC curve",
    "label_rate": "Label rate",
    "calibration_error": "Expected calibration error",
    "calibration_ratio": "Calibration ratio, observed over expected",
}
_FEATURES = 15


def report_html(report: MonitorReport, *, threshold: float) -> str:
    """Page of a report; without the extra ``plots`` it has no figures and says so.

    Parameters
    ----------
    report : MonitorReport
    threshold : float
        Index from which a feature drifts, drawn as a line: ``psi_threshold`` of the monitor.
    """
    periods = [part for part in report.slices if part.by is None and part.decisions]
    counts = {name.replace("_", " "): value for name, value in report.counts.items()}
    triggers = [(result.on, result.status, short_period(result.period), result.reason) for result in report.triggers]
    views = [(short_period(name), *row[1:]) for name, counts in report.views.items() for row in counts.rows(name)]
    contents: list[tuple[str, list[Block]]] = [
        ("Triggers", [Grid(("when", "status", "period", "reason"), triggers)] if triggers else []),
        ("Performance", list(_performance(report, periods)) or ["There is no decision yet."]),
        ("Drift", list(_drift(report, threshold)) or ["There is no decision yet."]),
        ("Views that were not simply read", [Grid(VIEW_COLUMNS, views)] if views else []),
    ]
    return render(
        "monitor.html",
        title=f"{report.monitor}, as of {amount(when(report.now))}",
        about=f"Decisions of policy {report.policy} as they were known at",
        moment=f"{amount(when(report.now))} UTC",
        newest=list(_newest(report, periods)),
        overview=Facts({"in force": report.revision, "model": report.model, **counts}),
        findings=_findings(report),
        sections=[(heading, blocks) for heading, blocks in contents if blocks],
        note=f"Report report:{report.digest}. A dash: not evaluable, too few known outcomes. Intervals of metrics take "
        "rows as independent: where one entity or day has many, they are too narrow.",
    )


def write_report(path: Path, report: MonitorReport, *, threshold: float) -> None:
    """Write :func:`report_html` into a file; its folder is made if it does not exist."""
    write_text(path, report_html(report, threshold=threshold))


def _number(value: float | None) -> str | None:
    """Three decimals, so that the points of a column stand below each other."""
    return None if value is None else f"{value:.3f}"


def _findings(report: MonitorReport) -> list[dict[str, str]]:
    """What fires and what warns."""
    fired = [f"{result.on} fires for {short_period(result.period)}: {result.reason}." for result in report.fired]
    stale = report.counts.get("stale_fallbacks", 0)
    fallen = [f"{stale:,} decisions fell back: the state of a required view was not current."] if stale else []
    return [{"level": "warning", "text": text} for text in (*fired, *report.warnings, *fallen)]


def _newest(report: MonitorReport, periods: Sequence[Slice]) -> Iterator[tuple[str, str, str]]:
    """Name, number and class of what the newest full period says, or the newest one if none is full."""
    if not periods:
        return
    part = next((part for part in reversed(periods) if part.complete), periods[-1])
    yield "period", short_period(part.period.name), "good"
    yield "decisions", f"{part.decisions:,}", "good"
    usual = {"auc": "AUC", "label_rate": "label rate"}
    for name in shown_metrics(periods, list(usual))[:2]:
        text = usual.get(name, name.replace("_", " "))
        value = _number(part[name].value)
        yield text, value or "not evaluable", "good" if value else "open"
    drift = report.drifts.get(part.period.name)
    if drift is None or drift.psi is None:
        yield "features that drift", "not evaluable", "open"
    else:
        yield (
            "features that drift",
            f"{len(drift.drifted)} of {len(drift.features)}",
            "alert" if drift.drifted else "good",
        )


def _performance(report: MonitorReport, periods: Sequence[Slice]) -> Iterator[Block]:
    if not periods:
        return
    yield from _charts(report)
    yield _slices(periods, "complete", [part.complete for part in periods])
    for column in dict.fromkeys(part.by for part in report.slices if part.by is not None):
        groups = [part for part in report.slices if part.by == column]
        yield Details(f"By {column}", [_slices(groups, column, [part.value for part in groups])])


def _charts(report: MonitorReport) -> Iterator[Block]:
    """One chart per metric that has a value in any period; periods without decisions are on the axis."""
    periods = [part for part in report.slices if part.by is None]
    names = [short_period(part.period.name) for part in periods]
    rates = [drift.label_rate for drift in report.drifts.values() if drift.label_rate is not None]
    lines = {
        "label_rate": ("test rows", next((rate.reference for rate in rates), None)),
        "calibration_ratio": ("calibrated", 1.0),
    }
    figures: list[Block] = []
    metric_titles = _CHARTS if not periods else {
        name: _CHARTS.get(name, name.replace("_", " ")) for name in shown_metrics(periods, list(_CHARTS))
    }  # fmt: skip
    for metric, title in metric_titles.items():
        points = [asdict(part[metric]) for part in periods]
        if any(point["value"] is not None for point in points):
            figures.append(
                themed_plot(f"chart-{metric}", plot_periods, title, names, points, reference=lines.get(metric))
            )
    if figures and isinstance(figures[0], Note):
        yield figures[0]
    elif figures:
        yield Row(figures)


def _slices(slices: Sequence[Slice], name: str, values: Sequence[Any]) -> Grid:
    """Table of some slices, with the metrics that any of them has."""
    names = shown_metrics(slices, _METRICS)
    metrics = [metric for metric in names if any(part[metric].value is not None for part in slices)]
    rows = [
        (short_period(part.period.name), value, part.decisions, part.labelled,
         *(_number(part[metric].value) for metric in metrics))
        for part, value in zip(slices, values, strict=True)
    ]  # fmt: skip
    headings = (f"{metric.replace('_', ' ')}>" for metric in metrics)
    return Grid(("period", name, "decisions>", "known>", *headings), rows)


def _drift(report: MonitorReport, threshold: float) -> Iterator[Block]:
    pairs: list[Block | Sequence[Block]] = []
    tables: list[Block] = []
    for name, drift in report.drifts.items():
        period = short_period(name)
        if drift.reason is not None:
            yield f"{period}: not evaluable, {drift.reason}."
        elif drift.psi is None:
            reasons = sorted({feature.verdict.reason for feature in drift.features.values()})
            yield f"{period}: not evaluable, {next(iter(reasons), 'the reference has no feature')}."
        else:
            pairs.append(_drift_of(period, drift, threshold, key=f"drift-{len(pairs)}"))
            tables.append(Details(f"Verdicts of {period}", [_verdicts(drift)]))
    if pairs:
        yield Row(pairs)
    yield from tables


def _drift_of(period: str, drift: DriftReport, threshold: float, *, key: str) -> list[Block]:
    """Numbers and chart of one period."""
    score, rate = drift.score, drift.label_rate
    about = {
        "decisions": drift.decisions,
        "compared with": "the season of earlier years" if drift.seasonal else "all training rows",
        "features that drift": f"{len(drift.drifted)} of {len(drift.features)}",
        "score": None if score is None else score.verdict.status,
        "label rate": None if rate is None else rate.status,
    }
    verdicts = {name: feature.verdict for name, feature in drift.features.items()}
    return [
        Facts(about, title=period),
        themed_plot(key, plot_drift, verdicts, threshold=threshold),
    ]


def _verdicts(drift: DriftReport) -> Grid:
    """The largest indexes of a period, each with why it is drift or not."""
    ordered = sorted(drift.features.items(), key=lambda pair: -(pair[1].verdict.psi or -1.0))[:_FEATURES]
    rows = [
        (name, feature.verdict.status, _number(feature.verdict.psi), _number(feature.verdict.critical_value),
         feature.verdict.reason)
        for name, feature in ordered
    ]  # fmt: skip
    return Grid(("feature", "verdict", "PSI>", "noise floor>", "why"), rows)
