"""Bags of a view for every row of a spine: the visible events of each window, gathered in pieces of bounded size.

What is computed of them is in ``bags``, which knows neither keys nor clocks. A window that needs only its newest or
oldest few values is looked at from that end, so its length does not matter.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from retrodict.features.facts.bags import Ragged, Values, check_types, compute
from retrodict.features.facts.columns import Mask
from retrodict.features.facts.kernels import Queries
from retrodict.features.offline.prepared import Prepared
from retrodict.features.plan import Bag, Output, ViewPlan

__all__ = ["WindowBags"]

_NEWEST = frozenset({"last", "last_k", "time_since_last"})
_OLDEST = frozenset({"first", "first_k"})


class WindowBags:
    """Functions of the events of windows, for every row of a spine that ``queries`` asks for."""

    def __init__(self, plan: ViewPlan, state: Prepared, queries: Queries) -> None:
        self._plan, self._state, self._queries = plan, state, queries
        self._columns: dict[str, Values] = {}

    def finish(self, output: Output, null_key: Mask) -> pa.Array[Any]:
        """Column of one feature; rows without a key are null."""
        bag, window = self._plan.bags[output.parts[0]], self._plan.windows[output.window]
        value, second = (None if name is None else self._values(name) for name in (bag.value, bag.second))
        check_types(bag, value, second, where=f"{self._plan.where}, feature {output.column.split('__', 1)[1]!r}")
        event_time = self._state.line.event_time

        def value_of(at: Any, sizes: Any, rows: Any) -> pa.Array[Any]:
            return compute(bag, Ragged(at, sizes, rows, event_time), value, second)

        # Part 0 is what a window without events gives.
        nothing, queries = np.zeros(1, dtype=np.int64), self._queries
        parts, place, filled = [value_of(nothing, nothing, nothing[:0])], np.zeros(queries.total, dtype=np.int64), 1
        count = 0 if bag.op not in _NEWEST | _OLDEST else max(bag.k, 1)
        for requests, events, sizes in queries.inside(
            window, self._eligible(bag, value, second), count=count, newest=bag.op in _NEWEST
        ):
            parts.append(value_of(queries.moments[requests], sizes, events))
            place[queries.rows[requests]] = np.arange(filled, filled + len(requests))
            filled += len(requests)
        return pa.concat_arrays(parts).take(pa.array(place, mask=null_key))

    def _values(self, name: str) -> Values:
        if name not in self._columns:
            self._columns[name] = Values(self._state.column(name))
        return self._columns[name]

    def _eligible(self, bag: Bag, value: Values | None, second: Values | None) -> Mask | None:
        """Events that give something, None for all."""
        masks = [column.valid for column in (value, second) if column is not None]
        if bag.where is not None:
            masks.append(self._state.inputs[bag.where].true)
        eligible: Mask | None = np.logical_and.reduce(masks) if masks else None
        return eligible
