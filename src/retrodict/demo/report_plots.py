"""Plots of the demo's report, from its plain numbers: those of ``evaluation.plots`` where they fit, own ones where not.

Every plot follows the page into dark mode: the colours of the drawing are replaced by the page's variables.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from retrodict.core.statistics.drift import DriftVerdict
from retrodict.evaluation.ladder import Ladder
from retrodict.evaluation.metrics import CalibrationBin
from retrodict.evaluation.plots import plot_calibration, plot_drift, plot_ladder, plot_periods
from retrodict.evaluation.plots.canvas import drawing, label_to_the_end
from retrodict.pages import themed

__all__ = [
    "draw_bars",
    "draw_calibration",
    "draw_drift",
    "draw_ladder",
    "draw_latency",
    "draw_leakage",
    "draw_months",
    "drift_threshold",
]

# Colours of evaluation.plots; the page replaces them by its variables.
_INK, _QUIET, _MAIN, _ALERT, _SOFT = "#1f2933", "#7b8794", "#2f6690", "#c8553d", "#c3d5e2"
_THRESHOLD = re.compile(r"threshold (\d[\d.]*(?:e[+-]?\d+)?)")

Numbers = Mapping[str, Any]


def draw_ladder(ladder: Numbers, key: str, *, name: str) -> str:
    """The rungs and the candidate with their intervals, from ``Ladder.to_dict``."""
    return themed(plot_ladder(Ladder.from_dict(ladder), name=name), key)


def draw_calibration(curve: Sequence[Numbers], key: str, *, title: str) -> str:
    """Observed rate against mean score, from the points of a calibration curve."""
    return themed(plot_calibration([CalibrationBin(**point) for point in curve], title=title), key)


def drift_threshold(features: Mapping[str, Numbers]) -> float | None:
    """Return the threshold that the verdicts name in their reasons; None where none of them was evaluable."""
    matches = (_THRESHOLD.search(feature["reason"]) for feature in features.values())
    return next((float(match[1]) for match in matches if match), None)


def draw_drift(features: Mapping[str, Numbers], key: str, *, threshold: float) -> str:
    """The largest indices of a month against threshold and noise floor, from ``FeatureDrift.to_dict``."""
    verdicts = {
        name: DriftVerdict(**{part: value for part, value in feature.items() if part != "bins"})
        for name, feature in features.items()
    }
    return themed(plot_drift(verdicts, threshold=threshold), key)


def draw_leakage(leakage: Numbers, key: str) -> str:
    """Three areas under the curve: honest, promised by the naive join, and what that model then does."""
    areas = {
        "point in time": leakage["auc_point_in_time"],
        "naive join, as a notebook reports it": leakage["auc_naive"],
        "naive join, in production": leakage["auc_naive_in_production"],
    }
    title = "What a join with one clock promises, and what it keeps"
    return draw_bars(title, areas, "area under the ROC curve (0.5 is chance)", key, label="{:.3f}", start=0.5)


def draw_months(
    title: str, months: Sequence[Numbers], metric: str, key: str, *, reference: tuple[str, float | None]
) -> str:
    """One metric per period, from ``Slice.to_dict``, with the name and height of a line to compare with."""
    points = [month["metrics"].get(metric, {}) for month in months]
    return themed(plot_periods(title, [str(month["period"]) for month in months], points, reference=reference), key)


def draw_latency(percentiles: Sequence[float], marks: Mapping[str, float], key: str) -> str:
    """Share of the requests that were answered within a time.

    Parameters
    ----------
    percentiles : sequence of float
        Milliseconds at evenly spaced shares, without 0 and 1.
    marks : mapping of str to float
        Named milliseconds, drawn as lines.
    key : str
    """
    steps = len(percentiles) + 1
    with drawing("Latency as the caller sees it") as canvas:
        axes = canvas.axes
        shares = [100 * (place + 1) / steps for place in range(len(percentiles))]
        axes.fill_between(percentiles, shares, color=_SOFT, alpha=0.7, linewidth=0)
        axes.plot(percentiles, shares, color=_MAIN, linewidth=1.4)
        axes.set_xscale("log")
        for value in marks.values():
            axes.axvline(value, color=_ALERT, linewidth=1.0, linestyle=(0, (4, 3)))
        # In the corner that a distribution function leaves free; at the lines the words would cover the curve.
        words = "\n".join(f"{name} {value:.3g} ms" for name, value in marks.items())
        axes.annotate(words, (0.03, 0.95), xycoords="axes fraction", va="top", color=_INK, linespacing=1.5)
        axes.set_ylim(0, 102)
        ends = _round_ends(min(percentiles), max([*percentiles, *marks.values()]))
        axes.set_xticks(ends, [f"{value:g}" for value in ends])
        axes.set_xticks([], minor=True)
        axes.set_xlim(ends[0], ends[-1])
        axes.grid(axis="y")
        axes.set(xlabel="milliseconds (logarithmic)", ylabel="% of requests answered")
    return themed(canvas.svg, key)


def _round_ends(low: float, high: float) -> list[float]:
    """Steps of 1, 2, 5, 10 ... from the last one not above the lowest value to the first not below the highest."""
    steps = [lead * 10.0**power for power in range(-6, 9) for lead in (1, 2, 5)]
    first = max((at for at, step in enumerate(steps) if step <= low), default=0)
    last = min((at for at, step in enumerate(steps) if step >= high), default=len(steps) - 1)
    return steps[first : max(last, first + 1) + 1]


def draw_bars(
    title: str, values: Mapping[str, float | None], unit: str, key: str, *, label: str = "", start: float = 0.0
) -> str:
    """Horizontal bars in the order given, each with its number; None is said to be not evaluable.

    Parameters
    ----------
    title : str
    values : mapping of str to float or None
    unit : str
        Below the axis.
    key : str
    label : str, optional
        Format of the numbers; by default two decimals and the unit.
    start : float, default 0.0
        Where the bars begin.
    """
    with drawing(title, height=1.1 + 0.3 * max(len(values), 1)) as canvas:
        axes = canvas.axes
        for place, value in enumerate(values.values()):
            if value is None:
                axes.text(start, place, " not evaluable", va="center", color=_QUIET)
                continue
            axes.barh(place, value - start, left=start, height=0.6, color=_SOFT)
            axes.annotate((label or f"{{:,.2f}} {unit}").format(value), (max(value, start), place), xytext=(5, 0),
                          textcoords="offset points", va="center", color=_INK)  # fmt: skip
        axes.set_yticks(range(len(values)), list(values))
        axes.tick_params(axis="y", length=0)
        axes.set_ylim(len(values) - 0.4, -0.6)
        lengths = [start, *(value for value in values.values() if value is not None)]
        label_to_the_end(axes.xaxis, min(lengths), max(lengths))
        axes.grid(axis="x")
        axes.set_xlabel(unit)
    return themed(canvas.svg, key)
