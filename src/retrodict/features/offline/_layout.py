"""What an index of events holds: prepared events as arrays in a folder, back again, and grown by new rows.

New rows concern few keys, as a rule. All events of those keys, old and new, become a small piece of their own that
answers for them; the large piece below it stays as it is and answers for all others. So kernels know nothing of pieces:
a row of a spine is asked of one of the two, by its key. Rejected: pieces of new events only, each window merged over
both, since functions of windows that are no monoids would have to gather events from two places, and a redelivery
would have to take away an event of the piece below.

The attributes of the timeline are written as they are and read when first asked for, so a frame of latest values maps
a quarter of what windows need.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from retrodict.core.errors import IntegrityError
from retrodict.features.facts.columns import FactColumn, Ints
from retrodict.features.facts.events import Events, read_events
from retrodict.features.facts.kernels import OrderedTimeline
from retrodict.features.facts.keys import UNKNOWN, KeyIndex, key_array
from retrodict.features.offline._arrays import ArrayFolder, ArrayWriter, FolderKey
from retrodict.features.offline.prepared import Prepared, prepare_events
from retrodict.features.offline.totals import Summed, summed_of
from retrodict.features.plan import ViewPlan
from retrodict.features.windows import EVER

__all__ = ["grow_prepared", "merge_pieces", "read_prepared", "write_prepared"]

_SUMS = "sums"
_EVENTS = ("row", "event_time", "known_at", "sequence", "order", "alive")
_LINE = frozenset({"packed_event", "packed_visible", "by_visible", "ranks"})  # the lateness follows from the delay


def write_prepared(folder: Path, plan: ViewPlan, state: Prepared, note: Mapping[str, Any], key: FolderKey) -> None:
    """Write events in their total order into an empty folder, with what else a reader wants to know of them.

    One array at a time and each let go at once: the table was read whole, and should not be there three times.
    """
    extends = not plan.source.revised and state.events.sequence.dtype != object
    writer, index, inputs = ArrayWriter(folder, key), state.index, state.inputs
    for number, column in enumerate(index.distinct()):
        writer.add_column(f"key {number}", column)
    for name in plan.kept:
        writer.add_column(f"kept {name}", state.column(name))
    for text, values in inputs.items():
        writer.add(f"values {text}", values.values)
        writer.add(f"valid {text}", values.valid)
    row, one = state.array("row"), plan.source.sequence is None  # positions, where nothing else is an id
    for name, array in (("row", row), ("order", row if one else state.array("order")), ("alive", state.array("alive"))):
        writer.add(f"events {name}", array, again=one)
    del row
    if state.until is not None:
        writer.add("until", state.until)
    writer.add("events delay", state.array("known_at") - state.line.event_time)
    for name in _LINE & state.line.arrays.keys():
        writer.add(f"line {name}", state.line.arrays[name], as_is=name.startswith("packed"))
    kinds = {text: values.kind for text, values in inputs.items()}
    writer.close({**note, "extends": extends, "size": index.size, "line": state.line.numbers, "kinds": kinds})
    if plan.channels and not plan.source.revised:
        (folder / _SUMS).mkdir()
        summed_of(plan, state).write(ArrayWriter(folder / _SUMS, key.below(folder)), state.line)


def read_prepared(plan: ViewPlan, folder: ArrayFolder) -> Prepared:
    """Return events whose arrays are mapped when first asked for: of a piece, and of the one that it lies over."""
    if folder.note["over"] is None:
        return _read_piece(plan, folder)
    base = ArrayFolder(folder.folder.with_name(folder.note["over"]), folder.key)
    if base.note["over"] is not None:  # an index of the same rows took the place of the one that was there
        raise IntegrityError("an index must lie over a whole one", where=f"index {folder.folder.parent.name}")
    return replace(_read_piece(plan, base), newer=_read_piece(plan, folder))


def _read_piece(plan: ViewPlan, folder: ArrayFolder) -> Prepared:
    keys = [folder.column(f"key {place}") for place in range(len(plan.keys) or 1)]
    index = KeyIndex.numbered(keys, where=_where(plan))
    until = folder.array("until") if "until" in folder else None
    line = OrderedTimeline(folder.note["line"], _LineArrays(folder))
    state = Prepared(_StoredEvents(plan, folder, line), index, line, until, None)
    if (folder.folder / _SUMS).is_dir():
        sums = ArrayFolder(folder.folder / _SUMS, folder.key.below(folder.folder))
        line.memory["sums"] = Summed.read(plan, state, sums)
    return state


@dataclass(frozen=True)
class _Part:
    """Events, and which of the keys each has (a place in ``keys``)."""

    events: Events
    keys: list[pa.Array[Any]]
    codes: Ints


def grow_prepared(plan: ViewPlan, state: Prepared, rows: pa.Table, *, first_position: int) -> Prepared:
    """Return the events with new rows of the table: ``newer`` then holds all events of the keys these touch, too.

    Parameters
    ----------
    plan : ViewPlan
        The view.
    state : Prepared
        Events of an index.
    rows : pyarrow.Table
        What was appended since.
    first_position : int
        How many rows the table had before.
    """
    new = read_events(plan, rows, first_position=first_position)
    new = replace(new, row=new.row + first_position)  # of equal redeliveries the first row counts
    keys = [key_array(column, where=_where(plan)) for column in new.keys(plan)]
    codes = state.index.locate(keys, names=plan.keys)
    if state.newer is not None:
        codes[state.outdated[codes]] = UNKNOWN
    example = np.full(state.index.size, -1, dtype=np.int64)  # a row of each key that is touched for the first time
    example[codes[codes >= 0]] = np.flatnonzero(codes >= 0)
    touched = np.flatnonzero(example >= 0)
    begin, end = _ranges(state.line, touched)
    if 2 * (end - begin).sum() > len(state.line.packed_event):  # all at once: both will be merged in any case
        parts = [_rest(plan, state)]
    else:
        parts = [_part(state, [key.take(pa.array(example[touched])) for key in keys], touched)]
    if state.newer is not None:
        parts.append(_part(state.newer, _keys(plan, state.newer.index), None))
    parts.append(_Part(replace(new, table=new.table.select(plan.kept)), keys, np.arange(len(new.row))))
    return replace(state, newer=_merged(plan, parts))


def merge_pieces(plan: ViewPlan, state: Prepared) -> Prepared:
    """Sort the events of both pieces together: a merge, for they are in order already."""
    newer = state.newer
    assert newer is not None
    if state.outdated[:UNKNOWN].all():
        return newer
    return _merged(plan, [_rest(plan, state), _part(newer, _keys(plan, newer.index), None)])


def _merged(plan: ViewPlan, parts: Sequence[_Part]) -> Prepared:
    index = KeyIndex(
        [pa.concat_arrays(columns) for columns in zip(*(p.keys for p in parts), strict=True)], where=_where(plan)
    )
    numbers = np.split(index.codes, np.cumsum([len(part.keys[0]) for part in parts])[:-1])
    codes = np.concatenate([number[part.codes] for number, part in zip(numbers, parts, strict=True)])
    events = [part.events for part in parts]
    arrays = {name: np.concatenate([getattr(e, name) for e in events]) for name in _EVENTS}
    inputs = {text: _joined([e.inputs[text] for e in events]) for text in events[0].inputs}
    return prepare_events(
        plan, Events(pa.concat_tables(e.table for e in events), inputs=inputs, **arrays), index, codes
    )


def _rest(plan: ViewPlan, state: Prepared) -> _Part:
    """Events of all keys that are not asked of ``newer``."""
    keys, size = _keys(plan, state.index), state.index.size
    rest = np.arange(size) if state.newer is None else np.flatnonzero(~state.outdated[:UNKNOWN])
    return _part(state, [key.take(pa.array(rest)) for key in keys], rest)


def _ranges(line: OrderedTimeline, numbers: Ints) -> tuple[Ints, Ints]:
    """Places of the first event of some keys, and after the last."""
    begin, end = (line.before_event(at, np.full_like(at, EVER)) for at in (numbers, numbers + 1))
    return begin, end


def _part(state: Prepared, keys: list[pa.Array[Any]], numbers: Ints | None) -> _Part:
    """Events of some keys by number, in order; None: of all."""
    events, line = state.events, state.line
    if numbers is None or len(numbers) == state.index.size:
        return _Part(events if state.places is None else events.take(state.places), keys, line.codes)
    begin, end = _ranges(line, numbers)
    sizes = end - begin
    places = np.arange(sizes.sum()) + np.repeat(begin - (np.cumsum(sizes) - sizes), sizes)
    selection = events.take(places if state.places is None else state.places[places])
    return _Part(selection, keys, np.repeat(np.arange(len(sizes)), sizes))


def _keys(plan: ViewPlan, index: KeyIndex) -> list[pa.Array[Any]]:
    """Key columns in the order of the numbers; an index that was read again gives its own order as distinct ones."""
    keys = index.distinct()
    order = np.argsort(index.locate(keys, names=plan.keys))
    return [key.take(pa.array(order)) for key in keys]


def _where(plan: ViewPlan) -> str:
    return f"{plan.where}, source {plan.source.name!r}"


def _joined(columns: Sequence[FactColumn]) -> FactColumn:
    values, valid = (np.concatenate([getattr(column, name) for column in columns]) for name in ("values", "valid"))
    return FactColumn(values, valid, columns[0].kind)


class _StoredEvents(Events):
    """Events of an index."""

    def __init__(self, plan: ViewPlan, folder: ArrayFolder, line: OrderedTimeline) -> None:
        # Not the fields: those are read by __getattr__, which Python asks for what is not there yet.
        self.__dict__.update(_plan=plan, _folder=folder, _line=line)

    def take(self, rows: Ints) -> Events:
        """Return some of the events; of the others nothing is made wider or worked out."""
        folder: ArrayFolder = self.__dict__["_folder"]
        event_time = self.__dict__["_line"].moments_of(rows)
        inputs = {
            text: FactColumn(folder.array(f"values {text}", rows), folder.array(f"valid {text}", rows), kind)
            for text, kind in folder.note["kinds"].items()
        }
        row, order, alive = (folder.array(f"events {name}", rows) for name in ("row", "order", "alive"))
        known_at = event_time + folder.array("events delay", rows)
        return Events(self.table.take(rows), row, event_time, known_at, order, order, inputs, alive)

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
