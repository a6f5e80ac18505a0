"""One expectation of a suite: its arguments, and what the checks made of it have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from retrodict.data.checks import Severity
from retrodict.data.checks.base import column_text
from retrodict.data.interchange._row_conditions import condition_of
from retrodict.data.interchange._values import complement
from retrodict.data.interchange.imported import Refused


@dataclass
class Expectation:
    """One entry of a suite: its arguments, and what the checks made of it have in common.

    Attributes
    ----------
    kwargs : mapping
    severity : str
    remarks : list of str
        What the checks leave out, filled in while they are made.
    """

    kwargs: Mapping[str, Any]
    severity: Severity
    remarks: list[str] = field(default_factory=list)

    def refuse_parameters(self) -> None:
        """Refuse values that only a run of the suite would give."""
        for name, value in self.kwargs.items():
            if isinstance(value, Mapping) and "$PARAMETER" in value:
                raise Refused(f"{name} is a parameter that only a run fills in; write its value")

    def get(self, name: str, default: Any = None) -> Any:
        """An argument, the default if it is missing or null."""
        value = self.kwargs.get(name)
        return default if value is None else value

    def names(self, name: str) -> list[str]:
        """Column names of an argument."""
        value = self.get(name)
        columns = [value] if isinstance(value, str) else list(value or ())
        if not columns or not all(isinstance(column, str) for column in columns):
            raise Refused(f"{name} names no columns")
        return columns

    @property
    def column(self) -> str:
        """Its only column."""
        return self.names("column")[0]

    @cached_property
    def where(self) -> str | None:
        """Its row condition."""
        return condition_of(self.get("row_condition"))

    @cached_property
    def tolerance(self) -> float:
        """Share that may fail."""
        mostly = self.get("mostly", 1.0)
        if isinstance(mostly, bool) or not isinstance(mostly, int | float) or not 0 <= mostly <= 1:
            raise Refused("mostly is no share from 0 to 1")
        return complement(mostly)

    @property
    def how(self) -> dict[str, Any]:
        """For checks in which a null is a row like any other."""
        return {"severity": self.severity, "where": self.where, "tolerance": self.tolerance}

    @property
    def of_values(self) -> dict[str, Any]:
        """For checks of values: with a ``mostly``, rows without a value are not among those counted."""
        return self.only(f"{column_text(self.column)} is not null") if self.tolerance else self.how

    def only(self, condition: str) -> dict[str, Any]:
        """For checks that leave rows out."""
        where = condition if self.where is None else f"({self.where}) and ({condition})"
        return self.how | {"where": where}

    @property
    def whole(self) -> dict[str, Any]:
        """For numbers of a batch."""
        return {"severity": self.severity, "where": self.where}

    @property
    def bare(self) -> dict[str, Any]:
        """For what is about columns and has no condition."""
        return {"severity": self.severity}

    @property
    def every(self) -> dict[str, Any]:
        """For checks that fail on other rows than theirs, so that only whether any fails means the same."""
        if self.tolerance:
            raise Refused("with mostly, the two tools count different rows: here a row fails because of earlier ones")
        return self.how

    @property
    def strict(self) -> dict[str, bool]:
        """Which of its bounds are left out of the range."""
        return {"strict_low": bool(self.get("strict_min")), "strict_high": bool(self.get("strict_max"))}

    def bounds(self, reader: Callable[..., tuple[Any, Any]]) -> tuple[Any, Any]:
        """Both bounds, strict ones made closed."""
        low, high = reader(self.get("min_value"), self.get("max_value"), **self.strict)
        if low is None and high is None:
            raise Refused("it has no bounds")
        return low, high
