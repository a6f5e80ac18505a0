"""Layer 1, schema: which columns there are, of which type, and what a single value or key may be."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal, Self, Unpack

from retrodict.core.clock import format_time, parse_time
from retrodict.core.durations import format_duration, parse_duration
from retrodict.core.errors import DefinitionError
from retrodict.data.checks.base import CheckBase, How, check_bounds, is_number, one_of

__all__ = ["SchemaChecks"]


class SchemaChecks(CheckBase):
    """Class methods of layer 1."""

    @classmethod
    def columns_exist(cls, *columns: str, **how: Unpack[How]) -> Self:
        """Each of the columns is in the batch."""
        return cls.make("columns_exist", columns, how)

    @classmethod
    def columns_match(cls, *columns: str, **how: Unpack[How]) -> Self:
        """The batch has these columns and no other, in any order."""
        return cls.make("columns_match", columns, how)

    @classmethod
    def has_type(cls, column: str, type: str, **how: Unpack[How]) -> Self:  # noqa: A002  (the word people look for)
        """The column arrives as bool, date, float, int, string or time (an int also as float)."""
        one_of(type, ("bool", "date", "float", "int", "string", "time"), "type", "check has_type")
        return cls.make("has_type", (column,), how, type=type)

    @classmethod
    def not_null(cls, *columns: str, **how: Unpack[How]) -> Self:
        """None of the columns is null."""
        return cls.make("not_null", columns, how)

    @classmethod
    def is_null(cls, *columns: str, **how: Unpack[How]) -> Self:
        """Every one of the columns is null; useful with ``where``."""
        return cls.make("is_null", columns, how)

    @classmethod
    def finite(cls, *columns: str, **how: Unpack[How]) -> Self:
        """No value is infinite."""
        return cls.make("finite", columns, how)

    @classmethod
    def unique(cls, *columns: str, **how: Unpack[How]) -> Self:
        """No two rows of a batch have the same values; later ones fail, even if the first is set aside."""
        return cls.make("unique", columns, how)

    @classmethod
    def primary_key(cls, *columns: str, **how: Unpack[How]) -> Self:
        """The columns are never null, and together never repeat in a batch."""
        return cls.make("primary_key", columns, how)

    @classmethod
    def between(cls, column: str, low: float | None, high: float | None, **how: Unpack[How]) -> Self:
        """The value lies in [low, high]; None leaves a side open."""
        check_bounds(low, high, "check between")
        return cls.make("between", (column,), how, low=low, high=high)

    @classmethod
    def in_set(cls, column: str, values: Iterable[Any], **how: Unpack[How]) -> Self:
        """The value is one of a set of texts, of numbers, or of truth values."""
        return cls.make("in_set", (column,), how, values=_set_of(values, "in_set"))

    @classmethod
    def not_in_set(cls, column: str, values: Iterable[Any], **how: Unpack[How]) -> Self:
        """The value is none of a set."""
        return cls.make("not_in_set", (column,), how, values=_set_of(values, "not_in_set"))

    @classmethod
    def matches(cls, column: str, pattern: str, **how: Unpack[How]) -> Self:
        """The whole text matches a regular expression (which ones: docs/expressions.md)."""
        return cls.make("matches", (column,), how, pattern=pattern)

    @classmethod
    def length(cls, column: str, low: int | None, high: int | None, **how: Unpack[How]) -> Self:
        """The text has low to high characters; None leaves a side open."""
        check_bounds(low, high, "check length")
        return cls.make("length", (column,), how, low=low, high=high)

    @classmethod
    def time_between(cls, column: str, earliest: str | None, latest: str | None, **how: Unpack[How]) -> Self:
        """The time (or date) lies in [earliest, latest], both ISO 8601 with a zone or a day in UTC; None is open."""
        low, high = _moment(earliest), _moment(latest)
        if low is None and high is None:
            raise DefinitionError(
                "time_between must have one or two times",
                where="check time_between",
                got=(earliest, latest),
                remedy="Write '2013-01-01'",
            )
        return cls.make("time_between", (column,), how, earliest=low, latest=high)

    @classmethod
    def not_in_future(cls, column: str, allow: str = "0s", **how: Unpack[How]) -> Self:
        """The time is not later than the moment of the check plus an allowance like ``"5m"``."""
        allowance = format_duration(parse_duration(allow, where="check not_in_future"))
        return cls.make("not_in_future", (column,), how, allow=allowance)

    @classmethod
    def monotone(
        cls,
        column: str,
        direction: Literal["increasing", "decreasing"] = "increasing",
        *,
        strict: bool = False,
        per: str | tuple[str, ...] | list[str] = (),
        **how: Unpack[How],
    ) -> Self:
        """In the order of the batch no value goes back behind the largest before it (of its group ``per``).

        Nulls are skipped; ``strict`` refuses equal neighbours too.
        """
        one_of(direction, ("increasing", "decreasing"), "direction", "check monotone")
        groups = (per,) if isinstance(per, str) else tuple(per)
        return cls.make("monotone", (column, *groups), how, direction=direction, strict=strict or None)


def _moment(text: str | None) -> str | None:
    if text is None:
        return None
    return format_time(parse_time(f"{text}T00:00Z" if len(text) == len("2013-01-01") else text))


def _kind(value: object) -> str | None:
    if isinstance(value, bool):
        return "bool"
    if is_number(value):
        return "number"
    return "text" if isinstance(value, str) else None


def _set_of(values: Iterable[Any], rule: str) -> tuple[Any, ...]:
    listed = () if isinstance(values, str) else tuple(values)  # a text is a set of its letters, which nobody means
    kinds = {_kind(value) for value in listed}
    if len(kinds) != 1 or None in kinds:
        raise DefinitionError(
            f"{rule} must have a collection of texts, of numbers or of truth values, not empty and not mixed",
            where=f"check {rule}",
            got=sorted({type(value).__name__ for value in listed}),
            remedy="Write it like {'EWR', 'JFK'}; null is the business of not_null",
        )
    return tuple(sorted(value for place, value in enumerate(listed) if value not in listed[:place]))
