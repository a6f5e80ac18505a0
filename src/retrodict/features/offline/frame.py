"""Training frames: every feature of every row of a spine, as it could have been known at that row's time.

Events are sorted once per source and key; each aggregate is then a few binary searches and differences of exact prefix
sums. An SQL as-of join was rejected for this: no engine's window over two clocks is exact at the edges, and it is
several times slower (see the benchmark).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa

from retrodict.core.errors import InputError, InternalError, check_known
from retrodict.features.facts.columns import Ints, as_table, pick, plain, spine_times
from retrodict.features.facts.evaluation import derive_columns
from retrodict.features.facts.kernels import Queries
from retrodict.features.facts.keys import NULL, UNKNOWN, key_columns
from retrodict.features.offline.prepared import FRAMES, EventSource, Prepared, prepare
from retrodict.features.offline.totals import Totals
from retrodict.features.offline.window_bags import WindowBags
from retrodict.features.plan import FeatureSet, ViewPlan

__all__ = ["Rows", "Tables", "training_frame"]

Rows: TypeAlias = "pa.Table | EventSource"
"""What is read of a source: its rows (those of another kind of frame as well), or events that were prepared before."""

Tables: TypeAlias = "Callable[[str], Rows] | Mapping[str, Rows]"


@FRAMES
def training_frame(
    spine: pa.Table, at: str, features: FeatureSet, sources: Tables, *, ignore_known_at: bool = False
) -> pa.Table:
    """Add every feature to the rows of a spine.

    Parameters
    ----------
    spine : pyarrow.Table or frame
        One row per decision: the time of the decision, the entity keys, whatever derived functions need. A frame of
        pandas or Polars is read as an Arrow table, here and in ``sources``.
    at : str
        Its time column: timestamps with a zone, never null.
    features : FeatureSet
        What to compute.
    sources : callable or mapping of str to pyarrow.Table or EventSource
        Rows of each source by the source's name, or its events where they were prepared before.
    ignore_known_at : bool, default False
        Only to show what leaks: look at event times alone, as a join that knows one clock does.

    Returns
    -------
    pyarrow.Table
        The spine as it was, row for row in the same order, with one column per feature of ``features.columns``; those
        that are columns of the row itself are the spine's.

    Raises
    ------
    InputError
        If a column is missing, a time is null, or the spine has a column with a feature's name.
    DefinitionError
        If key columns are of different kinds, or an aggregate reads text.
    """
    spine = as_table(spine, where="spine")
    moments = spine_times(spine, at)
    computed = [name for name in features.columns if name not in features.own]
    for name in features.own:
        pick(spine, name, where="spine")
    taken_names = [name for name in computed if name in spine.column_names]
    if taken_names:
        raise InputError(
            "a spine must have no column with a feature's name",
            where="spine",
            got=taken_names[0],
            remedy="Rename the column or the view",
        )
    columns: dict[str, pa.Array[Any]] = {}
    prepared: dict[str, Prepared] = {}
    for place, plan in enumerate(features.views):
        # Views that share their online state share their sorted events, too.
        state = prepared.get(plan.state_id)
        if state is None:
            rows = _rows_of(sources, plan)
            state = prepared[plan.state_id] = prepare(plan, rows, ignore_known_at=ignore_known_at)
        columns |= _view_columns(plan, state, spine, moments)
        if all(later.state_id != plan.state_id for later in features.views[place + 1 :]):
            del prepared[plan.state_id]
    derive_columns(features, spine, columns)
    frame = spine
    for name in computed:
        frame = frame.append_column(name, columns[name])
    # Appending shares the spine's buffers; a NaN in it would make a comparison by value fail.
    if frame.num_rows != spine.num_rows or frame.column_names[: spine.num_columns] != spine.column_names:
        raise InternalError(
            "a training frame must hold the spine's rows as they were",
            where="training_frame",
            got=(spine.num_rows, frame.num_rows),
        )
    return frame


def _rows_of(sources: Tables, plan: ViewPlan) -> Rows:
    name = plan.source.name
    if not callable(sources):
        rule = "every source must have a table"
        check_known(name, sources, rule, where=plan.where, what="source", error=InputError)
    rows = sources(name) if callable(sources) else sources[name]
    return rows if isinstance(rows, EventSource) else as_table(rows, where=f"source {name!r}")


def _view_columns(plan: ViewPlan, state: Prepared, spine: pa.Table, moments: Ints) -> dict[str, pa.Array[Any]]:
    columns = key_columns(spine, plan.request_keys, where=f"{plan.where}, spine")
    codes = state.index.locate(columns, names=plan.request_keys)
    moved = np.flatnonzero(state.outdated[codes]) if state.newer is not None else codes[:0]
    codes[moved] = UNKNOWN
    queries = Queries(state.line, codes, moments, state.until)
    null_key = codes == NULL
    values: dict[str, pa.Array[Any]] = {}
    if plan.channels:
        totals = Totals(plan, state, queries, spine)
        values |= {o.column: totals.finish(o, null_key) for o in plan.outputs if o.op != "latest" and not o.bag}
    if plan.bags:
        bags = WindowBags(plan, state, queries)
        values |= {o.column: bags.finish(o, null_key) for o in plan.outputs if o.bag}
    if plan.latest:
        values |= _latest_columns(plan, state, queries, moments)
    if state.newer is not None and len(moved):
        # A table without columns would lose its length.
        needed = [*dict.fromkeys([*plan.request_keys, *plan.current_columns])] or spine.column_names[:1]
        newer = _view_columns(plan, state.newer, spine.select(needed).take(pa.array(moved)), moments[moved])
        place = np.arange(spine.num_rows)
        place[moved] = len(place) + np.arange(len(moved))
        values = {name: pa.concat_arrays([values[name], newer[name]]).take(pa.array(place)) for name in values}
    return values


def _latest_columns(plan: ViewPlan, state: Prepared, queries: Queries, moments: Ints) -> dict[str, pa.Array[Any]]:
    event = np.full(queries.total, -1, dtype=np.int64)
    event[queries.rows] = queries.newest()
    aged = any(output.max_age is not None for output in plan.outputs) and len(state.line.packed_event)
    age = moments - state.line.moments_of(event) if aged else np.zeros_like(moments)
    columns = {}
    for output in plan.outputs:
        if output.op == "latest":
            absent = event < 0 if output.max_age is None else (event < 0) | (age > output.max_age)
            values = state.column(plan.latest[output.parts[0]], np.where(absent, 0, event), absent)
            columns[output.column] = plain(values)
    return columns
