"""Compiles a tree to one Polars expression, for a scan over many rows.

Polars differs from SQL in four things, and each is settled here. NaN is a value there (equal to itself, above all
others): a comparison is masked where an operand is NaN, which costs less than a copy of the column without NaN. Whole
numbers wrap: they are combined in 128 bits and cast back strictly. Types are not aligned everywhere: literals are
typed, and whole numbers that meet fractions are cast. And both sides of a choice are computed on every row.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from retrodict.core.clock import from_micros
from retrodict.core.errors import DefinitionError
from retrodict.core.expressions.inference import KindInference
from retrodict.core.expressions.nodes import (
    Arithmetic,
    Between,
    Call,
    Case,
    Column,
    Compare,
    In,
    IsNull,
    Like,
    Literal,
    Logic,
    Matches,
    Negate,
    Node,
    Not,
    render,
    walk,
)
from retrodict.core.expressions.patterns import escape, translate

if TYPE_CHECKING:
    import polars as pl

__all__ = ["compile_polars"]

_EXACT = 2**53  # whole numbers up to here are the same as fractions
# Up to here single comparisons are faster than a hash table (measured on 10 M rows).
_FEW, _FEW_TEXTS = 4, 12
_COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    "=": operator.eq, "<>": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip
_MIRRORED = {"<": ">", "<=": ">=", ">": "<", ">=": "<="}
_COMBINE: dict[str, Callable[[Any, Any], Any]] = {"+": operator.add, "-": operator.sub, "*": operator.mul}


def compile_polars(root: Node, kinds: KindInference, floating: Collection[str]) -> pl.Expr:
    """Return the tree as a Polars expression; columns in ``floating`` hold fractions, other numbers are whole.

    Raises
    ------
    DefinitionError
        If the kinds leave open whether an operand of arithmetic is a number.
    """
    frames = _Frames(kinds, frozenset(floating))
    return frames.known(frames.value(root))


@dataclass(frozen=True, slots=True)
class _Value:
    """An expression and what is known of it.

    Attributes
    ----------
    expr : polars.Expr
    fraction : bool
        Whether its numbers are Float64; else they are whole.
    nan : bool
        Whether it may hold NaN.
    constant : int, float or None
        Its value, if it is a number literal.
    column : bool
        Whether it is a bare column. Only those are used more than once, or nested operands would double at every level.
    """

    expr: pl.Expr
    fraction: bool = False
    nan: bool = False
    constant: float | None = None
    column: bool = False


class _Frames:
    # Polars is loaded where a table is scanned, not where a definition is written: hence the imports in the methods.

    def __init__(self, kinds: KindInference, floating: frozenset[str]) -> None:
        self._kinds, self._floating = kinds, floating

    # -- values --------------------------------------------------------------------------------------------------

    def value(self, node: Node) -> _Value:
        import polars as pl

        match node:
            case Literal():
                return self._literal(node)
            case Column():
                return self._column(node)
            case Negate():
                # Polars has no sign for 128 bits; and of fractions 0 - 0 is not -0.
                return self._one_number(node, node.operand, lambda x: -x, lambda x: 0 - x)
            case Arithmetic():
                return self._arithmetic(node)
            case Call(function="abs"):
                return self._one_number(node, node.arguments[0], abs, abs)
            case Call(function="length"):
                text = self.value(node.arguments[0]).expr
                return _Value(text.str.len_chars().cast(pl.Int64))
            case Call():
                return self._call(node)
            case Case():
                return self._case(node)
            case _:
                return _Value(self._condition(node))

    def known(self, value: _Value) -> pl.Expr:
        """The expression with NaN made null."""
        return value.expr.fill_nan(None) if value.nan else value.expr

    def _column(self, node: Column) -> _Value:
        import polars as pl

        column = pl.col(node.name)
        if self._kinds.given(node.name) == "date":
            return _Value(column.cast(pl.Datetime("us")).dt.replace_time_zone("UTC"))
        fraction = node.name in self._floating
        return _Value(column, fraction, nan=fraction, column=True)

    def _literal(self, node: Literal) -> _Value:
        import polars as pl

        match node.value, node.kind:
            case None, _:
                return _Value(pl.lit(None, dtype=self._null_type(self._kinds.of(node))))
            case bool(value), _:
                return _Value(pl.lit(value, dtype=pl.Boolean))
            case str(value), _:
                return _Value(pl.lit(value, dtype=pl.String))
            case int(value), "time":
                return _Value(pl.lit(from_micros(value), dtype=pl.Datetime("us", "UTC")))
            case int(value), "duration":
                return _Value(pl.lit(timedelta(microseconds=value), dtype=pl.Duration("us")))
            case int(value), _:
                return _Value(pl.lit(value, dtype=pl.Int64), constant=value)
            case value, _:
                assert isinstance(value, float)
                return _Value(pl.lit(value, dtype=pl.Float64), fraction=True, constant=value)

    def _null_type(self, kind: str | None) -> Any:
        import polars as pl

        types = {
            "bool": pl.Boolean,
            "number": pl.Int64,
            "text": pl.String,
            "time": pl.Datetime("us", "UTC"),
            "duration": pl.Duration("us"),
        }
        return types[kind] if kind else pl.Null

    def _fraction(self, value: _Value) -> pl.Expr:
        import polars as pl

        return value.expr if value.fraction else value.expr.cast(pl.Float64)

    def _aligned(self, values: list[_Value]) -> list[pl.Expr]:
        """The expressions, all of fractions if one of them is."""
        if not any(value.fraction for value in values):
            return [value.expr for value in values]
        integers = sum(not value.fraction for value in values)
        constants = [value.constant for value in values if value.fraction]
        if integers == 1 and all(c is not None and c.is_integer() and abs(c) < _EXACT for c in constants):
            # A whole column against 15.0 is one against 15: no copy as fractions.
            exact = [self._whole(value) if value.fraction else value for value in values]
            return [value.expr for value in exact]
        return [self._fraction(value) for value in values]

    def _whole(self, value: _Value) -> _Value:
        import polars as pl

        assert value.constant is not None
        return _Value(pl.lit(int(value.constant), dtype=pl.Int64))

    # -- arithmetic ----------------------------------------------------------------------------------------------

    def _kind(self, node: Node) -> str:
        kind = self._kinds.of(node)
        if kind is None:
            raise DefinitionError(
                "arithmetic over a table must be known to be of numbers or of times",
                where="kinds",
                got=render(node),
                remedy="Give the kinds of its columns",
            )
        return kind

    def _one_number(
        self, node: Node, operand: Node, apply: Callable[[pl.Expr], pl.Expr], wide: Callable[[pl.Expr], pl.Expr]
    ) -> _Value:
        import polars as pl

        inner = self.value(operand)
        if self._kind(node) == "duration":
            return _Value(apply(inner.expr.cast(pl.Int64)).cast(pl.Duration("us")))
        if inner.fraction:
            return _Value(apply(inner.expr), fraction=True, nan=inner.nan)
        return _Value(self._in_64_bits(wide(inner.expr.cast(pl.Int128))))

    def _in_64_bits(self, wide: pl.Expr) -> pl.Expr:
        import polars as pl

        return wide.cast(pl.Int64, strict=True)

    def _arithmetic(self, node: Arithmetic) -> _Value:
        import polars as pl

        left, right = self.value(node.left), self.value(node.right)
        if node.operator == "/":
            first, second = self._fraction(left), self._fraction(right)
            quotient = first / second
            if right.column:
                quotient = pl.when(second != pl.lit(0.0, dtype=pl.Float64)).then(quotient)
            elif not right.constant:
                quotient = first / second.replace(0.0, None)
            return _Value(quotient, fraction=True, nan=True)
        apply = _COMBINE[node.operator]
        if self._kind(node) != "number":
            return _Value(apply(left.expr, right.expr))
        if left.fraction or right.fraction:
            return _Value(apply(self._fraction(left), self._fraction(right)), fraction=True, nan=True)
        return _Value(self._in_64_bits(apply(left.expr.cast(pl.Int128), right.expr.cast(pl.Int128))))

    # -- conditions ----------------------------------------------------------------------------------------------

    def _condition(self, node: Compare | Logic | Not | IsNull | In | Between | Like | Matches) -> pl.Expr:
        import polars as pl

        match node:
            case Compare():
                return self._compare(node)
            case Logic():
                parts = [self._condition_of(part) for part in node.operands]
                return pl.any_horizontal(parts) if node.operator == "or" else pl.all_horizontal(parts)
            case Not():
                return ~self._condition_of(node.operand)
            case IsNull():
                value = self.value(node.operand)
                return self.known(value).is_null()
            case In():
                return self._in(node)
            case Between():
                return self._between(node)
            case Like():
                return self._like(self.value(node.operand).expr, node.pattern)
            case Matches():
                return self._matches(self.value(node.operand).expr, translate(node.pattern))

    def _condition_of(self, node: Node) -> pl.Expr:
        return self.value(node).expr

    def _bare(self, value: _Value) -> _Value:
        """The value, without NaN unless it is a bare column, whose comparisons are masked."""
        return value if value.column or not value.nan else _Value(self.known(value), value.fraction)

    def _masked(self, condition: pl.Expr, values: list[_Value]) -> pl.Expr:
        """The condition, null where a value is NaN."""
        import polars as pl

        present = [value.expr.is_not_nan() for value in values if value.nan]
        return pl.when(pl.all_horizontal(present)).then(condition) if present else condition

    def _compare(self, node: Compare) -> pl.Expr:
        left, right, sign = node.left, node.right, node.operator
        if not any(isinstance(part, Column) for part, _ in walk(left)):
            # With a literal first, Polars 2.1 loses rows where a choice on the right took the same branch for all.
            left, right, sign = right, left, _MIRRORED.get(sign, sign)
        values = [self._bare(self.value(side)) for side in (left, right)]
        return self._masked(_COMPARE[sign](*self._aligned(values)), values)

    def _between(self, node: Between) -> pl.Expr:
        operand, low, high = (self.value(part) for part in (node.operand, node.low, node.high))
        # A bound that is unknown leaves the other to decide; an operand that is unknown leaves nothing.
        bounds = [_Value(self.known(bound), bound.fraction, constant=bound.constant) for bound in (low, high)]
        operand = self._bare(operand)
        value, lower, upper = self._aligned([operand, *bounds])
        return self._masked(value.is_between(lower, upper), [operand])

    def _in(self, node: In) -> pl.Expr:
        import polars as pl

        operand = self._bare(self.value(node.operand))
        items = [self.value(item) for item in node.items if item.value is not None]
        if not items:
            # Null on every row, and as many of them as there are rows.
            nothing = pl.lit(None, dtype=pl.Boolean)
            return pl.when(operand.expr.is_null()).then(nothing).otherwise(nothing)
        value, *constants = self._aligned([operand, *items])
        texts = self._kinds.of(node.operand) == "text"
        if operand.column and len(items) <= (_FEW_TEXTS if texts else _FEW):
            membership: pl.Expr = pl.any_horizontal([value == constant for constant in constants])
        else:
            listed = pl.concat(pl.select(constant).to_series() for constant in constants)
            membership = value.is_in(pl.lit(listed).implode())
        membership = self._masked(membership, [operand])
        return membership if len(items) == len(node.items) else pl.when(membership).then(pl.lit(value=True))

    def _like(self, text: pl.Expr, pattern: str) -> pl.Expr:
        import polars as pl

        plain = pattern.strip("%")
        if "%" not in plain and "_" not in plain:
            constant = pl.lit(plain, dtype=pl.String)
            match pattern.startswith("%"), pattern.endswith("%"):
                case False, False:
                    return text == constant
                case False, True:
                    return text.str.starts_with(constant)
                case True, False:
                    return text.str.ends_with(constant)
                case _:
                    return text.str.contains(constant, literal=True)
        wild = {"%": ".*", "_": "."}
        return self._matches(text, "".join(wild.get(letter) or escape(letter) for letter in pattern), flags="(?s)")

    def _matches(self, text: pl.Expr, pattern: str, flags: str = "") -> pl.Expr:
        return text.str.contains(rf"{flags}\A(?:{pattern})\z", literal=False)

    # -- choices -------------------------------------------------------------------------------------------------

    def _of_one_type(self, nodes: list[Node]) -> tuple[list[pl.Expr], bool]:
        values = [self.value(node) for node in nodes]
        fraction = any(value.fraction for value in values)
        numbers = [_Value(self.known(value), value.fraction) for value in values]
        return [self._fraction(value) if fraction else value.expr for value in numbers], fraction

    def _call(self, node: Call) -> _Value:
        import polars as pl

        parts, fraction = self._of_one_type(list(node.arguments))
        if node.function == "coalesce":
            return _Value(pl.coalesce(parts), fraction)
        return _Value((pl.min_horizontal if node.function == "least" else pl.max_horizontal)(parts), fraction)

    def _case(self, node: Case) -> _Value:
        import polars as pl

        last = [] if node.otherwise is None else [node.otherwise]
        values, fraction = self._of_one_type([*(value for _, value in node.branches), *last])
        choice = values.pop() if last else pl.lit(None)
        for (test, _), value in zip(reversed(node.branches), reversed(values), strict=True):
            choice = pl.when(self._condition_of(test)).then(value).otherwise(choice)
        return _Value(choice, fraction)
