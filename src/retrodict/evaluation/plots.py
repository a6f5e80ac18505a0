"""Plots of evaluations as SVG text: small, self-contained, the same bytes for the same numbers.

Figures are drawn without pyplot, which keeps global state and is not safe in a server. Text stays text (searchable,
small); ids are hashed from a fixed salt and no date is written, so a report's hash depends on its numbers only.
"""

from __future__ import annotations

import io
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

__all__ = ["plot_calibration", "plot_drift", "plot_ladder"]

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
_LOCK = threading.Lock()  # matplotlib reads its settings from one global while it draws


class _Canvas:
    """One figure under construction; ``svg`` is set when its block ends."""

    def __init__(self, axes: Axes) -> None:
        self.axes = axes
        self.svg = ""


@contextmanager
def _canvas(title: str, *, height: float = 3.2) -> Iterator[_Canvas]:
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("matplotlib", "plots", needed_for="a plot") from error
    import logging

    # A reader's browser has its own sans-serif; that this machine lacks the named fonts is no news.
    logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)
    with _LOCK, mpl.rc_context(_STYLE):
        figure = Figure(figsize=(6.4, height), layout="constrained")
        canvas = _Canvas(figure.add_subplot())
        canvas.axes.set_title(title, pad=10)
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
    rows = [*((rung.name, rung.auc) for rung in ladder.rungs), (name, ladder.candidate)]
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
        axes.margins(x=0.12)
        axes.grid(axis="x")
        axes.set_xlabel("area under the ROC curve (0.5 is chance), lines: 95 % interval")
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
    top = min(1.0, 1.08 * max(*scores, *(part.high for part in curve)))
    with _canvas(title, height=3.8) as canvas:
        axes = canvas.axes
        axes.plot([0, top], [0, top], color=_QUIET, linewidth=0.9, linestyle=(0, (4, 3)), label="perfect")
        axes.fill_between(scores, [part.low for part in curve], [part.high for part in curve], color=_SOFT,
                          alpha=0.7, linewidth=0, label="95 % interval")  # fmt: skip
        axes.plot(scores, [part.observed_rate for part in curve], color=_MAIN, marker="o", markersize=4,
                  linewidth=1.4, label="observed")  # fmt: skip
        axes.set(xlim=(0, top), ylim=(0, top), xlabel="mean score of the bin", ylabel="observed rate")
        axes.set_aspect("equal", adjustable="box")
        axes.grid()
        axes.legend(loc="upper left", bbox_to_anchor=(1.02, 1.0), borderaxespad=0.0)
        n = sum(part.n for part in curve)
        axes.annotate(f"{n:,} rows\n{len(curve)} bins", (1.02, 0.0), xycoords="axes fraction", xytext=(6, 0),
                      textcoords="offset points", va="bottom", color=_QUIET)  # fmt: skip
    return canvas.svg


def plot_drift(verdicts: Mapping[str, DriftVerdict], *, threshold: float, limit: int = 20) -> str:
    """Draw the population stability index of each feature against threshold and noise floor, largest on top.

    Parameters
    ----------
    verdicts : mapping of feature to DriftVerdict
    threshold : float
        Smallest index that matters, as passed to ``judge``.
    most : int, default 20
        Features shown.

    Raises
    ------
    InputError
        If there is no feature.
    """
    _require(list(verdicts), "at least one feature")
    ordered = sorted(verdicts.items(), key=lambda item: (item[1].psi is None, -(item[1].psi or 0.0), item[0]))[:limit]
    with _canvas("Drift against the noise floor", height=1.5 + 0.3 * len(ordered)) as canvas:
        axes = canvas.axes
        for place, (_, verdict) in enumerate(ordered):
            if verdict.psi is None or verdict.critical_value is None:
                axes.text(0.002, place, "not evaluable", va="center", color=_QUIET)
                continue
            axes.barh(place, verdict.psi, height=0.6, color=_ALERT if verdict.status == "drift" else _SOFT)
            axes.plot([verdict.critical_value] * 2, [place - 0.38, place + 0.38], color=_INK, linewidth=1.6)
        axes.axvline(threshold, color=_ALERT, linewidth=1.0, linestyle=(0, (4, 3)), label=f"threshold {threshold:g}")
        axes.plot([], [], color=_INK, linewidth=1.6, label="noise floor")
        axes.set_yticks(range(len(ordered)), [name for name, _ in ordered])
        axes.tick_params(axis="y", length=0)
        axes.set_ylim(len(ordered) - 0.4, -0.6)
        axes.set_xlim(left=0)
        axes.grid(axis="x")
        axes.set_xlabel("population stability index")
        axes.legend(loc="lower right")
    return canvas.svg
