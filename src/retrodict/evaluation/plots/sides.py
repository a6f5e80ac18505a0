"""Plots of several runs beside each other: their metrics, and one metric by step."""

from __future__ import annotations

from collections.abc import Sequence

from retrodict.evaluation.plots.canvas import ALERT, MAIN, drawing, require

__all__ = ["plot_histories", "plot_sides"]

_COLOURS = [MAIN, ALERT, "#6b9080", "#8d6a9f", "#d4a03b", "#4a7c8c", "#a05c5c", "#5c6f82"]


def plot_histories(
    names: Sequence[str],
    series: Sequence[Sequence[tuple[int, float]] | None],
    *,
    metric: str,
    ticks: Sequence[str] = (),
) -> str:
    """One metric of several runs by step, or of several versions by period.

    Parameters
    ----------
    names : sequence of str
        What the runs are called.
    series : sequence of sequence of (step, value), or None
        Of each run; None where it has no history.
    metric : str
    ticks : sequence of str
        What steps 0, 1, ... are called, where they are periods.

    Raises
    ------
    InputError
        If no run has a history.
    """
    lines = [(name, points) for name, points in zip(names, series, strict=True) if points]
    require(lines, "a run with a history of the metric")
    with drawing(f"{metric} by {'period' if ticks else 'step'}", height=3.2) as canvas:
        for place, (name, points) in enumerate(lines):
            steps, values = zip(*points, strict=True)
            canvas.axes.plot(steps, values, color=_COLOURS[place % len(_COLOURS)], linewidth=1.4, label=name,
                             marker="o" if ticks else None, markersize=3)  # fmt: skip
        canvas.axes.set_xlabel("period" if ticks else "step")
        if ticks:
            places = range(0, len(ticks), 1 + len(ticks) // 12)
            canvas.axes.set_xticks(list(places), [ticks[place] for place in places])
        canvas.axes.set_ylabel(metric)
        canvas.axes.legend(frameon=False, fontsize=8)
    return canvas.svg


def plot_sides(names: Sequence[str], values: Sequence[float | None], *, metric: str) -> str:
    """One metric of several runs side by side, as bars; a run where it is not evaluable has none.

    Parameters
    ----------
    names : sequence of str
    values : sequence of float or None
    metric : str

    Raises
    ------
    InputError
        If no run has a value.
    """
    bars = [(name, value) for name, value in zip(names, values, strict=True) if value is not None]
    require(bars, "a run with a value of the metric")
    with drawing(metric, height=1.2 + 0.35 * len(names)) as canvas:
        places = range(len(names))
        canvas.axes.barh(list(places), [0.0 if value is None else value for value in values], color=MAIN, height=0.6)
        canvas.axes.set_yticks(list(places), list(names))
        canvas.axes.invert_yaxis()
        for place, value in enumerate(values):
            canvas.axes.annotate("not evaluable" if value is None else f"{value:.4g}", (value or 0.0, place),
                                 xytext=(4, 0), textcoords="offset points", va="center", fontsize=8)  # fmt: skip
    return canvas.svg
