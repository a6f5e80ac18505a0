"""What a definition holds: an expression with a canonical text, its columns, and its executions."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, get_args

from retrodict.core.errors import DefinitionError, check_known
from retrodict.core.expressions._inference import KindInference
from retrodict.core.expressions._nodes import Column, Node, render, walk
from retrodict.core.expressions._rows import compile_row
from retrodict.core.expressions._sql import compile_sql
from retrodict.core.expressions._syntax import read
from retrodict.core.expressions._values import RowFunction
from retrodict.core.kinds import ExpressionKind

if TYPE_CHECKING:
    import polars as pl

__all__ = ["Expression", "parse"]


@dataclass(frozen=True)
class Expression:
    """One condition or value, immutable; two are equal exactly when their canonical texts are.

    Made by :func:`parse`. Its version is the hash of its canonical text.

    Attributes
    ----------
    text : str
        Canonical text: parsing it gives an equal expression.
    columns : tuple of str
        Names of the columns it reads, sorted.
    kind : {"bool", "number", "text", "time", "duration"} or None
        What it gives, as far as the text tells; None where that depends on the columns.

    Examples
    --------
    >>> late = parse("arr_delay>15 AND origin != 'LGA'")
    >>> late.text, late.columns, late.kind
    ("arr_delay > 15 and origin <> 'LGA'", ('arr_delay', 'origin'), 'bool')
    >>> is_late = late.to_row()
    >>> is_late({"arr_delay": 20, "origin": "JFK"}), is_late({"arr_delay": None, "origin": "JFK"})
    (True, None)
    """

    text: str
    columns: tuple[str, ...] = field(compare=False)
    kind: str | None = field(compare=False)
    tree: Node = field(compare=False, repr=False)

    def to_sql(self, *, kinds: Mapping[str, ExpressionKind | None] | None = None) -> str:
        """Return the SQL text of the expression for DuckDB; names are quoted, literals escaped and typed.

        Parameters
        ----------
        kinds : mapping of str to kind, optional
            Kinds of the columns, where known; a missing one or None stays open. Needed only where the session is not
            in UTC and the text leaves open whether ``a - b`` is of numbers or of times, or a column of days stands
            where the text does not say that it is a time.

        Raises
        ------
        DefinitionError
            If a column's kind is ruled out by its place in the text.

        Examples
        --------
        >>> print(parse("carrier in ('B6', 'DL')").to_sql())
        ("carrier" IN ('B6', 'DL'))
        """
        return compile_sql(self.tree, self._kinds(kinds, repr(self.text)))

    def to_polars(
        self, *, kinds: Mapping[str, ExpressionKind | None] | None = None, floating: Collection[str] = ()
    ) -> pl.Expr:
        """Return the expression for a Polars scan, eager, lazy or streaming.

        Parameters
        ----------
        kinds : mapping of str to kind, optional
            Kinds of the columns; needed for columns of days (``date``), and where the text leaves open whether
            arithmetic is of numbers or of times.
        floating : collection of str, default ()
            The columns of fractions (Float64): only they can hold NaN, and other columns pay nothing for it. Other
            numbers are Int64, texts String, times ``Datetime("us", "UTC")``, days Date.

        Returns
        -------
        polars.Expr
            Bool, Int64, Float64, String, ``Datetime("us", "UTC")`` or ``Duration("us")``. Without a column it has one
            row, as a literal. Collecting it raises polars.exceptions.InvalidOperationError if a whole number leaves
            64 bits on any row, also in a branch of ``case`` that the row does not take; its text holds values.

        Raises
        ------
        DefinitionError
            If a column's kind is ruled out by its place in the text, or the kinds leave arithmetic open.

        Examples
        --------
        >>> import polars as pl
        >>> late = parse("arr_delay > 15").to_polars(floating=["arr_delay"])
        >>> pl.DataFrame({"arr_delay": [20.0, 3.0, None, float("nan")]}).select(late=late)["late"].to_list()
        [True, False, None, None]
        """
        from retrodict.core.expressions._frames import compile_polars  # loads Polars, which definitions do without

        column_kinds: dict[str, ExpressionKind | None] = dict(kinds or {})
        for name in floating:
            column_kinds[name] = column_kinds.get(name) or "number"
        return compile_polars(self.tree, self._kinds(column_kinds, repr(self.text)), floating)

    def to_row(self) -> RowFunction:
        """Return a function of one row (mapping of column name to bool, int, float, str or None).

        Times and durations are microseconds as int; a datetime with its zone and a date (its midnight in UTC) are read
        too. Compile once and keep it: the function is safe from any thread.

        The function raises InputError if a column is missing from the row or holds a value of the wrong kind, and if
        a whole number leaves 64 bits.
        """
        return compile_row(self.tree)

    def check_columns(
        self, names: Iterable[str] | Mapping[str, ExpressionKind | None], *, where: str = "expression"
    ) -> str | None:
        """Check that every column exists, and its kind where the caller knows it.

        Parameters
        ----------
        names : iterable of str, or mapping of str to kind
            The columns there are. A mapping also says their kinds; None means not known.
        where : str, default "expression"
            What to name in the error.

        Returns
        -------
        str or None
            The kind of the expression, as far as text and columns tell.

        Raises
        ------
        DefinitionError
            If a column is unknown (the message has near names), or of a kind that its place in the text rules out.

        Examples
        --------
        >>> parse("arr_dely > 15").check_columns(["arr_delay", "origin"], where="label")
        Traceback (most recent call last):
        retrodict.core.errors.DefinitionError: label: an expression must name columns that exist; got 'arr_dely'. \
Did you mean the column 'arr_delay'.
        """
        kinds: dict[str, ExpressionKind | None] = dict(names) if isinstance(names, Mapping) else dict.fromkeys(names)
        for column in self.columns:
            rule = "an expression must name columns that exist"
            check_known(column, kinds, rule, where=where, what="column", error=DefinitionError)
        return self._kinds(kinds, where).of(self.tree)

    def column_kind(self, name: str) -> str | None:
        """Return the kind that a column of the expression must have, None where the text leaves it open."""
        return self._kinds(None, repr(self.text)).of(Column(name))

    def _kinds(self, columns: Mapping[str, ExpressionKind | None] | None, where: str) -> KindInference:
        for kind in filter(None, (columns or {}).values()):
            rule = "the kind of a column must be one that exists, or None for a column of another type"
            check_known(kind, get_args(ExpressionKind), rule, where=where, what="kind", error=DefinitionError)
        return KindInference(self.tree, columns, where=where)

    def __identity__(self) -> str:
        """Canonical text: what enters the hash of a definition that holds the expression."""
        return self.text

    def __str__(self) -> str:
        return self.text


def parse(text: str, *, where: str = "expression") -> Expression:
    """Read one expression of the small SQL subset (grammar and meaning: docs/expressions.md).

    Parameters
    ----------
    text : str
        For example ``"arr_delay > 15"`` or ``"psi > 0.25 or auc < 0.6"``.
    where : str, default "expression"
        What to name in the error: the definition and the field.

    Returns
    -------
    Expression
        Checked as far as the text allows; see :meth:`Expression.check_columns` for the rest.

    Raises
    ------
    DefinitionError
        If the text is not in the language, or mixes kinds.

    Examples
    --------
    >>> parse("sched_dep - 1h", where="decide_at").to_row()({"sched_dep": 3_600_000_000})
    0
    """
    source: object = text
    if not isinstance(source, str) or not source.strip():
        raise DefinitionError(
            "an expression must be a text that is not empty",
            where=where,
            got=text,
            remedy="Write it like 'arr_delay > 15'",
        )
    tree = read(text, where=where)
    columns = {node.name for node, _ in walk(tree) if isinstance(node, Column)}
    return Expression(render(tree), tuple(sorted(columns)), KindInference(tree, where=where).of(tree), tree)
