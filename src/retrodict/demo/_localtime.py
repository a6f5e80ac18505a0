"""Local wall-clock times to instants, a column at a time, with both days of the year that break the rule.

Rejected: ``pyarrow.compute.assume_timezone``, which moves a time inside the skipped hour of spring to that hour's edge
and so loses the minutes; and the database's time zone functions, which live in an extension. Here a zone is a row of
UTC offsets, one per hour, read once from the standard library; everything else is integer arithmetic on whole columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

from retrodict.core.errors import InputError

__all__ = ["DAY", "HOUR", "MINUTE", "Instants", "ZoneTable"]

MINUTE = 60_000_000
HOUR = 60 * MINUTE
DAY = 24 * HOUR

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


class ZoneTable:
    """UTC offsets of several zones, hour by hour, between two instants.

    Parameters
    ----------
    zones : sequence of str
        IANA names. A zone is then named by its position.
    start, end : int
        Instants, microseconds UTC, which every time converted must keep two days away from.

    Notes
    -----
    Offsets are sampled on whole UTC hours: exact for zones that change there, which includes all of the United States.

    Examples
    --------
    >>> import numpy as np
    >>> from retrodict.core.clock import format_time, parse_time
    >>> table = ZoneTable(["America/New_York"], parse_time("2013-03-01T00:00Z"), parse_time("2013-03-20T00:00Z"))
    >>> local = np.array([parse_time("2013-03-10T02:03Z")])  # wall clock, written as if it were UTC
    >>> found = table.to_instants(np.array([0]), local)
    >>> bool(found.skipped[0]), format_time(int(found.first[0]))
    (True, '2013-03-10T07:03:00Z')
    """

    def __init__(self, zones: Sequence[str], start: int, end: int) -> None:
        self._start = start // HOUR * HOUR
        hours = (end - self._start) // HOUR + 1
        epoch = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=self._start)
        stamps = [epoch + timedelta(hours=h) for h in range(hours)]
        self._offsets = np.array([[_offset(stamp, ZoneInfo(zone)) for stamp in stamps] for zone in zones], np.int64)

    def offset(self, zone: Ints, instant: Ints) -> Ints:
        """UTC offset in force, microseconds; local = UTC + offset."""
        hour = (instant - self._start) // HOUR
        if hour.size and (hour.min() < 0 or hour.max() >= self._offsets.shape[1]):
            raise InputError(
                "times stay inside the span of the zone table",
                where="local times",
                remedy="Build the table for a longer span",
            )
        found: Ints = self._offsets[zone, hour]
        return found

    def to_local(self, zone: Ints, instant: Ints) -> Ints:
        """Wall clock at each instant, as microseconds since 1970-01-01 local."""
        return instant + self.offset(zone, instant)

    def to_instants(self, zone: Ints, local: Ints) -> Instants:
        """Instants of wall-clock times given as microseconds since 1970-01-01 local."""
        # A day to either side lies beyond any change of clocks nearby: two readings, each checked against its offset.
        before = local - self.offset(zone, local - DAY)
        after = local - self.offset(zone, local + DAY)
        before_holds = self.to_local(zone, before) == local
        after_holds = self.to_local(zone, after) == local
        first = np.where(before_holds | ~after_holds, before, after)
        second = np.where(after_holds, after, first)
        return Instants(first, second, before_holds & after_holds & (before != after), ~before_holds & ~after_holds)

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
        chosen = np.where(today.first > start, today.first, np.where(still_today, today.second, tomorrow.first))
        return Instants(
            chosen,
            chosen,
            np.where(still_today, today.twice, tomorrow.twice),
            np.where(still_today, today.skipped, tomorrow.skipped),
        )


def _offset(stamp: datetime, zone: ZoneInfo) -> int:
    return (stamp.astimezone(zone).utcoffset() or timedelta()) // timedelta(microseconds=1)
