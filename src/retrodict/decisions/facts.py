"""The facts behind one decision, read again from the tables: what replay recomputes and lineage lists.

Rows of other entities are left out first. That changes no value (a view looks at its own entity only) and turns seconds
into milliseconds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, reduce
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from retrodict.core.durations import parse_duration
from retrodict.decisions.records import DecisionRecord, Value
from retrodict.features.catalogue.tables import declared_schemas
from retrodict.features.facts.columns import pick
from retrodict.features.facts.keys import key_array
from retrodict.features.offline import training_frame
from retrodict.features.online import Place, stream_of, streamed_rows
from retrodict.features.plan import FeatureSet, ViewPlan
from retrodict.stores.tables.base import TableFile, TableStore, files_id
from retrodict.workspace import Workspace

__all__ = [
    "BATCH",
    "ReadRows",
    "newest_rows",
    "newest_versions",
    "read_facts",
    "recompute",
    "recompute_many",
    "same_value",
    "typed_column",
    "view_rows",
]

_AT = "_decide_at"
BATCH = "_batch"
"""Column of a table that names the batch a row came with."""


def newest_versions(workspace: Workspace, features: FeatureSet) -> dict[str, int]:
    """Newest version of each table that the features' sources read."""
    names = {source.table.name for source in features.sources.values()}
    return {name: workspace.tables.history(name)[-1].version for name in sorted(names)}


@dataclass
class ReadRows:
    """Rows of each source as the online state of some views of a decision had them.

    Attributes
    ----------
    views : frozenset of str
        Which views: usually all; of one source, one may have followed its table a moment before another.
    rows : dict of str to pyarrow.Table
        By source, in the order of table and stream, of the entities of the request only.
    versions, records : dict of str to int
        Version of each table that was read, and how many records of its stream.
    missing : dict of str to int
        Versions that the decision read and that no longer exist, by table; in ``versions`` is what follows them.
    rewritten : dict of str to int
        Versions that the decision read and that have lost rows since, by table.
    """

    views: frozenset[str]
    rows: dict[str, pa.Table] = field(default_factory=dict)
    versions: dict[str, int] = field(default_factory=dict)
    records: dict[str, int] = field(default_factory=dict)
    missing: dict[str, int] = field(default_factory=dict)
    rewritten: dict[str, int] = field(default_factory=dict)


def read_facts(workspace: Workspace, features: FeatureSet, record: DecisionRecord) -> list[ReadRows]:
    """Rows that a decision read, once for all views of a feature set unless views of one source read different ones.

    Raises
    ------
    RetrodictError
        If a stream, or a version that was not vacuumed, no longer holds what was read.
    """
    nothing: Place | None = (None, 0, None) if record.reads else None  # of a view whose key was null
    read = {view.name: record.reads.get(view.name, nothing) for view in features.views}
    options: dict[str, list[Place | None]] = {name: [] for name in features.sources}
    for view in features.views:
        if read[view.name] not in options[view.source.name]:
            options[view.source.name].append(read[view.name])
    result = []
    for number in range(max(map(len, options.values()), default=1)):
        current = {name: places[min(number, len(places) - 1)] for name, places in options.items()}
        views = frozenset(view.name for view in features.views if read[view.name] == current[view.source.name])
        facts = ReadRows(views)
        for name, place in current.items():
            readers = [view for view in features.views if view.source.name == name]
            rows = _rows(workspace, readers, place, facts)
            facts.rows[name] = rows.filter(reduce(pc.or_, [_of_entity(rows, v, record.entities) for v in readers]))
        result.append(facts)
    return result


def _rows(workspace: Workspace, views: Sequence[ViewPlan], place: Place | None, facts: ReadRows) -> pa.Table:
    """Rows of a source; of the newest version where it is not known which was read."""
    table, tables = views[0].source.table, workspace.tables
    columns = tuple(sorted({*getattr(table, "key", ()), *(name for view in views for name in view.source_columns)}))
    history = tables.history(table.name)
    version, count, records = (None, None, None) if place is None else place
    if history and (place is None or (version is not None and version < 0)):  # a state from before versions were noted
        version, count = history[-1].version, None
    parts = []
    if version is not None:
        if version < len(history) and history[version].vacuumed:
            facts.missing[table.name] = version
            version, count = next(later.version for later in history[version:] if not later.vacuumed), None
        if version < len(history) and history[version].rewritten:
            facts.rewritten[table.name] = version
            count = None if count is None else _rows_left(tables.files(table.name, version), count)
        facts.versions[table.name] = version
        state = files_id(tables.files(table.name, version))
        parts.append(_read(tables, table.name, version, (*columns, BATCH), state).slice(0, count))  # type: ignore[arg-type]  # by identity
    if records:
        facts.records[table.name] = records
        schema = tables.schema(table.name) if history else None
        parts.append(streamed_rows(workspace.events, views[0].source, columns, schema, records))
    elif not parts:
        empty = declared_schemas(workspace, FeatureSet([view.view for view in views]))[table.name].empty_table()
        parts.append(empty.select([name for name in columns if name in empty.column_names]))
    rows = pa.concat_tables(parts, promote_options="permissive")
    return rows if BATCH in rows.column_names else rows.append_column(BATCH, pa.nulls(len(rows), pa.string()))


def _rows_left(files: Sequence[TableFile], count: int) -> int:
    """How many of the first rows of a version are left of what they were before it was rewritten.

    Where they end inside a rewritten file, at most as many as lie in it.
    """
    left = 0
    for file in files:  # paths sort like the rows
        left += min(count, file.rows) if count < file.rows + file.removed else file.rows
        count -= min(count, file.rows + file.removed)
    return left


@lru_cache(maxsize=6)
def _read(tables: TableStore, name: str, version: int, columns: tuple[str, ...], state: str) -> pa.Table:
    """Columns of a version, which the next decision that is looked at may share while its files are the same."""
    del state
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
        ``rows`` of :func:`read_facts`.
    kinds : mapping of str to str
        Kind of each entity and context value, as the model's request schema says.
    """
    return recompute_many([record], features, sources, kinds)[0]


def recompute_many(
    records: Sequence[DecisionRecord], features: FeatureSet, sources: Mapping[str, pa.Table], kinds: Mapping[str, str]
) -> list[dict[str, Value]]:
    """As :func:`recompute`, of several decisions from the same rows."""
    names = [*features.request_keys, *features.request_columns]
    values = [{**record.context, **record.entities} for record in records]
    columns = {name: typed_column([row.get(name) for row in values], kinds.get(name, "text")) for name in names}
    columns[_AT] = typed_column([record.time for record in records], "time")
    table = training_frame(pa.table(columns), _AT, features, sources)
    rows: list[dict[str, Value]] = table.select(list(features.columns)).to_pylist()
    return rows


def newest_rows(workspace: Workspace, features: FeatureSet) -> dict[str, pa.Table]:
    """Rows of each source as they are now, of table and stream, of all entities."""
    rows = {}
    for name, source in features.sources.items():
        views = [view for view in features.views if view.source.name == name]
        history = workspace.tables.history(source.table.name)
        version = history[-1].version if history else None
        place = (version, None, workspace.events.end(stream_of(source.table.name)))
        rows[name] = _rows(workspace, views, place, ReadRows(frozenset()))  # type: ignore[arg-type]  # all of its rows
    return rows


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
