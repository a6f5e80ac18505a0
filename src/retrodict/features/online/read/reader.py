"""Reading a block: a function made for the view and the layout, so that a request runs no loop over features.

Every window is a search and a difference of two rows. A call of NumPy costs as much as ten steps of Python, so it is
used for extremes over many rows and nothing else. The function is written as source and compiled once: closures over
lists of features took three times as long. What it cannot assume (events later than the request, revisions) is brought
to what it can by :func:`restricted` first, so there is one way to compute a value.
"""

from __future__ import annotations

import struct
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrodict.features.facts.columns import Ints, Mask
from retrodict.features.monoids import AGGREGATES
from retrodict.features.online.read.bags import BagReader
from retrodict.features.online.read.event import best, divided, plus
from retrodict.features.online.state.blocks import (
    BOOL,
    DATE,
    FIXED,
    FLOAT,
    MONOTONE,
    NULL,
    TEXT,
    WIDTH,
    Layout,
    Shape,
    event_ids,
    pack,
    unpack,
)
from retrodict.features.plan import Output, ViewPlan

__all__ = ["Read", "compiled", "restricted"]

Read = Callable[[bytes, int, dict[str, Any], set[str], Mapping[int, Any]], int]
"""(block, time, values to fill in, columns too old, the request's own event) to number of events within reach."""

_EPOCH = date(1970, 1, 1).toordinal()
_FEW = 64  # rows below which Python's max is faster than a call of NumPy


def restricted(shape: Shape, blob: bytes, at: int) -> bytes:
    """Block of what is visible at a time, in force then if the source is revised."""
    block = unpack(shape, blob)
    layout, rows = block.layout, block.rows
    seen = layout.visible_at(rows[1:]) < at
    if shape.revised:
        seen &= _in_force(layout, rows[1:], block.heap, at)
    elif block.flags & MONOTONE:
        rows = rows[: 1 + int(seen.sum())]
        return pack(layout, rows, block.heap, flags=MONOTONE, visible=at - 1, heap_rows=0)
    single = block.single()[seen]
    whole = np.concatenate([rows[:1], single])
    whole[:, layout.first_running :] = np.cumsum(whole[:, layout.first_running :], axis=0)
    return pack(layout, whole, block.heap, flags=0, visible=at - 1, heap_rows=0)


def _in_force(layout: Layout, rows: Ints, heap: bytes, at: int) -> Mask:
    """Revisions that say something and that no later one has replaced before the request."""
    _, event = np.unique(event_ids(layout, rows, heap), return_inverse=True)
    known = layout.known_at(rows)
    sort = np.lexsort((known, event))
    replaced = np.zeros(len(rows), dtype=np.bool_)
    same = event[sort][1:] == event[sort][:-1]
    replaced[sort[:-1]] = same & (known[sort][1:] < at)
    shape = layout.shape
    flag = len(shape.kept) + len(shape.conditions)
    alive = rows[:, layout.bits + flag // 62] >> (flag % 62) & 1
    found: Mask = ~replaced & (alive != 0)
    return found


def compiled(plan: ViewPlan, layout: Layout, outputs: Sequence[Output] | None = None) -> Read:
    """Make the function that reads blocks of a layout for a view, all its features or some."""
    writer = _Writer(plan, layout, plan.outputs if outputs is None else outputs)
    source = "\n    ".join(["def read(blob, at, out, old, own):", *writer.lines()])
    exec(compile(source, f"<view {plan.name}>", "exec"), writer.names)  # noqa: S102 - made of numbers and quoted names only
    found: Read = writer.names["read"]
    return found


def _nested(
    columns: int, blob: bytes, kind: str, begin: int, step: int, starts: tuple[int, ...], stop: int
) -> list[Any]:
    """Greatest value per column of the rows from each start to the stop; starts ascend, None where there is no row."""
    some = [start for start in starts if start < stop]
    if not some:
        return [None] * len(starts)
    table: NDArray[Any] = np.ndarray((stop, columns), kind, blob, begin, (step, 8))
    found: list[Any] = np.maximum.reduceat(table, some, axis=0).tolist()
    for place in range(len(found) - 2, -1, -1):
        after, here = found[place + 1], found[place]
        found[place] = [max(b, a) for a, b in zip(after, here, strict=True)]
    return found + [None] * (len(starts) - len(some))


def _nested_one(blob: bytes, kind: str, begin: int, step: int, starts: tuple[int, ...], stop: int) -> list[Any]:
    """The same of a single column."""
    found: list[Any] = []
    if stop - starts[0] <= _FEW:
        view: Any = memoryview(blob).cast("d" if kind == "d" else "q")[begin >> 3 :: step >> 3]
        best, end = None, stop
        for start in reversed(starts):
            if start < end:
                here = max(view[start:end])
                best, end = here if best is None or here > best else best, start
            found.append(best)
        found.reverse()
        return found
    some = [start for start in starts if start < stop]
    found = np.maximum.reduceat(np.ndarray((stop,), kind, blob, begin, (step,)), some).tolist()
    for place in range(len(found) - 2, -1, -1):
        found[place] = max(found[place], found[place + 1])
    return found + [None] * (len(starts) - len(some))


class _Writer:
    """Source of the function, and the names it uses."""

    def __init__(self, plan: ViewPlan, layout: Layout, outputs: Sequence[Output]) -> None:
        self._plan, self._layout, self._shape, self._outputs = plan, layout, layout.shape, outputs
        shape = self._shape
        self._counted: dict[str, str] = {}  # counts by what they are, and the names that hold them
        running = layout.words - layout.first_running
        self.names: dict[str, Any] = {
            "HEAD": struct.Struct(f"<{FIXED}q").unpack_from,
            "PREFIX": struct.Struct(f"<{running}q").unpack_from,
            "KEPT": struct.Struct(
                "<" + "q" * shape.bits + "".join("d" if k == FLOAT else "q" for k in layout.kept)
            ).unpack_from,
            "ZERO": (0,) * running,
            "bisect": bisect_left,
            "restricted": lambda blob, at: restricted(shape, blob, at),
            "nested": _nested,
            "nested_one": _nested_one,
            "divided": divided,
            "plus": plus,
            "best": best,
            "day": date.fromordinal,
            "bags": BagReader(plan, shape).read if plan.bags else None,
        }

    def lines(self) -> list[str]:
        layout, size = self._layout, 8 * self._layout.words
        condition = "True" if self._shape.revised else "seen >= at"
        found = ["n, flags, seen, heap, _ = HEAD(blob)", f"if {condition}:"]
        found += ["    blob = restricted(blob, at)", "    n, flags, seen, heap, _ = HEAD(blob)"]
        found += [
            f"base = {self._shape.head_bytes} + heap",
            f"e = memoryview(blob).cast('q')[base >> 3 :: {layout.words}]",
            f"p = base + {8 * layout.first_running}",
            f"t = PREFIX(blob, p + n * {size})",
        ]
        for place in range(len(self._plan.windows)):
            found += self._window(place, size)
        found += self._extremes(size)
        if self._plan.latest:
            found += [
                "last = e[n]",
                f"kept = KEPT(blob, base + {8 * layout.bits} + n * {size})",
            ]
        if self._plan.bags:
            places = ", ".join(f"(i{w}, j{w})" for w in range(len(self._plan.windows)))
            found.append(f"bag = bags(blob, at, ({places},))")
        for output in self._outputs:
            found += self._output(output)
        return [*found, *self._events()]

    def _window(self, place: int, size: int) -> list[str]:
        """Rows [i, j) of a window, and the running sums before and after it."""
        window = self._plan.windows[place]
        found = []
        if window.offset is None:
            found += [f"j{place} = n + 1", f"r{place} = t"]
        else:
            edge = self._edge(window.offset_us, window.hop_us)
            found += [
                f"j{place} = bisect(e, {edge}, 1, n + 1)",
                f"r{place} = PREFIX(blob, p + (j{place} - 1) * {size})",
            ]
        if window.lifetime:
            return [*found, f"i{place} = 0", f"l{place} = ZERO"]
        edge = self._edge(window.offset_us + window.length_us, window.hop_us)
        return [
            *found,
            f"i{place} = bisect(e, {edge}, 1, n + 1)",
            f"l{place} = PREFIX(blob, p + (i{place} - 1) * {size})",
        ]

    @staticmethod
    def _edge(before: int, hop: int) -> str:
        return f"(at - {before}) // {hop} * {hop}" if hop else f"at - {before}"

    def _extremes(self, size: int) -> list[str]:
        """Greatest words of each extreme that is wanted, per window; those that end now share one pass."""
        wanted: dict[int, set[int]] = {}
        for output in self._outputs:
            if output.window >= 0 and not output.bag and self._plan.channels[output.parts[0]].monoid != "sum":
                wanted.setdefault(output.window, set()).add(self._shape.column_of[output.parts[0]])
        found, layout = [], self._layout
        for kind, letter in ((FLOAT, "d"), (0, "q")):
            columns = [i for i, k in enumerate(layout.extremes) if (k == FLOAT) == (kind == FLOAT)]
            for group in self._runs(columns):
                begin = f"base + {8 * (layout.first_extreme + group[0])}"
                windows = [w for w, some in wanted.items() if some & set(group)]
                for several in self._nests(windows):
                    names = ", ".join(f"x{w}_{group[0]}" for w in several)
                    starts = ", ".join(f"i{w}" for w in several)
                    function = "nested_one(" if len(group) == 1 else f"nested({len(group)}, "
                    places = f"blob, {letter!r}, {begin}, {size}, ({starts},), j{several[0]}"
                    found.append(f"{names}, = {function}{places})")
        return found

    @staticmethod
    def _runs(columns: list[int]) -> list[list[int]]:
        """Neighbouring columns together."""
        found: list[list[int]] = []
        for column in columns:
            if found and found[-1][-1] == column - 1:
                found[-1].append(column)
            else:
                found.append([column])
        return found

    def _nests(self, windows: list[int]) -> list[list[int]]:
        """Windows with one right edge whose left edges are in a known order, the widest first; others alone."""
        known = self._plan.windows
        plain = [w for w in windows if known[w].offset is None and known[w].hop is None]
        plain.sort(key=lambda w: (not known[w].lifetime, -known[w].length_us))
        rest = [[w] for w in windows if w not in plain]
        return ([plain] if plain else []) + rest

    def _place(self, column: int) -> tuple[int, str]:
        """First column of the group an extreme is read with, and its place in it."""
        layout = self._layout
        for kind in (True, False):
            for group in self._runs([i for i, k in enumerate(layout.extremes) if (k == FLOAT) == kind]):
                if column in group:
                    return group[0], f"[{column - group[0]}]" if len(group) > 1 else ""
        raise AssertionError(column)

    def _output(self, output: Output) -> list[str]:
        name = repr(output.column)
        if output.op == "latest":
            return self._latest(output)
        if output.bag:
            return [f"out[{name}] = bag[{output.parts[0]}, {output.window}]"]
        kind, window = AGGREGATES[output.op], output.window
        own = self._plan.windows[window].include_current
        count = self._whole(output.parts[-1], window)
        first = self._plan.channels[output.parts[0]]
        if first.monoid != "sum":
            return self._extreme_output(output, count, own=own)
        if output.op == "count":
            return [f"out[{name}] = {count}"]
        if output.factor is not None:
            top, bottom = output.factor
            return [f"out[{name}] = {count} * {top} / {bottom}"]
        known, held = self._held(count)
        if kind.exact:
            finish = f"finish_{output.op}"
            self.names[finish] = kind.finish
            pairs = ", ".join(self._pair(part, window) for part in output.parts[:-1])
            value = f"{finish}({pairs}, {held})"
        elif output.op == "share":
            value = f"({self._whole(output.parts[0], window)}) / {held}"
        elif output.op == "mean":
            value = f"{self._number(output.parts[0], window, rounded=True)} / {held}"
        else:
            value = self._number(output.parts[0], window, rounded=False)
        return [*known, f"out[{name}] = {value} if {held} else None"]

    def _held(self, count: str) -> tuple[list[str], str]:
        """Name that holds a count, and what makes it hold it, the first time."""
        if count in self._counted:
            return [], self._counted[count]
        name = self._counted[count] = f"c{len(self._counted)}"
        return [f"{name} = {count}"], name

    def _whole(self, channel: int, window: int) -> str:
        """A count, the request's own event included where it is let in."""
        column = self._shape.column_of[channel]
        own = f" + own[{channel}]" if self._plan.windows[window].include_current else ""
        return f"(r{window}[{column}] - l{window}[{column}]{own})"

    def _units(self, channel: int, window: int) -> tuple[str, str, bool]:
        """A sum as a whole number, what to divide it by, and whether it is one of floats."""
        place = self._shape.column_of[channel]
        one, limbs = self._layout.sums[place], self._layout.limb_of[place]
        columns = range(limbs.start - self._layout.first_running, limbs.stop - self._layout.first_running)
        terms = [f"r{window}[{c}] - l{window}[{c}]" for c in columns]
        shifted = [f"(({term}) << {WIDTH * j})" if j else f"({term})" for j, term in enumerate(terms)]
        top = " + ".join(shifted)
        if one.low > 0:
            top = f"(({top}) << {one.low})"
        return f"({top})", str(1 << max(-one.low, 0)), one.floats

    def _pair(self, channel: int, window: int) -> str:
        if self._shape.column_of.get(channel) is None or channel in self._shape.counts or channel == self._shape.all:
            return f"({self._whole(channel, window)}, 1)"
        top, bottom, _ = self._units(channel, window)
        if self._plan.windows[window].include_current:
            return f"plus({top}, {bottom}, own[{channel}])"
        return f"({top}, {bottom})"

    def _number(self, channel: int, window: int, *, rounded: bool) -> str:
        """A sum as the nearest double, or as a whole number if only such went in and it is not wanted rounded."""
        top, bottom, floats = self._units(channel, window)
        if self._plan.windows[window].include_current:
            wide = "True" if floats or rounded else f"type(own[{channel}]) is float"
            return f"divided(*plus({top}, {bottom}, own[{channel}]), {wide})"
        if not floats:
            return f"float({top})" if rounded else top
        one = self._layout.sums[self._shape.column_of[channel]]
        if one.low + WIDTH * (one.limbs + 1) > 1000:
            return f"divided({top}, {bottom}, True)"
        if one.low > -900:  # rounded once by float(); a power of two then changes no digit
            return f"float({top}) * {2.0 ** min(one.low, 0)!r}"
        return f"{top} / {bottom}"

    def _extreme_output(self, output: Output, count: str, *, own: bool) -> list[str]:
        channel, window, name = output.parts[0], output.window, repr(output.column)
        extreme = self._shape.column_of[channel]
        group, place = self._place(extreme)
        floats, largest = self._layout.extremes[extreme] == FLOAT, self._shape.largest[extreme]
        word = f"x{window}_{group}{place}"
        value = word if largest else f"0.0 - {word}" if floats else f"~{word}"
        if not own:
            known, held = self._held(count)
            return [*known, f"out[{name}] = {value} if {held} else None"]
        column = self._shape.column_of[output.parts[-1]]
        stored = f"r{window}[{column}] - l{window}[{column}]"
        return [
            f"x = {value} if {stored} else None",
            f"out[{name}] = best(x, own[{channel}], {largest}) if {count} else None",
        ]

    def _latest(self, output: Output) -> list[str]:
        place, name = output.parts[0], repr(output.column)
        kind, word = self._layout.kept[place], f"kept[{self._shape.bits + place}]"
        if kind == TEXT:
            begin = f"{self._shape.head_bytes} + ({word} >> 32)"
            value = f"blob[{begin} : {begin} + ({word} & 0xFFFFFFFF)].decode('utf-8', 'surrogatepass')"
        elif kind == BOOL:
            value = f"{word} != 0"
        elif kind == DATE:
            value = f"day({word} + {_EPOCH})"
        else:
            value = "None" if kind == NULL else word
        held = f"kept[{place // 62}] >> {place % 62} & 1"
        if output.max_age is None:
            return [f"out[{name}] = {value} if n and {held} else None"]
        return [
            f"if n and at - last <= {output.max_age}:",
            f"    out[{name}] = {value} if {held} else None",
            "else:",
            f"    out[{name}] = None",
            f"    old.add({name})",
        ]

    def _events(self) -> list[str]:
        """Visible events within reach of the widest window; 1 for a latest value."""
        windows = self._plan.windows
        if not windows:
            reach = "1" if self._plan.unbounded else f"at - last <= {self._plan.lookback_us - 1}"
            return [f"return int(n > 0 and {reach})"]
        widest = max(range(len(windows)), key=lambda w: (windows[w].lifetime, windows[w].reach_us))
        total = f"r{widest}[0] - l{widest}[0]"
        return [f"return max({total}, 1 if n else 0)" if self._plan.unbounded else f"return {total}"]
