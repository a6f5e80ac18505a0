"""What an index of events holds: prepared events as arrays in a folder, back again, and merged with new ones.

The attributes of the timeline are written as they are and read when first asked for, so a frame of latest values maps
a quarter of what windows need.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from retrodict.core.errors import InternalError
from retrodict.features.facts.columns import FactColumn, pick
from retrodict.features.facts.events import Events, read_events
from retrodict.features.facts.kernels import Timeline
from retrodict.features.facts.keys import KeyIndex, key_array
from retrodict.features.offline._arrays import ArrayFolder, ArrayWriter
from retrodict.features.offline.prepared import Prepared, prepare_events
from retrodict.features.offline.totals import Summed
from retrodict.features.plan import ViewPlan

__all__ = ["merge_prepared", "read_prepared", "write_prepared"]

_SUMS = "sums"
_EVENTS = ("row", "event_time", "known_at", "sequence", "order", "alive")


def write_prepared(folder: Path, plan: ViewPlan, state: Prepared, note: Mapping[str, Any]) -> None:
    """Write events in their total order into an empty folder, with what else a reader wants to know of them.

    One array at a time and each let go at once: the table was read whole, and should not be there three times.
    """
    extends = not plan.source.revised and state.events.sequence.dtype != object
    kinds = {text: column.kind for text, column in state.events.inputs.items()}
    writer, index, place = ArrayWriter(folder), state.index, state.line.by_event
    for number, key in enumerate(index.distinct()):
        writer.add_column(f"key {number}", key)
    for name in plan.kept:
        writer.add_column(f"kept {name}", pick(state.events.table, name, where=plan.where).take(pa.array(place)))
    for text, column in state.events.inputs.items():
        writer.add(f"values {text}", column.values[place])
        writer.add(f"valid {text}", column.valid[place])
    for name in ("row", "alive"):
        writer.add(f"events {name}", getattr(state.events, name)[place])
    if state.until is not None:
        writer.add("until", state.until[place])
    event_time, known_at, order = (getattr(state.events, name)[place] for name in ("event_time", "known_at", "order"))
    codes = state.line.codes[place]
    del state, place
    line = Timeline(codes, event_time, known_at, order, index.size)
    for name, array in (("event_time", event_time), ("known_at", known_at), ("sequence", order), ("order", order)):
        writer.add(f"events {name}", array, again=True)
    numbers = _write_line(writer, line)
    del line, event_time, known_at, order, codes
    writer.close({**note, "extends": extends, "size": index.size, "line": numbers, "kinds": kinds})
    if plan.channels and not plan.source.revised:
        state = read_prepared(plan, ArrayFolder(folder))
        (folder / _SUMS).mkdir()
        Summed(plan, state, {}).write(ArrayWriter(folder / _SUMS), state.line)


def _write_line(writer: ArrayWriter, line: Timeline) -> dict[str, int | None]:
    """Write the arrays of a timeline, and return its numbers."""
    numbers: dict[str, int | None] = {}
    for name, value in vars(line).items():
        if isinstance(getattr(Timeline, name, None), cached_property):
            continue
        if isinstance(value, np.ndarray):
            writer.add(f"line {name}", value, again=True)
        elif value is None or isinstance(value, int):
            numbers[name] = value
        else:
            raise InternalError("a timeline must be arrays and whole numbers", where="index of events", got=name)
    return numbers


def read_prepared(plan: ViewPlan, folder: ArrayFolder) -> Prepared:
    """Return events whose arrays are mapped when first asked for."""
    keys = _key_columns(plan, folder)
    index = KeyIndex.numbered(keys, where=f"{plan.where}, source {plan.source.name!r}")
    until = folder.array("until") if "until" in folder else None
    state = Prepared(_StoredEvents(plan, folder), index, _StoredLine(folder), until)
    if (folder.folder / _SUMS).is_dir():
        state.line.memory["sums"] = Summed.read(plan, state, ArrayFolder(folder.folder / _SUMS))
    return state


def _key_columns(plan: ViewPlan, folder: ArrayFolder) -> list[pa.Array[Any]]:
    return [folder.column(f"key {place}") for place in range(len(plan.keys) or 1)]


def merge_prepared(plan: ViewPlan, folder: ArrayFolder, rows: pa.Table) -> Prepared:
    """Sort events of an index together with new rows of the table: a merge, for most are in order already."""
    old = _StoredEvents(plan, folder)
    new = read_events(plan, rows, first_position=folder.note["rows"])
    new = replace(new, row=new.row + folder.note["rows"])  # of equal redeliveries the first row counts
    where, size = f"{plan.where}, source {plan.source.name!r}", folder.note["size"]
    old_keys = _key_columns(plan, folder)
    fresh = [key_array(column, where=where) for column in new.keys(plan)]
    index = KeyIndex([pa.concat_arrays([a, b]) for a, b in zip(old_keys, fresh, strict=True)], where=where)
    codes = np.concatenate([index.codes[:size][folder.array("line codes")], index.codes[size:]])
    arrays = {name: np.concatenate([getattr(old, name), getattr(new, name)]) for name in _EVENTS}
    inputs = {text: _joined(old.inputs[text], column) for text, column in new.inputs.items()}
    table = pa.concat_tables([old.table, new.table.select(plan.kept)])
    return prepare_events(plan, Events(table=table, inputs=inputs, **arrays), index, codes)


def _joined(old: FactColumn, new: FactColumn) -> FactColumn:
    return FactColumn(np.concatenate([old.values, new.values]), np.concatenate([old.valid, new.valid]), old.kind)


class _StoredEvents(Events):
    """Events of an index."""

    def __init__(self, plan: ViewPlan, folder: ArrayFolder) -> None:
        # Not the fields: those are read by __getattr__, which Python asks for what is not there yet.
        self.__dict__.update(_plan=plan, _folder=folder)

    def __getattr__(self, name: str) -> Any:
        folder: ArrayFolder = self.__dict__["_folder"]
        if name in _EVENTS:
            value: Any = folder.array(f"events {name}")
        elif name == "table":
            value = pa.table({column: folder.column(f"kept {column}") for column in self.__dict__["_plan"].kept})
        elif name == "inputs":
            value = {
                text: FactColumn(folder.array(f"values {text}"), folder.array(f"valid {text}"), kind)
                for text, kind in folder.note["kinds"].items()
            }
        else:
            raise AttributeError(name)
        self.__dict__[name] = value
        return value


class _StoredLine(Timeline):
    """Timeline of an index."""

    def __init__(self, folder: ArrayFolder) -> None:
        self.__dict__.update(folder.note["line"], _folder=folder)

    def __getattr__(self, name: str) -> Any:
        folder: ArrayFolder = self.__dict__["_folder"]
        if f"line {name}" not in folder:
            raise AttributeError(name)
        self.__dict__[name] = folder.array(f"line {name}")
        return self.__dict__[name]
