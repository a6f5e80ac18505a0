"""Requests for features that no model asks for: keys as the sources have them, at times that their history covers.

A model is verified on the rows it learns from. A service has no such rows, so they are drawn from its sources: what it
is asked for are their keys.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from retrodict.features.facts.columns import times
from retrodict.features.plan import FeatureSet, ViewPlan

__all__ = ["AT", "draw_requests"]

AT = "_at"
_REQUESTS = 2_000


def draw_requests(features: FeatureSet, tables: Mapping[str, pa.Table], *, now: int, seed: int) -> pa.Table:
    """Rows with every key and input of a feature set, at random times from the first to the last fact.

    Keys, and what a view reads of the request's own event, come from rows of the view's table; the first view that has
    a key decides. Inputs of derived functions that no table has are null, times among them the time of the request.

    Parameters
    ----------
    features : FeatureSet
    tables : mapping of str to pyarrow.Table
        Rows by table.
    now : int
        Time of requests to facts that have none, microseconds.
    seed : int
        Which are drawn.

    Returns
    -------
    pyarrow.Table
        With the time column :data:`AT`; without rows if the table of a view has none.
    """
    random = np.random.default_rng(seed)
    rows = _REQUESTS if all(tables[plan.source.table.name].num_rows for plan in features.views) else 0
    columns: dict[str, Any] = {}
    for plan in features.views:
        table = tables[plan.source.table.name]
        positions = pa.array(random.integers(0, max(table.num_rows, 1), rows))
        read = {**dict(zip(plan.request_keys, plan.keys, strict=True)), **{name: name for name in plan.current_columns}}
        for name, column in read.items():
            if name not in columns:
                columns[name] = table.column(column).take(positions)
    first, last = _history(features, tables) or (now, now)
    moments = pa.array(random.integers(first, last, rows, endpoint=True)).cast(pa.timestamp("us", "UTC"))
    moment_inputs = {name for function in features.derived for name in function.times}
    for name in features.request_columns:
        if name not in columns:
            columns[name] = moments if name in moment_inputs else pa.nulls(rows)
    return pa.table({**columns, AT: moments})


def _history(features: FeatureSet, tables: Mapping[str, pa.Table]) -> tuple[int, int] | None:
    """First and last time of a fact in any source; None if no fact has one."""
    ends = [end for plan in features.views for end in _ends(plan, tables[plan.source.table.name])]
    return (min(ends), max(ends)) if ends else None


def _ends(plan: ViewPlan, table: pa.Table) -> list[int]:
    name = plan.source.event_time or plan.source.known_at
    if name is None or not table.num_rows:
        return []
    column = table.column(name)
    ends: Any = pc.min_max(column)
    values = pa.array([ends["min"].as_py(), ends["max"].as_py()], column.type)
    moments, present = times(values, where=f"{plan.where}, column {name!r}")
    return [int(moment) for moment in moments[present]]
