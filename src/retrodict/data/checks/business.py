"""Layer 3, business: columns against each other, against other tables, and whatever else an expression can say."""

from __future__ import annotations

from typing import Literal, Self, Unpack

from retrodict.core.errors import DefinitionError
from retrodict.core.expressions import parse
from retrodict.data.checks.base import CheckBase, How, check_bounds, column_text, is_number

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
        parsed = parse(expression, where="check sql")
        if parsed.kind not in ("bool", None):
            raise DefinitionError(
                "the expression of a check must be true or false",
                where="check sql",
                got=expression,
                remedy="Write a comparison like 'arr_time > dep_time'",
            )
        return cls.make("sql", parsed.columns, how, expression=parsed.text)

    @classmethod
    def compare(
        cls, left: str, operator: Literal["=", "<>", "<", "<=", ">", ">="], right: str, **how: Unpack[How]
    ) -> Self:
        """One column stands in this order to another, like ``compare("dep_time", "<=", "arr_time")``."""
        if operator not in ("=", "<>", "<", "<=", ">", ">="):
            raise DefinitionError(
                "an operator must be =, <>, <, <=, > or >=", where="check compare", got=operator, remedy="Pick one"
            )
        return cls.make("compare", (left, right), how, operator=operator)

    @classmethod
    def required_if(cls, column: str, when: str, **how: Unpack[How]) -> Self:
        """The column is not null where a condition is true."""
        parsed = parse(when, where="check required_if")
        return cls.make("required_if", dict.fromkeys((column, *parsed.columns)), how, when=parsed.text, column=column)

    @classmethod
    def sum_equals(cls, parts: Columns, total: str, *, within: float = 0.0, **how: Unpack[How]) -> Self:
        """The columns add up to another one, up to an absolute difference."""
        if not is_number(within) or within < 0:
            raise DefinitionError(
                "within must be a number from 0 on", where="check sum_equals", got=within, remedy="Write a cent as 0.01"
            )
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
        return cls.make("references", names, how, table=str(table), to=_pair(names, to, "references"))

    @classmethod
    def near_duplicates(cls, *columns: str, **how: Unpack[How]) -> Self:
        """No two rows agree in all columns once case, blanks and punctuation of texts are ignored; later ones fail."""
        return cls.make("near_duplicates", columns, how)

    @classmethod
    def determines(cls, columns: Columns, column: str, **how: Unpack[How]) -> Self:
        """Rows that agree in some columns agree in another one; rows that differ from the first of them fail."""
        return cls.make("determines", (*names_of(columns), column), how)


def _pair(names: tuple[str, ...], to: Columns | None, rule: str) -> tuple[str, ...]:
    other = names if to is None else names_of(to)
    if len(other) != len(names):
        raise DefinitionError(
            "there must be as many columns on one side as on the other",
            where=f"check {rule}",
            got={"here": names, "there": other},
            remedy="Name them in the same order",
        )
    return other


def expression_of(check: CheckBase) -> str | None:
    """Return the condition, as text, that rows of a layer-3 row check do not make false."""
    names = [column_text(name) for name in check.columns]
    match check.rule:
        case "sql":
            return str(check.option("expression"))
        case "compare":
            return f"{names[0]} {check.option('operator')} {names[1]}"
        case "required_if":
            return f"{column_text(check.option('column'))} is not null or not ({check.option('when')})"
        case "sum_equals":
            return f"abs({' + '.join(names[:-1])} - {names[-1]}) <= {check.option('within')!r}"
    return None
