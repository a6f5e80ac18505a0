"""Periods of reports: calendar months in UTC, or any fixed length counted from 1970-01-01 UTC.

Both are the same whatever span a report is asked for, so that two reports speak of the same "2013-09".
"""

from __future__ import annotations

from dataclasses import dataclass

from retrodict.core.clock import format_time, from_micros, to_micros
from retrodict.core.durations import parse_duration
from retrodict.core.errors import InputError

__all__ = ["Period", "period_of", "periods_between", "short_period"]

_MAX_PERIODS = 10_000


@dataclass(frozen=True, slots=True)
class Period:
    """Half-open span ``start <= time < end``, in microseconds since 1970-01-01 UTC, with the name it has in reports."""

    name: str
    start: int
    end: int

    def covered_by(self, start: int | None, end: int) -> bool:
        """Whether a report over ``[start, end)`` sees the whole period; start None reaches back without limit."""
        return self.end <= end and (start is None or start <= self.start)


def period_of(instant: int, period: str) -> Period:
    """Period that an instant lies in.

    Parameters
    ----------
    instant : int
        Microseconds since 1970-01-01 UTC.
    period : str
        ``"month"`` or a duration such as ``"7d"``.

    Raises
    ------
    InputError
        If the period is neither, or has no length.

    Examples
    --------
    >>> period_of(0, "month").name, period_of(0, "7d").name
    ('1970-01', '1970-01-01T00:00:00Z/7d')
    """
    if period == "month":
        first = from_micros(instant).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
        following = first.replace(year=first.year + first.month // 12, month=first.month % 12 + 1)
        return Period(f"{first:%Y-%m}", to_micros(first), to_micros(following))
    try:
        length = parse_duration(period)
    except InputError as error:
        raise InputError(
            "a period must be 'month' or a duration", where="period", got=period, remedy="Write it like 'month' or '7d'"
        ) from error
    if not length:
        raise InputError(
            "a period must have a length", where="period", got=period, remedy="Write it like 'month' or '7d'"
        )
    start = instant // length * length
    return Period(f"{format_time(start)}/{period}", start, start + length)


def periods_between(first: int, last: int, period: str) -> list[Period]:
    """Every period from the one that holds ``first`` to the one that holds ``last``, without gaps.

    Raises
    ------
    InputError
        If there are more than 10,000: a report of seconds over a year is a mistake.
    """
    periods = [period_of(first, period)]
    while periods[-1].end <= last:
        periods.append(period_of(periods[-1].end, period))
        if len(periods) > _MAX_PERIODS:
            raise InputError(
                f"a report must have at most {_MAX_PERIODS} periods",
                where="period",
                got=period,
                remedy="Take a longer period or a shorter span",
            )
    return periods


def short_period(name: str | None) -> str:
    """Name of a period for people, ``2013-04-25 (7d)`` where it begins at midnight; empty for None."""
    start, slash, length = (name or "").partition("/")
    if not slash:
        return start
    moment = start.replace("T", " ").removesuffix("Z").removesuffix(" 00:00:00").removesuffix(":00")
    return f"{moment} ({length})"
