"""Arguments as people write them: times, rows, names."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

from retrodict.core.clock import parse_time, to_micros
from retrodict.core.errors import InputError

__all__ = ["Time", "instant", "only_one"]

Time = str | datetime | int
"""ISO 8601 with its zone, a datetime with one, or whole microseconds since 1970-01-01 UTC."""

_FIRST, _LAST = to_micros(datetime(1, 1, 1, tzinfo=UTC)), to_micros(datetime(9999, 12, 31, tzinfo=UTC))


def instant(value: Time | None, where: str) -> int | None:
    """Microseconds since 1970-01-01 UTC; None stays None.

    Raises
    ------
    InputError
        If the time has no zone: it is never guessed.
    """
    if value is None:
        return None
    if isinstance(value, str):
        return parse_time(value, where=where)
    if isinstance(value, datetime):
        return to_micros(value, where=where)
    if isinstance(value, bool) or not isinstance(value, int):
        raise InputError(
            "a time must be ISO 8601 text with its zone, a datetime with one, or whole microseconds since 1970",
            where=where,
            got=type(value).__name__,
            remedy="Write it like '2013-09-01T18:00:00Z'",
        )
    if not _FIRST <= value <= _LAST:
        raise InputError(
            "a time must be in the years 1 to 9999", where=where, got=value, remedy="Pass microseconds since 1970 UTC"
        )
    return value


def only_one(names: Iterable[str], noun: str) -> str:
    """Name of the only definition of a kind, for an argument that was left out."""
    candidates = list(names)
    if len(candidates) != 1:
        raise InputError(
            f"the {noun} must be named, unless exactly one is defined",
            where=noun,
            got=candidates,
            remedy=f"Name one of them: {', '.join(candidates)}" if candidates else f"Define a {noun} first",
        )
    return candidates[0]
