"""Plots of a challenger beside a champion: the same requests, two scores, two decisions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from retrodict.evaluation.plots.canvas import ALERT, INK, MAIN, QUIET, drawing, require

__all__ = ["plot_differences", "plot_flips", "plot_score_pairs"]

_POINTS = 2_000
_BARS = 12


def plot_score_pairs(champion: NDArray[np.float64], challenger: NDArray[np.float64]) -> str:
    """Score of the challenger against that of the champion, of at most 2,000 requests; on the diagonal they agree."""
    places = np.unique(np.linspace(0, len(champion) - 1, min(len(champion), _POINTS)).round().astype(np.int64))
    low, high = (float(end(np.concatenate([champion, challenger]))) for end in (np.min, np.max))
    with drawing("Scores of the same requests", height=3.6) as canvas:
        axes = canvas.axes
        axes.plot([low, high], [low, high], color=QUIET, linewidth=0.9, linestyle=(0, (4, 3)))
        axes.plot(
            champion[places], challenger[places], linestyle="none", marker="o", markersize=2, color=MAIN, alpha=0.5
        )
        axes.set(xlabel="champion", ylabel="challenger")
        axes.grid()
    return canvas.svg


def plot_flips(sizes: Mapping[str, float], *, title: str = "Decisions that would change", shares: bool = False) -> str:
    """Sizes as bars, the largest twelve."""
    bars = sorted(sizes.items(), key=lambda item: -item[1])[:_BARS]
    require(bars, "a change")
    with drawing(title, height=1.0 + 0.3 * len(bars)) as canvas:
        axes = canvas.axes
        axes.barh(range(len(bars)), [size for _, size in bars], color=MAIN, height=0.6)
        axes.set_yticks(range(len(bars)), [name for name, _ in bars])
        axes.invert_yaxis()
        for place, (_, size) in enumerate(bars):
            axes.annotate(f"{size:.1%}" if shares else f"{size:,.0f}", (size, place), xytext=(4, 0),
                          textcoords="offset points", va="center", fontsize=8)  # fmt: skip
    return canvas.svg


def plot_differences(spans: Sequence[tuple[str, float, float, float]]) -> str:
    """Differences with their intervals, each on its own scale: what does not cross the line is beyond chance."""
    require(spans, "a difference with its interval")
    with drawing("Challenger minus champion", height=1.0 + 0.4 * len(spans)) as canvas:
        axes = canvas.axes
        axes.axvline(0.0, color=INK, linewidth=0.8)
        for place, (_, value, low, high) in enumerate(spans):
            size = max(abs(low), abs(high)) or 1.0
            beyond = low * high > 0
            axes.plot([low / size, high / size], [place, place], color=ALERT if beyond else MAIN, linewidth=2)
            axes.plot([value / size], [place], marker="o", markersize=5, color=ALERT if beyond else MAIN)
            axes.annotate(f"{value:+.4g}", (1.02, place), fontsize=8, va="center")
        axes.set_yticks(range(len(spans)), [name for name, *_ in spans])
        axes.set_xticks([])
        axes.set(xlim=(-1.05, 1.35))
        axes.invert_yaxis()
    return canvas.svg
