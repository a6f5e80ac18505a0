"""Plots of outputs against labels: confusion, curves of thresholds, residuals, coverage of quantiles."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from retrodict.core.errors import InputError
from retrodict.core.tasks import Target
from retrodict.evaluation._rows import Rows, read_rows
from retrodict.evaluation.binary import Confusion
from retrodict.evaluation.metrics import Evaluation
from retrodict.evaluation.multiclass import ClassTable
from retrodict.evaluation.plots.canvas import (
    INK,
    MAIN,
    QUIET,
    SOFT,
    Canvas,
    drawing,
    label_to_the_end,
    require,
    shade_cells,
)

__all__ = [
    "plot_actual",
    "plot_confusion",
    "plot_coverage",
    "plot_gain",
    "plot_precision_recall",
    "plot_residuals",
    "plot_roc",
]

Floats = NDArray[np.float64]

# What a picture of five inches can show; more only makes the page heavy.
_POINTS, _VERTICES, _WINDOWS, _CLASSES = 150, 200, 20, 30


def plot_confusion(table: Confusion | ClassTable, *, title: str = "Confusion") -> str:
    """Rows by class and decision; the shade is the share of the class.

    Raises
    ------
    InputError
        If there are more than 30 classes.
    """
    if isinstance(table, Confusion):
        names: tuple[str | float, ...] = ("no", "yes")
        counts = np.array([[table.true_negatives, table.false_positives],
                           [table.false_negatives, table.true_positives]])  # fmt: skip
    else:
        names, counts = table.classes, np.array(table.counts)
    if len(names) > _CLASSES:
        raise InputError(f"a plot must have at most {_CLASSES} classes", where="plot", got=len(names),
                         remedy="Look at the recall of each class")  # fmt: skip
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    with drawing(title, height=2.0 + 0.32 * len(names)) as canvas:
        shade_cells(canvas.axes, names, [[f"{cell:,}" for cell in row] for row in counts.tolist()], shares.tolist())
        canvas.axes.set(xlabel="decided", ylabel="actual")
    return canvas.svg


def _two_classes(labels: ArrayLike, scores: ArrayLike) -> Rows:
    rows, _ = read_rows(labels, scores).matured()
    if why_not := rows.incomplete() or rows.one_class():
        raise InputError("a curve must have rows of both classes, each with a score", where="plot", got=why_not,
                         remedy="Evaluate on rows with labels first")  # fmt: skip
    return rows


def _thinned(x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """At most 200 vertices, the first and the last among them."""
    places = np.unique(np.linspace(0, x.size - 1, min(x.size, _VERTICES)).round().astype(np.int64))
    return x[places], y[places]


def _unit_square(canvas: Canvas, x: Floats, y: Floats, labels: tuple[str, str], note: str) -> None:
    axes = canvas.axes
    axes.plot(*_thinned(x, y), color=MAIN, linewidth=1.4)
    axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel=labels[0], ylabel=labels[1])
    axes.set_aspect("equal", adjustable="box")
    axes.grid()
    axes.annotate(note, (1.02, 0.0), xycoords="axes fraction", xytext=(6, 0), textcoords="offset points", va="bottom",
                  color=QUIET)  # fmt: skip


def plot_roc(labels: ArrayLike, scores: ArrayLike, *, title: str = "ROC curve") -> str:
    """Share of positives against share of negatives above each threshold; the diagonal is chance.

    Raises
    ------
    InputError
        If a class has no row, or a labelled row no score; of the other curves too.
    """
    rows = _two_classes(labels, scores)
    hits, misses = np.cumsum(rows.thresholds.positive), np.cumsum(rows.thresholds.negative)
    with drawing(title, height=3.6) as canvas:
        canvas.axes.plot([0, 1], [0, 1], color=QUIET, linewidth=0.9, linestyle=(0, (4, 3)))
        _unit_square(canvas, np.r_[0.0, misses / misses[-1]], np.r_[0.0, hits / hits[-1]],
                     ("false positive rate", "recall"), f"{rows.n:,} rows\n{rows.positives:,} positive")  # fmt: skip
    return canvas.svg


def plot_precision_recall(labels: ArrayLike, scores: ArrayLike, *, title: str = "Precision and recall") -> str:
    """Precision against recall at each threshold; the line is the base rate, what chance gives."""
    rows = _two_classes(labels, scores)
    hits, total = np.cumsum(rows.thresholds.positive), np.cumsum(rows.thresholds.positive + rows.thresholds.negative)
    rate = rows.positives / rows.n
    with drawing(title, height=3.6) as canvas:
        canvas.axes.plot([0, 1], [rate, rate], color=QUIET, linewidth=0.9, linestyle=(0, (4, 3)))
        _unit_square(canvas, hits / hits[-1], hits / total, ("recall", "precision"),
                     f"{rows.n:,} rows\nbase rate {rate:.3f}")  # fmt: skip
    return canvas.svg


def plot_gain(labels: ArrayLike, scores: ArrayLike, *, title: str = "Gain") -> str:
    """Share of all positives among the highest scores; the lift is how far it is above the diagonal, as a quotient."""
    rows = _two_classes(labels, scores)
    hits, total = np.cumsum(rows.thresholds.positive), np.cumsum(rows.thresholds.positive + rows.thresholds.negative)
    x, y = np.r_[0.0, total / total[-1]], np.r_[0.0, hits / hits[-1]]
    lifts = "\n".join(f"{np.interp(part, x, y) / part:.2f} at {part:.0%}" for part in (0.1, 0.2))
    with drawing(title, height=3.6) as canvas:
        canvas.axes.plot([0, 1], [0, 1], color=QUIET, linewidth=0.9, linestyle=(0, (4, 3)))
        _unit_square(canvas, x, y, ("share of rows, from the highest score", "share of positives"),
                     f"lift\n{lifts}")  # fmt: skip
    return canvas.svg


def _numbers(labels: ArrayLike, outputs: ArrayLike) -> tuple[Floats, Floats]:
    """Labels and outputs of the labelled rows, in the order of the outputs."""
    rows, _ = read_rows(labels, outputs, Target("regression")).matured()
    if why_not := rows.incomplete():
        raise InputError("a plot must have rows with labels and outputs", where="plot", got=why_not,
                         remedy="Evaluate on rows with labels first")  # fmt: skip
    order = np.argsort(rows.outputs, kind="stable")
    return rows.labels[order], rows.outputs[order]


def _cloud(canvas: Canvas, x: Floats, y: Floats) -> None:
    """Points, every so many of them, with the median and the middle 80 % of twenty windows of x."""
    places = np.unique(np.linspace(0, x.size - 1, min(x.size, _POINTS)).round().astype(np.int64))
    axes = canvas.axes
    windows = np.array_split(np.arange(x.size), min(_WINDOWS, max(x.size // 10, 1)))
    centres = [float(np.median(x[window])) for window in windows]
    low, middle, high = (np.array([np.quantile(y[window], level) for window in windows]) for level in (0.1, 0.5, 0.9))
    axes.fill_between(centres, low, high, color=SOFT, alpha=0.7, linewidth=0, label="middle 80 %")
    axes.plot(x[places], y[places], linestyle="none", marker="o", markersize=2, color=QUIET, alpha=0.5)
    axes.plot(centres, middle, color=MAIN, linewidth=1.4, label="median")
    axes.grid()
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=3)


def plot_residuals(labels: ArrayLike, outputs: ArrayLike, *, title: str = "Residuals") -> str:
    """Label less prediction against the prediction: a trend is bias, a funnel is uneven noise.

    Raises
    ------
    InputError
        If there is no labelled row, or one without an output.
    """
    truth, predicted = _numbers(labels, outputs)
    with drawing(title, height=3.4) as canvas:
        _cloud(canvas, predicted, truth - predicted)
        canvas.axes.axhline(0.0, color=INK, linewidth=0.8)
        canvas.axes.set(xlabel="predicted", ylabel="actual - predicted")
    return canvas.svg


def plot_actual(labels: ArrayLike, outputs: ArrayLike, *, title: str = "Predicted and actual") -> str:
    """Label against prediction; the diagonal is perfect. Errors are those of ``plot_residuals``."""
    truth, predicted = _numbers(labels, outputs)
    with drawing(title, height=3.6) as canvas:
        ends = [float(predicted[0]), float(predicted[-1])]
        canvas.axes.plot(ends, ends, color=INK, linewidth=0.8, linestyle=(0, (4, 3)), label="perfect")
        _cloud(canvas, predicted, truth)
        canvas.axes.set(xlabel="predicted", ylabel="actual")
    return canvas.svg


def plot_coverage(evaluation: Evaluation, target: Target, *, title: str = "Coverage of quantiles") -> str:
    """Share of labels at or below each quantile against its level, with 95 % intervals; the diagonal is perfect.

    Raises
    ------
    InputError
        If no coverage is evaluable.
    """
    metrics = [(level, evaluation[f"coverage_{name}"])
               for level, name in zip(target.quantiles, target.outputs, strict=True)]  # fmt: skip
    points = [(level, metric, metric.value) for level, metric in metrics if metric.value is not None]
    require(points, "at least one level whose coverage is evaluable")
    with drawing(title, height=3.6) as canvas:
        axes = canvas.axes
        axes.plot([0, 1], [0, 1], color=QUIET, linewidth=0.9, linestyle=(0, (4, 3)))
        for level, metric, _ in points:
            if metric.low is not None and metric.high is not None:
                axes.plot([level, level], [metric.low, metric.high], color=INK, linewidth=1.2)
        axes.plot([level for level, *_ in points], [value for *_, value in points], color=MAIN, marker="o",
                  markersize=4, linewidth=1.4)  # fmt: skip
        axes.set(xlabel="level", ylabel="labels at or below", xlim=(0, 1), ylim=(0, 1))
        axes.set_aspect("equal", adjustable="box")
        for axis in (axes.xaxis, axes.yaxis):
            label_to_the_end(axis, 0.0, 1.0)
        axes.grid()
    return canvas.svg
