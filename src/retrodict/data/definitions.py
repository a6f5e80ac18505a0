"""What a definitions module says about tables: their key, their column types and the checks their rows must pass."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from retrodict.core.definition import Definition
from retrodict.core.errors import DefinitionError, near
from retrodict.core.kinds import KINDS
from retrodict.core.names import NameUse
from retrodict.data.checks import Check
from retrodict.data.checks.base import check_keywords

__all__ = ["Check", "ColumnType", "Table", "quarantine_name", "unpublished_name"]

_KINDS = {kind.column_word: kind.name for kind in KINDS.values()}


@dataclass(frozen=True, slots=True)
class ColumnType:
    """A declared column type, written as one of bool, date, float, int, string, time; its kind is one of core.kinds.

    ``time`` takes instants with a zone; ``time(America/New_York)`` takes local times of that zone (a date alone is its
    midnight) and stores the instant. Where daylight saving repeats a local time, the later of the two instants is
    taken, so that no fact is dated before it happened; one that it skips moves forward by the length of the gap.
    """

    kind: str
    zone: str | None = None

    @classmethod
    def parse(cls, text: str, *, where: str) -> ColumnType:
        """Read ``"int"`` or ``"time(Europe/Berlin)"``."""
        if not isinstance(text, str):
            raise DefinitionError(
                "a column type must be a text",
                where=where,
                got=type(text).__name__,
                remedy="Write it like 'int' or 'time'",
            )
        match = re.fullmatch(r"(\w+)(?:\(([^()]+)\))?", text)
        word, zone = (match.group(1), match.group(2)) if match else (text, None)
        if word not in _KINDS or (zone is not None and word != "time"):
            raise DefinitionError(
                "a column type must be bool, date, float, int, string, time or time(Zone/City)",
                where=where,
                got=text,
                remedy=near(word, _KINDS, what="type"),
            )
        if zone is not None:
            try:
                ZoneInfo(zone)
            except (ZoneInfoNotFoundError, ValueError, OSError) as error:  # a folder of zones is an OSError
                raise DefinitionError(
                    "a zone must be in the IANA time zone database",
                    where=where,
                    got=zone,
                    remedy="Write it like 'America/New_York'",
                ) from error
        return cls(_KINDS[word], zone)


@dataclass(frozen=True)
class Table(Definition):
    """A versioned table.

    Parameters
    ----------
    name : str
        Lower-case name.
    key : str or list of str, optional
        Columns that identify a row; they are never null and never repeat (implied checks). Without a key nothing is
        looked up, and two versions can only be compared as bags of rows.
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

    def __new__(cls, *_: Any, **keywords: Any) -> Self:
        """Refuse a keyword that no field has, with the nearest one."""
        check_keywords(keywords, {part.name for part in fields(cls)}, where="table")
        return super().__new__(cls)

    def __post_init__(self) -> None:
        """Normalise lists to tuples and check key and types."""
        super().__post_init__()
        where = f"table {self.name}"
        key: tuple[object, ...] = (self.key,) if isinstance(self.key, str) else tuple(self.key)
        object.__setattr__(self, "key", key)
        object.__setattr__(self, "checks", (self.checks,) if isinstance(self.checks, Check) else tuple(self.checks))
        if not all(isinstance(name, str) and name for name in key):
            raise DefinitionError(
                "a key must name columns", where=where, got=key, remedy="Say key='id' or key=['a', 'b']"
            )
        if len(set(key)) < len(key):
            raise DefinitionError(
                "a key must name a column once", where=where, got=self.key, remedy="Remove the second"
            )
        if not isinstance(self.columns, Mapping):
            raise DefinitionError(
                "columns must be types by name",
                where=where,
                got=type(self.columns).__name__,
                remedy="Write them like {'arr_delay': 'float'}",
            )
        object.__setattr__(self, "columns", dict(self.columns))  # a copy: the definition never changes
        for check in self.checks:
            if not isinstance(check, Check):
                raise DefinitionError(
                    "checks must be Check objects",
                    where=where,
                    got=type(check).__name__,
                    remedy="Write Check.sql('...')",
                )
        for column, text in self.columns.items():
            ColumnType.parse(text, where=f"{where}, column {column!r}")

    def uses(self) -> Iterator[NameUse]:
        """Columns that its checks read, and the other tables that they look into."""
        for check in self.checks:
            yield from check.uses(self.name)

    def type_of(self, column: str) -> ColumnType | None:
        """Declared type of a column, None if it is not declared."""
        text = self.columns.get(column)
        return None if text is None else ColumnType.parse(text, where=f"table {self.name}, column {column!r}")


def quarantine_name(table: str) -> str:
    """Name of the table that keeps the rows which were set aside."""
    return f"{table}__quarantine"


def unpublished_name(table: str) -> str:
    """Name of the table that keeps the batches which were halted, one version each."""
    return f"{table}__unpublished"
