"""Programs for the kernel in C: how :mod:`retrodict.features.online.read.reader` reads a layout, as words.

Only what views mostly consist of is there: counts, rates, sums, means, shares, extremes and latest values of windows
that leave the request's own event out. A program skips the other features, and the reader in Python has those.
"""

from __future__ import annotations

import struct
from datetime import date

from retrodict.core.native import kernel
from retrodict.core.native._kernel import Program
from retrodict.features.online.read.reader import EPOCH, Edges, widest_window
from retrodict.features.online.state.blocks import BOOL, DATE, FLOAT, INT, NULL, TEXT, WIDTH, Layout, Shape
from retrodict.features.plan import Output, ViewPlan

RESTRICT, BEYOND, OTHER, PARTED = -1, -2, -3, -4
"""What a program answers instead of a number of events: the block holds what the request may not see; a number in it
does not fit the kernel; its layout is another one; it is the head of a hot key, whose segments are wanted, too."""

_COUNT, _RATE, _SHARE, _SUM, _MEAN, _EXTREME, _LATEST, _SKIP = range(8)
_OPS = {"count": _COUNT, "rate": _RATE, "share": _SHARE, "sum": _SUM, "mean": _MEAN, "min": _EXTREME, "max": _EXTREME}
_KINDS = {NULL: 0, INT: 1, FLOAT: 2, BOOL: 3, TEXT: 4, DATE: 5}
_WINDOW, _EITHER, _ANY, _AGE = range(4)
_MOST_WINDOWS, _DIGITS = 64, 53
_FIELDS = (
    "op", "window", "held", "column", "count", "low", "floats", "negated", "kind", "flag", "age", "top", "bottom"
)  # fmt: skip


def program_of(plan: ViewPlan, layout: Layout) -> tuple[Program, list[Output]] | None:
    """Program that reads blocks of a layout for a view, and the features that it skips.

    None if the kernel is not there, or can compute nothing of the view.
    """
    if kernel is None or len(plan.windows) > _MOST_WINDOWS or any(window.units for window in plan.windows):
        return None
    rows = [_output(plan, layout, output) for output in plan.outputs]
    skipped = [output for output, fields in zip(plan.outputs, rows, strict=True) if fields is None]
    if len(skipped) == len(rows):
        return None
    shape = layout.shape
    words: list[int] = [layout.words, shape.layout_bytes, layout.first_running, layout.bits, shape.revised]
    words += [*_reach(plan), len(plan.windows), len(rows)]
    for window in plan.windows:
        words += Edges.of(window)
    for fields in rows:
        words += [(fields or {"op": _SKIP}).get(name, 0) for name in _FIELDS]
    packed = struct.pack(f"<{len(words)}q", *words)
    names = tuple(output.column for output in plan.outputs)
    return kernel.Program(packed, layout.key, layout.bare, names, date.fromordinal), skipped


def _reach(plan: ViewPlan) -> tuple[int, int, int]:
    """How the number of events within reach is counted, as ``reader`` does: the rule, a window, an age."""
    if not plan.windows:
        return (_ANY, 0, 0) if plan.unbounded else (_AGE, 0, plan.lookback_us - 1)
    return (_EITHER if plan.unbounded else _WINDOW), widest_window(plan), 0


def _output(plan: ViewPlan, layout: Layout, output: Output) -> dict[str, int] | None:
    shape = layout.shape
    if output.op == "latest":
        return _latest(layout, output)
    if output.op not in _OPS or plan.windows[output.window].include_current:
        return None
    fields = {"op": _OPS[output.op], "window": output.window, "held": _whole(layout, output.parts[-1])}
    first = output.parts[0]
    if output.op == "rate":
        top, bottom = output.factor or (1, 1)
        fits = 0 < top < 1 << _DIGITS and 0 < bottom < 1 << _DIGITS
        return fields | {"top": top, "bottom": bottom} if fits else None
    if output.op == "share":
        return fields | {"column": _whole(layout, first)}
    if fields["op"] == _EXTREME:
        place = shape.column_of[first]
        floats, largest = layout.extremes[place] == FLOAT, shape.largest[place]
        return fields | {"column": layout.first_extreme + place, "floats": floats, "negated": not largest}
    if fields["op"] in {_SUM, _MEAN}:
        return _sum(shape, layout, first, fields)
    return fields


def _sum(shape: Shape, layout: Layout, channel: int, fields: dict[str, int]) -> dict[str, int] | None:
    place = shape.column_of[channel]
    one, limbs = layout.sums[place], layout.limb_of[place]
    if one.floats and not (one.low > -900 and one.low + WIDTH * (one.limbs + 1) <= 1000):
        return None
    return fields | {"column": limbs.start, "count": one.limbs, "low": one.low, "floats": one.floats}


def _whole(layout: Layout, channel: int) -> int:
    """Word of a running count."""
    return layout.first_running + layout.shape.column_of[channel]


def _latest(layout: Layout, output: Output) -> dict[str, int]:
    place = output.parts[0]
    age = -1 if output.max_age is None else output.max_age
    return {
        "op": _LATEST,
        "column": layout.first_kept + place,
        "kind": _KINDS[layout.kept[place]],
        "flag": place,
        "age": age,
        "low": EPOCH,
    }
