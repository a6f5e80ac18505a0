"""Drawings of the pages, as inline SVG in the page's colours: no library, no script, a title for every mark."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from html import escape

from retrodict.core.clock import format_time
from retrodict.data.profiling._html import amount, percent
from retrodict.data.profiling.profile import Histogram, Missing

__all__ = ["draw_heat", "draw_histogram", "draw_missing"]

_WIDTH, _HEIGHT = 340.0, 96.0
_LETTER = 6.2  # width of a letter at the size of labels


def draw_histogram(histogram: Histogram, *, kind: str) -> str:
    """Bars of the bulk; what lies outside stands apart, in the colour of alarm.

    Parameters
    ----------
    histogram : Histogram
    kind : str
        Type of the column: times are labelled as times.
    """
    outer = [histogram.below, histogram.above]
    room = [26.0 if count else 0.0 for count in outer]
    left, right = room[0], _WIDTH - room[1]
    step = (right - left) / len(histogram.counts)
    width = (histogram.high - histogram.low) / len(histogram.counts)
    highest = max(*histogram.counts, *outer, 1)
    total = sum(histogram.counts) + sum(outer)
    say = _labels(histogram, kind)
    parts = []
    for place, count in enumerate(histogram.counts):
        low = histogram.low + place * width
        title = f"{say(low)} to {say(low + width)}: {count:,} ({percent(count / total)})"
        parts.append(_column(left + place * step, step, count / highest, title, "main"))
    for count, x, said in ((outer[0], 0.0, "below"), (outer[1], _WIDTH - 16.0, "above")):
        if count:
            parts.append(_column(x, 16.0, count / highest, f"{said}: {count:,} ({percent(count / total)})", "alert"))
    base = f'<line class="line" x1="0" y1="{_HEIGHT}" x2="{_WIDTH}" y2="{_HEIGHT}"/>'
    ends = [
        (left, "start", histogram.low),
        ((left + right) / 2, "middle", (histogram.low + histogram.high) / 2),
        (right, "end", histogram.high),
    ]
    labels = "".join(
        f'<text x="{x:.1f}" y="{_HEIGHT + 14}" text-anchor="{anchor}">{escape(say(value))}</text>'
        for x, anchor, value in ends
    )
    return _svg(_WIDTH, _HEIGHT + 18, "Histogram", base + "".join(parts) + labels)


def _labels(histogram: Histogram, kind: str) -> Callable[[float], str]:
    if kind not in ("time", "date"):
        return lambda value: amount(float(f"{value:.4g}") if kind == "float" else math.ceil(value))
    day = kind == "date" or histogram.high - histogram.low > 3 * 86_400_000_000

    def said(value: float) -> str:
        try:
            text = format_time(int(value))
        except (OverflowError, ValueError):
            return "-"
        return text[:10] if day else amount(text)

    return said


def _column(x: float, width: float, share: float, title: str, kind: str) -> str:
    height = max(share * _HEIGHT, 1.0 if share else 0.0)
    # A rectangle over the whole height takes the pointer, so that empty bins can be asked too.
    return (
        f'<g><title>{escape(title)}</title><rect x="{x:.2f}" y="0" width="{width:.2f}" height="{_HEIGHT}" opacity="0"/>'
        f'<rect class="{kind}" x="{x + width * 0.06:.2f}" y="{_HEIGHT - height:.2f}" width="{width * 0.88:.2f}" '
        f'height="{height:.2f}" rx="1"/></g>'
    )


def draw_heat(names: Sequence[str], values: Sequence[Sequence[float | None]], *, title: str) -> str:
    """Square of correlations: strong is opaque, negative in the colour of alarm, unknown left blank."""
    side = 34.0 if len(names) <= 14 else 24.0
    labels = [name if len(name) <= 20 else f"{name[:19]}…" for name in names]
    margin = max(len(name) for name in labels) * _LETTER + 10
    parts = []
    for i, row in enumerate(values):
        y = margin + i * side
        parts.append(
            f'<text class="ink" x="{margin - 6:.1f}" y="{y + side / 2 + 3.5:.1f}" text-anchor="end">'
            f"{escape(labels[i])}</text>"
        )
        x = margin + i * side + side / 2 + 3.5
        parts.append(
            f'<text class="ink" transform="translate({x:.1f} {margin - 6:.1f}) rotate(-90)">{escape(labels[i])}</text>'
        )
        parts += [_tile(margin + j * side, y, side, value, f"{names[i]}, {names[j]}") for j, value in enumerate(row)]
    size = margin + len(names) * side + 4
    return _svg(size, size, title, "".join(parts), fixed=True)


def _tile(x: float, y: float, side: float, value: float | None, names: str) -> str:
    said = "not evaluable" if value is None else f"{value:.3f}"
    strength = 0.0 if value is None else abs(value)
    kind = "alert" if value is not None and value < 0 else "main"
    number = ""
    if side > 30 and value is not None and strength < 0.9995:
        shade = "paper" if strength > 0.6 else ""
        middle = f'x="{x + side / 2:.1f}" y="{y + side / 2 + 3.5:.1f}" text-anchor="middle"'
        number = f'<text class="{shade}" {middle}>{value:.2f}</text>'
    return (
        f"<g><title>{escape(names)}: {said}</title>"
        f'<rect class="soft" opacity=".18" x="{x + 1:.1f}" y="{y + 1:.1f}" width="{side - 2}" '
        f'height="{side - 2}" rx="3"/><rect class="{kind}" opacity="{strength:.3f}" x="{x + 1:.1f}" y="{y + 1:.1f}" '
        f'width="{side - 2}" height="{side - 2}" rx="3"/>{number}</g>'
    )


def draw_missing(missing: Missing, rows: int) -> str:
    """One line per pattern: a dot where a column is missing, and a bar of how many rows."""
    side, bar = 22.0, 190.0
    labels = [name if len(name) <= 20 else f"{name[:19]}…" for name in missing.columns]
    margin = max(len(name) for name in labels) * _LETTER + 12
    start = len(labels) * side + 16
    parts = []
    for place, name in enumerate(labels):
        x = place * side + side / 2 + 3.5
        parts.append(
            f'<text class="ink" transform="translate({x:.1f} {margin - 8:.1f}) rotate(-90)">{escape(name)}</text>'
        )
    most = max(count for _, count in missing.patterns)
    for line, (pattern, count) in enumerate(missing.patterns):
        y = margin + line * side
        for place, name in enumerate(missing.columns):
            kind, radius = ("alert", 6.5) if name in pattern else ("soft", 4)
            faint = "" if name in pattern else ' opacity=".45"'
            parts.append(
                f'<circle class="{kind}"{faint} cx="{place * side + side / 2:.1f}" cy="{y + side / 2:.1f}" '
                f'r="{radius}"/>'
            )
        what = "missing: " + ", ".join(pattern) if pattern else "complete rows"
        parts.append(
            f"<g><title>{escape(what)}: {count:,} rows</title>"
            f'<rect class="{"alert" if pattern else "main"}" opacity=".8" rx="2" x="{start:.1f}" '
            f'y="{y + 5:.1f}" width="{max(bar * count / most, 1):.1f}" height="{side - 10}"/></g>'
            f'<text x="{start + bar * count / most + 6:.1f}" y="{y + side / 2 + 3.5:.1f}">'
            f"{count:,} ({percent(count / rows)})</text>"
        )
    return _svg(
        start + bar + 110, margin + len(missing.patterns) * side + 4, "Missing patterns", "".join(parts), fixed=True
    )


def _svg(width: float, height: float, title: str, body: str, *, fixed: bool = False) -> str:
    size = f' width="{width:.0f}" height="{height:.0f}"' if fixed else ""
    kind = ' class="wide-plot"' if fixed else ""
    return (
        f'<figure{kind} tabindex="0"><svg role="img" aria-label="{escape(title)}" '
        f'viewBox="0 0 {width:.0f} {height:.0f}"{size}>'
        f"{body}</svg></figure>"
    )
