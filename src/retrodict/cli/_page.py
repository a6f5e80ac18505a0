"""A monitor's report as one page of HTML: no script, nothing loaded from elsewhere, readable in print."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retrodict.cli._text import count, number, when
from retrodict.core.errors import MissingExtraError, RetrodictError

if TYPE_CHECKING:
    from retrodict.monitoring import DriftReport, MonitorReport, Slice

__all__ = ["write_report"]

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
table { border-collapse: collapse; margin: .5rem 0 1.5rem; } th, td { padding: .2rem .9rem .2rem 0; text-align: left; }
th { border-bottom: 1px solid #999; } td { border-bottom: 1px solid #eee; } .n { text-align: right; }
svg { max-width: 100%; height: auto; } code { color: #555; }
"""
_METRICS = ("label_rate", "mean_score", "auc", "brier", "calibration_error", "calibration_ratio")


def write_report(path: Path, report: MonitorReport, *, threshold: float) -> None:
    """Write the page; pictures are left out where the extra ``plots`` is not installed, and the page says so."""
    title = f"{report.monitor}, as of {when(report.now)}"
    about = [
        ("policy", report.policy),
        ("in force", report.revision or "-"),
        ("model", report.model or "-"),
        *((name.replace("_", " "), count(value)) for name, value in report.counts.items()),
    ]
    body = [
        f"<h1>{_text(title)}</h1>",
        _table(("", ""), about),
        "<h2>Triggers</h2>",
        _table(("when", "status", "period", "reason"), [(t.on, t.status, t.period, t.reason) for t in report.triggers]),
        "<h2>Performance</h2>",
        _performance([each for each in report.slices if each.by is None and each.decisions]),
        *_segments(report),
        "<h2>Drift</h2>",
        *_drift(report, threshold),
        f"<p>Report <code>report:{_text(report.digest)}</code>. A dash: not evaluable, too few known outcomes.</p>",
    ]
    page = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{_text(title)}</title><style>{_STYLE}</style>'
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page + "\n".join(body) + "</html>\n", encoding="utf-8")


def _text(value: Any) -> str:
    return html.escape("-" if value is None else str(value))


def _table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    def cells(values: Sequence[Any], tag: str) -> str:
        return "".join(
            f"<{tag}{' class=n' if isinstance(v, int | float) else ''}>{_text(_value(v))}</{tag}>" for v in values
        )

    head = f"<tr>{cells(columns, 'th')}</tr>" if any(columns) else ""
    lines = "".join(f"<tr>{cells(row, 'td')}</tr>" for row in rows)
    return f"<table>{head}{lines}</table>"


def _value(value: Any) -> Any:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return count(value)
    return number(value) if isinstance(value, float) else value


def _performance(slices: Sequence[Slice]) -> str:
    rows = [
        (each.period.name, each.complete, each.decisions, each.known, *(each[name].value for name in _METRICS))
        for each in slices
    ]
    return _table(("period", "complete", "decisions", "known", *_METRICS), rows)


def _segments(report: MonitorReport) -> list[str]:
    parts = []
    for column in dict.fromkeys(each.by for each in report.slices if each.by is not None):
        ours = [each for each in report.slices if each.by == column]
        rows = [
            (each.period.name, each.value, each.decisions, each.known, *(each[n].value for n in _METRICS))
            for each in ours
        ]
        parts += [f"<h3>By {_text(column)}</h3>", _table(("period", column, "decisions", "known", *_METRICS), rows)]
    return parts


def _drift(report: MonitorReport, threshold: float) -> list[str]:
    parts = []
    for name, drift in report.drifts.items():
        parts.append(f"<h3>{_text(name)}</h3>")
        if drift.reason is not None:
            parts.append(f"<p>Not evaluable: {_text(drift.reason)}.</p>")
            continue
        worst = sorted(
            drift.features.items(), key=lambda item: (item[1].verdict.psi is None, -(item[1].verdict.psi or 0.0))
        )[:15]
        rows = [
            (feature, f.verdict.status, f.verdict.psi, f.verdict.critical_value, f.verdict.reason)
            for feature, f in worst
        ]
        parts += [_picture(drift, threshold), _table(("feature", "verdict", "PSI", "noise floor", "why"), rows)]
    return parts or ["<p>There is no decision yet.</p>"]


def _picture(drift: DriftReport, threshold: float) -> str:
    from retrodict.evaluation.plots import plot_drift

    try:
        return plot_drift({name: each.verdict for name, each in drift.features.items()}, threshold=threshold)
    except MissingExtraError as error:
        return f"<p>No picture. {_text(error)}</p>"
    except RetrodictError:  # nothing to draw: the table says so
        return ""
