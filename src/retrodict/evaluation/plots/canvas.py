"""Plots of evaluations as SVG text: small, self-contained, the same bytes for the same numbers.

Figures are drawn without pyplot, which keeps global state and is not safe in a server. Text stays text (searchable,
small); ids are hashed from a fixed salt and no date is written, so a report's hash depends on its numbers only.
"""

from __future__ import annotations

import io
import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from retrodict.core.errors import InputError, MissingExtraError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis

__all__ = ["ALERT", "INK", "MAIN", "QUIET", "SOFT", "Canvas", "drawing", "label_to_the_end", "require", "shade_cells"]

INK, QUIET, GRID = "#1f2933", "#7b8794", "#e4e7eb"
MAIN, ALERT, SOFT = "#2f6690", "#c8553d", "#c3d5e2"
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
    "axes.titlecolor": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": QUIET,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": QUIET,
    "ytick.color": QUIET,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
}
_LOCK = threading.Lock()  # matplotlib reads its settings from one global while it draws


class Canvas:
    """One figure under construction; ``svg`` is set when its block ends."""

    def __init__(self, axes: Axes) -> None:
        self.axes = axes
        self.svg = ""


@contextmanager
def drawing(title: str, *, height: float = 3.0) -> Iterator[Canvas]:
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
        canvas = Canvas(figure.add_subplot())
        # Above the labels of the axis too: a title that begins at the axis has half the width.
        figure.suptitle(title, x=0.01, ha="left", fontsize=10.5, fontweight="bold", color=INK)
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


def label_to_the_end(axis: Axis, low: float, high: float) -> None:
    """Ticks at round numbers that begin at or below the lowest value and end at or above the highest."""
    from matplotlib.ticker import MaxNLocator

    ticks = MaxNLocator(nbins=5, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
    axis.set_ticks(ticks)
    axis.set_view_interval(ticks[0], ticks[-1], ignore=True)


def shade_cells(
    axes: Axes, names: Sequence[object], texts: Sequence[Sequence[str]], shares: Sequence[Sequence[float]]
) -> None:
    """A square of cells, each with its text, the darker the larger its share."""
    # Lines are drawn as bars: an image inside an SVG is a bitmap.
    for line, (row, parts) in enumerate(zip(texts, shares, strict=True)):
        for place, (text, part) in enumerate(zip(row, parts, strict=True)):
            axes.barh(line, 0.96, left=place - 0.48, height=0.94, color=MAIN, alpha=0.06 + 0.9 * part)
            axes.text(place, line, text, ha="center", va="center", fontsize=8, color="#ffffff" if part > 0.55 else INK)
    axes.set_xticks(range(len(names)), [str(name) for name in names], rotation=0 if len(names) < 7 else 90)
    axes.set_yticks(range(len(names)), [str(name) for name in names])
    axes.set(xlim=(-0.5, len(names) - 0.5), ylim=(len(names) - 0.5, -0.5))
    axes.tick_params(length=0)


def require(items: Sequence[object], what: str) -> None:
    """Refuse to draw nothing."""
    if not items:
        raise InputError(f"a plot must have {what}", where="plot", got=0, remedy="Evaluate on rows with labels first")
