"""What an index of events holds: prepared events as arrays in a folder, back again, and merged with new ones.

The attributes of the timeline are written as they are and read when first asked for, so a frame of latest values maps
a quarter of what windows need.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from retrodict.features.facts.columns import FactColumn
from retrodict.features.facts.events import Events, read_events
from retrodict.features.facts.kernels import OrderedTimeline
from retrodict.features.facts.keys import KeyIndex, key_array
from retrodict.features.offline._arrays import ArrayFolder, ArrayWriter
from retrodict.features.offline.prepared import Prepared, prepare_events
from retrodict.features.offline.totals import Summed, summed_of
from retrodict.features.plan import ViewPlan

__all__ = ["merge_prepared", "read_prepared", "write_prepared"]

_SUMS = "sums"
_EVENTS = ("row", "event_time", "known_at", "sequence", "order", "alive")
_LINE = frozenset({"packed_event", "packed_visible", "by_visible", "ranks"})  # the lateness follows from the delay


def write_prepared(folder: Path, plan: ViewPlan, state: Prepared, note: Mapping[str, Any]) -> None:
    """Write events in their total order into an empty folder, with what else a reader wants to know of them.

    One array at a time and each let go at once: the table was read whole, and should not be there three times.
    """
    extends = not plan.source.revised and state.events.sequence.dtype != object
    writer, index, inputs = ArrayWriter(folder), state.index, state.inputs
    for number, key in enumerate(index.distinct()):
        writer.add_column(f"key {number}", key)
    for name in plan.kept:
        writer.add_column(f"kept {name}", state.column(name))
    for text, column in inputs.items():
        writer.add(f"values {text}", column.values)
        writer.add(f"valid {text}", column.valid)
    row, one = state.array("row"), state.events.order is state.events.row  # positions, where nothing else is an id
    for name, array in (("row", row), ("order", row if one else state.array("order")), ("alive", state.array("alive"))):
        writer.add(f"events {name}", array, again=one)
    del row
    if state.until is not None:
        writer.add("until", state.until)
    writer.add("events delay", state.array("known_at") - state.line.event_time)
    for name in _LINE & state.line.arrays.keys():
        writer.add(f"line {name}", state.line.arrays[name], as_is=name.startswith("packed"))
    kinds = {text: column.kind for text, column in inputs.items()}
    writer.close({**note, "extends": extends, "size": index.size, "line": state.line.numbers, "kinds": kinds})
    if plan.channels and not plan.source.revised:
        (folder / _SUMS).mkdir()
        summed_of(plan, state).write(ArrayWriter(folder / _SUMS), state.line)


def read_prepared(plan: ViewPlan, folder: ArrayFolder) -> Prepared:
    """Return events whose arrays are mapped when first asked for."""
    keys = _key_columns(plan, folder)
    index = KeyIndex.numbered(keys, where=f"{plan.where}, source {plan.source.name!r}")
    until = folder.array("until") if "until" in folder else None
    line = OrderedTimeline(folder.note["line"], _LineArrays(folder))
    state = Prepared(_StoredEvents(plan, folder, line), index, line, until, None)
    if (folder.folder / _SUMS).is_dir():
        line.memory["sums"] = Summed.read(plan, state, ArrayFolder(folder.folder / _SUMS))
    return state


def _key_columns(plan: ViewPlan, folder: ArrayFolder) -> list[pa.Array[Any]]:
    return [folder.column(f"key {place}") for place in range(len(plan.keys) or 1)]


def merge_prepared(plan: ViewPlan, folder: ArrayFolder, rows: pa.Table) -> Prepared:
    """Sort events of an index together with new rows of the table: a merge, for most are in order already."""
    stored = read_prepared(plan, folder)
    old = stored.events
    new = read_events(plan, rows, first_position=folder.note["rows"])
    new = replace(new, row=new.row + folder.note["rows"])  # of equal redeliveries the first row counts
    where, size = f"{plan.where}, source {plan.source.name!r}", folder.note["size"]
    old_keys = _key_columns(plan, folder)
    fresh = [key_array(column, where=where) for column in new.keys(plan)]
    index = KeyIndex([pa.concat_arrays([a, b]) for a, b in zip(old_keys, fresh, strict=True)], where=where)
    codes = np.concatenate([index.codes[:size][stored.line.codes], index.codes[size:]])
    arrays = {name: np.concatenate([getattr(old, name), getattr(new, name)]) for name in _EVENTS}
    inputs = {text: _joined(old.inputs[text], column) for text, column in new.inputs.items()}
    table = pa.concat_tables([old.table, new.table.select(plan.kept)])
    return prepare_events(plan, Events(table=table, inputs=inputs, **arrays), index, codes)


def _joined(old: FactColumn, new: FactColumn) -> FactColumn:
    return FactColumn(np.concatenate([old.values, new.values]), np.concatenate([old.valid, new.valid]), old.kind)


class _StoredEvents(Events):
    """Events of an index."""

    def __init__(self, plan: ViewPlan, folder: ArrayFolder, line: OrderedTimeline) -> None:
        # Not the fields: those are read by __getattr__, which Python asks for what is not there yet.
        self.__dict__.update(_plan=plan, _folder=folder, _line=line)

    def __getattr__(self, name: str) -> Any:
        folder: ArrayFolder = self.__dict__["_folder"]
        if name == "event_time":
            value: Any = self.__dict__["_line"].event_time
        elif name == "known_at":
            value = self.event_time + folder.array("events delay")
        elif name in _EVENTS:  # an index that can be extended has ids that are their own order
            value = folder.array("events order" if name == "sequence" else f"events {name}")
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


class _LineArrays(Mapping[str, Any]):
    """Arrays of the timeline of an index."""

    def __init__(self, folder: ArrayFolder) -> None:
        self._folder = folder

    def __getitem__(self, name: str) -> Any:
        if name == "lateness":
            return np.maximum(self._folder.array("events delay"), 0)
        return self._folder.array(f"line {name}")

    def __contains__(self, name: object) -> bool:
        return f"line {name}" in self._folder or (name == "lateness" and self._folder.note["line"]["late"] is None)

    def __iter__(self) -> Iterator[str]:
        return (name for name in (*_LINE, "lateness") if name in self)

    def __len__(self) -> int:
        return sum(1 for _ in self)
