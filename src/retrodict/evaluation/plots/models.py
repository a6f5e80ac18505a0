"""Plots of how a model was come by: ladder, calibration, elimination of features, path of coefficients."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from retrodict.evaluation.binary import CalibrationBin
from retrodict.evaluation.ladder import Ladder
from retrodict.evaluation.plots.canvas import (
    ALERT,
    INK,
    MAIN,
    QUIET,
    SOFT,
    drawing,
    label_to_the_end,
    require,
    shade_cells,
)

__all__ = [
    "plot_calibration",
    "plot_correlation",
    "plot_elimination",
    "plot_history",
    "plot_importance",
    "plot_ladder",
    "plot_path",
]

_NAMED = 8
_COLOURS = [MAIN, ALERT, "#6b9080", "#8d6a9f", "#d4a03b", "#4a7c8c", "#a05c5c", "#5c6f82"]


def plot_ladder(ladder: Ladder, *, name: str = "candidate", title: str | None = None) -> str:
    """Primary metric of each rung and of the candidate, with 95 % intervals.

    Parameters
    ----------
    ladder : Ladder
    name : str, default "candidate"
        What to call the candidate.
    title : str, optional
        None: what the ladder says of it.

    Returns
    -------
    str
        SVG.
    """
    rows = [*((rung.name, rung.metric) for rung in ladder.rungs), (name, ladder.candidate)]
    areas = ladder.candidate.name == "auc"
    start = 0.5 if areas else 0.0  # what chance gives, and what no loss falls below
    with drawing(title or f"Ladder: {name} {ladder.verdict.status}", height=1.3 + 0.38 * len(rows)) as canvas:
        axes = canvas.axes
        highs = [value for _, metric in rows for value in (metric.value, metric.high) if value is not None]
        top = 1.02 * max([start, *highs])
        for place, (_, metric) in enumerate(rows):
            colour = MAIN if place == len(rows) - 1 else SOFT
            if metric.value is None:
                axes.text(start + 0.01 * (top - start), place, f"not evaluable: {metric.reason}", va="center",
                          color=QUIET)  # fmt: skip
                continue
            axes.barh(place, metric.value - start, left=start, height=0.62, color=colour)
            if metric.low is not None and metric.high is not None:
                axes.plot([metric.low, metric.high], [place, place], color=INK, linewidth=1.2)
            end = max(metric.value, metric.high or start, start)
            axes.annotate(f"{metric.value:.3f}" if areas else f"{metric.value:.4g}", (end, place), xytext=(5, 0),
                          textcoords="offset points", va="center", color=INK)  # fmt: skip
        axes.axvline(start, color=QUIET, linewidth=0.8)
        axes.set_yticks(range(len(rows)), [label for label, _ in rows])
        axes.tick_params(axis="y", length=0)
        axes.set_ylim(-0.6, len(rows) - 0.4)
        label_to_the_end(axes.xaxis, start, top)
        axes.grid(axis="x")
        better = "" if ladder.higher else ", lower is better"
        axes.set_xlabel(
            "area under the ROC curve, 95 % interval" if areas
            else f"{ladder.candidate.name}{better}, 95 % interval"
        )  # fmt: skip
    return canvas.svg


def plot_correlation(correlation: Mapping[str, Mapping[str, float | None]], *, title: str = "Errors of members") -> str:
    """How the errors of several models go together, each beside each other one; the darker, the more alike.

    Parameters
    ----------
    correlation : mapping of str to mapping of str to float or None
        As ``correlate_errors`` gives it.
    title : str

    Raises
    ------
    InputError
        If there is no model.
    """
    require(list(correlation), "at least one model")
    names = list(correlation)
    values = [[1.0 if name == other else correlation[name][other] for other in names] for name in names]
    with drawing(title, height=2.0 + 0.32 * len(names)) as canvas:
        texts = [["-" if value is None else f"{value:.2f}" for value in row] for row in values]
        shade_cells(canvas.axes, names, texts, [[max(value or 0.0, 0.0) for value in row] for row in values])
        canvas.axes.set(xlabel="correlation of their errors")
    return canvas.svg


def plot_calibration(curve: Sequence[CalibrationBin], *, title: str = "Calibration") -> str:
    """Observed rate against mean score per bin, with Wilson's intervals as a band; the diagonal is perfect.

    Raises
    ------
    InputError
        If the curve is empty.
    """
    require(curve, "at least one calibration bin")
    scores = [part.mean_score for part in curve]
    top = math.ceil(10 * max(*scores, *(part.high for part in curve))) / 10
    with drawing(title, height=3.6) as canvas:
        axes = canvas.axes
        axes.plot([0, top], [0, top], color=QUIET, linewidth=0.9, linestyle=(0, (4, 3)), label="perfect")
        axes.fill_between(scores, [part.low for part in curve], [part.high for part in curve], color=SOFT,
                          alpha=0.7, linewidth=0, label="95 % interval")  # fmt: skip
        axes.plot(scores, [part.observed_rate for part in curve], color=MAIN, marker="o", markersize=4,
                  linewidth=1.4, label="observed")  # fmt: skip
        axes.set(xlim=(0, top), ylim=(0, top), xlabel="mean score of the bin", ylabel="observed rate")
        axes.set_aspect("equal", adjustable="box")
        for axis in (axes.xaxis, axes.yaxis):
            label_to_the_end(axis, 0.0, top)
        axes.grid()
        axes.legend(loc="upper left", bbox_to_anchor=(1.02, 1.0), borderaxespad=0.0)
        n = sum(part.n for part in curve)
        axes.annotate(f"{n:,} rows\n{len(curve)} bins", (1.02, 0.0), xycoords="axes fraction", xytext=(6, 0),
                      textcoords="offset points", va="bottom", color=QUIET)  # fmt: skip
    return canvas.svg


def plot_elimination(history: Sequence[Mapping[str, Any]], *, title: str = "Elimination of features") -> str:
    """Score by number of features, with the interval of the folds as a band; the best number is marked.

    Parameters
    ----------
    history : sequence of mapping
        ``features`` (a number), ``mean`` score (higher is better), ``low`` and ``high`` of each step, in any order;
        both None where there is one fold.
    title : str

    Raises
    ------
    InputError
        If there is no step.
    """
    require(history, "at least one step")
    steps = sorted(history, key=lambda step: step["features"])
    sizes, scores = [step["features"] for step in steps], [step["mean"] for step in steps]
    best = max(steps, key=lambda step: (step["mean"], -step["features"]))
    with drawing(title) as canvas:
        axes = canvas.axes
        low, high = ([step["mean"] if step[end] is None else step[end] for step in steps] for end in ("low", "high"))
        axes.fill_between(sizes, low, high, color=SOFT, alpha=0.7, linewidth=0, label="between folds")
        axes.plot(sizes, scores, color=MAIN, marker="o", markersize=4, linewidth=1.4, label="mean score")
        axes.axvline(best["features"], color=ALERT, linewidth=1.0, linestyle=(0, (4, 3)),
                     label=f"best: {best['features']} features, {best['mean']:.4g}")  # fmt: skip
        axes.set(xlabel="features", ylabel="score")
        axes.grid()
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.22), ncols=3)
    return canvas.svg


def plot_history(
    validation: Mapping[str, Sequence[tuple[int, float]]],
    training: Mapping[str, Sequence[tuple[int, float]]],
    *,
    best: Mapping[str, int] | int | None = None,
    title: str = "Loss per iteration",
) -> str:
    """Losses of the validation rows and, dashed, of training rows; the iteration in force is marked.

    Parameters
    ----------
    validation, training : mapping of loss to sequence of (iteration, value)
        Iterations ascend; at most eight losses are drawn.
    best : int, or mapping of loss to int, optional
        The iteration in force, of each loss where they differ.
    title : str

    Raises
    ------
    InputError
        If there is no loss.
    """
    require(list(validation), "at least one loss of the validation rows")
    with drawing(title, height=3.2) as canvas:
        axes = canvas.axes
        for colour, name in zip(_COLOURS, validation, strict=False):
            axes.plot(*zip(*_every(validation[name]), strict=True), color=colour, linewidth=1.4,
                      label=f"{name}, validation")  # fmt: skip
            if training.get(name):
                axes.plot(*zip(*_every(training[name]), strict=True), color=colour, linewidth=1.0,
                          linestyle=(0, (4, 3)), label=f"{name}, training")  # fmt: skip
            end = best.get(name) if isinstance(best, Mapping) else best
            value = dict(validation[name]).get(end) if end is not None else None
            if end is not None and value is not None:
                axes.plot([end], [value], color=colour, marker="o", markersize=5, linestyle="none",
                          label=f"chosen: {end}, {value:.4g}")  # fmt: skip
        axes.set(xlabel="iteration", ylabel="loss")
        axes.grid()
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=3)
    return canvas.svg


def _every(points: Sequence[tuple[int, float]], limit: int = 200) -> Sequence[tuple[int, float]]:
    """Of a long curve every nth point, and the last."""
    step = max(1, math.ceil(len(points) / limit))
    return [*points[:-1:step], points[-1]]


def plot_path(
    path: Mapping[str, Sequence[tuple[float, float]]], *, strength: float | None = None, title: str = "Coefficients"
) -> str:
    """Draw coefficients against the strength of the penalty; the largest eight are named.

    Parameters
    ----------
    path : mapping of feature to sequence of (strength, coefficient)
        Strengths above 0, in any order.
    strength : float, optional
        The one in force, marked.
    title : str

    Raises
    ------
    InputError
        If there is no feature.
    """
    require(list(path), "at least one feature")
    largest = sorted(path, key=lambda name: -max((abs(value) for _, value in path[name]), default=0.0))
    with drawing(title, height=3.4) as canvas:
        axes = canvas.axes
        for place, name in reversed(list(enumerate(largest))):
            points = sorted(path[name])
            style: dict[str, Any] = {"color": SOFT, "linewidth": 0.8}
            if place < _NAMED:
                style = {"color": _COLOURS[place], "linewidth": 1.4, "label": name}
            axes.plot([point[0] for point in points], [point[1] for point in points], **style)
        axes.axhline(0.0, color=QUIET, linewidth=0.8)
        if strength is not None:
            axes.axvline(strength, color=INK, linewidth=1.0, linestyle=(0, (4, 3)))
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")  # its own is in the language of formulas, which is off
        axes.xaxis.set_minor_formatter("")
        axes.set(xlabel="strength of the penalty", ylabel="coefficient")
        axes.grid()
        handles, labels = axes.get_legend_handles_labels()
        axes.legend(handles[::-1], labels[::-1], loc="upper left", bbox_to_anchor=(1.02, 1.0), borderaxespad=0.0)
    return canvas.svg


def plot_importance(
    shares: Sequence[tuple[str, float, float | None, float | None]], *, loss: str = "loss", limit: int = 20
) -> str:
    """How much a loss rises when each feature is shuffled, with its interval.

    Parameters
    ----------
    shares : sequence of (feature, rise, low, high)
        The most important first.
    loss : str, default "loss"
        What rises.
    limit : int, default 20
        At most so many features.

    Raises
    ------
    InputError
        If there is no feature.
    """
    require(shares, "at least one feature")
    rows = list(shares[:limit])[::-1]
    with drawing("Importance of features", height=1.3 + 0.3 * len(rows)) as canvas:
        axes = canvas.axes
        for place, (_, rise, low, high) in enumerate(rows):
            axes.barh(place, rise, height=0.62, color=MAIN)
            if low is not None and high is not None:
                axes.plot([low, high], [place, place], color=INK, linewidth=1.2)
        axes.axvline(0.0, color=QUIET, linewidth=0.8)
        axes.set_yticks(range(len(rows)), [name for name, *_ in rows])
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="x")
        left = f", {len(shares) - limit} features left out" if len(shares) > limit else ""
        axes.set_xlabel(f"rise of the {loss} when shuffled, 95 % interval{left}")
    return canvas.svg
