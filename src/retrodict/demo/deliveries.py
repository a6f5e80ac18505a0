"""How the year arrives: history up to September, then live events as they become known, and a delivery a month.

Nothing is made up here: rows are only cut by their own times.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from retrodict.core.clock import parse_time
from retrodict.core.durations import HOUR, MINUTE
from retrodict.core.identity import digest

__all__ = ["LIVE_MONTHS", "Deliveries", "Month"]

_WEATHER_DELAY = 80 * MINUTE


@dataclass(frozen=True, slots=True)
class Month:
    """A month of live traffic: its name, first moment and the moment after its last one, in microseconds UTC."""

    name: str
    start: int
    end: int


def _month(year_month: str, following: str) -> Month:
    return Month(year_month, parse_time(f"{year_month}-01T00:00Z"), parse_time(f"{following}-01T00:00Z"))


LIVE_MONTHS = (_month("2013-09", "2013-10"), _month("2013-10", "2013-11"), _month("2013-11", "2013-12"))


class Deliveries:
    """The prepared tables, cut by time.

    Parameters
    ----------
    tables : mapping of str to pyarrow.Table
        From :func:`retrodict.demo.nycflights.prepare`.
    """

    def __init__(self, tables: Mapping[str, pa.Table]) -> None:
        self._tables = dict(tables)
        self._clock = {
            "flights": _micros(tables["flights"], "sched_dep"),
            "weather": _micros(tables["weather"], "hour"),
        }
        arrival, departure = _micros(tables["flights"], "arr_time"), _micros(tables["flights"], "dep_time")
        # An event can be pushed once it is known; a flight that never landed never is.
        self._known_at = {
            "flights": np.where(np.isnan(departure), np.nan, np.fmax(arrival, departure)),
            "weather": self._clock["weather"] + _WEATHER_DELAY,
        }

    def rows(self, table: str, start: int | None, end: int | None) -> pa.Table:
        """Rows whose own time lies in [start, end); None leaves a side open."""
        clock = self._clock.get(table)
        if clock is None:
            return self._tables[table]
        after_start = clock >= (-np.inf if start is None else start)
        return self._tables[table].filter(pa.array(after_start & (clock < (np.inf if end is None else end))))

    def pushes(self, table: str, month: Month, step: int) -> Iterator[tuple[int, list[dict[str, Any]]]]:
        """(end of the step, events that become known in it) for every step of a month."""
        known_at = self._known_at[table]
        places = np.flatnonzero((known_at >= month.start) & (known_at < month.end))
        places = places[np.argsort(known_at[places], kind="stable")]
        rows = _plain(self._tables[table].take(pa.array(places)))
        ends = np.arange(month.start + step, month.end + step, step)
        cuts = np.searchsorted(known_at[places], ends, side="left").tolist()
        for end, (first, after) in zip(ends.tolist(), pairwise([0, *cuts]), strict=True):
            yield end, rows[first:after]

    def requests(self, month: Month, share: float) -> list[tuple[int, dict[str, Any]]]:
        """(moment of decision, request) of a share of the flights of a month, in order of time.

        Which flights is decided by a hash of their id: the same ones in every run, unrelated to anything about them.
        """
        table, at = self._tables["flights"], self._clock["flights"] - HOUR
        places = np.flatnonzero((at >= month.start) & (at < month.end))
        places = places[np.argsort(at[places], kind="stable")]
        ids = table.column("flight_id").take(pa.array(places)).to_pylist()
        places = places[[int(digest(id_.encode())[:8], 16) < share * 2**32 for id_ in ids]]
        rows = _plain(table.take(pa.array(places)))
        return [(int(moment), _request(row)) for moment, row in zip(at[places], rows, strict=True)]


def _request(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "key": row["flight_id"],
        "entities": {name: row[name] for name in ("origin", "carrier", "tailnum")},
        "context": {name: row[name] for name in ("sched_dep", "dest", "distance")},
    }


def _micros(table: pa.Table, column: str) -> Any:
    values = table.column(column).cast(pa.int64()).to_numpy(zero_copy_only=False)
    return values.astype(np.float64)  # NaN where null; whole microseconds of this century are exact in a double


def _plain(table: pa.Table) -> list[dict[str, Any]]:
    """Rows as JSON has them: times as text in UTC."""
    columns = {field.name: pc.strftime(table[field.name], format="%Y-%m-%dT%H:%M:%SZ")
               if pa.types.is_timestamp(field.type) else table[field.name] for field in table.schema}  # fmt: skip
    rows: list[dict[str, Any]] = pa.table(columns).to_pylist()
    return rows
