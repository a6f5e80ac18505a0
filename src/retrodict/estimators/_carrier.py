"""Carry the last known value forward, within a group and in the order of time, never back.

A value is carried to rows of its group that come later. What was last known when the training ended is carried into
later tables and single rows too, but only to rows with a later time: a training row is never filled from its future.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrodict.core.errors import InputError
from retrodict.estimators._tables import ColumnTable, is_missing

Key = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Carrier:
    """What was last known, per group and column: ``last[group][column] = (time, value)``."""

    columns: tuple[str, ...]
    groups: tuple[str, ...]
    time: str | None
    last: dict[Key, dict[str, tuple[float, Any]]]

    @classmethod
    def fit(cls, table: ColumnTable, columns: Sequence[str], groups: Sequence[str], time: str | None) -> Carrier:
        """Learn what is last known; nothing without a column of times, as nobody could say what comes later."""
        carrier = cls(tuple(columns), tuple(groups), time, {})
        if time is None:
            return carrier
        keys, codes = _keys(table, carrier.groups)
        stamps = _stamps(table, time)
        order = np.lexsort((stamps, codes))
        for name in carrier.columns:
            column = table.columns[name]
            present = order[~is_missing(column)[order]]
            group_codes = codes[present]
            for row in present[np.append(group_codes[1:] != group_codes[:-1], True)] if present.size else present:
                carrier.last.setdefault(keys[codes[row]], {})[name] = (float(stamps[row]), _plain(column[row]))
        return carrier

    def fill(self, table: ColumnTable, columns: dict[str, NDArray[Any]]) -> None:
        """Fill columns in place; what has nothing before it stays missing."""
        keys, codes = _keys(table, self.groups)
        stamps = _stamps(table, self.time) if self.time else np.arange(table.rows, dtype=np.float64)
        order = np.lexsort((stamps, codes))
        places = np.arange(order.size)
        starts = np.maximum.accumulate(np.where(np.append(True, codes[order][1:] != codes[order][:-1]), places, 0))
        for name in self.columns:
            column = columns[name]
            present = ~is_missing(column)[order]
            source = np.maximum.accumulate(np.where(present, places, -1))
            fits = ~present & (source >= starts)
            column[order[fits]] = column[order[source[fits]]]
            for row in order[~present & (source < starts)]:
                value = self._later(keys[codes[row]], name, stamps[row])
                if value is not None:
                    column[row] = value

    def fill_one(self, row: Mapping[str, Any], name: str) -> Any:
        """Value for one row, or None if nothing earlier is known."""
        if self.time is None:
            return None
        key = tuple(_plain(row[group]) for group in self.groups)
        return self._later(key, name, _stamp(row[self.time], self.time))

    def _later(self, key: Key, name: str, stamp: float) -> Any:
        last = self.last.get(key, {}).get(name)
        return last[1] if last is not None and stamp > last[0] else None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON form."""
        last = [[list(key), values] for key, values in self.last.items()]
        return {"columns": list(self.columns), "groups": list(self.groups), "time": self.time, "last": last}

    @classmethod
    def from_dict(cls, body: Mapping[str, Any]) -> Carrier:
        """Inverse of ``to_dict``."""
        last = {tuple(key): {name: (t, v) for name, (t, v) in values.items()} for key, values in body["last"]}
        return cls(tuple(body["columns"]), tuple(body["groups"]), body["time"], last)


def _keys(table: ColumnTable, groups: Sequence[str]) -> tuple[list[Key], NDArray[np.int64]]:
    """Distinct groups, and the place of each row's group among them."""
    columns = [[_plain(value) for value in table.columns[group].tolist()] for group in groups]
    places: dict[Key, int] = {}
    rows = zip(*columns, strict=True) if columns else ((),) * table.rows
    codes = np.fromiter((places.setdefault(key, len(places)) for key in rows), dtype=np.int64, count=table.rows)
    return list(places), codes


def _plain(value: Any) -> Any:
    if value is None or value != value:  # noqa: PLR0124 - NaN is the null of a group, and equal to other nulls
        return None
    if isinstance(value, np.datetime64 | str) or hasattr(value, "isoformat"):
        return str(value) if not isinstance(value, str) else value
    return float(value)


def _stamps(table: ColumnTable, time: str) -> NDArray[np.float64]:
    column = table.columns[time]
    if is_missing(column).any():
        raise InputError("every row must have a time, to carry values forward", where=f"missing data, column {time!r}",
                         got="rows without one", remedy="Leave such rows out")  # fmt: skip
    if column.dtype == object:
        raise InputError("times must be numbers or times", where=f"missing data, column {time!r}", got="text",
                         remedy="Parse the column first")  # fmt: skip
    # Microseconds since 1970 are whole numbers below 2**53 until the year 2255.
    return column.astype(np.int64).astype(np.float64) if column.dtype.kind == "M" else column


def _stamp(value: Any, name: str) -> float:
    if isinstance(value, bool | int | float | np.number) and value == value:  # noqa: PLR0124 - NaN
        return float(value)
    if isinstance(value, np.datetime64) or hasattr(value, "isoformat"):
        from datetime import UTC

        if getattr(value, "tzinfo", None) is not None:
            value = value.astimezone(UTC).replace(tzinfo=None)
        return float(np.datetime64(value, "us").astype(np.int64))
    raise InputError("every row must have a time, to carry values forward", where=f"missing data, column {name!r}",
                     got=type(value).__name__, remedy="Send a number or a time")  # fmt: skip
