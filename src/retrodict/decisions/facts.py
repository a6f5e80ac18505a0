"""The facts behind one decision, read again from the tables: what replay recomputes and lineage lists.

Rows of other entities are left out first. That changes no value (a view looks at its own entity only) and turns seconds
into milliseconds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache, reduce
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from retrodict.core.durations import parse_duration
from retrodict.decisions.records import DecisionRecord, Value
from retrodict.features.facts.columns import pick
from retrodict.features.facts.keys import key_array
from retrodict.features.offline import training_frame
from retrodict.features.plan import FeatureSet, ViewPlan
from retrodict.stores.tables.base import TableStore
from retrodict.workspace import Workspace

__all__ = ["newest_versions", "read_sources", "recompute", "same_value", "typed_column", "view_rows"]

_AT = "_decide_at"


def newest_versions(workspace: Workspace, features: FeatureSet) -> dict[str, int]:
    """Newest version of each table that the features' sources read."""
    names = {source.table.name for source in features.sources.values()}
    return {name: workspace.tables.history(name)[-1].version for name in sorted(names)}


def read_sources(
    workspace: Workspace, features: FeatureSet, versions: Mapping[str, int], entities: Mapping[str, Value]
) -> dict[str, pa.Table]:
    """Rows of each source, in table order, of the entities of one request only."""
    tables = {}
    for name, source in features.sources.items():
        views = [view for view in features.views if view.source.name == name]
        columns = {*getattr(source.table, "key", ()), "_batch", *(c for view in views for c in view.source_columns)}
        version = versions[source.table.name]
        table = _read(workspace.tables, source.table.name, version, tuple(sorted(columns)))  # type: ignore[arg-type]  # by identity
        masks = [_of_entity(table, view, entities) for view in views]
        tables[name] = table.filter(reduce(pc.or_, masks))
    return tables


@lru_cache(maxsize=6)
def _read(tables: TableStore, name: str, version: int, columns: tuple[str, ...]) -> pa.Table:
    """Columns of a version; a version never changes, so the next decision that is looked at may share them."""
    return tables.read(name, version, columns=columns)


def _of_entity(table: pa.Table, view: ViewPlan, entities: Mapping[str, Value]) -> Any:
    mask = pa.chunked_array([pa.array(np.ones(table.num_rows, dtype=bool))])
    for key, name in zip(view.keys, view.request_keys, strict=True):
        value = entities.get(name)
        if value is None:
            return pa.chunked_array([pa.array(np.zeros(table.num_rows, dtype=bool))])
        column = key_array(pick(table, key, where=view.where), where=view.where)
        mask = pc.and_(mask, pc.fill_null(pc.equal(column, pa.scalar(value)), False))
    return mask


def recompute(
    record: DecisionRecord, features: FeatureSet, sources: Mapping[str, pa.Table], kinds: Mapping[str, str]
) -> dict[str, Value]:
    """Feature values of a decision from the tables, by the offline engine.

    Parameters
    ----------
    record : DecisionRecord
    features : FeatureSet
    sources : mapping of str to pyarrow.Table
        From :func:`read_sources`.
    kinds : mapping of str to str
        Kind of each entity and context value, as the model's request schema says.
    """
    names = [*features.request_keys, *features.request_columns]
    values = {**record.context, **record.entities}
    columns = {name: typed_column([values.get(name)], kinds.get(name, "text")) for name in names}
    columns[_AT] = typed_column([record.time], "time")
    table = training_frame(pa.table(columns), _AT, features, sources)
    return {name: table.column(name)[0].as_py() for name in features.columns}


def typed_column(values: Sequence[Value], kind: str) -> pa.Array:
    """Arrow column of request values of a kind: text, int, number, bool, time (microseconds), or date.

    A day is a whole number since 1970, of an entity, or text.
    """
    if kind == "time":
        return pa.array(values, pa.int64()).cast(pa.timestamp("us", "UTC"))
    if kind == "date" and not any(isinstance(value, str) for value in values):
        return pa.array(values, pa.int32()).cast(pa.date32())
    types = {"text": pa.string(), "date": pa.string(), "int": pa.int64(), "number": pa.float64(), "bool": pa.bool_()}
    return pa.array(values, types[kind])


def view_rows(view: ViewPlan, table: pa.Table, entities: Mapping[str, Value], at: int) -> dict[str, pa.Table]:
    """Rows that each feature of a view was computed from, by full feature name: inside its window and known before.

    For a latest value that is the one row it was taken from, if there is one.
    """
    source = view.source
    rows = table.filter(_of_entity(table, view, entities))
    if source.event_time is None:
        newest = rows.slice(max(0, rows.num_rows - 1))
        return {output.column: newest for output in view.outputs}
    event = rows.column(source.event_time).cast(pa.int64()).to_numpy(zero_copy_only=False).astype(np.float64)
    if source.known_at is not None:
        known_at = rows.column(source.known_at).cast(pa.int64()).to_numpy(zero_copy_only=False).astype(np.float64)
    else:
        known_at = event + parse_duration(source.delay or "0s")
    visible = (event < at) & (known_at < at)  # NaN (a null clock) compares false: never visible
    # Of rows of one event time and one known-at the greatest id is the newest; without ids the last in the table.
    ids = None if source.sequence is None else rows.column(source.sequence).combine_chunks()
    rank = np.arange(len(event)) if ids is None else pc.rank(ids, tiebreaker="first").to_numpy()
    inputs = {}
    for output in view.outputs:
        if output.window < 0:
            oldest = -np.inf if output.max_age is None else at - output.max_age
            places = np.flatnonzero(visible & (event >= oldest))
            places = places[np.lexsort((rank[places], known_at[places], event[places]))][-1:]
        else:
            places = np.flatnonzero(visible & (event >= view.windows[output.window].start(at)))
        inputs[output.column] = rows.take(pa.array(places))
    return inputs


def same_value(left: Value, right: Value) -> bool:
    """Whether two values are equal; null and NaN are the same absence, 3 and 3.0 the same number."""
    return left == right or (_is_absent(left) and _is_absent(right))


def _is_absent(value: Value) -> bool:
    return value is None or value != value  # noqa: PLR0124  # NaN is not equal to itself
