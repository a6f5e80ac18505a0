"""Calendar parts of instants, the same for a column of a million rows and for one request.

Instants are int microseconds UTC. Parts are integer arithmetic on them (proleptic Gregorian calendar, after Howard
Hinnant, "chrono-compatible low-level date algorithms"), written once for NumPy arrays and for one Python int. Pandas'
datetime accessors were rejected: another library's rules on one side of a promise of equality.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np
from numpy.typing import NDArray

from retrodict.core.durations import DAY, HOUR, MINUTE, SECOND
from retrodict.core.errors import InputError

__all__ = ["Times"]

_QUARTER = 15 * MINUTE
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SAFE = 1 << 62
_CACHED_QUARTERS = 1 << 16


def _part(meaning: str, compute: Callable[[Any], Any]) -> property:
    """Part of instants, computed from microseconds on the clock of their zone."""

    def part(self: Times) -> Any:
        micros = self.micros
        if isinstance(micros, np.ndarray) and micros.shape == (1,) and self._null is None:
            # One request: whole numbers of Python give what those of NumPy do, in a fraction of the time.
            local = micros.item() + (self._offset if type(self._offset) is int else self._offset.item())
            if -_SAFE < local < _SAFE:
                return np.array([float(compute(local))])
        value = compute(micros + self._offset)
        if not isinstance(value, np.ndarray):
            return value
        return value.astype(np.float64) if self._null is None else np.where(self._null, np.nan, value)

    return property(part, doc=meaning)


class Times:
    """Instants, or their wall-clock reading in a zone after :meth:`to`.

    Parts are whole numbers: Python ints for a single instant; for an array float64, NaN where the instant is null.

    Parameters
    ----------
    micros : int or int64 array
        Microseconds since 1970-01-01 UTC.
    null : bool array, optional
        Where there is no instant; for arrays only.

    Examples
    --------
    >>> moment = Times(1377986400000000)
    >>> moment.hour, moment.to("America/New_York").hour, moment.weekday, moment.month
    (22, 18, 5, 8)
    """

    __slots__ = ("_null", "_offset", "micros")

    def __init__(
        self, micros: int | NDArray[np.int64], null: NDArray[np.bool_] | None = None, *, _offset: Any = 0
    ) -> None:
        self.micros = micros
        self._null = null
        self._offset = _offset

    def to(self, zone: str) -> Times:
        """Return the same instants read on the clocks of an IANA zone, daylight saving included."""
        if isinstance(self.micros, np.ndarray):
            return Times(self.micros, self._null, _offset=_offsets(self.micros, zone))
        return Times(self.micros, _offset=_offset_at(int(self.micros), zone))

    microsecond_of_day = _part("Microseconds since midnight.", lambda local: local % DAY)
    hour = _part("Hour, 0 to 23.", lambda local: local % DAY // HOUR)
    minute = _part("Minute, 0 to 59.", lambda local: local % HOUR // MINUTE)
    second = _part("Second, 0 to 59.", lambda local: local % MINUTE // SECOND)
    weekday = _part("Day of the week, Monday is 0.", lambda local: (local // DAY + 3) % 7)
    year = _part("Year.", lambda local: _civil(local // DAY)[0])
    month = _part("Month, 1 to 12.", lambda local: _civil(local // DAY)[1])
    day = _part("Day of the month, from 1.", lambda local: _civil(local // DAY)[2])
    dayofyear = _part("Day of the year, from 1.", lambda local: _day_of_year(local // DAY))

    def seconds_since(self, other: Times) -> Any:
        """Seconds from the other instants to these, NaN where either is null."""
        null = other._null if self._null is None else self._null if other._null is None else self._null | other._null
        difference = (self.micros - other.micros) / 1_000_000
        if null is None or not isinstance(difference, np.ndarray):
            return difference
        return np.where(null, np.nan, difference)


def _civil(days: Any) -> tuple[Any, Any, Any]:
    """Year, month and day of days since 1970-01-01; // floors for ints and int64 arrays alike."""
    shifted = days + 719468  # days since 0000-03-01
    era = shifted // 146097
    of_era = shifted - era * 146097
    year_of_era = (of_era - of_era // 1460 + of_era // 36524 - of_era // 146096) // 365
    of_year = of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    from_march = (5 * of_year + 2) // 153
    day = of_year - (153 * from_march + 2) // 5 + 1
    month = (from_march + 2) % 12 + 1
    return year_of_era + era * 400 + (month <= 2), month, day


def _day_of_year(days: Any) -> Any:
    before = _civil(days)[0] - 1
    new_year = before * 365 + before // 4 - before // 100 + before // 400 - 719162
    return days - new_year + 1


@lru_cache(maxsize=64)
def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise InputError(
            "a zone must be in the IANA time zone database",
            where="Times.to",
            got=name,
            remedy="Write it like 'America/New_York'",
        ) from error


def _ask(instant: int, zone: str) -> int:
    offset = (_EPOCH + timedelta(microseconds=instant)).astimezone(_zone(zone)).utcoffset() or timedelta(0)
    return offset // timedelta(microseconds=1)


@lru_cache(maxsize=_CACHED_QUARTERS)
def _quarter_offset(quarter: int, zone: str) -> int | None:
    """Offset that holds for a whole quarter of an hour, None if it changes inside (only in the days of local time)."""
    first, last = _ask(quarter * _QUARTER, zone), _ask((quarter + 1) * _QUARTER - 1, zone)
    return first if first == last else None


def _offset_at(instant: int, zone: str) -> int:
    offset = _quarter_offset(instant // _QUARTER, zone)
    return _ask(instant, zone) if offset is None else offset


def _offsets(micros: NDArray[np.int64], zone: str) -> NDArray[np.int64]:
    if micros.size == 1:  # one request: no detour over unique
        return np.array([_offset_at(int(micros[0]), zone)], dtype=np.int64)
    quarters, place = np.unique(micros // _QUARTER, return_inverse=True)
    by_quarter = [_quarter_offset(quarter, zone) for quarter in quarters.tolist()]
    offsets = np.array([0 if offset is None else offset for offset in by_quarter], dtype=np.int64)[place]
    if None in by_quarter:
        odd = np.flatnonzero(np.array([offset is None for offset in by_quarter])[place])
        offsets[odd] = [_ask(instant, zone) for instant in micros[odd].tolist()]
    return offsets
