"""Arguments as people write them: times, rows, names."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import TypeVar

from retrodict.core.clock import parse_time, to_micros
from retrodict.core.errors import InputError

__all__ = ["Time", "instant", "only_one"]

Time = str | datetime | int
"""ISO 8601 with its zone, a datetime with one, or whole microseconds since 1970-01-01 UTC."""

T = TypeVar("T")


def instant(value: Time | None, where: str) -> int | None:
    """Microseconds since 1970-01-01 UTC; None stays None.

    Raises
    ------
    InputError
        If the time has no zone: it is never guessed.
    """
    if value is None or isinstance(value, int):
        return value
    return parse_time(value, where=where) if isinstance(value, str) else to_micros(value, where=where)


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
