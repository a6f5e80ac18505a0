"""Kept training frames as tables: what their versions say, which there are, and their rows as they were computed.

A map (histogram, by) is kept as the list of its pairs, which every reader of tables here compares and filters; reading
the frame makes it a map again. Delta's own map type was rejected: DuckDB, Polars and Spark each make another thing of
it (Polars this list), and Spark compares no maps.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from retrodict.core.errors import InputError, NotFoundError, near
from retrodict.data.versions.rollback import content_version
from retrodict.stores.tables.base import TableStore, TableVersion
from retrodict.workspace import Workspace

__all__ = ["NOTE", "PART", "KeptFrame", "find_frame", "frame_rows", "kept_frames", "newest_origin", "stored"]

NOTE = "retrodict.frame"
"""Under which name a version says what it was made from."""
PART = "_batch"
"""Column that says with which part of the spine a row came; every table has it."""


@dataclass(frozen=True, slots=True)
class KeptFrame:
    """A frame that lies in a table.

    Attributes
    ----------
    name : str
        The table.
    version : int
        Its version.
    rows : int
        Rows of the frame.
    computed : int
        How many of them were computed by this call; the others were there.
    origin : dict
        What it was made from: ``at``, ``features`` (views and derived functions to their hashes), ``columns``, ``code``
        (hash of the Python files beside the definitions, if derived functions may call them; and the object that holds
        all of them), ``spine`` (``ref``, ``origin``, ``columns``, rows and SHA-256 of each part), ``sources`` (table,
        version and hash of its files by source), ``maps`` (columns kept as lists of pairs), ``until`` (latest time of
        its rows), ``complete`` (False while an interrupted run waits to be gone on with).

    Examples
    --------
    >>> frame = find_frame(workspace, "departures")  # doctest: +SKIP
    >>> frame.rows, frame.origin["sources"]["landed"]["version"]  # doctest: +SKIP
    (104000, 12)
    """

    name: str
    version: int
    rows: int
    computed: int
    origin: dict[str, Any]

    @property
    def spine_table(self) -> str | None:
        """Table that is its spine, which can be read again once it grew; None if that was a file."""
        kind, _, name = str(self.origin["spine"]["ref"]).partition(":")
        return name.partition("@")[0] if kind == "dataset" else None

    def to_dict(self) -> dict[str, Any]:
        """Plain form for ``--json``."""
        return {"dataset": f"dataset:{self.name}@{self.version}", "name": self.name, "version": self.version,
                "rows": self.rows, **self.origin}  # fmt: skip


def stored(frame: pa.Table, batch: str) -> pa.Table:
    """Columns as tables keep them: a map as the list of its pairs, which every reader of Delta knows."""
    for place, field in enumerate(frame.schema):
        if pa.types.is_map(field.type):
            pair = pa.struct([pa.field("key", field.type.key_type), pa.field("value", field.type.item_type)])
            frame = frame.set_column(place, field.name, frame.column(place).cast(pa.list_(pair)))
    batches = pa.DictionaryArray.from_arrays(pa.array(np.zeros(frame.num_rows, np.int32)), pa.array([batch]))
    return frame.append_column(PART, batches)


def frame_rows(workspace: Workspace, name: str, version: int | None = None) -> pa.RecordBatchReader:
    """Rows of a kept frame as the training frame gave them: maps are maps, and nothing is added.

    Parameters
    ----------
    workspace : Workspace
    name : str
        Table of the frame.
    version : int, optional
        None: the newest.

    Raises
    ------
    NotFoundError
        If there is no such frame, or the version holds none.
    """
    frame = find_frame(workspace, name, version)
    names = [column for column in workspace.tables.schema(name, frame.version).names if column != PART]
    reader = workspace.tables.batches(name, frame.version, columns=names)
    maps = set(frame.origin["maps"])
    schema = pa.schema([pa.field(f.name, _map_type(f.type) if f.name in maps else f.type) for f in reader.schema])
    batches = (
        pa.RecordBatch.from_arrays(
            [column.view(field.type) if field.name in maps else column
             for field, column in zip(schema, batch.columns, strict=True)], schema=schema,
        )
        for batch in reader
    )  # fmt: skip
    return pa.RecordBatchReader.from_batches(schema, batches)


def _map_type(kind: pa.ListType) -> pa.MapType:
    pair = kind.value_type
    return pa.map_(pair.field("key").type, pair.field("value").type)


def find_frame(workspace: Workspace, name: str, version: int | None = None) -> KeptFrame:
    """Kept frame by name; NotFoundError has near names."""
    history = workspace.tables.history(name)
    number = version if version is not None or not history else history[-1].version
    frame = None if number is None else _frame(workspace.tables, name, number)
    if frame is None:
        names = [entry.name for entry in kept_frames(workspace)]
        raise NotFoundError("a frame must be kept under this name", where="frames", got=name,
                            remedy=near(name, names, what="frame"))  # fmt: skip
    return frame


def kept_frames(workspace: Workspace) -> list[KeptFrame]:
    """Every kept frame as its newest version has it, by name."""
    tables = workspace.tables
    frames = [_frame(tables, name, tables.history(name)[-1].version) for name in tables.names()]
    return [frame for frame in frames if frame is not None]


def _frame(tables: TableStore, name: str, version: int) -> KeptFrame | None:
    note = _note_of(name, tables.history(name), version)
    if note is None:
        return None
    return KeptFrame(name, version, sum(rows for rows, _ in note["spine"]["parts"]), 0, note)


def _note_of(name: str, history: Sequence[TableVersion], version: int) -> dict[str, Any] | None:
    """What a version says it was made from; one that was compacted or restored has the rows of an older one."""
    by_number = {entry.version: entry for entry in history}
    if version not in by_number:
        return None
    text = by_number[content_version(name, list(history), version)].metadata.get(NOTE)
    return None if text is None else dict(json.loads(text))


def newest_origin(tables: TableStore, name: str) -> dict[str, Any] | None:
    """What the newest version was made from; empty if it does not say, None if there is no table yet."""
    history = tables.history(name)
    if not history:
        return None
    if not any(NOTE in version.metadata for version in history):
        raise InputError(
            "the table of a kept frame must hold nothing else",
            where=f"frame {name}",
            remedy="Give the frame another name",
        )
    return _note_of(name, history, history[-1].version) or {}
