"""Arrivals: the events of one batch for one view, as rows of words ready to be merged into blocks.

Everything that can be done for all events at once is done here, in NumPy: a stream of micro-batches and a backfill of
millions of events are the same work.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from retrodict.core.kinds import kind_of
from retrodict.core.statistics.exact import Shifted, magnitudes, split_limbs
from retrodict.features.facts.bags import Values, check_types
from retrodict.features.facts.columns import Ints, Mask, list_numbers, pick, plain
from retrodict.features.facts.events import Events, lift
from retrodict.features.facts.keys import KeyIndex, encode_key, key_kind
from retrodict.features.online.state.blocks import (
    BOOL,
    DATE,
    FLAGS,
    FLOAT,
    IN_HEAP,
    INT,
    LIST,
    NULL,
    TEXT,
    Layout,
    Shape,
    summed,
)
from retrodict.features.plan import ViewPlan

_KINDS = {
    "bool": BOOL, "int": INT, "float": FLOAT, "time": INT, "date": DATE, "text": TEXT, "list": LIST, "null": NULL
}  # fmt: skip
_MOST_LIMBS = 6  # of one sum, in the layout that keys share
_REACH = 66  # binary orders of magnitude around the median that fit into that many


@dataclass(frozen=True)
class Texts:
    """Texts of a column in some order: one buffer of UTF-8, and where each begins; lists as the bytes of doubles."""

    offsets: Ints
    data: memoryview

    @classmethod
    def of(cls, column: pa.Array[Any]) -> Texts:
        """Texts of a column of large strings, nulls as nothing."""
        if not len(column):
            return cls(np.zeros(1, dtype=np.int64), memoryview(b""))
        column = pc.fill_null(column, "")
        _, offsets, data = column.buffers()
        places = np.frombuffer(offsets, dtype=np.int64)[column.offset : column.offset + len(column) + 1]
        return cls(places, memoryview(b"" if data is None else data))


class Arrivals:
    """Events of a batch, without those that have no key.

    ``names`` are the encoded keys, ascending, and ``codes`` the place of each event's key among them; ``event_time``
    and ``visible_at`` are in microseconds.
    """

    def __init__(self, plan: ViewPlan, shape: Shape, events: Events) -> None:
        self._plan, self._shape = plan, shape
        columns = events.keys(plan)
        where = f"{plan.where}, source {plan.source.name!r}"
        self.kinds = tuple(key_kind(column, where=where) for column in columns)
        index = KeyIndex(columns, where=where)
        self.names, codes = _encoded(index, where)
        keyed = np.flatnonzero(codes >= 0)
        self._rows = None if len(keyed) == len(codes) else keyed
        self.codes = self._some(codes)
        self.event_time, self.known_at = self._some(events.event_time), self._some(events.known_at)
        self.visible_at = np.maximum(self.event_time, self.known_at)
        self.sequence = self._some(events.sequence)
        self._channels = [self._some(lift(channel, events.inputs, events.event_time)) for channel in plan.channels]
        self._columns = [self._kept(events, name) for name in plan.kept]
        self._check_bags()
        conditions = [events.inputs[text] for text in shape.conditions]
        self._flags: list[Mask] = [self._some(c.valid & c.values.astype(np.bool_)) for c in conditions]
        if shape.revised:
            self._flags.append(self._some(events.alive))

    def __len__(self) -> int:
        return len(self.codes)

    def _some(self, values: Any) -> Any:
        return values if self._rows is None else values[self._rows]

    def _kept(self, events: Events, name: str) -> pa.Array[Any]:
        column = plain(pick(events.table, name, where=self._plan.where))
        return column if self._rows is None else column.take(pa.array(self._rows))

    def _check_bags(self) -> None:
        columns = dict(zip(self._plan.kept, self._columns, strict=True))
        for output in self._plan.outputs:
            if output.bag:
                bag = self._plan.bags[output.parts[0]]
                value, second = (
                    None if name is None else Values(columns[name].slice(0, 0)) for name in (bag.value, bag.second)
                )
                check_types(bag, value, second, where=f"{self._plan.where}, feature {output.column!r}")

    def layout(self, places: Ints | None = None) -> Layout:
        """Least layout that holds these events; None: all of them."""
        shape = self._shape
        subset = slice(None) if places is None else places
        sums = tuple(summed(self._channels[i][subset]) for i in shape.sums)
        extremes = tuple(FLOAT if self._channels[i].dtype.kind == "f" else INT for i in shape.extremes)
        kinds = tuple(_KINDS[kind_of(column.type)] for column in self._columns)
        return Layout(shape, sums, TEXT if self.sequence.dtype == object else INT, extremes, kinds)

    def outliers(self) -> Ints:
        """Keys, by code, with a value so far from the others that a common layout would be wide for all."""
        odd = np.zeros(len(self), dtype=np.bool_)
        for i in self._shape.sums:
            values = self._channels[i]
            size = magnitudes(values)
            nonzero = size != 0
            if nonzero.any():
                odd |= nonzero & (np.abs(size - int(np.median(size[nonzero]))) > _REACH)
        return np.unique(self.codes[odd])

    @staticmethod
    def wide(layout: Layout) -> bool:
        """Whether a layout is too wide to be shared."""
        return any(one.limbs > _MOST_LIMBS for one in layout.sums)

    def rows(self, layout: Layout, places: Ints) -> Ints:
        """Rows of these events with numbers of their own; texts are still missing."""
        shape = self._shape
        rows = np.zeros((len(places), layout.words), dtype=np.int64)
        rows[:, 0] = self.event_time[places]
        if shape.known:
            rows[:, layout.k] = self.known_at[places]
        if layout.sequence != TEXT:
            rows[:, layout.seq] = self.sequence[places]
        self._put_kept(rows, layout, places)
        for place, (i, largest) in enumerate(zip(shape.extremes, shape.largest, strict=True)):
            rows[:, layout.first_extreme + place] = _greatest_wins(
                self._channels[i][places], layout.extremes[place], largest=largest
            )
        rows[:, layout.first_running] = 1
        for place, i in enumerate(shape.counts):
            rows[:, layout.first_running + 1 + place] = self._channels[i][places]
        for place, i in enumerate(shape.sums):
            values = self._channels[i][places]
            if layout.sums[place].floats and not isinstance(values, Shifted):
                values = values.astype(np.float64, copy=False)
            rows[:, layout.limb_of[place]] = split_limbs(values, layout.scale(place))
        return rows

    def _put_kept(self, rows: Ints, layout: Layout, places: Ints) -> None:
        columns = [column.take(pa.array(places)) for column in self._columns]
        flags = [np.asarray(column.is_valid().to_numpy(zero_copy_only=False)) for column in columns]
        flags += [flag[places] for flag in self._flags]
        for place, flag in enumerate(flags):
            rows[:, layout.bits + place // FLAGS] |= flag.astype(np.int64) << (place % FLAGS)
        for place, (column, kind) in enumerate(zip(columns, layout.kept, strict=True)):
            if kind != NULL and kind not in IN_HEAP:
                rows[:, layout.first_kept + place] = _words(column, kind)

    def texts(self, layout: Layout, column: int, places: Ints) -> Texts:
        """Texts, or lists as bytes, of a column of the layout that lies in the heap, in this order."""
        if column == layout.seq:
            return Texts.of(pa.array(self.sequence[places].tolist(), pa.large_string()))
        values = self._columns[column - layout.first_kept].take(pa.array(places))
        if kind_of(values.type) == "list":
            sizes = pc.fill_null(pc.list_value_length(values), 0).to_numpy().astype(np.int64)
            numbers = list_numbers(values, where=self._plan.where).astype("<f8", copy=False)
            return Texts(np.concatenate([[0], 8 * np.cumsum(sizes)]), memoryview(numbers.tobytes()))
        return Texts.of(values.cast(pa.large_string()))


def _encoded(index: KeyIndex, where: str) -> tuple[list[bytes], Ints]:
    """Encoded keys in the order of their bytes, which is how stores lay them out, and the codes that go with it."""
    columns, codes = index.distinct(), np.asarray(index.codes)
    names = encoded_keys(columns, where)
    if _is_one_number(columns):  # in bytes of two's complement the negative numbers come last
        order = np.argsort(columns[0].to_numpy().view(np.uint64))
    else:
        order = np.array(sorted(range(len(names)), key=names.__getitem__), dtype=np.int64)
    place = np.empty(len(names) + 1, dtype=np.int64)
    place[order] = np.arange(len(names))
    place[-1] = -1  # of an event without a key
    return [names[i] for i in order.tolist()], place[codes]


def encoded_keys(columns: Sequence[pa.Array[Any]], where: str) -> list[bytes]:
    """What ``encode_key`` gives for each row of key columns, of one whole number for all rows at once."""
    if _is_one_number(columns):
        packed = columns[0].to_numpy().astype(">i8").tobytes()
        return [b"i\0\x08" + packed[place : place + 8] for place in range(0, len(packed), 8)]
    values = zip(*[column.to_pylist() for column in columns], strict=True)
    return [encode_key(value, where=where) or b"" for value in values]


def _is_one_number(columns: Sequence[pa.Array[Any]]) -> bool:
    return len(columns) == 1 and pa.types.is_int64(columns[0].type)


def _greatest_wins(values: NDArray[Any], kind: int, *, largest: bool) -> Ints:
    """Words of which the greatest is the extreme: for a minimum the order is turned round."""
    if kind != FLOAT:
        return values if largest else ~values
    numbers = values.astype(np.float64)
    if values.dtype.kind != "f":  # whole numbers in a column of floats; the identity is none of them
        limits = np.iinfo(np.int64)
        numbers[values == (limits.min if largest else limits.max)] = -np.inf if largest else np.inf
    return (numbers if largest else -numbers).view(np.int64)


def _words(column: pa.Array[Any], kind: int) -> Ints:
    if pa.types.is_date(column.type):
        column = column.cast(pa.int32())
    numbers = pc.fill_null(column.cast(pa.float64() if kind == FLOAT else pa.int64()), 0)
    return np.asarray(numbers.to_numpy(zero_copy_only=False)).view(np.int64)
