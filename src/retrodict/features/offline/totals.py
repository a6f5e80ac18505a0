"""Totals of a view for every row of a spine: the channels merged over each window, and what aggregates make of them.

Sums are differences of exact prefix sums of limbs, so a million windows cost a few searches each. Aggregates with an
exact finish (ratio, variance, std, skew, slope) take their sums as whole numbers of Python, a few microseconds per
value: rounding the sums first was rejected, since the difference of two of them can lose every digit.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from retrodict.core.errors import InputError
from retrodict.core.statistics.exact import LimbScale, Shifted, round_limbs, scale_for, split_limbs, whole_limbs
from retrodict.features.facts.columns import Ints, Mask, pick, too_large
from retrodict.features.facts.events import lift, lifted_inputs, reads_times, with_computed
from retrodict.features.facts.kernels import PrefixSums, Queries, Timeline
from retrodict.features.facts.ranges import RangeExtremes, identity_of
from retrodict.features.monoids import AGGREGATES
from retrodict.features.offline._arrays import ArrayFolder, ArrayWriter
from retrodict.features.offline.prepared import Prepared
from retrodict.features.plan import Output, ViewPlan
from retrodict.features.windows import Window

__all__ = ["Summed", "Totals", "summed_of"]

_COUNTS = frozenset({"one", "present", "true"})
_RESTS = frozenset({"square_rest", "cube_1", "cube_2", "cube_3", "time_square_rest", "moment_rest"})
_ROWS = 1 << 16  # rows finished at a time as whole numbers of Python
_EXACT = 1 << 53  # whole numbers up to here are doubles
_MAKING = threading.Lock()


class Totals:
    """Merged channels of a view for every row of a spine, window by window.

    ``queries`` asks for the rows of the spine; windows that include the current event read it from the rows themselves.
    """

    def __init__(self, plan: ViewPlan, state: Prepared, queries: Queries, spine: pa.Table) -> None:
        self._plan, self._queries, self._spine = plan, queries, spine
        # Without events of the spine's own all this holds for every spine: frames come in pieces.
        summed = Summed(plan, state, self._lift_own()) if plan.needs_current else summed_of(plan, state)
        self._summed = summed
        self._asked = queries if summed.ends is None else queries.of(summed.ends)
        self._sums: dict[int, Ints] = {}
        self._rounded: dict[tuple[int, int], NDArray[np.float64]] = {}

    def _lift_own(self) -> dict[int, NDArray[Any]]:
        """What each row's own event gives to the channels of windows that let it in."""
        plan, where = self._plan, f"{self._plan.where}, spine (a window includes the current event)"
        channels = {
            i for o in plan.outputs if o.window >= 0 and plan.windows[o.window].include_current for i in o.parts
        }
        texts = {
            text for i in channels for text in (plan.channels[i].value, plan.channels[i].where) if text is not None
        }
        for name in plan.current_columns:
            pick(self._spine, name, where=where)
        expressions = {text: expression for text, expression in plan.expressions.items() if text in texts}
        values = [text for text in plan.values if text in texts]
        computed = {text: expression for text, expression in plan.computed.items() if text in values}
        table = with_computed(self._spine, computed, self._spine, where=where)
        inputs = lifted_inputs(expressions, values, self._spine, table, where=where)
        moments = np.zeros(self._queries.total, dtype=np.int64)  # a row without a key is null
        moments[self._queries.rows] = self._queries.moments
        return {i: lift(plan.channels[i], inputs, moments) for i in channels}

    def _window_sums(self, window: int) -> Ints:
        if window not in self._sums:
            span = self._plan.windows[window]
            total = np.zeros((self._queries.total, self._summed.columns), dtype=np.int64)
            total[self._queries.rows] = self._summed.prefix.over(self._asked, span)
            for i, request_values in self._summed.current.items():
                if span.include_current and i in self._summed.place:
                    total[:, self._summed.place[i]] += request_values
            self._sums[window] = total
        return self._sums[window]

    def _total(self, index: int, window: int, *, rounded: bool) -> NDArray[Any]:
        channel, span = self._plan.channels[index], self._plan.windows[window]
        if channel.monoid == "sum":
            limbs = np.ascontiguousarray(self._window_sums(window)[:, self._summed.place[index]])
            scale = self._summed.scales.get(index)
            if scale is None:
                return limbs[:, 0]
            if not rounded and self._summed.lifted[index].dtype == np.int64:
                try:
                    return whole_limbs(limbs, scale)
                except InputError as error:
                    raise too_large(self._plan.where, channel.value) from error
            if (index, window) not in self._rounded:
                self._rounded[index, window] = round_limbs(limbs, scale)
            return self._rounded[index, window]
        return self._extreme(index, span, largest=channel.monoid == "max")

    def _extreme(self, index: int, window: Window, *, largest: bool) -> NDArray[Any]:
        values, request_values = (
            self._summed.lifted[index],
            self._summed.current.get(index) if window.include_current else None,
        )
        if request_values is not None and request_values.dtype != values.dtype:
            raise InputError(
                "the request's own value must have the type of the source's column",
                where=self._plan.where,
                got=str(request_values.dtype),
                remedy="Cast the spine's column to the type of the source's",
            )
        best = np.full(self._queries.total, identity_of(values.dtype, largest=largest), dtype=values.dtype)
        best[self._queries.rows] = self._queries.extremes(
            values, window, largest=largest, ranges=self._summed.ranges.setdefault(index, {})
        )
        if request_values is None:
            return best
        merged: NDArray[Any] = np.maximum(best, request_values) if largest else np.minimum(best, request_values)
        return merged

    def finish(self, output: Output, null_key: Mask) -> pa.Array[Any]:
        """Column of one feature."""
        kind = AGGREGATES[output.op]
        if kind.exact:
            return self._finish_exact(output, null_key)
        totals = [self._total(i, output.window, rounded=kind.rounded) for i in output.parts]
        empty = null_key | (totals[-1] == 0) if kind.empty_is_null else null_key
        with np.errstate(invalid="ignore", divide="ignore"):
            values = kind.finish(*totals)
        if output.factor is not None:
            values = _scaled(values, *output.factor)
        if values.dtype.kind == "f":
            values, empty = self._representable(output, values, empty)
        values = np.where(empty, np.zeros(1, dtype=values.dtype), values)
        array = pa.array(values, mask=empty)
        first = self._plan.channels[output.parts[0]]
        if first.monoid != "sum" and self._summed.kinds[first.value or ""] == "time":
            return array.cast(pa.timestamp("us", "UTC"))
        return array

    def _representable(
        self, output: Output, values: NDArray[np.float64], empty: Mask
    ) -> tuple[NDArray[np.float64], Mask]:
        """Values, and where there is none: a mean has one even where its sum lies beyond the range of doubles."""
        beyond = np.flatnonzero(~empty & ~np.isfinite(values))
        if output.op == "mean" and len(beyond):
            sums = self._window_sums(output.window)[beyond]
            counts = sums[:, self._summed.place[output.parts[-1]]][:, 0].tolist()
            tops = _wholes(sums[:, self._summed.place[output.parts[0]]], self._summed.scales[output.parts[0]])
            values[beyond] = [top / (unit * count) for (top, unit), count in zip(tops, counts, strict=True)]
        return values, empty | ~np.isfinite(values)

    def _finish_exact(self, output: Output, null_key: Mask) -> pa.Array[Any]:
        kind, sums = AGGREGATES[output.op], self._window_sums(output.window)
        counts = sums[:, self._summed.place[output.parts[-1]]][:, 0]
        values: list[float | None] = [None] * self._queries.total
        filled = np.flatnonzero(~null_key & (counts > 0))
        for first in range(0, len(filled), _ROWS):
            rows = filled[first : first + _ROWS]
            parts = [_wholes(sums[rows, self._summed.place[i]], self._summed.scales[i]) for i in output.parts[:-1]]
            for row, *totals in zip(rows.tolist(), *parts, counts[rows].tolist(), strict=True):
                values[row] = kind.finish(*totals, *(output.factor or ()))
        return pa.array(values, pa.float64())


class Summed:
    """What the events of a view give to its channels: lifted, cut into limbs, added up."""

    def __init__(self, plan: ViewPlan, state: Prepared, request_values: dict[int, NDArray[Any]]) -> None:
        self.plan, self.current = plan, request_values
        self.ends: Timeline | None = None
        inputs, count = state.inputs, len(state.line.packed_event)
        self.kinds = {text: column.kind for text, column in inputs.items()}
        line: Timeline = state.line
        moments = line.event_time if any(map(reads_times, plan.channels)) else line.packed_event  # else only how many
        self.lifted: list[Any] = []
        twins: dict[int, int] = {}  # counts of the same events are added up once: fresh memory is what takes time
        for i, channel in enumerate(plan.channels):
            values = lift(channel, inputs, moments)
            if channel.lift in _COUNTS and not request_values:
                among = [j for j in range(i) if plan.channels[j].lift in _COUNTS and j not in twins]
                twins |= [(i, j) for j in among if np.array_equal(self.lifted[j], values)]
            self.lifted.append(values[:0] if i in twins else values)
        self.scales: dict[int, LimbScale] = {}
        self.ranges: dict[int, dict[int, RangeExtremes]] = {}
        self.place: dict[int, slice] = {}
        self._rows = 2 * count + 1  # the most numbers in a sum: events, their ends, the row's own
        sums = self._cut(count, twins)
        limbs, self.columns = sums[1:], sums.shape[1]
        if state.until is not None:
            line, ended = line.with_ends(state.until, state.array("known_at"), state.array("order"))
            limbs, self.ends = np.concatenate([limbs, -limbs[ended]]), line
        if self.ends is None and line.steady:  # in one order: added up where they lie
            self.prefix = PrefixSums.of(line, *[np.cumsum(sums, axis=0, out=sums)] * 2)
        else:
            self.prefix = PrefixSums(line, limbs)

    @classmethod
    def read(cls, plan: ViewPlan, state: Prepared, folder: ArrayFolder) -> Summed:
        """Return what ``write`` wrote, of the same events in their order."""
        summed, note = cls.__new__(cls), folder.note
        summed.plan, summed.current, summed.ends, summed.ranges = plan, {}, None, {}
        summed.kinds, summed.columns = note["kinds"], note["columns"]
        summed.lifted = [
            folder.array(name) if (name := f"lifted {i}") in folder else np.zeros(0, dtype=kind)
            for i, kind in enumerate(note["types"])
        ]
        summed.scales = {int(i): LimbScale(*parts) for i, parts in note["scales"].items()}
        summed.place = {int(i): slice(*edges) for i, edges in note["place"].items()}
        summed.prefix = PrefixSums.of(state.line, folder.array("before"), folder.array("seen"))
        return summed

    def write(self, writer: ArrayWriter, line: Timeline) -> None:
        """Write all this, of events in their order that never end and no spine's own."""
        for i, channel in enumerate(self.plan.channels):
            if channel.monoid != "sum":
                writer.add(f"lifted {i}", self.lifted[i])
        writer.add("before", self.prefix.all(line, by_event=True), again=True)
        writer.add("seen", self.prefix.all(line, by_event=False), again=True)
        writer.close(
            {
                "kinds": self.kinds,
                "columns": self.columns,
                "types": [values.dtype.str for values in self.lifted],
                "scales": {str(i): [s.low, s.width, s.limbs, s.rows] for i, s in self.scales.items()},
                "place": {str(i): [place.start, place.stop] for i, place in self.place.items()},
            }
        )

    def _cut(self, count: int, twins: Mapping[int, int]) -> Ints:
        """Limbs of all summed channels side by side, below a row of zeros; counts are one limb, or their twin's."""
        width = 0
        for i, channel in enumerate(self.plan.channels):
            if i in twins:
                self.place[i] = self.place[twins[i]]
            elif channel.monoid == "sum":
                self.place[i] = slice(width, width := width + (1 if channel.lift in _COUNTS else self._limbs_of(i)))
        limbs = np.zeros((count + 1, width), dtype=np.int64)
        for i, place in self.place.items():
            for first in range(0, len(self.lifted[i]), _ROWS):
                part = slice(first, min(first + _ROWS, count))
                limbs[1:][part, place] = self._split(i, self.lifted[i][part])
            self.lifted[i] = self.lifted[i][:0]  # of sums only the prefix is used from here on
            if i in self.current:
                self.current[i] = self._split(i, self.current[i])
        return limbs

    def _limbs_of(self, i: int) -> int:
        """Set the scale of a channel."""
        everything = self.lifted[i]
        if len(request_values := self.current.pop(i, everything[:0])):
            if request_values.dtype != everything.dtype:
                everything, request_values = everything.astype(np.float64), request_values.astype(np.float64)
            self.lifted[i], self.current[i] = everything, request_values
            everything = _joined(everything, request_values)
        scale = scale_for(everything, rows=self._rows)
        # Squares of whole numbers have no rest: nothing to carry along.
        if self.plan.channels[i].lift in _RESTS and not everything.any():
            scale = replace(scale, limbs=0)
        self.scales[i] = scale
        return scale.limbs

    def _split(self, i: int, values: Any) -> Ints:
        scale = self.scales.get(i)
        if scale is None:
            return np.asarray(values)[:, None]
        return split_limbs(values, scale) if scale.limbs else np.zeros((len(values), 0), dtype=np.int64)


def _joined(first: Any, second: Any) -> Any:
    """Two columns of lifted values as one."""
    if not isinstance(first, Shifted) and not isinstance(second, Shifted):
        return np.concatenate([first, second])
    pair = [part if isinstance(part, Shifted) else Shifted(*np.frexp(part)) for part in (first, second)]
    return Shifted(np.concatenate([p.values for p in pair]), np.concatenate([p.shift for p in pair]))


def summed_of(plan: ViewPlan, state: Prepared) -> Summed:
    """Return what the events give to a view's channels, worked out once for whoever asks."""
    memory = state.line.memory
    with _MAKING:  # pieces of one frame begin at the same time, and one copy is enough
        if "sums" not in memory or memory["sums"].plan.channels != plan.channels:
            memory["sums"] = Summed(plan, state, {})
        summed: Summed = memory["sums"]
    return summed


def _wholes(limbs: Ints, scale: LimbScale) -> list[tuple[int, int]]:
    """Exact sums as fractions over one power of two."""
    tops = np.zeros(len(limbs), dtype=object)
    for place in range(scale.limbs):
        tops += limbs[:, place].astype(object) << (scale.width * place)
    if scale.low >= 0:
        return [(top << scale.low, 1) for top in tops.tolist()]
    return [(top, 1 << -scale.low) for top in tops.tolist()]


def _scaled(counts: Ints, top: int, bottom: int) -> NDArray[np.float64]:
    """Counts times a fraction, rounded once."""
    if bottom < _EXACT and int(counts.max(initial=0)) * top < _EXACT:
        return counts * top / bottom
    return np.array([count * top / bottom for count in counts.tolist()], dtype=np.float64)
