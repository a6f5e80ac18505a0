"""Values and bounds of other tools as checks: whole, strict and open sides, numbers, times and texts."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from datetime import date, datetime
from decimal import Decimal
from typing import Any

from retrodict.core.clock import format_time, parse_time
from retrodict.data.checks import Check
from retrodict.data.checks.base import column_text, literal_text
from retrodict.data.interchange.imported import Refused

_ISO = re.compile(r"\d{4}-\d{2}-\d{2}(?:[T ]\d{2}:\d{2}(?::\d{2}(?:\.\d{1,6})?)?(?:Z|[+-]\d{2}:?\d{2})?)?")


class Moment(str):
    """An instant in canonical ISO 8601: what separates a time from a text that looks like one."""

    __slots__ = ()


def plain(value: Any) -> Any:
    """Return a value of any of these libraries as bool, int, float, str, Moment or None.

    A time without a zone is read as UTC, as everywhere where a definition says nothing else.
    """
    if hasattr(value, "item") and not isinstance(value, datetime):  # a NumPy scalar
        value = value.item()
    if isinstance(value, date):  # a datetime is one too
        return _moment(value.isoformat())
    if isinstance(value, Decimal):
        value = float(value)
    if isinstance(value, float):
        if math.isnan(value):
            return None
        return int(value) if value.is_integer() and abs(value) < 2**53 else value
    if value is None or isinstance(value, bool | int | str):
        return value
    raise Refused(f"a value of type {type(value).__name__} cannot stand in a definition")


def time_or_text(value: Any) -> Any:
    """Read a text that is an ISO 8601 day or time as a moment."""
    value = plain(value)
    return _moment(value) if isinstance(value, str) and _ISO.fullmatch(value) else value


def _moment(text: str) -> Moment:
    day, _, clock = text.replace(" ", "T").partition("T")
    zoned = re.search(r"(?:Z|[+-]\d{2}:?\d{2})$", clock)
    return Moment(format_time(parse_time(f"{day}T{clock or '00:00'}{'' if zoned else 'Z'}")))


def value_text(value: Any) -> str:
    """Return a plain value as it stands in an expression."""
    return f"timestamp '{value}'" if isinstance(value, Moment) else literal_text(value)


def complement(share: float) -> float:
    """One minus a share as people write it: 0.1 for 0.9, and not 0.09999999999999998."""
    return float(1 - Decimal(repr(float(share))))


def value_checks(
    column: str, low: Any, high: Any, how: Mapping[str, Any], *, strict_low: bool = False, strict_high: bool = False
) -> list[Check]:
    """Bounds on each value: ``between`` or ``time_between`` where both sides are closed, else an expression."""
    low, high = time_or_text(low), time_or_text(high)
    kinds = {_kind(value) for value in (low, high) if value is not None}
    if not kinds:
        raise Refused("it has no bounds")
    if len(kinds) > 1:
        raise Refused("its bounds are of different kinds")
    strict = (strict_low and low is not None) or (strict_high and high is not None)
    if not strict and kinds == {"number"}:
        return [Check.between(column, low, high, **how)]
    if not strict and kinds == {"time"}:
        return [Check.time_between(column, low, high, **how)]
    sides = ((low, ">" if strict_low else ">="), (high, "<" if strict_high else "<="))
    text = " and ".join(
        f"{column_text(column)} {sign} {value_text(value)}" for value, sign in sides if value is not None
    )
    return [Check.sql(text, **how)]


def _kind(value: Any) -> str:
    if isinstance(value, Moment):
        return "time"
    if isinstance(value, bool):
        return "bool"
    return "text" if isinstance(value, str) else "number"


def members(values: Iterable[Any] | None) -> list[Any]:
    """Values of a set, nulls left out: a check of a set says nothing about nulls."""
    if values is None:
        raise Refused("it has no set of values")
    constants = [value for value in map(plain, values) if value is not None]
    if not constants:
        raise Refused("its set is empty, so every value fails")
    return constants


def set_checks(column: str, values: Iterable[Any] | None, how: Mapping[str, Any], *, negated: bool) -> list[Check]:
    """Membership of a set; of a set of times as an expression."""
    constants = members(values)
    if not any(isinstance(value, Moment) for value in constants):
        return [(Check.not_in_set if negated else Check.in_set)(column, constants, **how)]
    if not all(isinstance(value, Moment) for value in constants):
        raise Refused("its set mixes times with other values")
    word = "not in" if negated else "in"
    return [Check.sql(f"{column_text(column)} {word} ({', '.join(map(value_text, constants))})", **how)]


def contains_checks(column: str, values: Iterable[Any] | None, how: Mapping[str, Any]) -> list[Check]:
    """Each of the values occurs at least once: one count of rows for each."""
    about = "" if how.get("where") is None else f"({how['where']}) and "
    conditions = [f"{about}{column_text(column)} = {value_text(value)}" for value in members(values)]
    return [Check.row_count(1, None, **{**how, "where": condition}) for condition in conditions]


def measure_bounds(low: Any, high: Any, *, strict_low: bool = False, strict_high: bool = False) -> tuple[Any, Any]:
    """Bounds on a fraction; a strict bound is the next number a float can hold, which means exactly the same."""
    low, high = _number(low), _number(high)
    if strict_low and low is not None:
        low = math.nextafter(low, math.inf)
    if strict_high and high is not None:
        high = math.nextafter(high, -math.inf)
    return low, high


def count_bounds(low: Any, high: Any, *, strict_low: bool = False, strict_high: bool = False) -> tuple[Any, Any]:
    """Bounds on a whole number."""
    low, high = _number(low), _number(high)
    if low is not None:
        low = math.floor(low) + 1 if strict_low else math.ceil(low)
    if high is not None:
        high = math.ceil(high) - 1 if strict_high else math.floor(high)
    return low, high


def _number(value: Any) -> Any:
    value = plain(value)
    if value is not None and _kind(value) != "number":
        raise Refused("its bounds are no numbers; compare times with time_between or freshness, texts with sql")
    return value
