"""Plots of evaluations as SVG text: small, self-contained, the same bytes for the same numbers.

Figures are drawn without pyplot, which keeps global state and is not safe in a server. Text stays text (searchable,
small); ids are hashed from a fixed salt and no date is written, so a report's hash depends on its numbers only.
"""

from __future__ import annotations

import io
import math
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from retrodict.core.errors import InputError, MissingExtraError
from retrodict.core.statistics.drift import DriftVerdict
from retrodict.evaluation.ladder import Ladder
from retrodict.evaluation.metrics import CalibrationBin

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis

__all__ = ["plot_calibration", "plot_drift", "plot_ladder", "plot_periods"]

_INK, _QUIET, _GRID = "#1f2933", "#7b8794", "#e4e7eb"
_MAIN, _ALERT, _SOFT = "#2f6690", "#c8553d", "#c3d5e2"
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "svg.hashsalt": "retrodict",
    "font.family": "sans-serif",
    "font.sans-serif": ["Helvetica", "Arial", "DejaVu Sans", "sans-serif"],
    "font.size": 9.0,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlecolor": _INK,
    "axes.labelcolor": _INK,
    "axes.edgecolor": _QUIET,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": _GRID,
    "grid.linewidth": 0.8,
    "xtick.color": _QUIET,
    "ytick.color": _QUIET,
    "xtick.labelcolor": _INK,
    "ytick.labelcolor": _INK,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
}
_FEW_PERIODS = 6
_LOCK = threading.Lock()  # matplotlib reads its settings from one global while it draws


class _Canvas:
    """One figure under construction; ``svg`` is set when its block ends."""

    def __init__(self, axes: Axes) -> None:
        self.axes = axes
        self.svg = ""


@contextmanager
def _canvas(title: str, *, height: float = 3.0) -> Iterator[_Canvas]:
    """Figure of 5.2 inches: two of them stand side by side on a page with their text at its full size."""
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("matplotlib", "plots", needed_for="a plot") from error
    import logging

    # A reader's browser has its own sans-serif; that this machine lacks the named fonts is no news.
    logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)
    with _LOCK, mpl.rc_context(_STYLE):
        figure = Figure(figsize=(5.2, height), layout="constrained")
        canvas = _Canvas(figure.add_subplot())
        # Above the labels of the axis too: a title that begins at the axis has half the width.
        figure.suptitle(title, x=0.01, ha="left", fontsize=10.5, fontweight="bold", color=_INK)
        yield canvas
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None, "Title": title})
    canvas.svg = _compact(text.getvalue())


def _compact(svg: str) -> str:
    """Drop what inline SVG does not need: declaration, doctype, comments, metadata, line breaks inside paths."""
    body = svg[svg.index("<svg") :]
    # Ids of groups are named by nothing, and would repeat when a page holds several plots.
    body = re.sub(r'<g id="[^"]*"', "<g", body)
    body = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(r"\s*\n\s*", "\n", body)
    return re.sub(r'(?<=[\dz]) ?\n(?=[MLCQzZ" ])', " ", body).replace("<svg ", '<svg role="img" ', 1)


def _label_to_the_end(axis: Axis, low: float, high: float) -> None:
    """Ticks at round numbers that begin at or below the lowest value and end at or above the highest."""
    from matplotlib.ticker import MaxNLocator

    ticks = MaxNLocator(nbins=5, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
    axis.set_ticks(ticks)
    axis.set_view_interval(ticks[0], ticks[-1], ignore=True)


def _require(items: Sequence[object], what: str) -> None:
    if not items:
        raise InputError(f"a plot must have {what}", where="plot", got=0, remedy="Evaluate on rows with labels first")


def plot_ladder(ladder: Ladder, *, name: str = "candidate") -> str:
    """Area under the curve of each rung and of the candidate, with 95 % intervals.

    Parameters
    ----------
    ladder : Ladder
    name : str, default "candidate"
        What to call the candidate.

    Returns
    -------
    str
        SVG.
    """
    rows = [*((rung.name, rung.metric) for rung in ladder.rungs), (name, ladder.candidate)]
    with _canvas(f"Ladder: {name} {ladder.verdict.status}", height=1.3 + 0.38 * len(rows)) as canvas:
        axes = canvas.axes
        for place, (_, metric) in enumerate(rows):
            colour = _MAIN if place == len(rows) - 1 else _SOFT
            if metric.value is None:
                axes.text(0.505, place, f"not evaluable: {metric.reason}", va="center", color=_QUIET)
                continue
            axes.barh(place, metric.value - 0.5, left=0.5, height=0.62, color=colour)
            if metric.low is not None and metric.high is not None:
                axes.plot([metric.low, metric.high], [place, place], color=_INK, linewidth=1.2)
            end = max(metric.value, metric.high or 0.5, 0.5)
            axes.annotate(f"{metric.value:.3f}", (end, place), xytext=(5, 0), textcoords="offset points",
                          va="center", color=_INK)  # fmt: skip
        axes.axvline(0.5, color=_QUIET, linewidth=0.8)
        axes.set_yticks(range(len(rows)), [label for label, _ in rows])
        axes.tick_params(axis="y", length=0)
        axes.set_ylim(-0.6, len(rows) - 0.4)
        highs = [value for _, metric in rows for value in (metric.value, metric.high) if value is not None]
        _label_to_the_end(axes.xaxis, 0.5, 1.02 * max([0.5, *highs]))
        axes.grid(axis="x")
        axes.set_xlabel("area under the ROC curve, 95 % interval")
    return canvas.svg


def plot_calibration(curve: Sequence[CalibrationBin], *, title: str = "Calibration") -> str:
    """Observed rate against mean score per bin, with Wilson's intervals as a band; the diagonal is perfect.

    Raises
    ------
    InputError
        If the curve is empty.
    """
    _require(curve, "at least one calibration bin")
    scores = [part.mean_score for part in curve]
    top = math.ceil(10 * max(*scores, *(part.high for part in curve))) / 10
    with _canvas(title, height=3.6) as canvas:
        axes = canvas.axes
        axes.plot([0, top], [0, top], color=_QUIET, linewidth=0.9, linestyle=(0, (4, 3)), label="perfect")
        axes.fill_between(scores, [part.low for part in curve], [part.high for part in curve], color=_SOFT,
                          alpha=0.7, linewidth=0, label="95 % interval")  # fmt: skip
        axes.plot(scores, [part.observed_rate for part in curve], color=_MAIN, marker="o", markersize=4,
                  linewidth=1.4, label="observed")  # fmt: skip
        axes.set(xlim=(0, top), ylim=(0, top), xlabel="mean score of the bin", ylabel="observed rate")
        axes.set_aspect("equal", adjustable="box")
        for axis in (axes.xaxis, axes.yaxis):
            _label_to_the_end(axis, 0.0, top)
        axes.grid()
        axes.legend(loc="upper left", bbox_to_anchor=(1.02, 1.0), borderaxespad=0.0)
        n = sum(part.n for part in curve)
        axes.annotate(f"{n:,} rows\n{len(curve)} bins", (1.02, 0.0), xycoords="axes fraction", xytext=(6, 0),
                      textcoords="offset points", va="bottom", color=_QUIET)  # fmt: skip
    return canvas.svg


def plot_drift(verdicts: Mapping[str, DriftVerdict], *, threshold: float, limit: int = 15) -> str:
    """Draw the population stability index of each feature against threshold and noise floor, largest on top.

    Parameters
    ----------
    verdicts : mapping of feature to DriftVerdict
    threshold : float
        Smallest index that matters, as passed to ``judge``.
    limit : int, default 15
        Features shown.

    Raises
    ------
    InputError
        If there is no feature.
    """
    _require(list(verdicts), "at least one feature")
    ordered = sorted(verdicts.items(), key=lambda item: (item[1].psi is None, -(item[1].psi or 0.0), item[0]))[:limit]
    height = 1.6 + 0.26 * len(ordered)
    with _canvas("Drift against the noise floor", height=height) as canvas:
        axes = canvas.axes
        for place, (_, verdict) in enumerate(ordered):
            if verdict.psi is None or verdict.critical_value is None:
                axes.text(0.002, place, "not evaluable", va="center", color=_QUIET)
                continue
            axes.barh(place, verdict.psi, height=0.6, color=_ALERT if verdict.status == "drift" else _SOFT)
            axes.plot([verdict.critical_value] * 2, [place - 0.38, place + 0.38], color=_INK, linewidth=1.6)
        axes.axvline(threshold, color=_ALERT, linewidth=1.0, linestyle=(0, (4, 3)), label=f"threshold {threshold:g}")
        axes.plot([], [], color=_INK, linewidth=1.6, label="noise floor")
        axes.set_yticks(range(len(ordered)), [name for name, _ in ordered], fontsize=8)
        axes.tick_params(axis="y", length=0)
        axes.set_ylim(len(ordered) - 0.4, -0.6)
        indexes = [
            value for _, verdict in ordered for value in (verdict.psi, verdict.critical_value) if value is not None
        ]
        _label_to_the_end(axes.xaxis, 0.0, max([threshold, *indexes]))
        axes.grid(axis="x")
        axes.set_xlabel("population stability index")
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.6 / height), ncols=2)
    return canvas.svg


def plot_periods(
    title: str,
    periods: Sequence[str],
    points: Sequence[Mapping[str, Any]],
    *,
    reference: tuple[str, float | None] | None = None,
) -> str:
    """One metric per period with its interval; periods without a value stay visible as crosses.

    Parameters
    ----------
    title : str
    periods : sequence of str
        Names, in order of time.
    points : sequence of mapping
        ``value``, ``low`` and ``high`` of each period, as of a :class:`~retrodict.evaluation.metrics.Metric`.
    reference : (str, float or None), optional
        Name and height of a line to compare with.

    Raises
    ------
    InputError
        If there is no period.
    """
    _require(periods, "at least one period")
    with _canvas(title, height=2.8) as canvas:
        axes = canvas.axes
        measured = {place: point for place, point in enumerate(points) if point.get("value") is not None}
        values = [point["value"] for point in measured.values()]
        axes.plot(list(measured), values, color=_MAIN, marker="o", markersize=5, linewidth=1.4)
        heights = list(values)
        for place, point in measured.items():
            low, high, value = point.get("low"), point.get("high"), point["value"]
            if low is not None and high is not None:
                axes.plot([place, place], [low, high], color=_INK, linewidth=1.2)
                heights += [low, high]
            if len(periods) <= _FEW_PERIODS:
                axes.annotate(f"{value:.3f}", (place, value), xytext=(7, 3), textcoords="offset points", color=_INK,
                              bbox={"facecolor": "#ffffff", "edgecolor": "none", "alpha": 0.8, "pad": 0.8})  # fmt: skip
        absent = [place for place in range(len(periods)) if place not in measured]
        if absent:
            axes.plot(absent, [0.0] * len(absent), linestyle="none", marker="x", color=_QUIET, clip_on=False,
                      transform=axes.get_xaxis_transform(), label="not evaluable")  # fmt: skip
        name, height = reference or ("", None)
        if height is not None:
            axes.axhline(height, color=_ALERT, linewidth=1.0, linestyle=(0, (4, 3)), label=f"{name} {height:.3f}")
            heights.append(height)
        if absent or height is not None:
            axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2)
        # From the last one backwards: the newest period always has its name.
        step = -(-len(periods) // _FEW_PERIODS)
        places = list(range(len(periods) - 1, -1, -step))[::-1]
        axes.set_xticks(places, [periods[place] for place in places])
        axes.set_xlim(-0.4, len(periods) - 0.4)
        if heights:
            _label_to_the_end(axes.yaxis, min(heights), max(heights))
        axes.grid(axis="y")
    return canvas.svg
