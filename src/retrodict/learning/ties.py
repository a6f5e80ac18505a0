"""Rows of a newer table that are those a version learned from, or tied to them: by key, by group, by content.

A key alone is not enough: it may be another one now, its values may be written anew, and the table may have a new name,
while the rows are the same. Equal content alone is not enough either: rows of few coarse features are equal by chance.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from retrodict.core.errors import RefusedError
from retrodict.core.kinds import kind_of
from retrodict.learning.frame import features_of
from retrodict.models.definitions import Model
from retrodict.stores.sql import query
from retrodict.stores.tables.base import TableStore

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Positions = NDArray[np.int64]

__all__ = ["RowTies"]

_CHANCE = 0.5  # share of twins among the rows themselves from which equal content tells nothing
_NONE = np.empty(0, dtype=np.int64)


@dataclass(frozen=True, eq=False)
class RowTies:
    """The rows of two models, each of a version of its label's table.

    Attributes
    ----------
    tables : TableStore
    models : tuple of Model
        Of then and of now.
    ends : tuple of int
        Versions of their labels' tables.
    """

    tables: TableStore
    models: tuple[Model, Model]
    ends: tuple[int, int]

    @cached_property
    def renamed(self) -> bool:
        """Whether the rows of now are of a table of another name."""
        return len({model.label.table.name for model in self.models}) > 1

    @cached_property
    def keys(self) -> list[tuple[str, ...]]:
        """Keys of then and of now that both versions have the columns of."""
        return self._shared(*(tuple(model.label.table.key) for model in self.models))

    @cached_property
    def groups(self) -> list[tuple[str, ...]]:
        """Columns by which a split keeps rows together: now, and then unless rows are now parted by their time."""
        then, now = (model.recipe.split for model in self.models)
        shared = [] if self.renamed else self._shared(now.columns, () if now.timed else then.columns)
        return [columns for columns in shared if columns not in self.keys]

    @cached_property
    def content(self) -> tuple[str, ...]:
        """Columns that the features of now read from the row."""
        names = features_of(self.models[1], self._schemas[1]).request_columns
        return tuple(name for name in names if self._shared((name,)))

    @cached_property
    def _schemas(self) -> list[pa.Schema]:
        return [self.tables.schema(model.label.table.name, end)
                for model, end in zip(self.models, self.ends, strict=True)]  # fmt: skip

    def _shared(self, *choices: tuple[str, ...]) -> list[tuple[str, ...]]:
        names = set.intersection(*(set(schema.names) for schema in self._schemas))
        return [columns for columns in dict.fromkeys(choices) if columns and names.issuperset(columns)]

    def equal(self, columns: tuple[str, ...], rows: Positions) -> Positions:
        """Positions of now, ascending, of what some rows of then are equal to in some columns; text as it is spelt."""
        past, now = self._read(0, columns).take(pa.array(rows)), self._read(1, columns)
        now = now.append_column("position", pa.array(np.arange(now.num_rows)))
        pairs = []
        for name in past.column_names:
            kinds = {kind_of(table.schema.field(name).type) for table in (past, now)}
            side = "{}.{}" if len(kinds) == 1 or kinds == {"int", "float"} else "CAST({}.{} AS VARCHAR)"
            pairs.append(f"{side.format('now', name)} IS NOT DISTINCT FROM {side.format('past', name)}")
        tied = query(f"SELECT position FROM now SEMI JOIN past ON {' AND '.join(pairs)}", now=now, past=past)
        return np.sort(tied.column("position").to_numpy())

    def _read(self, side: int, columns: tuple[str, ...]) -> pa.Table:
        table = self.tables.read(self.models[side].label.table.name, self.ends[side], columns=list(columns))
        return table.rename_columns([f"c{place}" for place in range(len(columns))])  # DuckDB takes "a" and "A" for one

    def seen(self, rows: Positions, parts: Mapping[str, Positions]) -> Iterator[tuple[str, str, Positions]]:
        """Of some rows of then: part, by what, and positions of the rows of the part that are among them or tied.

        Raises
        ------
        RefusedError
            If neither a key nor the content of the rows can be compared.
        """
        present = _NONE
        for columns in self.keys:
            same = self.equal(columns, rows)
            # Numbers that a table counts its rows with are those of any other table too, hence most of them or none.
            if not self.renamed or 2 * len(same) > min(len(rows), self._read(1, columns).num_rows):
                present = np.union1d(present, same)
                yield from _cut("key " + ", ".join(columns), same, parts)
        for columns in self.groups:
            yield from _cut("equal " + ", ".join(columns), self.equal(columns, rows), parts)
        then, now = (model.label.table for model in self.models)
        changed = self.renamed or tuple(then.key) != tuple(now.key)
        if not changed and (self.models[1].recipe.split.timed or 2 * len(present) >= len(rows)):
            return
        chance = self._chance(rows)
        if chance < _CHANCE:
            same = self.equal(self.content, rows)
            for part, way, positions in _cut("equal features", same, parts):
                expected = len(parts[part]) * max(chance, 1 / len(rows))
                if len(positions) > expected + 3 * math.sqrt(expected):
                    yield part, way, positions
        elif not self.keys and not self.renamed:
            raise RefusedError(
                "rows must have a key, or features that tell them apart, to say which a version has learned from",
                where=f"table {now.name}, start_from", got=f"key {list(then.key)} then, {list(now.key)} now",
                remedy="Keep the columns of the former key in the table, or train from nothing",
            )  # fmt: skip

    def _chance(self, rows: Positions) -> float:
        """Share of the rows that have a twin among themselves: so often would a fresh one be equal to one of them."""
        if not self.content or not len(rows):
            return 1.0
        past = self._read(0, self.content).take(pa.array(rows))
        counts = past.group_by(past.column_names).aggregate([([], "count_all")]).column("count_all").to_numpy()
        return float(counts[counts > 1].sum() / len(rows))


def _cut(way: str, same: Positions, parts: Mapping[str, Positions]) -> Iterator[tuple[str, str, Positions]]:
    for part, rows in parts.items():
        if len(common := np.intersect1d(same, rows)):
            yield part, way, common
