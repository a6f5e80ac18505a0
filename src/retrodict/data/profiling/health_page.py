"""Health over time as a page of HTML, and as a picture for those who have the extra ``plots``."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from retrodict.core.clock import format_time
from retrodict.core.errors import InputError, MissingExtraError
from retrodict.data.profiling._html import bar, chip, escape, facts, page, percent
from retrodict.data.profiling.health import DIMENSIONS, WEIGHTS, Health, Score, ScoredCheck

__all__ = ["health_html", "health_png"]

_WIDTH, _HEIGHT, _LEFT, _BELOW = 420.0, 120.0, 34.0, 18.0


def health_html(history: Sequence[Health]) -> str:
    """Write the page: the newest version's scores with their checks, and every score over the versions.

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
    if not history:
        raise InputError("a page of health needs a version with checks", where="health", got=0, remedy="Ingest a batch")
    last = history[-1]
    marks = "".join(_mark(score.dimension, score.value) for score in last.scores)
    body = [
        f"<h1>Health of {escape(last.table)}</h1>",
        f'<p class="quiet">Version {last.version}, published {_when(last)} UTC</p>',
        f'<div class="scores">{_mark("overall", last.overall)}{marks}</div>',
        facts({
            "rows of its batch": last.rows, "set aside": last.quarantined,
            "share set aside": percent(last.quarantined / last.rows) if last.rows else None,
            "versions with checks": len(history),
        }),
        _lines(history),
        "<section><h2>Where the scores come from</h2>",
        f'<p class="quiet">{escape(_FORMULA)}</p>',
        f'<div class="cards">{"".join(_card(score) for score in last.scores)}</div></section>',
    ]  # fmt: skip
    return page(f"Health of {last.table}", "".join(body))


_LOW = 0.9  # scores below are in the colour of alarm
_WEIGHTS = ", ".join(f"{name} {weight}" for name, weight in WEIGHTS.items())
_FORMULA = (
    "A check of rows scores the share of the batch's rows that passed it, a check of the whole batch 1 or 0. A "
    f"dimension is their mean, weighted by severity ({_WEIGHTS}). What "
    "could not be evaluated has no part. Overall is the mean of the dimensions that have a score."
)


def _when(found: Health) -> str:
    return format_time(found.time)[:16].replace("T", " ")


def _mark(name: str, value: float | None) -> str:
    kind = "open" if value is None else "alert" if value < _LOW else "good"
    said = f'<b class="{kind}">{"not evaluable" if value is None else _score(value)}</b>'
    return f'<div class="score"><span class="quiet">{escape(name)}</span>{said}</div>'


def _score(value: float) -> str:
    text = f"{100 * value:.1f}"
    return ">99.9" if text == "100.0" and value < 1 else text.removesuffix(".0")


def _card(score: Score) -> str:
    said = "not evaluable" if score.value is None else _score(score.value)
    kind = "" if score.value is None else "alert" if score.value < _LOW else "main"
    judged = [each for each in score.checks if each.score is not None]
    total = sum(each.weight for each in judged) or 1
    worst = sorted(judged, key=lambda each: (each.score, -each.weight))
    lines = "".join(
        bar(
            each.check,
            each.score or 0.0,
            _score(each.score or 0.0),
            note=_note(each, total),
        )
        for each in worst
    )
    left = "".join(
        f"<p class=quiet>{escape(each.check)}: not evaluable{escape(f', {each.reason}' if each.reason else '')}</p>"
        for each in score.checks if each.score is None
    )  # fmt: skip
    none = "" if score.checks else '<p class="quiet">The table has no check that speaks for it.</p>'
    return (
        f'<article class="card"><header><h3>{escape(score.dimension)}</h3>'
        f"{chip(said, kind)}</header>"
        f'<ul class="bars wide-bars">{lines}</ul>{left}{none}</article>'
    )


def _note(check: ScoredCheck, total: int) -> str:
    said = f"{check.severity}, {check.weight / total:.0%} of the score"
    return f"{said}; {check.reason}" if check.reason else said


def _lines(history: Sequence[Health]) -> str:
    if len(history) < 2:
        return ""
    panels = "".join(
        f'<div><span class="quiet">{escape(name)}</span>{_panel(name, history, values)}</div>'
        for name, values in _series(history)
    )
    return f'<section><h2>Over the versions</h2><div class="cards">{panels}</div></section>'


def _series(history: Sequence[Health]) -> list[tuple[str, list[float | None]]]:
    named: list[tuple[str, list[float | None]]] = [("overall", [each.overall for each in history])]
    return named + [(name, [each[name].value for each in history]) for name in DIMENSIONS]


def _panel(name: str, history: Sequence[Health], values: Sequence[float | None]) -> str:
    """Line of one score; it breaks where a version is not evaluable."""
    known = [value for value in values if value is not None]
    low = min([0.9, *known])
    step = (_WIDTH - _LEFT - 8) / (len(values) - 1)

    def at(place: int, value: float) -> str:
        return f"{_LEFT + place * step:.1f} {6 + (1 - value) / (1 - low) * (_HEIGHT - 6):.1f}"

    path, dots = "", []
    for place, (each, value) in enumerate(zip(history, values, strict=True)):
        if value is None:
            continue
        path += f"{'L' if place and values[place - 1] is not None else 'M'}{at(place, value)}"
        x, y = at(place, value).split()
        title = f"version {each.version}, {_when(each)}: {_score(value)}"
        dots.append(f'<g><title>{escape(title)}</title><circle class="main" cx="{x}" cy="{y}" r="3.5"/></g>')
    grid = "".join(
        f'<line class="line" x1="{_LEFT}" x2="{_WIDTH}" y1="{y}" y2="{y}"/>'
        f'<text x="{_LEFT - 6}" y="{y + 3.5}" text-anchor="end">{said}</text>'
        for y, said in ((6.0, "100"), (_HEIGHT, _score(low)))
    )
    ends = (
        f'<text x="{_LEFT}" y="{_HEIGHT + 15}">version {history[0].version}</text>'
        f'<text x="{_WIDTH}" y="{_HEIGHT + 15}" text-anchor="end">{history[-1].version}</text>'
    )
    empty = "" if known else f'<text x="{_WIDTH / 2}" y="{_HEIGHT / 2}" text-anchor="middle">not evaluable</text>'
    return (
        f'<figure><svg role="img" aria-label="{escape(name)} over the versions" '
        f'viewBox="0 0 {_WIDTH:.0f} {_HEIGHT + _BELOW:.0f}">'
        f'{grid}<path class="curve" d="{path}"/>{"".join(dots)}{ends}{empty}</svg></figure>'
    )


def health_png(history: Sequence[Health], path: str | os.PathLike[str]) -> None:
    """Draw the scores over the versions into a PNG file.

    Raises
    ------
    MissingExtraError
        If matplotlib is not installed.
    InputError
        If there is no version.
    """
    if not history:
        raise InputError("a picture of health needs a version with checks", where="health", got=0)
    try:
        from matplotlib.figure import Figure
        from matplotlib.ticker import MaxNLocator
    except ImportError as error:
        raise MissingExtraError("matplotlib", "plots", needed_for="a picture of health") from error
    figure = Figure(figsize=(7.2, 3.2), layout="constrained", dpi=150)
    axes = figure.add_subplot()
    versions = [each.version for each in history]
    colours = {
        "overall": "#1f2933",
        "completeness": "#2f6690",
        "accuracy": "#c8553d",
        "consistency": "#2c7a4b",
        "timeliness": "#b08900",
    }
    for name, values in _series(history):
        heights = [float("nan") if value is None else 100 * value for value in values]
        wide = 2.2 if name == "overall" else 1.2
        axes.plot(versions, heights, label=name, color=colours[name], linewidth=wide, marker="o", markersize=3.5)
    axes.set_title(f"Health of {history[-1].table}", loc="left")
    axes.set_xlabel("version")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(axis="y", color="#e4e7eb")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    figure.savefig(Path(path), format="png", metadata={"Software": None})
