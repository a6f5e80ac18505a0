"""Rows and records of the subjects of an erasure, wherever a project has them.

A row belongs to a subject by its key columns. A row in quarantine has them only in its original text, as somebody wrote
them: it belongs to a subject if a value reads as the key. Other columns may hold the same value under another name,
which only a person can judge: those are counted and named.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from retrodict.core.errors import DefinitionError
from retrodict.core.kinds import kind_of, reader_of
from retrodict.features.definitions import Entity
from retrodict.features.facts.columns import Mask, pick
from retrodict.features.facts.keys import KeyIndex
from retrodict.features.online import decode_event, stream_of
from retrodict.features.operations.remains import is_telling
from retrodict.workspace import Workspace

__all__ = ["ORIGINAL", "belonging", "find_subjects", "set_aside"]

ORIGINAL = ("original",)
"""Columns of a quarantine table that tell whose a row is: the row as it came, in JSON."""


def belonging(rows: pa.RecordBatch | pa.Table, entity: Entity, subjects: KeyIndex) -> Mask:
    """Rows whose key columns are those of a subject."""
    table = rows if isinstance(rows, pa.Table) else pa.Table.from_batches([rows])
    columns = [pick(table, key, where=f"entity {entity.name!r}") for key in entity.keys]
    return subjects.locate(columns, names=entity.keys) >= 0


def set_aside(rows: pa.RecordBatch, keys: pa.Table) -> Mask:
    """Rows of a quarantine whose original values read as the key of a subject (a row of ``keys``)."""
    readers = [reader_of(kind_of(field.type), text=True) for field in keys.schema]
    subjects = set(zip(*(_plain(column) for column in keys.columns), strict=True))
    originals = (json.loads(text) for text in rows.column("original").to_pylist())
    mask = [
        isinstance(original, Mapping)
        and tuple(_read(read, original.get(name)) for read, name in zip(readers, keys.column_names, strict=True))
        in subjects
        for original in originals
    ]
    return np.array(mask, dtype=np.bool_)


def _plain(column: pa.ChunkedArray[Any]) -> list[Any]:
    """Values as the readers of JSON give them: times as microseconds."""
    values: list[Any] = (column.cast(pa.int64()) if pa.types.is_timestamp(column.type) else column).to_pylist()
    return values


def _read(read: Callable[[Any], Any], value: Any) -> Any:
    try:
        return read(value.strip() if isinstance(value, str) else value)
    except (TypeError, ValueError):
        return None  # what is no value of the key's kind is nobody's key


def find_subjects(
    workspace: Workspace, erased: Sequence[str], entity: Entity, keys: pa.Table, subjects: KeyIndex
) -> dict[str, int | None]:
    """Where subjects are beside the tables that they are erased from; rows or records by place, 0 left out."""
    counts: dict[str, int | None] = {}
    for name in workspace.tables.names():
        names = workspace.tables.schema(name).names
        if name not in erased and set(entity.keys) <= set(names):
            counts[f"table {name}"] = _in_keys(workspace, name, entity, subjects)
        if len(entity.keys) == 1:
            counts |= _in_other_columns(workspace, name, entity.keys[0], keys.column(0))
    for name in erased:
        counts[f"stream {stream_of(name)}"] = _in_stream(workspace, stream_of(name), entity, subjects)
    return {name: rows for name, rows in counts.items() if rows != 0}


def _in_keys(workspace: Workspace, name: str, entity: Entity, subjects: KeyIndex) -> int | None:
    batches = workspace.tables.batches(name, columns=list(entity.keys))
    try:
        return sum(int(belonging(batch, entity, subjects).sum()) for batch in batches if batch.num_rows)
    except DefinitionError:  # quarantined rows may be text where the table holds numbers
        return None


def _in_other_columns(workspace: Workspace, name: str, key: str, subjects: pa.ChunkedArray[Any]) -> dict[str, int]:
    kind = kind_of(subjects.type)
    values = [value for value in subjects.to_pylist() if is_telling(value)]
    columns = [f.name for f in workspace.tables.schema(name) if f.name != key and kind_of(f.type) == kind]
    columns = [column for column in columns if not column.startswith("_")]
    counts = dict.fromkeys(columns, 0)
    for batch in workspace.tables.batches(name, columns=columns) if values and columns else ():
        for column in columns:
            sought = pa.array(values).cast(batch.schema.field(column).type)
            matches = pc.is_in(batch.column(column), value_set=sought)
            if column in ORIGINAL and kind == "text":
                matches = reduce(pc.or_, [pc.match_substring(batch.column(column), _as_json(v)) for v in values])
            counts[column] += pc.sum(matches).as_py() or 0
    return {f"table {name}, column {column}": rows for column, rows in counts.items()}


def _as_json(value: object) -> str:
    """Spell a text as it stands in the original rows, whose letters are no escapes."""
    return json.dumps(value, ensure_ascii=False)


def _in_stream(workspace: Workspace, stream: str, entity: Entity, subjects: KeyIndex) -> int | None:
    events = (decode_event(record) for _, record in workspace.events.read(stream))
    rows = [[event.get(key) for key in entity.keys] for event in events]
    if not rows:
        return 0
    try:
        columns = [pa.array(column) for column in zip(*rows, strict=True)]
        return int((subjects.locate(columns, names=entity.keys) >= 0).sum())
    except (DefinitionError, pa.ArrowInvalid, pa.ArrowTypeError):
        return None
