"""A source: the rows of a table read as facts with two clocks.

It says when a row happened (``event_time``) and when it could have been known (``known_at``). A table with neither
(planes, customers) is a list of timeless facts: always visible, the last row per key counts.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from retrodict.core.definition import Definition
from retrodict.core.durations import format_duration, parse_duration
from retrodict.core.errors import DefinitionError
from retrodict.core.expressions import parse
from retrodict.core.names import NameUse

__all__ = ["HasName", "Source"]


class HasName(Protocol):
    """What a source needs of a table: its name."""

    @property
    def name(self) -> str:
        """Name of the table."""
        ...


@dataclass(frozen=True)
class Source(Definition):
    """Facts in a table, with their two clocks.

    Parameters
    ----------
    name : str
        Name of the source.
    table : Table
        Where the rows are; only its name enters the version (a new check on a table is no new feature).
    event_time : str, optional
        Column that says when a row happened. None: ``known_at``; with neither the facts are timeless.
    known_at : str, optional
        Column that says when a row could have been known. None: the event time plus ``delay``.
    delay : str, optional
        How long after its event time a fact becomes known, like ``"20m"``; not together with ``known_at``.
    sequence : str, optional
        Column with the event's id (whole number or text): breaks ties, and a row that repeats key, event time and
        sequence is a redelivery that counts once. None: the row's position.
    where : str, optional
        Condition that keeps only some rows.
    revised : bool, default False
        Whether rows with the same key and sequence are revisions of one event: from the moment one is known it takes
        the place of those known before it, its event time included. Needs ``sequence`` and ``known_at``. False: they
        are redeliveries, and the one known first counts.
    deleted : str, optional
        Condition that says a revision deletes its event; only with ``revised``.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> Source("sky", SimpleNamespace(name="weather"), event_time="hour", delay="20 m").delay
    '20m'
    """

    kind: ClassVar[str] = "source"

    table: HasName
    event_time: str | None = None
    known_at: str | None = None
    delay: str | None = None
    sequence: str | None = None
    where: str | None = None
    revised: bool = False
    deleted: str | None = None

    def __post_init__(self) -> None:
        """Check the combination of fields and write durations and conditions in one way."""
        super().__post_init__()
        where = f"source {self.name!r}"
        if not isinstance(getattr(self.table, "name", None), str):
            raise DefinitionError(
                "a source must read a table",
                where=where,
                got=type(self.table).__name__,
                remedy="Pass the Table object, not its name",
            )
        columns: tuple[object, ...] = (self.event_time, self.known_at, self.sequence)
        for column in columns:
            if column is not None and (not isinstance(column, str) or not column):
                raise DefinitionError(
                    "event_time, known_at and sequence must name columns",
                    where=where,
                    got=column,
                    remedy="Write the name of a column",
                )
        if self.delay is not None:
            if self.known_at is not None:
                raise DefinitionError(
                    "a source must have known_at or delay, not both",
                    where=where,
                    got=self.delay,
                    remedy="Remove delay: the column says it already",
                )
            if self.event_time is None:
                raise DefinitionError(
                    "a delay must count from an event time",
                    where=where,
                    got=self.delay,
                    remedy="Add event_time= or remove delay=",
                )
            object.__setattr__(self, "delay", format_duration(parse_duration(self.delay, where=where)))
        if self.where is not None:
            parse(self.where, where=f"{where}, where")
        self._check_revisions(where)

    def _check_revisions(self, where: str) -> None:
        if self.deleted is not None:
            parse(self.deleted, where=f"{where}, deleted")
        if self.revised and (self.sequence is None or self.known_at is None):
            raise DefinitionError(
                "revisions of an event must share its sequence and differ in known_at",
                where=where,
                got={"sequence": self.sequence, "known_at": self.known_at},
                remedy="Name both columns: sequence= and known_at=",
            )
        if self.deleted is not None and not self.revised:
            raise DefinitionError(
                "a source that deletes events must have revisions",
                where=where,
                got=self.deleted,
                remedy="Add revised=True",
            )

    def uses(self) -> Iterator[NameUse]:
        """Its table, and the columns of its clocks and conditions."""
        where, table = f"source {self.name!r}", self.table.name
        yield NameUse("table", table, "a source must read a table that is defined", where)
        clocks = {"event time": self.event_time, "known at": self.known_at, "sequence": self.sequence}
        columns = [(name, role) for role, name in clocks.items() if name is not None]
        for text, role in ((self.where, "where"), (self.deleted, "deleted")):
            columns += [] if text is None else [(name, role) for name in parse(text).columns]
        rule = f"a source must read columns that the table {table!r} has"
        yield from (NameUse("column", name, rule, f"{where}, {role}", table) for name, role in columns)

    @property
    def timeless(self) -> bool:
        """Whether the facts have no time at all."""
        return self.event_time is None and self.known_at is None

    @property
    def delay_us(self) -> int:
        """Declared delay in microseconds."""
        return 0 if self.delay is None else parse_duration(self.delay)

    def __identity__(self) -> dict[str, Any]:
        """Everything that decides which facts are read, when they count, and in which order."""
        return {
            "kind": "Source",
            "name": self.name,
            "table": self.table.name,
            "event_time": self.event_time,
            "known_at": self.known_at,
            "delay": self.delay_us,
            "sequence": self.sequence,
            "where": None if self.where is None else parse(self.where),
            "revised": self.revised,
            "deleted": None if self.deleted is None else parse(self.deleted),
        }
