"""Bags of one request: the rows of a block handed to the functions that training frames use."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from retrodict.features.facts.bags import Ragged, Values, compute
from retrodict.features.facts.columns import Ints
from retrodict.features.online.state.blocks import (
    BOOL,
    DATE,
    FLOAT,
    INT,
    LIST,
    TEXT,
    Block,
    Shape,
    flag_of,
    text_at,
    unpack,
)
from retrodict.features.plan import ViewPlan

_TYPES = {INT: pa.int64(), FLOAT: pa.float64(), BOOL: pa.bool_(), DATE: pa.date32(), TEXT: pa.string()}


class BagReader:
    """Computes the bags of a view from a block in which everything is visible."""

    def __init__(self, plan: ViewPlan, shape: Shape) -> None:
        self._plan, self._shape = plan, shape
        self._outputs = [(output.parts[0], output.window) for output in plan.outputs if output.bag]

    def read(self, blob: bytes, at: int, places: Sequence[tuple[int, int]]) -> dict[tuple[int, int], Any]:
        """Value of each (bag, window); ``places`` are the rows [i, j) of each window, the base row being 0."""
        block, plan = unpack(self._shape, blob), self._plan
        # Rows before every window may stand for segments that were not fetched, whose words point into their own heaps.
        skipped = max(1, min(places[window][0] for _, window in self._outputs))
        rows = block.rows[skipped:]
        columns: dict[str, Values] = {}
        values = {}
        for bag_place, window in self._outputs:
            bag, (begin, end) = plan.bags[bag_place], places[window]
            inside = np.arange(max(begin, skipped), end) - skipped
            ragged = Ragged(np.array([at]), np.array([len(inside)]), inside, rows[:, 0])
            if bag.where is not None:
                place = len(self._shape.kept) + self._shape.conditions.index(bag.where)
                ragged = ragged.keep(flag_of(block.layout, rows, place))
            pair = []
            for name in (bag.value, bag.second):
                if name is not None and name not in columns:
                    columns[name] = Values(self._column(block, rows, name))
                pair.append(None if name is None else columns[name])
            values[bag_place, window] = _python(compute(bag, ragged, *pair))
        return values

    def _column(self, block: Block, rows: Ints, name: str) -> pa.Array[Any]:
        place = self._shape.kept.index(name)
        words = np.ascontiguousarray(rows[:, block.layout.first_kept + place])
        valid, kind = flag_of(block.layout, rows, place), block.layout.kept[place]
        if kind == TEXT:
            texts = [
                text_at(block.heap, 0, word) if ok else None
                for word, ok in zip(words.tolist(), valid.tolist(), strict=True)
            ]
            return pa.array(texts, pa.string())
        if kind == LIST:
            lists = [
                np.frombuffer(block.heap, "<f8", (word & 0xFFFFFFFF) // 8, word >> 32) if ok else None
                for word, ok in zip(words.tolist(), valid.tolist(), strict=True)
            ]
            return pa.array(lists, pa.list_(pa.float64()))
        if kind not in _TYPES:
            return pa.nulls(len(words))
        if kind == FLOAT:
            return pa.array(words.view(np.float64), mask=~valid)
        numbers = pa.array(words, mask=~valid)
        return numbers.cast(pa.int32()).cast(pa.date32()) if kind == DATE else numbers.cast(_TYPES[kind])


def _python(array: pa.Array[Any]) -> Any:
    value = array.to_pylist()[0]
    if value is not None and pa.types.is_map(array.type):
        return dict(value)
    return value
