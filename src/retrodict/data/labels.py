"""Labels: what actually happened, as an expression over a table's row and the time at which it could be known."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

from retrodict.core.definition import Definition
from retrodict.core.durations import parse_duration
from retrodict.core.errors import DefinitionError
from retrodict.core.expressions import Expression, parse
from retrodict.data.definitions import Table

__all__ = ["Label"]


@dataclass(frozen=True)
class Label(Definition):
    """A yes-or-no outcome of a table's row.

    Where the expression is unknown (a needed value is null) the row has no outcome: it is neither trained on nor
    evaluated, and monitoring counts it as *void* once it has matured.

    Parameters
    ----------
    name : str
    table : Table
        One row per decided thing.
    expression : str
        What must be true for a yes, for instance ``"arr_delay > 15"``.
    known_at : str
        Time column (or expression) from which on the outcome is known.
    matures : duration, default "0s"
        How long after the decided moment to wait before an outcome that is still missing counts as void.

    Examples
    --------
    >>> late = Label("late", Table("flights", key="id"), "arr_delay > 15", known_at="arr_time", matures="24h")
    >>> late.parsed.columns
    ('arr_delay',)
    """

    kind: ClassVar[str] = "label"

    table: Table = None  # type: ignore[assignment]  # dataclass inheritance forces a default; required in practice
    expression: str = ""
    known_at: str = ""
    matures: str = "0s"
    description: str = field(default="", metadata={"identity": False})

    def __post_init__(self) -> None:
        """Parse what is written, so that a mistake is found here and not at night."""
        super().__post_init__()
        where = f"label {self.name}"
        if not isinstance(self.table, Table):
            raise DefinitionError(
                "a label is of a table",
                where=where,
                got=type(self.table).__name__,
                remedy="Pass the Table object, not its name",
            )
        if not self.table.key:
            raise DefinitionError(
                "the table of a label has a key", where=where, got=self.table.name, remedy="Say key='id' in the table"
            )
        for text, place, kind in ((self.expression, where, "bool"), (self.known_at, f"{where}, known_at", "time")):
            if parse(text, where=place).kind not in (kind, None):
                rule = "a label is true or false" if kind == "bool" else "known_at is a time"
                raise DefinitionError(rule, where=place, got=text, remedy="Write a comparison, or name a time column")
        parse_duration(self.matures, where=f"{where}, matures")

    def __identity__(self) -> dict[str, Any]:
        """Everything that decides which rows are a yes and when; another check on the table is no other label."""
        return {
            "kind": "Label",
            "name": self.name,
            "table": self.table.name,
            "expression": self.parsed,
            "known_at": self.parsed_known_at,
            "matures": self.maturity,
        }

    @cached_property
    def parsed(self) -> Expression:
        """The expression, parsed."""
        return parse(self.expression, where=f"label {self.name}")

    @cached_property
    def parsed_known_at(self) -> Expression:
        """When the outcome is known, parsed."""
        return parse(self.known_at, where=f"label {self.name}, known_at")

    @property
    def maturity(self) -> int:
        """Microseconds after the decided moment at which a missing outcome counts as void."""
        return parse_duration(self.matures)
