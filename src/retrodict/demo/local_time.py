"""Local wall-clock times to instants, a column at a time, with both days of the year that break the rule.

Polars knows the zones. Rejected: ``pyarrow.compute.assume_timezone``, which moves a time inside the skipped hour of
spring to that hour's edge and so loses the minutes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from retrodict.core.durations import DAY

__all__ = ["Flags", "Instants", "Ints", "Zones"]

Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Instants:
    """What a column of local times can mean, in microseconds UTC.

    Attributes
    ----------
    first, second : ndarray of int64
        The instant; they differ only where the local time exists twice (autumn), ``first`` being the earlier one.
    twice : ndarray of bool
        The local time exists twice.
    skipped : ndarray of bool
        The local time does not exist (spring); the instant is the one a clock that was not set forward would show.
    """

    first: Ints
    second: Ints
    twice: Flags
    skipped: Flags


class Zones:
    """Several time zones; each row of a column names its own by position.

    Parameters
    ----------
    names : sequence of str
        IANA names.

    Examples
    --------
    >>> import numpy as np
    >>> from retrodict.core.clock import format_time, parse_time
    >>> local = np.array([parse_time("2013-03-10T02:03Z")])  # wall clock, written as if it were UTC
    >>> instants = Zones(["America/New_York"]).to_instants(np.array([0]), local)
    >>> bool(instants.skipped[0]), format_time(int(instants.first[0]))
    (True, '2013-03-10T07:03:00Z')
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._names = list(names)

    def to_local(self, zone: Ints, instant: Ints) -> Ints:
        """Wall clock at each instant, as microseconds since 1970-01-01 local."""
        return self._convert(
            zone, instant, lambda times, name: times.dt.convert_time_zone(name).dt.replace_time_zone(None)
        ).to_numpy()

    def to_instants(self, zone: Ints, local: Ints) -> Instants:
        """Instants of wall-clock times given as microseconds since 1970-01-01 local."""
        first, second = self._read(zone, local, "earliest"), self._read(zone, local, "latest")
        # A day before a skipped time the clock was not yet set forward.
        unmoved = self._read(zone, local - DAY, "earliest") + DAY
        skipped, twice = first.is_null(), (first != second).fill_null(value=False)
        return Instants(*(column.to_numpy() for column in (
            first.fill_null(unmoved), second.fill_null(unmoved), twice, skipped)))  # fmt: skip

    def first_after(self, zone: Ints, start: Ints, since_midnight: Ints) -> Instants:
        """First instant strictly after `start` at which the wall clock shows a time of day.

        Parameters
        ----------
        zone : ndarray of int64
            Position of the zone, per row.
        start : ndarray of int64
            Instants, microseconds UTC.
        since_midnight : ndarray of int64
            Wall-clock time of day, microseconds, 0 to 24 hours inclusive.

        Returns
        -------
        Instants
            ``first`` and ``second`` are both the answer; the flags are those of the local time it stands for.
        """
        midnight = self.to_local(zone, start) // DAY * DAY
        today = self.to_instants(zone, midnight + since_midnight)
        tomorrow = self.to_instants(zone, midnight + DAY + since_midnight)
        still_today = today.second > start
        answer = np.where(today.first > start, today.first, np.where(still_today, today.second, tomorrow.first))
        twice = np.where(still_today, today.twice, tomorrow.twice)
        return Instants(answer, answer, twice, np.where(still_today, today.skipped, tomorrow.skipped))

    def _read(self, zone: Ints, local: Ints, ambiguous: Literal["earliest", "latest"]) -> pl.Series:
        return self._convert(
            zone, local, lambda times, name: times.dt.replace_time_zone(None).dt.replace_time_zone(
                name, ambiguous=ambiguous, non_existent="null")
        )  # fmt: skip

    def _convert(self, zone: Ints, times: Ints, convert: Callable[[pl.Expr, str], pl.Expr]) -> pl.Series:
        """Apply a conversion zone by zone; the microseconds of what comes out."""
        column, position = pl.col("times").cast(pl.Datetime("us", "UTC")), pl.col("zone")
        converted = pl.coalesce(
            pl.when(position == place).then(convert(column, name).dt.timestamp("us"))
            for place, name in enumerate(self._names)
        )
        return pl.DataFrame({"zone": zone, "times": times}).select(converted).to_series()
