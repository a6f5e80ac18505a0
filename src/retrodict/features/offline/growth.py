"""Whether what was computed before still stands, now that the tables behind it have more rows.

A row of a frame that was asked at q sees only facts with both clocks before q. So rows that were appended to a table
change nothing that was asked before the first of them became visible: what was computed once is what would be computed
now. Comparing version numbers alone was rejected: tables grow every day, and every frame would be made anew every day.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from retrodict.data.sources import Source
from retrodict.features.facts.columns import times
from retrodict.features.plan import FeatureSet
from retrodict.stores.tables.base import TableStore, files_id

__all__ = ["source_versions", "visible_growth"]


def source_versions(tables: TableStore, features: FeatureSet, versions: Mapping[str, int]) -> dict[str, dict[str, Any]]:
    """Table, version and hash of its data files, by source."""
    states = {}
    for name, source in features.sources.items():
        table = source.table.name
        files = files_id(tables.files(table, versions[table]))
        states[name] = {"table": table, "version": versions[table], "files": files}
    return states


def visible_growth(
    tables: TableStore, features: FeatureSet, before: Mapping[str, Any], now: Mapping[str, Any], until: int | None
) -> str | None:
    """Why rows that were computed from older versions would come out otherwise today; None if they would not.

    ``before`` and ``now`` are what :func:`source_versions` gave then and gives now, ``until`` is the latest time of the
    rows that were computed, in microseconds (None: there were none). The sentence has counts and names, no values.
    """
    if until is None:
        return None
    for name, source in features.sources.items():
        then, present = before.get(name), now[name]
        if then is None:
            return f"nothing is known of the version of source {name} that it was made from"
        if then["files"] != present["files"] and (why := _changes(tables, features, source, then, present, until)):
            return why
    return None


def _changes(
    tables: TableStore,
    features: FeatureSet,
    source: Source,
    then: Mapping[str, Any],
    now: Mapping[str, Any],
    until: int,
) -> str | None:
    table, since = now["table"], f"since version {then['version']}"
    paths = {file.path: file.rows for file in tables.files(table, now["version"])}
    before = {file.path for file in tables.files(table, then["version"])}
    if not before <= paths.keys():
        return f"table {table} was rewritten {since}"
    read = {column for plan in features.views if plan.source.name == source.name for column in plan.source_columns}
    schemas = [tables.schema(table, source_state["version"]) for source_state in (then, now)]
    if any(_types(schema, read) != _types(schemas[0], read) for schema in schemas):
        return f"columns of table {table} have other types {since}"
    if source.timeless:
        return f"table {table} has more rows {since}, and facts without a time count at every time"
    appended = [path for path in sorted(paths) if path not in before]
    late = _visible_before(tables.dataset(table, now["version"], paths=appended), source, until)
    return (
        f"{late} rows of table {table} that came {since} could have been seen by rows that it holds" if late else None
    )


def _types(schema: pa.Schema, columns: set[str]) -> dict[str, pa.DataType]:
    return {field.name: field.type for field in schema if field.name in columns}


def _visible_before(rows: Any, source: Source, until: int) -> int:
    """Rows of a dataset that a request at ``until`` sees, or whose revision it sees."""
    clocks = [column for column in (source.event_time, source.known_at) if column is not None]
    count = 0
    for batch in rows.to_batches(columns=clocks):
        read = [times(batch.column(clock), where=f"source {source.name!r}, column {clock!r}") for clock in clocks]
        (event, present), (known_at, known_present) = read[0], read[-1]
        known_at = known_at if source.known_at is not None else known_at + source.delay_us
        # A revision counts from when it is known, wherever it moves its event to.
        moment = known_at if source.revised else np.maximum(event, known_at)
        count += int(((moment < until) & known_present & (present | source.revised)).sum())
    return count
