"""What a definitions module says about tables: their key, their column types and the checks their rows must pass."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from retrodict.core.definition import Definition
from retrodict.core.errors import DefinitionError, near
from retrodict.core.expressions import Expression, parse

__all__ = ["Check", "ColumnType", "Severity", "Table"]

Severity = Literal["critical", "high", "medium", "low"]

_RULES = ("between", "in_set", "not_null", "sql", "unique")
_SEVERITIES = ("critical", "high", "medium", "low")
_TYPES = ("bool", "date", "float", "int", "string", "time")


@dataclass(frozen=True, slots=True)
class ColumnType:
    """A declared column type: one of bool, date, float, int, string, time.

    ``time`` takes instants with a zone; ``time(America/New_York)`` takes local times of that zone (a date alone is its
    midnight) and stores the instant. Where daylight saving repeats a local time, the later of the two instants is
    taken, so that no fact is dated before it happened; one that it skips moves forward by the length of the gap.
    """

    word: str
    zone: str | None = None

    @classmethod
    def parse(cls, text: str, *, where: str) -> ColumnType:
        """Read ``"int"`` or ``"time(Europe/Berlin)"``."""
        if not isinstance(text, str):
            raise DefinitionError(
                "a column type is a text", where=where, got=type(text).__name__, remedy="Write it like 'int' or 'time'"
            )
        match = re.fullmatch(r"(\w+)(?:\(([^()]+)\))?", text)
        word, zone = (match.group(1), match.group(2)) if match else (text, None)
        if word not in _TYPES or (zone is not None and word != "time"):
            raise DefinitionError(
                "a column type is bool, date, float, int, string, time or time(Zone/City)",
                where=where,
                got=text,
                remedy=near(word, _TYPES, what="type"),
            )
        if zone is not None:
            try:
                ZoneInfo(zone)
            except (ZoneInfoNotFoundError, ValueError, OSError) as error:  # a folder of zones is an OSError
                raise DefinitionError(
                    "a zone is in the IANA time zone database",
                    where=where,
                    got=zone,
                    remedy="Write it like 'America/New_York'",
                ) from error
        return cls(word, zone)


def _is_number(value: object) -> bool:
    """Whether a value can stand in SQL as a number: finite, and a whole one within 64 bits."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return -(2**63) <= value < 2**63 if isinstance(value, int) else math.isfinite(value)


def _kind(value: object) -> str | None:
    """Kind of an allowed value, None if it is none of the three."""
    if isinstance(value, bool):
        return "bool"
    if _is_number(value):
        return "number"
    return "text" if isinstance(value, str) else None


def _check_allowed(values: tuple[Any, ...], where: str) -> None:
    kinds = {_kind(value) for value in values}
    if len(kinds) != 1 or None in kinds:
        raise DefinitionError(
            "in_set takes a collection of texts, of numbers or of truth values, not empty and not mixed",
            where=where,
            got=sorted({type(value).__name__ for value in values}),
            remedy="Write it like {'EWR', 'JFK'}; null is the business of not_null",
        )


def _check_bounds(values: tuple[Any, ...], where: str) -> None:
    given = [value for value in values if value is not None]
    if len(values) != 2 or not given or not all(_is_number(value) for value in given):
        raise DefinitionError(
            "between takes one or two finite numbers",
            where=where,
            got=values,
            remedy="Write None for an open side; compare times and texts with Check.sql",
        )
    if len(given) == 2 and given[0] > given[1]:
        raise DefinitionError(
            "the lower bound is not above the upper one", where=where, got=values, remedy="Swap the two"
        )


@dataclass(frozen=True)
class Check:
    """A rule on the rows of a table.

    A row fails a check when the rule is false; where the rule is unknown because a value is null, the row passes
    (``not_null`` is the check for nulls). NaN counts as null, as in expressions. What failing does is the severity's
    business:

    ========== ========================================================================================
    critical   failing rows go to quarantine; if their share exceeds ``tolerance``, nothing is published
    high       the same
    medium     failing rows go to quarantine, the rest is published, the report warns
    low        failing rows are published too; the report counts them
    ========== ========================================================================================

    Parameters
    ----------
    rule : str
        ``not_null``, ``in_set``, ``between``, ``unique`` or ``sql``; made by the class methods of that name.
    columns : tuple of str
        What the rule reads.
    values : tuple
        Allowed values, or the two bounds.
    expression : str, optional
        For ``sql``: what must not be false.
    severity : str, default "medium"
        See above.
    tolerance : float, default 0.0
        Share of rows of a batch, 0 to 1, that may fail before a critical or high check halts it.

    Examples
    --------
    >>> Check.between("arr_delay", -120, 1500).title
    'between(arr_delay, -120, 1500)'
    """

    rule: str
    columns: tuple[str, ...]
    values: tuple[Any, ...] = ()
    expression: str | None = None
    severity: Severity = "medium"
    tolerance: float = 0.0

    def __post_init__(self) -> None:
        """Check the check."""
        if self.rule not in _RULES:
            raise DefinitionError(
                "a check has a rule that exists",
                where="check",
                got=self.rule,
                remedy=near(str(self.rule), _RULES, what="rule"),
            )
        where = f"check {self.title}"
        if self.severity not in _SEVERITIES:
            raise DefinitionError(
                "a severity is critical, high, medium or low",
                where=where,
                got=self.severity,
                remedy=near(str(self.severity), _SEVERITIES, what="severity"),
            )
        if not _is_number(self.tolerance) or not 0.0 <= self.tolerance <= 1.0:
            raise DefinitionError(
                "a tolerance is a share from 0 to 1", where=where, got=self.tolerance, remedy="Write 5 % as 0.05"
            )
        named: tuple[object, ...] = self.columns
        if not named or not all(isinstance(column, str) and column for column in named):
            raise DefinitionError(
                "a check reads at least one column", where=where, got=self.columns, remedy="Name the columns"
            )
        if self.rule == "in_set":
            _check_allowed(self.values, where)
        elif self.rule == "between":
            _check_bounds(self.values, where)
        elif self.rule == "sql" and (self.parsed is None or self.parsed.kind not in ("bool", None)):
            raise DefinitionError(
                "the expression of a check is true or false",
                where=where,
                got=self.expression,
                remedy="Write a comparison like 'arr_time > dep_time'",
            )

    @classmethod
    def not_null(cls, *columns: str, severity: Severity = "medium", tolerance: float = 0.0) -> Check:
        """None of the columns is null."""
        return cls("not_null", columns, severity=severity, tolerance=tolerance)

    @classmethod
    def in_set(
        cls, column: str, values: Iterable[Any], *, severity: Severity = "medium", tolerance: float = 0.0
    ) -> Check:
        """The value is one of a set of texts, of numbers, or of truth values."""
        given = () if isinstance(values, str) else tuple(values)  # a text is a set of its letters, which nobody means
        allowed = tuple(value for place, value in enumerate(given) if value not in given[:place])
        if len({_kind(value) for value in allowed}) == 1:
            allowed = tuple(sorted(allowed))
        return cls("in_set", (column,), allowed, severity=severity, tolerance=tolerance)

    @classmethod
    def between(
        cls,
        column: str,
        low: float | None,
        high: float | None,
        *,
        severity: Severity = "medium",
        tolerance: float = 0.0,
    ) -> Check:
        """The value lies in [low, high]; None leaves a side open."""
        return cls("between", (column,), (low, high), severity=severity, tolerance=tolerance)

    @classmethod
    def unique(cls, *columns: str, severity: Severity = "medium", tolerance: float = 0.0) -> Check:
        """No two rows of a batch have the same values; later ones fail, even if the first is set aside."""
        return cls("unique", columns, severity=severity, tolerance=tolerance)

    @classmethod
    def sql(cls, expression: str, *, severity: Severity = "medium", tolerance: float = 0.0) -> Check:
        """The expression is not false."""
        parsed = parse(expression, where="check sql")
        return cls("sql", tuple(parsed.columns), (), parsed.text, severity=severity, tolerance=tolerance)

    @property
    def title(self) -> str:
        """Name in reports, readable and without values of data."""
        if self.expression is not None:
            return f"sql({self.expression})"
        shown = [str(value) for value in self.values] if self.rule == "between" else []
        return f"{self.rule}({', '.join([*self.columns, *shown])})"

    @cached_property
    def parsed(self) -> Expression | None:
        """The expression of a ``sql`` check."""
        return parse(self.expression, where=f"check {self.title}") if self.expression is not None else None

    @property
    def halts(self) -> bool:
        """Whether failing beyond the tolerance stops the batch."""
        return self.severity in ("critical", "high")

    @property
    def sets_aside(self) -> bool:
        """Whether failing rows go to quarantine."""
        return self.severity != "low"


@dataclass(frozen=True)
class Table(Definition):
    """A versioned table.

    Parameters
    ----------
    name : str
        Lower-case name.
    key : str or list of str
        Columns that identify a row; they are never null and never repeat (implied checks).
    columns : mapping of str to str, optional
        Column types, by name; columns that are not named keep the type they arrive with.
    checks : list of Check, optional
        Rules on the rows.
    description : str, optional
        For people; not part of the version.

    Examples
    --------
    >>> Table("weather", key=["origin", "hour"], columns={"hour": "time"}).key
    ('origin', 'hour')
    """

    kind: ClassVar[str] = "table"

    key: tuple[str, ...] | list[str] | str = ()
    columns: Mapping[str, str] = field(default_factory=dict)
    checks: tuple[Check, ...] | list[Check] = ()
    description: str = field(default="", metadata={"identity": False})

    def __post_init__(self) -> None:
        """Normalise lists to tuples and check key and types."""
        super().__post_init__()
        where = f"table {self.name}"
        key: tuple[object, ...] = (self.key,) if isinstance(self.key, str) else tuple(self.key)
        object.__setattr__(self, "key", key)
        object.__setattr__(self, "checks", (self.checks,) if isinstance(self.checks, Check) else tuple(self.checks))
        if not key or not all(isinstance(name, str) and name for name in key):
            raise DefinitionError("a table has a key", where=where, remedy="Say key='id' or key=['a', 'b']")
        if len(set(key)) < len(key):
            raise DefinitionError("a key names a column once", where=where, got=self.key, remedy="Remove the second")
        if not isinstance(self.columns, Mapping):
            raise DefinitionError(
                "columns are types by name",
                where=where,
                got=type(self.columns).__name__,
                remedy="Write them like {'arr_delay': 'float'}",
            )
        object.__setattr__(self, "columns", dict(self.columns))  # a copy: the definition never changes
        for check in self.checks:
            if not isinstance(check, Check):
                raise DefinitionError(
                    "checks are Check objects", where=where, got=type(check).__name__, remedy="Write Check.sql('...')"
                )
        for column, text in self.columns.items():
            ColumnType.parse(text, where=f"{where}, column {column!r}")

    def type_of(self, column: str) -> ColumnType | None:
        """Declared type of a column, None if it is not declared."""
        text = self.columns.get(column)
        return None if text is None else ColumnType.parse(text, where=f"table {self.name}, column {column!r}")
