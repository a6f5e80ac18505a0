"""A profile and the health of versions as pages, and health as a picture for those who have the extra ``plots``."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from retrodict.core.clock import format_time
from retrodict.core.display import Facts
from retrodict.core.errors import InputError, MissingExtraError
from retrodict.data.profiling.findings import findings
from retrodict.data.profiling.health import DIMENSIONS, WEIGHTS, DimensionScore, Health
from retrodict.data.profiling.profile import ColumnProfile, Histogram, Profile, ValueCount
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
    cards = [_column_card(c, flagged=c.name in flagged, key=c.name in keys) for c in profile.columns]
    return render("profile.html", title=f"Profile of {profile.name}", profile=profile, overview=Facts(overview),
                  findings=listed, cards=cards, mixed=mixed)  # fmt: skip


def _column_card(column: ColumnProfile, *, flagged: bool, key: bool) -> dict[str, Any]:
    share = column.known / column.rows if column.rows else 0.0
    about = f"{column.known:,} values"
    if column.missing:
        about += f", {percent(1 - share)} missing"
    if column.type in ("bool", "date", "float", "int", "string", "time"):
        about += f", {'' if column.distinct_exact else 'about '}{column.distinct:,} distinct"
    notes = []
    if column.quantile_error:
        notes.append(f"Quantiles within {percent(column.quantile_error / max(column.known, 1))} of rank.")
    if column.hidden is not None:
        notes.append(f"Values not shown: {column.hidden}.")
    chips = [(column.type, "main"), ("key", "yes") if key else None, (column.order, "") if column.order else None,
             ("look", "alert") if flagged else None]  # fmt: skip
    bins, labels = ([], []) if column.histogram is None else _bins(column.histogram, column.type)
    with_shapes = column.shapes and (column.hidden or column.distinct > 10)
    return {
        "column": column, "share": share, "about": about, "notes": notes, "chips": [chip for chip in chips if chip],
        "facts": [*_number_facts(column), *_length_facts(column)], "top": _top_bars(column), "bins": bins,
        "labels": labels, "shapes": list(map(_bar, column.shapes[:5])) if with_shapes else [],
    }  # fmt: skip


def _number_facts(column: ColumnProfile) -> list[Facts]:
    if column.quantiles is None:
        return []
    if column.type in ("time", "date"):
        return [Facts({"first": column.minimum, "median": column.quantiles["0.5"], "last": column.maximum})]
    shares = ("0.01", "0.05", "0.25", "0.5", "0.75", "0.95", "0.99")
    quantiles = {"median" if share == "0.5" else f"{float(share):.0%}": column.quantiles.get(share) for share in shares}
    if column.type == "int":
        quantiles = {name: round(value, 4) if isinstance(value, float) else value for name, value in quantiles.items()}
    return [Facts({
        "smallest": column.minimum, **quantiles, "largest": column.maximum, "mean": column.mean,
        "deviation": column.std, "skew": column.skew, "kurtosis": column.kurtosis, "zeros": column.zeros or None,
        "negative": column.negatives or None, "infinite": column.infinities or None,
    })]  # fmt: skip


def _length_facts(column: ColumnProfile) -> list[Facts]:
    lengths = column.lengths
    if lengths is None:
        return []
    return [Facts({
        "shortest": lengths.shortest, "mean length": round(lengths.mean, 1), "longest": lengths.longest,
        "empty": lengths.empty or None, "blanks around": lengths.padded or None,
    })]  # fmt: skip


def _bar(value: ValueCount) -> tuple[str, float, str, str]:
    label = str(value.value).lower() if isinstance(value.value, bool) else amount(value.value)
    return label, value.share, percent(value.share), ""


def _top_bars(column: ColumnProfile) -> list[tuple[str, float, str, str]]:
    if not column.top or (column.histogram is not None and column.distinct > 50):
        return []
    bars = list(map(_bar, column.top))
    rest, others = 1 - sum(value.share for value in column.top), column.distinct - len(column.top)
    if others > 0 and rest > 0:
        bars.append((f"{others:,} others", rest, percent(rest), ""))
    return bars


def _bins(histogram: Histogram, kind: str) -> tuple[list[dict[str, Any]], list[tuple[float, str, str]]]:
    """Bars of the bulk on 340 by 96; what lies outside stands apart, in the colour of alarm."""
    left, right = 26.0 if histogram.below else 0.0, 340.0 - (26.0 if histogram.above else 0.0)
    step = (right - left) / len(histogram.counts)
    width = (histogram.high - histogram.low) / len(histogram.counts)
    highest = max(*histogram.counts, histogram.below, histogram.above, 1)
    total = sum(histogram.counts) + histogram.below + histogram.above

    def bar(x: float, size: float, count: int, title: str, colour: str) -> dict[str, Any]:
        height = max(96.0 * count / highest, 1.0 if count else 0.0)
        text = f"{title}: {count:,} ({percent(count / total)})"
        return {"x": x, "width": size, "height": height, "title": text, "kind": colour}

    bars = []
    for place, count in enumerate(histogram.counts):
        low = histogram.low + place * width
        title = f"{_edge(low, histogram, kind)} to {_edge(low + width, histogram, kind)}"
        bars.append(bar(left + place * step, step, count, title, "main"))
    bars += [bar(0.0, 16.0, histogram.below, "below", "alert")] if histogram.below else []
    bars += [bar(324.0, 16.0, histogram.above, "above", "alert")] if histogram.above else []
    ends = ((left, "start", histogram.low), ((left + right) / 2, "middle", (histogram.low + histogram.high) / 2),
            (right, "end", histogram.high))  # fmt: skip
    return bars, [(x, anchor, _edge(value, histogram, kind)) for x, anchor, value in ends]


def _edge(value: float, histogram: Histogram, kind: str) -> str:
    if kind not in ("time", "date"):
        return amount(float(f"{value:.4g}") if kind == "float" else math.ceil(value))
    try:
        text = format_time(int(value))
    except (OverflowError, ValueError):
        return "-"
    return text[:10] if kind == "date" or histogram.high - histogram.low > 3 * 86_400_000_000 else amount(text)


# health ---------------------------------------------------------------------------------------------------------------

_LOW = 0.9  # scores below are in the colour of alarm
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
    marks = [("overall", last.overall), *((score.dimension, score.value) for score in last.scores)]
    overview = {
        "rows of its batch": last.rows,
        "set aside": last.quarantined,
        "share set aside": percent(last.quarantined / last.rows) if last.rows else None,
        "versions with checks": len(history),
    }
    return render(
        "health.html", title=f"Health of {last.table}", last=last, published=_published(last), formula=_FORMULA,
        marks=[(name, _colour(value, "good", "open"), _score(value)) for name, value in marks],
        overview=Facts(overview), cards=list(map(_score_card, last.scores)),
        panels=[_panel(name, history, values) for name, values in _series(history)] if len(history) > 1 else [],
    )  # fmt: skip


def _last(history: Sequence[Health], what: str) -> Health:
    if not history:
        raise InputError(
            f"{what} of health must have a version with checks", where="health", got=0, remedy="Ingest a batch"
        )
    return history[-1]


def _published(health: Health) -> str:
    return format_time(health.time)[:16].replace("T", " ")


def _colour(value: float | None, high: str, unknown: str) -> str:
    return unknown if value is None else "alert" if value < _LOW else high


def _score(value: float | None) -> str:
    if value is None:
        return "not evaluable"
    text = f"{100 * value:.1f}"
    return ">99.9" if text == "100.0" and value < 1 else text.removesuffix(".0")


def _score_card(score: DimensionScore) -> dict[str, Any]:
    scored = sorted(((c.score, -c.weight, c) for c in score.checks if c.score is not None), key=lambda part: part[:2])
    total = sum(check.weight for _, _, check in scored) or 1
    bars = []
    for value, _, check in scored:
        note = f"{check.severity}, {check.weight / total:.0%} of the score"
        bars.append((check.check, value, _score(value), f"{note}; {check.reason}" if check.reason else note))
    notes = [f"{check.check}: not evaluable{f', {check.reason}' if check.reason else ''}"
             for check in score.checks if check.score is None]  # fmt: skip
    if not score.checks:
        notes = ["The table has no check that speaks for it."]
    return {"name": score.dimension, "text": _score(score.value), "kind": _colour(score.value, "main", ""),
            "bars": bars, "notes": notes}  # fmt: skip


def _series(history: Sequence[Health]) -> list[tuple[str, list[float | None]]]:
    overall: list[float | None] = [health.overall for health in history]
    return [("overall", overall), *((name, [health[name].value for health in history]) for name in DIMENSIONS)]


def _panel(name: str, history: Sequence[Health], values: Sequence[float | None]) -> dict[str, Any]:
    """Line of one score on 386 by 114; it breaks where a version is not evaluable."""
    low = min([_LOW, *(value for value in values if value is not None)])
    points, path = [], ""
    for place, (health, value) in enumerate(zip(history, values, strict=True)):
        if value is None:
            continue
        x, y = 34 + place * 378 / (len(values) - 1), 6 + (1 - value) / (1 - low) * 114
        path += f"{'L' if place and values[place - 1] is not None else 'M'}{x:.1f} {y:.1f}"
        points.append((x, y, f"version {health.version}, {_published(health)}: {_score(value)}"))
    return {"name": name, "points": points, "path": path, "low": _score(low), "first": history[0].version,
            "last": history[-1].version}  # fmt: skip


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
    for (name, values), colour in zip(_series(history), colours, strict=True):
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
