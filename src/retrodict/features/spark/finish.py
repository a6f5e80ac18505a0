"""From totals that SQL merged to values, by the table of aggregates: the sums are whole numbers, rounded once."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from retrodict.core.errors import InputError, InternalError
from retrodict.features.facts.columns import pick
from retrodict.features.monoids import AGGREGATES
from retrodict.features.plan import Output, ViewPlan
from retrodict.features.spark.lifts import exponent
from retrodict.features.spark.sql import total_name

__all__ = ["finish_view"]

Exact = tuple[int, int]
"""A sum as a fraction; the bottom is a power of two."""


def finish_view(
    plan: ViewPlan,
    spine: pa.Table,
    totals: pa.Table,
    buckets: Mapping[int, Sequence[int]],
    schema: pa.Schema,
) -> dict[str, pa.Array[Any]]:
    """Columns of a view.

    Parameters
    ----------
    plan : ViewPlan
        The view.
    spine, totals : pyarrow.Table
        Rows of the spine, and in the same order what :meth:`~retrodict.features.spark.sql.ViewQuery.totals` gives of
        each; nulls for a row of which it gives none.
    buckets : mapping of int to sequence of int
        As given to that query.
    schema : pyarrow.Schema
        Types of the features.
    """
    if pc.max(totals.column("stray")).as_py():
        raise InternalError(
            "the second scan of a source finds the numbers that the first one found",
            where=plan.where,
            got=pc.sum(totals.column("stray")).as_py(),
            remedy="Write the source out first (checkpoint it): its rows change from one scan to the next",
        )
    null_key = [False] * spine.num_rows
    for key in plan.request_keys:
        null_key = [a or b for a, b in zip(null_key, spine.column(key).is_null().to_pylist(), strict=True)]
    totaled = _Totals(plan, totals, buckets)
    found = {}
    for output in plan.outputs:
        type_ = schema.field(output.column).type
        if output.op == "latest":
            found[output.column] = pick(totals, output.column, where=plan.where).cast(type_)
        else:
            found[output.column] = _array(plan, output, totaled.values(output, null_key), type_)
    return found


def _array(plan: ViewPlan, output: Output, values: list[Any], type_: pa.DataType) -> pa.Array[Any]:
    if pa.types.is_floating(type_):
        return pa.array([None if value is None else float(value) for value in values], type_)
    try:
        array = pa.array(values, pa.int64())
    except (OverflowError, pa.ArrowInvalid) as error:
        raise InputError(
            "the sum of a whole-number column fits in 64 bits",
            where=f"{plan.where}, feature {output.column!r}",
            remedy="Sum it as a float column",
        ) from error
    return array.cast(type_)


class _Totals:
    """Totals of a view, channel by channel."""

    def __init__(self, plan: ViewPlan, totals: pa.Table, buckets: Mapping[int, Sequence[int]]) -> None:
        self._plan, self._totals, self._buckets = plan, totals, buckets
        self._known: dict[tuple[int, int], list[Any]] = {}

    def values(self, output: Output, null_key: Sequence[bool]) -> list[Any]:
        """Value of a feature for each row."""
        kind = AGGREGATES[output.op]
        channels = [self._plan.channels[i] for i in output.parts]
        columns = [self._column(output.window, i) for i in output.parts]
        for place, channel in enumerate(channels):
            if channel.monoid == "sum" and not (kind.exact and place < len(channels) - 1):
                floating = output.parts[place] in self._buckets
                rounded = floating or (kind.rounded and place == 0)
                columns[place] = [_rounded(total) if rounded else total[0] for total in columns[place]]
        found: list[Any] = []
        for null, *totals in zip(null_key, *columns, strict=True):
            if null or (kind.empty_is_null and not totals[-1]):
                found.append(None)
            else:
                value = kind.finish(*totals)
                found.append(value if output.factor is None else value * output.factor[0] / output.factor[1])
        return found

    def _column(self, window: int, channel: int) -> list[Any]:
        if (window, channel) not in self._known:
            self._known[window, channel] = self._read(window, channel)
        return self._known[window, channel]

    def _read(self, window: int, channel: int) -> list[Any]:
        if self._plan.channels[channel].monoid != "sum":
            return self._list(window, channel)
        known = self._buckets.get(channel)
        if known is None:
            return [(total, 1) for total in self._whole(window, channel)]
        units = [exponent(bucket) for bucket in known]
        low = min([*units, 0])
        sums = [0] * self._totals.num_rows
        for place, unit in enumerate(units):
            digits = self._whole(window, channel, place)
            sums = [total + (digit << (unit - low)) for total, digit in zip(sums, digits, strict=True)]
        return [(total, 1 << -low) for total in sums]

    def _whole(self, window: int, channel: int, place: int = 0) -> list[int]:
        return [0 if value is None else int(value) for value in self._list(window, channel, place)]

    def _list(self, window: int, channel: int, place: int = 0) -> list[Any]:
        found: list[Any] = self._totals.column(total_name(window, channel, place)).to_pylist()
        return found


def _rounded(total: Exact) -> float:
    try:
        return total[0] / total[1]
    except OverflowError:
        return math.inf if total[0] > 0 else -math.inf
