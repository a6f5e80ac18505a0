"""Training frames: every feature of every row of a spine, as it could have been known at that row's time.

Events are sorted once per source and key; each aggregate is then a few binary searches and differences of exact prefix
sums. An SQL as-of join was rejected for this: no engine's window over two clocks is exact at the edges, and it is
several times slower (see the benchmark).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from retrodict.core.errors import InputError, InternalError, near
from retrodict.core.statistics.exact import Scale, round_limbs, scale_for, split_limbs, whole_limbs
from retrodict.features.aggregates import AGGREGATES
from retrodict.features.columns import Column, Ints, pick, plain, times
from retrodict.features.evaluation import derive_columns
from retrodict.features.events import Events, first_of_each, lift, lifted_inputs, read_events
from retrodict.features.kernels import PrefixSums, Queries, Timeline, identity_of
from retrodict.features.keys import NULL, KeyIndex
from retrodict.features.plan import FeatureSet, Output, ViewPlan

__all__ = ["Tables", "training_frame"]

Tables = Callable[[str], pa.Table] | Mapping[str, pa.Table]


def training_frame(
    spine: pa.Table, at: str, features: FeatureSet, sources: Tables, *, ignore_known_at: bool = False
) -> pa.Table:
    """Add every feature to the rows of a spine.

    Parameters
    ----------
    spine : pyarrow.Table
        One row per decision: the time of the decision, the entity keys, whatever derived functions need.
    at : str
        Its time column: timestamps with a zone, never null.
    features : FeatureSet
        What to compute.
    sources : callable or mapping of str to pyarrow.Table
        Rows of each source by the source's name.
    ignore_known_at : bool, default False
        Only to show what leaks: look at event times alone, as a join that knows one clock does.

    Returns
    -------
    pyarrow.Table
        The spine as it was, row for row in the same order, with one column per feature of ``features.columns``.

    Raises
    ------
    InputError
        If a column is missing, a time is null, or the spine has a column with a feature's name.
    DefinitionError
        If key columns are of different kinds, or an aggregate reads text.
    """
    moments, present = times(pick(spine, at, where="spine"), where=f"spine, column {at!r}")
    if not present.all():
        raise InputError(
            "every row of a spine has its time",
            where=f"spine, column {at!r}",
            got=f"{int((~present).sum())} nulls",
            remedy="Drop or complete those rows",
        )
    taken = [name for name in features.columns if name in spine.column_names]
    if taken:
        raise InputError(
            "a spine has no column with a feature's name",
            where="spine",
            got=taken[0],
            remedy="Rename the column or the view",
        )
    found: dict[str, pa.Array[Any]] = {}
    prepared: dict[str, _Prepared] = {}
    for plan in features.views:
        # Views that share their online state share their sorted events, too.
        state = prepared.get(plan.state_id)
        if state is None:
            table = _table_of(sources, plan)
            state = prepared[plan.state_id] = _prepare(plan, table, ignore_known_at=ignore_known_at)
        found |= _view_columns(plan, state, spine, moments)
    derive_columns(features, spine, found)
    frame = spine
    for name in features.columns:
        frame = frame.append_column(name, found[name])
    # Appending shares the spine's buffers; a NaN in it would make a comparison by value fail.
    if frame.num_rows != spine.num_rows or frame.column_names[: spine.num_columns] != spine.column_names:
        raise InternalError(
            "a training frame holds the spine's rows as they were",
            where="training_frame",
            got=(spine.num_rows, frame.num_rows),
        )
    return frame


def _table_of(sources: Tables, plan: ViewPlan) -> pa.Table:
    if callable(sources):
        return sources(plan.source.name)
    if plan.source.name not in sources:
        raise InputError(
            "there is a table for every source",
            where=plan.where,
            got=plan.source.name,
            remedy=near(plan.source.name, sources, what="source"),
        )
    return sources[plan.source.name]


@dataclass(frozen=True)
class _Prepared:
    events: Events
    kept: Ints | None
    index: KeyIndex
    line: Timeline


def _prepare(plan: ViewPlan, table: pa.Table, *, ignore_known_at: bool) -> _Prepared:
    events = read_events(plan, table)
    where = f"{plan.where}, source {plan.source.name!r}"
    index = KeyIndex(events.keys(plan), where=where)
    known_at = events.event_time if ignore_known_at else events.known_at
    kept = first_of_each(index.codes, events)
    if (index.codes < 0).any():
        keyed = index.codes >= 0
        kept = np.flatnonzero(keyed) if kept is None else kept[keyed[kept]]
    chosen = slice(None) if kept is None else kept
    line = Timeline(index.codes[chosen], events.event_time[chosen], known_at[chosen], events.order[chosen], index.size)
    return _Prepared(events, kept, index, line)


def _view_columns(plan: ViewPlan, state: _Prepared, spine: pa.Table, moments: Ints) -> dict[str, pa.Array[Any]]:
    columns = [pick(spine, key, where=f"{plan.where}, spine") for key in plan.request_keys]
    codes = state.index.locate(columns, names=plan.request_keys)
    queries = Queries(state.line, codes, moments)
    null_key = codes == NULL
    found: dict[str, pa.Array[Any]] = {}
    if plan.channels:
        totals = _Totals(plan, state, queries, spine)
        for output in plan.outputs:
            if output.op != "latest":
                found[output.column] = totals.finish(output, null_key)
    if plan.latest:
        found |= _latest_columns(plan, state, queries, moments)
    return found


def _latest_columns(plan: ViewPlan, state: _Prepared, queries: Queries, moments: Ints) -> dict[str, pa.Array[Any]]:
    event = np.full(queries.total, -1, dtype=np.int64)
    event[queries.rows] = queries.newest()
    age = moments - state.line.event_time[event] if len(state.line.event_time) else np.zeros_like(moments)
    rows = event if state.kept is None or not len(state.kept) else np.where(event < 0, -1, state.kept[event])
    found = {}
    for output in plan.outputs:
        if output.op == "latest":
            values = plain(pick(state.events.table, plan.latest[output.parts[0]], where=plan.where))
            absent = rows < 0 if output.max_age is None else (rows < 0) | (age > output.max_age)
            found[output.column] = pc.take(values, pa.array(np.where(absent, 0, rows), mask=absent))
    return found


class _Totals:
    """Merged channels of a view for every row of a spine, window by window."""

    def __init__(self, plan: ViewPlan, state: _Prepared, queries: Queries, spine: pa.Table) -> None:
        self._plan, self._queries = plan, queries
        chosen = slice(None) if state.kept is None else state.kept
        inputs = {t: Column(c.values[chosen], c.valid[chosen], c.kind) for t, c in state.events.inputs.items()}
        self._kinds = {text: column.kind for text, column in inputs.items()}
        self._lifted = [lift(channel, inputs, len(state.line.codes)) for channel in plan.channels]
        self._own = self._lift_own(spine) if plan.needs_current else {}
        self._scales: dict[int, Scale] = {}
        self._limbs = self._cut()
        self._prefix = PrefixSums(state.line, self._limbs)
        self._sums: dict[int, Ints] = {}

    def _lift_own(self, spine: pa.Table) -> dict[int, NDArray[Any]]:
        """What each row's own event gives to the channels of windows that let it in."""
        plan, where = self._plan, f"{self._plan.where}, spine (a window includes the current event)"
        wanted = {i for o in plan.outputs if o.window >= 0 and plan.windows[o.window].include_current for i in o.parts}
        texts = {text for i in wanted for text in (plan.channels[i].value, plan.channels[i].where) if text is not None}
        for name in plan.current_columns:
            pick(spine, name, where=where)
        expressions = {text: expression for text, expression in plan.expressions.items() if text in texts}
        values = [text for text in plan.values if text in texts]
        inputs = lifted_inputs(expressions, values, spine, spine, where=where)
        return {i: lift(plan.channels[i], inputs, spine.num_rows) for i in wanted}

    def _cut(self) -> Ints:
        """Limbs of all summed channels side by side; counts are their own single limb."""
        columns = []
        self._place: dict[int, slice] = {}
        width = 0
        for i, channel in enumerate(self._plan.channels):
            if channel.monoid != "sum":
                continue
            if channel.lift == "value":
                own = self._own.get(i, np.zeros(0, dtype=self._lifted[i].dtype))
                if own.dtype != self._lifted[i].dtype:
                    self._lifted[i], own = self._lifted[i].astype(np.float64), own.astype(np.float64)
                everything = np.concatenate([self._lifted[i], own])
                scale = self._scales[i] = scale_for(everything, rows=len(self._lifted[i]) + 1)
                columns.append(split_limbs(self._lifted[i], scale))
                if i in self._own:
                    self._own[i] = split_limbs(own, scale)
            else:
                columns.append(self._lifted[i][:, None])
                if i in self._own:
                    self._own[i] = self._own[i][:, None]
            self._place[i] = slice(width, width + columns[-1].shape[1])
            width += columns[-1].shape[1]
        return np.concatenate(columns, axis=1) if columns else np.zeros((len(self._lifted[0]), 0), dtype=np.int64)

    def _window_sums(self, window: int) -> Ints:
        if window not in self._sums:
            chosen = self._plan.windows[window]
            total = np.zeros((self._queries.total, self._limbs.shape[1]), dtype=np.int64)
            total[self._queries.rows] = self._prefix.over(self._queries, chosen.length_us, chosen.hop_us)
            for i, own in self._own.items():
                if chosen.include_current and i in self._place:
                    total[:, self._place[i]] += own
            self._sums[window] = total
        return self._sums[window]

    def _total(self, index: int, window: int, *, rounded: bool) -> NDArray[Any]:
        channel, chosen = self._plan.channels[index], self._plan.windows[window]
        if channel.monoid == "sum":
            limbs = np.ascontiguousarray(self._window_sums(window)[:, self._place[index]])
            scale = self._scales.get(index)
            if scale is None:
                return limbs[:, 0]
            whole = not rounded and self._lifted[index].dtype == np.int64
            return whole_limbs(limbs, scale) if whole else round_limbs(limbs, scale)
        return self._extreme(
            index,
            channel.monoid == "max",
            chosen.length_us,
            chosen.hop_us,
            own=self._own.get(index) if chosen.include_current else None,
        )

    def _extreme(self, index: int, largest: bool, length: int, hop: int, *, own: NDArray[Any] | None) -> NDArray[Any]:
        values = self._lifted[index]
        if own is not None and own.dtype != values.dtype:
            raise InputError(
                "the request's own value has the type of the source's column",
                where=self._plan.where,
                got=str(own.dtype),
                remedy="Cast the spine's column to the type of the source's",
            )
        found = self._queries.extremes(values, length, hop, largest=largest)
        best = np.full(self._queries.total, identity_of(values.dtype, largest=largest), dtype=values.dtype)
        best[self._queries.rows] = found
        if own is None:
            return best
        merged: NDArray[Any] = np.maximum(best, own) if largest else np.minimum(best, own)
        return merged

    def finish(self, output: Output, null_key: NDArray[np.bool_]) -> pa.Array[Any]:
        """Column of one feature."""
        kind = AGGREGATES[output.op]
        totals = [self._total(i, output.window, rounded=kind.rounded) for i in output.parts]
        empty = null_key | (totals[-1] == 0) if kind.empty_is_null else null_key
        with np.errstate(invalid="ignore", divide="ignore"):
            values = kind.finish(*totals)
        values = np.where(empty, np.zeros(1, dtype=values.dtype), values)
        array = pa.array(values, mask=empty)
        first = self._plan.channels[output.parts[0]]
        if first.monoid != "sum" and self._kinds[first.value or ""] == "time":
            return array.cast(pa.timestamp("us", "UTC"))
        return array
