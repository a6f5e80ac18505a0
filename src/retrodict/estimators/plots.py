"""Draw what is missing: which rows lack which columns, and which columns go missing together."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

import numpy as np

from retrodict.core.errors import MissingExtraError
from retrodict.estimators._tables import is_missing, read_table
from retrodict.estimators.patterns import MissingPattern, missing_pattern

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["plot_missing"]

_INK, _QUIET, _GONE, _THERE = "#1f2933", "#7b8794", "#c8553d", "#e7eef4"
_BANDS = 400  # rows are drawn in at most this many bands


def plot_missing(table: Any) -> Figure:
    """Two panels: the rows from first to last with what each lacks, and the correlation of missingness.

    Columns without a missing value are in the first panel only. Beyond 400 rows a band of the first panel is the share
    missing in some neighbouring rows.

    Parameters
    ----------
    table : NumPy, pandas, Arrow or Polars table

    Returns
    -------
    matplotlib.figure.Figure
        Made without pyplot: nothing global is touched, ``figure.savefig`` writes it.

    Raises
    ------
    MissingExtraError
        If matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("matplotlib", "plots", needed_for="a plot") from error
    pattern = missing_pattern(table)
    columns = read_table(table, "missing pattern").columns
    missing_flags = np.column_stack([is_missing(column) for column in columns.values()]).astype(float)
    drawn = sum(0 < count < pattern.rows for count in pattern.missing)
    # The second panel is square: the figure grows with it, so that neither panel stands in a void.
    side, wide = max(3.4, min(9.0, 0.3 * drawn)), max(4.0, min(12.0, 0.45 * len(columns)))
    figure = Figure(figsize=(wide + side + 1.2, side + 1.0), layout="constrained", facecolor="white")
    left, right = figure.subplots(1, 2, width_ratios=(wide, side))
    _draw_rows(left, missing_flags, pattern)
    _draw_correlation(right, pattern)
    return figure


def _draw_rows(axes: Axes, missing_flags: Any, pattern: MissingPattern) -> None:
    from matplotlib.colors import LinearSegmentedColormap

    bands = np.array_split(missing_flags, min(_BANDS, pattern.rows))
    shares = np.array([band.mean(axis=0) for band in bands])
    colours = LinearSegmentedColormap.from_list("missing", [_THERE, _GONE])
    axes.imshow(
        shares, aspect="auto", interpolation="nearest", cmap=colours, vmin=0, vmax=1,
        extent=(-0.5, len(pattern.columns) - 0.5, pattern.rows, 0),
    )  # fmt: skip
    for place in range(1, len(pattern.columns)):
        axes.axvline(place - 0.5, color="white", linewidth=2)
    labels = [f"{_short(name)}\n{share:.1%}" for name, share in pattern.shares.items()]
    axes.set_xticks(range(len(labels)), labels, rotation=0 if len(labels) <= 6 else 60, fontsize=8, color=_INK)
    axes.set_ylabel(f"row (of {pattern.rows:,})", color=_INK)
    _finish(axes, f"Missing values (red); {pattern.complete:,} rows are complete")


def _draw_correlation(axes: Axes, pattern: MissingPattern) -> None:
    places = [place for place, count in enumerate(pattern.missing) if 0 < count < pattern.rows]
    _finish(axes, "Together (red, 1) or apart (blue, -1)")
    if len(places) < 2:
        axes.text(0.5, 0.5, "Fewer than two columns\nare missing in some rows", ha="center", va="center", color=_QUIET)
        axes.set_xticks([])
        axes.set_yticks([])
        return
    phi = np.array([[pattern.correlation[a][b] for b in places] for a in places], dtype=float)
    axes.imshow(phi, cmap="RdBu_r", vmin=-1, vmax=1)
    names = [_short(pattern.columns[place]) for place in places]
    axes.set_xticks(range(len(names)), names, rotation=0 if len(names) <= 4 else 60, fontsize=8, color=_INK)
    axes.set_yticks(range(len(names)), names, fontsize=8, color=_INK)
    if len(names) <= 12:
        for (row, column), value in np.ndenumerate(phi):
            tone = "white" if abs(value) > 0.6 else _INK
            axes.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=8, color=tone)


def _short(name: str) -> str:
    return textwrap.shorten(name, 18, placeholder="…") if " " in name else name if len(name) <= 18 else name[:17] + "…"


def _finish(axes: Axes, title: str) -> None:
    axes.set_title(title, loc="left", fontsize=10, fontweight="bold", color=_INK, pad=10)
    axes.tick_params(length=0, colors=_QUIET, labelsize=8)
    for side in axes.spines.values():
        side.set_visible(False)
