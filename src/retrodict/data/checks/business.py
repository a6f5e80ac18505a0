"""Layer 3, business: columns against each other, against other tables, and whatever else an expression can say."""

from __future__ import annotations

import math
from typing import Literal, Self, Unpack

from retrodict.core.errors import DefinitionError
from retrodict.core.expressions import parse
from retrodict.data.checks.base import CheckBase, How, check_bounds, condition, number_from, one_of

__all__ = ["BusinessChecks"]

Columns = str | list[str] | tuple[str, ...]


def names_of(columns: Columns) -> tuple[str, ...]:
    """One or several column names as a tuple."""
    return (columns,) if isinstance(columns, str) else tuple(columns)


class BusinessChecks(CheckBase):
    """Class methods of layer 3."""

    @classmethod
    def sql(cls, expression: str, **how: Unpack[How]) -> Self:
        """The expression is not false."""
        parsed = condition(expression, "check sql")
        return cls.make("sql", parsed.columns, how, expression=parsed.text)

    @classmethod
    def compare(
        cls, left: str, operator: Literal["=", "<>", "<", "<=", ">", ">="], right: str, **how: Unpack[How]
    ) -> Self:
        """One column stands in this order to another, like ``compare("dep_time", "<=", "arr_time")``."""
        one_of(operator, ("=", "<>", "<", "<=", ">", ">="), "operator", "check compare")
        return cls.make("compare", (left, right), how, operator=operator)

    @classmethod
    def required_if(cls, column: str, when: str, **how: Unpack[How]) -> Self:
        """The column is not null where a condition is true."""
        parsed = parse(when, where="check required_if")
        return cls.make("required_if", dict.fromkeys((column, *parsed.columns)), how, when=parsed.text, column=column)

    @classmethod
    def sum_equals(cls, parts: Columns, total: str, *, within: float = 0.0, **how: Unpack[How]) -> Self:
        """The columns add up to another one, up to an absolute difference."""
        number_from(within, 0.0, math.inf, "within must be a number from 0 on", "check sum_equals")
        return cls.make("sum_equals", (*names_of(parts), total), how, within=within)

    @classmethod
    def share(cls, expression: str, low: float | None = None, high: float | None = None, **how: Unpack[How]) -> Self:
        """Share of the rows for which an expression is true lies in [low, high]; unknown rows are left out."""
        check_bounds(low, high, "check share")
        parsed = parse(expression, where="check share")
        return cls.make("share", parsed.columns, how, expression=parsed.text, low=low, high=high)

    @classmethod
    def references(cls, columns: Columns, table: str, to: Columns | None = None, **how: Unpack[How]) -> Self:
        """The values are in another table's columns (of the same names, or ``to``), in its newest version.

        A row with a null among them passes, as in SQL's foreign keys.
        """
        names = names_of(columns)
        return cls.make("references", names, how, table=str(table), to=pair(names, to, "references"))

    @classmethod
    def near_duplicates(cls, *columns: str, **how: Unpack[How]) -> Self:
        """No two rows agree in all columns once case, blanks and punctuation of texts are ignored; later ones fail."""
        return cls.make("near_duplicates", columns, how)

    @classmethod
    def determines(cls, columns: Columns, column: str, **how: Unpack[How]) -> Self:
        """Rows that agree in some columns agree in another one; rows that differ from the first of them fail."""
        return cls.make("determines", (*names_of(columns), column), how)


def pair(names: tuple[str, ...], to: Columns | None, rule: str) -> tuple[str, ...]:
    """Columns of the other table, one for each of some."""
    other = names if to is None else names_of(to)
    if len(other) != len(names):
        raise DefinitionError(
            "there must be as many columns on one side as on the other",
            where=f"check {rule}",
            got={"here": names, "there": other},
            remedy="Name them in the same order",
        )
    return other
