"""Time comes only from an injected clock, so that a replayed day behaves like the day itself.

Inside the package an instant is an ``int``: microseconds since 1970-01-01 UTC. At the edges it is text with a zone or
an aware ``datetime``. A time without a zone is refused, never guessed.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Protocol

from retrodict.core.errors import InputError

__all__ = [
    "Clock", "SimulatedClock", "SystemClock", "check_has_been", "format_time", "from_micros", "parse_time", "to_micros",
]  # fmt: skip

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICRO = timedelta(microseconds=1)
_AHEAD = 5 * 60 * 1_000_000  # that a caller's clock may be
_BOOT = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class Clock(Protocol):
    """Where "now" comes from.

    Promises: calls are cheap (no system service beyond the clock), safe from any thread, and never go backwards by
    more than the host's own clock does.
    """

    def now(self) -> int:
        """Microseconds since 1970-01-01 UTC."""
        ...

    def ticks(self) -> int:
        """Microseconds that have passed, for ages: one count for all processes of this machine until it starts again.

        Nobody sets it: where the time of day is corrected by hours, no age changes.
        """
        ...


class SystemClock:
    """The host's clock."""

    def now(self) -> int:
        """Microseconds since 1970-01-01 UTC."""
        return time.time_ns() // 1_000

    def ticks(self) -> int:
        """Microseconds since the machine started, those of its sleep among them where the system counts them."""
        return time.clock_gettime_ns(_BOOT) // 1_000


class SimulatedClock:
    """A clock that stands still until it is moved; for replays and tests.

    Examples
    --------
    >>> clock = SimulatedClock(parse_time("2013-09-01T00:00Z"))
    >>> clock.move_to(parse_time("2013-09-01T00:05Z"))
    >>> format_time(clock.now())
    '2013-09-01T00:05:00Z'
    """

    def __init__(self, start: int) -> None:
        self._now = start

    def now(self) -> int:
        """Microseconds since 1970-01-01 UTC."""
        return self._now

    def ticks(self) -> int:
        """The simulated time."""
        return self._now

    def move_to(self, instant: int) -> None:
        """Set the time; going back is refused, since facts already stand at the later time."""
        if instant < self._now:
            raise InputError(
                "a simulated clock must not go back",
                where="clock",
                got=format_time(instant),
                remedy=f"Move it to {format_time(self._now)} or later",
            )
        self._now = instant


def to_micros(moment: datetime, *, where: str = "time") -> int:
    """Microseconds since 1970-01-01 UTC of an aware datetime."""
    if moment.tzinfo is None or moment.utcoffset() is None:
        raise InputError(
            "a time must carry its zone", where=where, got=moment.isoformat(), remedy="Append 'Z' or '+02:00'"
        )
    return (moment - _EPOCH) // _MICRO


def from_micros(instant: int) -> datetime:
    """Aware UTC datetime of an instant.

    Raises
    ------
    InputError
        If the instant lies outside the years 1 to 9999.
    """
    try:
        return _EPOCH + timedelta(microseconds=instant)
    except OverflowError as error:
        raise InputError(
            "an instant must be microseconds since 1970-01-01 UTC, within the years 1 to 9999",
            where="time",
            got=instant,
            remedy="Check the unit: seconds or nanoseconds are not microseconds",
        ) from error


def parse_time(text: str, *, where: str = "time") -> int:
    """Instant of an ISO 8601 text with a zone, in microseconds since 1970-01-01 UTC.

    Raises
    ------
    InputError
        If the text is not ISO 8601 or carries no zone.

    Examples
    --------
    >>> parse_time("2013-09-01T18:00-04:00") == parse_time("2013-09-01T22:00:00Z")
    True
    """
    try:
        moment = datetime.fromisoformat(text)
    except (TypeError, ValueError) as error:
        raise InputError(
            "a time must be ISO 8601 with a zone", where=where, got=text, remedy="Write it like '2013-09-01T18:00:00Z'"
        ) from error
    return to_micros(moment, where=where)


def check_has_been(moment: int, now: int, *, where: str) -> None:
    """InputError unless a moment has been by now, as far as clocks agree: nothing can be decided as of the future."""
    if moment > now + _AHEAD:
        raise InputError("a decision must be as of now or a moment before", where=where, got=format_time(moment),
                         remedy="Correct the time; without one it is now")  # fmt: skip


def format_time(instant: int) -> str:
    """ISO 8601 text in UTC, with microseconds only where there are any.

    Examples
    --------
    >>> format_time(0)
    '1970-01-01T00:00:00Z'
    """
    return from_micros(instant).isoformat().replace("+00:00", "Z")
