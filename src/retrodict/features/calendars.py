"""Days, weeks and months on the calendar of a zone, as instants: where each begins, over daylight saving.

A unit begins at the first instant whose local date is its first day or later. So units follow each other without gap
or overlap whatever a zone does at midnight: a day has 23 to 25 hours, half an hour more or less on Lord Howe Island,
and a day that a zone skipped (Samoa, 30 December 2011) is empty. Weeks begin on Monday (ISO 8601).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from retrodict.core.durations import DAY, HOUR
from retrodict.core.errors import DefinitionError, check_known

__all__ = ["CalendarUnits"]

UNITS = {"day": 1, "week": 7, "month": 28}
"""Names of the units, and the fewest days that each has."""

_MOST_DAYS = {"day": 1, "week": 7, "month": 31}
_SHIFT = 32 * HOUR
"""How far clocks of one zone can be apart at two times: offsets lie within 16 hours of UTC, those before 1900, too."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST, _LAST = date(1, 1, 3), date(9999, 12, 28)  # days whose instants Python can say in any zone
_BOUND = 1 << 62


@dataclass(frozen=True)
class CalendarUnits:
    """Some units of the calendar in a row: the current one up to the decision, or whole ones before it.

    Parameters
    ----------
    unit : {"day", "week", "month"}
        Which.
    zone : str
        IANA name of the zone whose calendar it is.
    count : int
        How many.
    before : int
        How many units before the current one the last of them lies; 0: it is the current one, up to the decision.
    """

    unit: str
    zone: str
    count: int
    before: int

    def __post_init__(self) -> None:
        """Check each part."""
        where = "Window.calendar"
        check_known(self.unit, UNITS, "a unit must be known", where=where, what="unit", error=DefinitionError)
        try:
            _zone(self.zone)
        except (ZoneInfoNotFoundError, ValueError, TypeError, OSError):  # a folder of zones is no zone either
            rule = "a zone must be in the IANA time zone database"
            check_known(str(self.zone), available_timezones(), rule, where=where, what="zone", error=DefinitionError)
        for name, least in (("count", 1), ("before", 0)):
            number: object = getattr(self, name)
            if not isinstance(number, int) or isinstance(number, bool) or not least <= number <= 10_000:
                raise DefinitionError(
                    f"{name} must be a whole number from {least} to 10000", where=where, got=number,
                    remedy="Write Window.calendar('month', zone='Europe/Berlin', count=1, before=0)",
                )  # fmt: skip

    @property
    def name(self) -> str:
        """What it adds to a feature's name: ``month``, ``3_months_before_1``, ``day_new_york``."""
        units = self.unit if self.count == 1 else f"{self.count}_{self.unit}s"
        before = f"_before_{self.before}" if self.before else ""
        city = self.zone.rpartition("/")[2].lower().replace("-", "_").replace("+", "_plus_")
        return units + before + ("" if self.zone == "UTC" else f"_{city}")

    def distances(self) -> tuple[int, int, int]:
        """Least distance of its end and of its start from a decision, and by how much either can be more (exclusive).

        In microseconds. The end is the decision itself, or the beginning of one of the units before.
        """
        shortest, longest = UNITS[self.unit] * DAY, _MOST_DAYS[self.unit] * DAY

        def range_of(units: int) -> tuple[int, int]:
            return max(units * shortest - _SHIFT, 0), (units + 1) * longest + _SHIFT

        start = range_of(self.before + self.count - 1)
        end = range_of(self.before - 1) if self.before else (0, 0)
        return end[0], start[0], max(start[1] - start[0], end[1] - end[0]) + 1

    def start(self, at: Any) -> Any:
        """Beginning of its first unit for a decision (or an array of them), in microseconds."""
        return self.beginning(at, -(self.before + self.count - 1))

    def end(self, at: Any) -> Any:
        """End of its last unit for a decision, or the decision itself."""
        return self.beginning(at, 1 - self.before) if self.before else at

    def beginning(self, at: Any, units: int) -> Any:
        """Beginning of the unit that lies so many units after that of an instant (or of each of an array)."""
        if not hasattr(at, "dtype"):
            day = at // DAY
            number = _number(self.unit, self.zone, day)
            while _boundary(self.unit, self.zone, number + 1) <= at:
                number += 1
            return _boundary(self.unit, self.zone, number + units)
        import numpy as np  # definitions do without

        days, place = np.unique(at // DAY, return_inverse=True)
        first = [_number(self.unit, self.zone, day) for day in days.tolist()]
        # A day of UTC holds at most three beginnings: of the days that a zone skipped two are one instant.
        edges = np.array([[_boundary(self.unit, self.zone, n + step) for step in (1, 2, 3)] for n in first])
        begins = np.array([[_boundary(self.unit, self.zone, n + units + step) for step in range(4)] for n in first])
        edges, begins = edges.reshape(-1, 3), begins.reshape(-1, 4)
        passed = (edges[place] <= at[:, None]).sum(axis=1)
        return begins[place, passed]


@lru_cache(maxsize=1 << 16)
def _number(unit: str, zone: str, day: int) -> int:
    """Number of the unit in which a day of UTC (days since 1970) begins."""
    local = _instant(day * DAY).astimezone(_zone(zone)).date()
    number = _unit_of(unit, local)
    while _boundary(unit, zone, number + 1) <= day * DAY:  # a clock that was set back over midnight
        number += 1
    return number


def _unit_of(unit: str, day: date) -> int:
    if unit == "month":
        return day.year * 12 + day.month - 1
    return day.toordinal() if unit == "day" else (day.toordinal() - 1) // 7


@lru_cache(maxsize=1 << 16)
def _boundary(unit: str, zone: str, number: int) -> int:
    """First instant whose local date is the first day of a unit or later."""
    if number < _unit_of(unit, _FIRST) or number > _unit_of(unit, _LAST):
        return -_BOUND if number < _unit_of(unit, _LAST) else _BOUND
    if unit == "month":
        day = date(number // 12, number % 12 + 1, 1)
    else:
        day = date.fromordinal(number if unit == "day" else number * 7 + 1)
    midnight = datetime(day.year, day.month, day.day, tzinfo=_zone(zone))
    low, high = (_micros(midnight.replace(fold=fold)) for fold in (1, 0))
    if _instant(high).astimezone(_zone(zone)).replace(tzinfo=None) == midnight.replace(tzinfo=None):
        return high  # of a midnight that comes twice the first
    while low + 1 < high:  # the clock leapt over midnight
        middle = (low + high) // 2
        low, high = (low, middle) if _instant(middle).astimezone(_zone(zone)).date() >= day else (middle, high)
    return high


def _instant(micros: int) -> datetime:
    limit = datetime(1, 1, 2, tzinfo=UTC), datetime(9999, 12, 30, tzinfo=UTC)
    if micros <= _micros(limit[0]) or micros >= _micros(limit[1]):
        return limit[micros > 0]
    return _EPOCH + timedelta(microseconds=micros)


def _micros(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(microseconds=1)


@lru_cache(maxsize=64)
def _zone(name: str) -> ZoneInfo:
    return ZoneInfo(name)
