"""Features of many rows from online state, as a server would give them at one time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from retrodict.core.errors import InputError, check_known
from retrodict.features.catalogue.tables import declared_schemas, source_schemas
from retrodict.features.offline import training_frame
from retrodict.features.offline.texts import parse_texts, request_types
from retrodict.features.online import Upkeep, online_features
from retrodict.features.plan import FeatureSet
from retrodict.workspace import Workspace

__all__ = ["add_online_values", "check_columns"]

_ROWS = 1_000  # read together
_AT = "_at"


def check_columns(names: Sequence[str], needed: Sequence[str], *, where: str) -> None:
    """Raise InputError with near names if a key, time or input of features is missing."""
    rule = "the rows must have every key, time and input of the features"
    for name in needed:
        check_known(name, names, rule, where=where, what="column", error=InputError)


def add_online_values(
    workspace: Workspace,
    features: FeatureSet,
    columns: Sequence[str],
    rows: pa.Table,
    at: int,
    *,
    where: str = "keys",
    progress: Callable[[str, int, int], None] | None = None,
) -> tuple[pa.Table, dict[str, dict[str, int]]]:
    """Add feature values of online state to rows with keys and request values.

    Parameters
    ----------
    workspace : Workspace
    features : FeatureSet
        What to read.
    columns : sequence of str
        Features to add; the others are only what derived functions need.
    rows : pyarrow.Table
        Columns of text are read as the types of the tables.
    at : int
        Time of the requests, microseconds.
    where : str
        What to call the rows in errors.
    progress : callable, optional
        Called with (what, rows done, rows). None: silent.

    Returns
    -------
    tuple of pyarrow.Table and dict
        The rows with a column per feature, null where online state cannot say; and by view how often each status came,
        ``behind`` where the state lacks rows of its table or events of its stream.

    Raises
    ------
    InputError
        If a key or an input is missing, or text is not of its type.
    """
    check_columns(rows.column_names, [*features.request_keys, *features.request_columns], where=where)
    rows = parse_texts(rows, request_types(features, declared_schemas(workspace, features)), where=where)
    reader = online_features(workspace, features)
    statuses: dict[str, Counter[str]] = {plan.name: Counter() for plan in features.views}
    flows = Upkeep(workspace, lambda _: [features]).flows()
    lacking = {flow.version for flow in flows if flow.table.behind or any(flow.lags.values())}
    behind = {plan.name for plan in features.views if plan.view.version in lacking}
    values: list[Mapping[str, Any]] = []
    for first in range(0, rows.num_rows, _ROWS):
        if progress is not None:
            progress("online features", first, rows.num_rows)
        for row in reader.read_many(rows.slice(first, _ROWS).to_pylist(), at):
            values.append(row.values)
            for view, status in row.statuses.items():
                statuses[view]["behind" if view in behind and status in {"ok", "unseen"} else status] += 1
    types = _value_types(features, source_schemas(workspace, features), rows)
    for name in columns:
        rows = rows.append_column(name, _column([row[name] for row in values], types.get(name)))
    return rows, {view: dict(counts) for view, counts in statuses.items()}


def _value_types(features: FeatureSet, schemas: Mapping[str, pa.Schema], rows: pa.Table) -> dict[str, pa.DataType]:
    """Types that a training frame of no rows has; none where a table is empty: nothing was ever stored, either."""
    if any(table not in schemas for table in features.tables):
        return {}
    spine = rows.slice(0, 0).append_column(_AT, pa.array([], pa.timestamp("us", "UTC")))
    sources = {name: schemas[source.table.name].empty_table() for name, source in features.sources.items()}
    schema = training_frame(spine, _AT, features, sources).schema
    return {name: schema.field(name).type for name in features.columns}


def _column(values: list[Any], type_: pa.DataType | None) -> pa.Array[Any]:
    if type_ is not None and pa.types.is_timestamp(type_):
        return pa.array(values, pa.int64()).cast(type_)
    return pa.array(values, None if type_ is None or pa.types.is_null(type_) else type_)
