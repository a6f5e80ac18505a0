"""Plots of what is watched over time: drift of features, and a metric per period."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from retrodict.core.statistics.drift import DriftVerdict
from retrodict.evaluation.plots.canvas import ALERT, INK, MAIN, QUIET, SOFT, drawing, label_to_the_end, require

__all__ = ["plot_drift", "plot_periods"]

_FEW_PERIODS = 6


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
    require(list(verdicts), "at least one feature")
    ordered = sorted(verdicts.items(), key=lambda item: (item[1].psi is None, -(item[1].psi or 0.0), item[0]))[:limit]
    height = 1.6 + 0.26 * len(ordered)
    with drawing("Drift against the noise floor", height=height) as canvas:
        axes = canvas.axes
        for place, (_, verdict) in enumerate(ordered):
            if verdict.psi is None or verdict.critical_value is None:
                axes.text(0.002, place, "not evaluable", va="center", color=QUIET)
                continue
            axes.barh(place, verdict.psi, height=0.6, color=ALERT if verdict.status == "drift" else SOFT)
            axes.plot([verdict.critical_value] * 2, [place - 0.38, place + 0.38], color=INK, linewidth=1.6)
        axes.axvline(threshold, color=ALERT, linewidth=1.0, linestyle=(0, (4, 3)), label=f"threshold {threshold:g}")
        axes.plot([], [], color=INK, linewidth=1.6, label="noise floor")
        axes.set_yticks(range(len(ordered)), [name for name, _ in ordered], fontsize=8)
        axes.tick_params(axis="y", length=0)
        axes.set_ylim(len(ordered) - 0.4, -0.6)
        indexes = [
            value for _, verdict in ordered for value in (verdict.psi, verdict.critical_value) if value is not None
        ]
        label_to_the_end(axes.xaxis, 0.0, max([threshold, *indexes]))
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
    require(periods, "at least one period")
    with drawing(title, height=2.8) as canvas:
        axes = canvas.axes
        measured = {place: point for place, point in enumerate(points) if point.get("value") is not None}
        values = [point["value"] for point in measured.values()]
        axes.plot(list(measured), values, color=MAIN, marker="o", markersize=5, linewidth=1.4)
        heights = list(values)
        for place, point in measured.items():
            low, high, value = point.get("low"), point.get("high"), point["value"]
            if low is not None and high is not None:
                axes.plot([place, place], [low, high], color=INK, linewidth=1.2)
                heights += [low, high]
            if len(periods) <= _FEW_PERIODS:
                axes.annotate(f"{value:.3f}", (place, value), xytext=(7, 3), textcoords="offset points", color=INK,
                              bbox={"facecolor": "#ffffff", "edgecolor": "none", "alpha": 0.8, "pad": 0.8})  # fmt: skip
        absent = [place for place in range(len(periods)) if place not in measured]
        if absent:
            axes.plot(absent, [0.0] * len(absent), linestyle="none", marker="x", color=QUIET, clip_on=False,
                      transform=axes.get_xaxis_transform(), label="not evaluable")  # fmt: skip
        name, height = reference or ("", None)
        if height is not None:
            axes.axhline(height, color=ALERT, linewidth=1.0, linestyle=(0, (4, 3)), label=f"{name} {height:.3f}")
            heights.append(height)
        if absent or height is not None:
            axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2)
        # From the last one backwards: the newest period always has its name.
        step = -(-len(periods) // _FEW_PERIODS)
        places = list(range(len(periods) - 1, -1, -step))[::-1]
        axes.set_xticks(places, [periods[place] for place in places])
        axes.set_xlim(-0.4, len(periods) - 0.4)
        if heights:
            label_to_the_end(axes.yaxis, min(heights), max(heights))
        axes.grid(axis="y")
    return canvas.svg
