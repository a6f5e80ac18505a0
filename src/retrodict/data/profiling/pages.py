"""A profile and the health of versions as pages, and health as a picture for those who have the extra ``plots``."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from retrodict.core.clock import format_time
from retrodict.core.display import Facts
from retrodict.core.errors import InputError, MissingExtraError
from retrodict.data.profiling.findings import findings
from retrodict.data.profiling.health import WEIGHTS, Health, score_series
from retrodict.data.profiling.profile import ColumnProfile, Profile
from retrodict.pages import amount, percent, render

__all__ = ["health_html", "health_png", "profile_html"]


def profile_html(profile: Profile) -> str:
    """Page of a profile: what to look at first, then every column, then what goes together.

    Parameters
    ----------
    profile : Profile

    Returns
    -------
    str
        A whole document, self-contained, light and dark, without script.
    """
    listed = findings(profile)
    flagged = {name for finding in listed if finding.level == "warning" for name in finding.columns}
    keys = {name for key in profile.keys for name in key}
    cells = profile.rows * len(profile.columns)
    overview = {
        "rows": profile.rows,
        "columns": len(profile.columns),
        "missing values": percent(sum(column.missing for column in profile.columns) / cells) if cells else None,
        "repeated rows": "not counted" if profile.duplicated is None else profile.duplicated,
        "candidate key": " or ".join(" + ".join(names) for names in profile.keys[:3]) or "none",
    }
    related = profile.correlations
    mixed = [
        [related.spearman[i][j] if j > i else related.pearson[i][j] for j in range(len(related.numbers))]
        for i in range(len(related.numbers))
    ]
    return render("profile.html", title=f"Profile of {profile.name}", profile=profile, overview=Facts(overview),
                  findings=listed, flagged=flagged, keys=keys, mixed=mixed, Facts=Facts, edge_of=_edge_of)  # fmt: skip


def _edge_of(column: ColumnProfile) -> Callable[[float], str]:
    """How the edges of a column's bins are written."""
    bins, kind = column.histogram, column.type
    wide = kind == "date" or (bins is not None and bins.high - bins.low > 3 * 86_400_000_000)

    def edge(value: float) -> str:
        if kind not in ("time", "date"):
            return amount(float(f"{value:.4g}") if kind == "float" else math.ceil(value))
        try:
            text = format_time(int(value))
        except (OverflowError, ValueError):
            return "-"
        return text[:10] if wide else amount(text)

    return edge


# health ---------------------------------------------------------------------------------------------------------------

_FORMULA = (
    "A check of rows scores the share of the batch's rows that passed it, a check of the whole batch 1 or 0. A "
    f"dimension is their mean, weighted by severity ({', '.join(f'{name} {size}' for name, size in WEIGHTS.items())}). "
    "What could not be evaluated has no part. Overall is the mean of the dimensions that have a score."
)


def health_html(history: Sequence[Health]) -> str:
    """Page of health: the newest version's scores with their checks, and every score over the versions.

    Parameters
    ----------
    history : sequence of Health
        Of one table, oldest first; one is enough.

    Returns
    -------
    str
        A whole document, self-contained.

    Raises
    ------
    InputError
        If there is none.
    """
    last = _last(history, "a page")
    overview = {
        "rows of its batch": last.rows,
        "set aside": last.quarantined,
        "share set aside": percent(last.quarantined / last.rows) if last.rows else None,
        "versions with checks": len(history),
    }
    return render("health.html", title=f"Health of {last.table}", last=last, history=history, formula=_FORMULA,
                  series=score_series(history), overview=Facts(overview))  # fmt: skip


def _last(history: Sequence[Health], what: str) -> Health:
    if not history:
        raise InputError(
            f"{what} of health must have a version with checks", where="health", got=0, remedy="Ingest a batch"
        )
    return history[-1]


def health_png(history: Sequence[Health], path: str | os.PathLike[str]) -> None:
    """Draw the scores over the versions into a PNG file.

    Raises
    ------
    MissingExtraError
        If matplotlib is not installed.
    InputError
        If there is no version.
    """
    table = _last(history, "a picture").table
    try:
        from matplotlib.figure import Figure
        from matplotlib.ticker import MaxNLocator
    except ImportError as error:
        raise MissingExtraError("matplotlib", "plots", needed_for="a picture of health") from error
    figure = Figure(figsize=(7.2, 3.2), layout="constrained", dpi=150)
    axes = figure.add_subplot()
    colours = ("#1f2933", "#2f6690", "#c8553d", "#2c7a4b", "#b08900")
    for (name, values), colour in zip(score_series(history).items(), colours, strict=True):
        heights = [float("nan") if value is None else 100 * value for value in values]
        axes.plot([health.version for health in history], heights, label=name, color=colour,
                  linewidth=2.2 if name == "overall" else 1.2, marker="o", markersize=3.5)  # fmt: skip
    axes.set_title(f"Health of {table}", loc="left")
    axes.set_xlabel("version")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(axis="y", color="#e4e7eb")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    figure.savefig(Path(path), format="png", metadata={"Software": None})
