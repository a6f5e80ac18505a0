"""Durations as people write them (``"2h"``, ``"20m"``, ``"7d"``), held as whole microseconds.

Calendar units (month, year) are left out on purpose: their length depends on the date, and a window whose length
depends on the date cannot be the same online and offline. ``"1 month"`` in a time split is a calendar step and lives
with the split.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache

from retrodict.core.errors import DefinitionError, InputError

__all__ = [
    "DAY",
    "HOUR",
    "MILLISECOND",
    "MINUTE",
    "SECOND",
    "abbreviated",
    "check_lengths",
    "format_duration",
    "parse_duration",
]

MILLISECOND = 1_000
SECOND = 1_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR

_UNITS = {"us": 1, "ms": MILLISECOND, "s": SECOND, "m": MINUTE, "h": HOUR, "d": DAY, "w": 7 * DAY}
_WORDS = {"day": "d", "hour": "h", "hr": "h", "min": "m", "minute": "m", "sec": "s", "second": "s", "week": "w"}
_PART = re.compile(r"([0-9]+)\s*(us|ms|s|m|h|d|w)")
_WHOLE = re.compile(r"\s*(?:[0-9]+\s*(?:us|ms|s|m|h|d|w)\s*)+")
# A century: longer is a slip of the unit, and every instant plus a duration stays within 64 bits.
_LONGEST = 36_525 * DAY


def parse_duration(text: str, *, where: str = "duration") -> int:
    """Length in microseconds of a duration such as ``"90s"``, ``"1h 30m"`` or ``"7d"``.

    Parameters
    ----------
    text : str
        One or more whole numbers with a unit out of us, ms, s, m, h, d, w.
    where : str, default "duration"
        What to name in the error.

    Returns
    -------
    int
        Microseconds, zero or more.

    Raises
    ------
    InputError
        If the text is anything else, or longer than a hundred years.

    Examples
    --------
    >>> parse_duration("1h 30m") == 90 * MINUTE
    True
    """
    value: object = text  # a definitions module is not type-checked
    length = _micros(value) if isinstance(value, str) else None
    if length is None:
        near = abbreviated(value)
        raise InputError(
            "a duration must be whole numbers with units out of us, ms, s, m, h, d, w",
            where=where,
            got=text,
            remedy="Write it like '2h' or '1h 30m'" if near is None else f"Write it as {near!r}",
        )
    if length > _LONGEST:
        raise InputError(
            "a duration must be at most a hundred years",
            where=where,
            got=text[:60],
            remedy="Check the number and its unit",
        )
    return length


def check_lengths(lengths: Mapping[str, str | None], *, where: str) -> None:
    """Refuse a field of a definition that lasts no time at all; one without a text is left out."""
    for field, text in lengths.items():
        if text is not None and parse_duration(text, where=f"{where}, {field}") == 0:
            raise DefinitionError("a duration must be longer than 0", where=f"{where}, {field}", got=text,
                                  remedy="Write it like '1h'")  # fmt: skip


def abbreviated(text: object) -> str | None:
    """Duration of a text with units in words, as it is to be written; None if it is none either.

    Examples
    --------
    >>> abbreviated("5 days"), abbreviated("2 hours 30 min"), abbreviated("a while")
    ('5d', '2h 30m', None)
    """
    if not isinstance(text, str):
        return None
    short = re.sub(r"\s*([a-z]+)", lambda word: _WORDS.get(word[1].removesuffix("s"), word[1]), text.strip().lower())
    return short if _micros(short) is not None else None


@lru_cache(maxsize=1024)  # windows are asked for theirs with every request
def _micros(text: str) -> int | None:
    """Length of a text, None if it is no duration."""
    if not _WHOLE.fullmatch(text):
        return None
    if len(text) > 200:
        return _LONGEST + 1
    return sum(int(number) * _UNITS[unit] for number, unit in _PART.findall(text))


def format_duration(micros: int) -> str:
    """Text in the largest units up to days, which :func:`parse_duration` reads back to the same length.

    Examples
    --------
    >>> format_duration(90 * MINUTE), format_duration(14 * DAY), format_duration(0)
    ('1h30m', '14d', '0s')
    """
    if micros < 0:
        raise InputError("a duration must not be negative", where="duration", got=micros, remedy="Swap the two times")
    parts = []
    for unit in ("d", "h", "m", "s", "ms", "us"):
        count, micros = divmod(micros, _UNITS[unit])
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"
