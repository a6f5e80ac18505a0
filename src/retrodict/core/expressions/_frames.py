"""Compiles a tree to one Polars expression, for a scan over many rows.

Polars differs from SQL in five things, and each is settled here. NaN is a value there (equal to itself, above all
others): a comparison is masked where an operand is NaN, which costs less than a copy of the column without NaN. Whole
numbers wrap: they are combined in 128 bits and cast back strictly. Types are not aligned everywhere: literals are
typed, and whole numbers that meet fractions are cast. Both sides of a choice are computed on every row. And a division
by a constant is a product with its rounded reciprocal.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import polars as pl

from retrodict.core.clock import from_micros
from retrodict.core.errors import DefinitionError
from retrodict.core.expressions import _nodes as nodes
from retrodict.core.expressions._inference import KindInference
from retrodict.core.expressions.patterns import like, translate

_EXACT = 2**53  # whole numbers up to here are the same as fractions
# Up to here single comparisons are faster than a hash table (measured on 10 M rows).
_FEW, _FEW_TEXTS = 4, 12
_MIRRORED = {"<": ">", "<=": ">=", ">": "<", ">=": "<="}
_TYPES: dict[str | None, Any] = {
    "bool": pl.Boolean,
    "number": pl.Int64,
    "text": pl.String,
    "time": pl.Datetime("us", "UTC"),
    "duration": pl.Duration("us"),
    None: pl.Null,
}


def compile_polars(root: nodes.Node, kinds: KindInference, floating: Collection[str]) -> pl.Expr:
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
    """An expression and what is known of it."""

    expr: pl.Expr
    fraction: bool = False  # whether its numbers are Float64; else they are whole
    nan: bool = False  # whether it may hold NaN
    constant: float | None = None  # its value, if it is a number literal
    # Whether it is a bare column: only those are used more than once, or nested operands would double at every level.
    column: bool = False


def _divide(first: pl.Expr, second: pl.Expr) -> pl.Expr:
    """Divide each value by its own divisor: by a constant Polars multiplies with its rounded reciprocal instead.

    A literal, a choice that took one branch for all rows and a column of a partition are constants, and adding zero
    makes a column of each. Where the dividend is null one is added; the quotient is null there whatever the divisor.
    """
    return first / (first.is_null().cast(pl.Float64) + second)


class _Frames:
    def __init__(self, kinds: KindInference, floating: frozenset[str]) -> None:
        self._kinds, self._floating = kinds, floating

    # -- values --------------------------------------------------------------------------------------------------

    def value(self, node: nodes.Node) -> _Value:
        match node:
            case nodes.Literal():
                return self._literal(node)
            case nodes.Column():
                return self._column(node)
            case nodes.Negate():
                # Polars has no sign for 128 bits; and of fractions 0 - 0 is not -0.
                return self._one_number(node, node.operand, lambda x: -x, lambda x: 0 - x)
            case nodes.Arithmetic():
                return self._arithmetic(node)
            case nodes.Call(function="abs"):
                return self._one_number(node, node.arguments[0], abs, abs)
            case nodes.Call(function="length"):
                text = self.value(node.arguments[0]).expr
                return _Value(text.str.len_chars().cast(pl.Int64))
            case nodes.Call(function="hour"):
                return _Value(self.value(node.arguments[0]).expr.dt.hour().cast(pl.Int64))
            case nodes.Call(function="weekday"):
                return _Value(self.value(node.arguments[0]).expr.dt.weekday().cast(pl.Int64) - 1)
            case nodes.Call(function="seconds"):
                micros = self.value(node.arguments[0]).expr.cast(pl.Int64).cast(pl.Float64)
                return _Value(_divide(micros, pl.lit(1e6)), fraction=True)
            case nodes.Call():
                return self._call(node)
            case nodes.Case():
                return self._case(node)
            case _:
                return _Value(self._condition(node))

    def known(self, value: _Value) -> pl.Expr:
        """The expression with NaN made null."""
        return value.expr.fill_nan(None) if value.nan else value.expr

    def _column(self, node: nodes.Column) -> _Value:
        column = pl.col(node.name)
        if self._kinds.given(node.name) == "date":
            return _Value(column.cast(pl.Datetime("us")).dt.replace_time_zone("UTC"))
        fraction = node.name in self._floating
        return _Value(column, fraction, nan=fraction, column=True)

    def _literal(self, node: nodes.Literal) -> _Value:
        match node.value, node.kind:
            case None, _:
                return _Value(pl.lit(None, dtype=_TYPES[self._kinds.of(node)]))
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

    def _fraction(self, value: _Value) -> pl.Expr:
        return value.expr if value.fraction else value.expr.cast(pl.Float64)

    def _aligned(self, values: list[_Value]) -> list[pl.Expr]:
        """The expressions, all of fractions if one of them is."""
        if not any(value.fraction for value in values):
            return [value.expr for value in values]
        integers = sum(not value.fraction for value in values)
        constants = [value.constant for value in values if value.fraction]
        if integers == 1 and all(c is not None and c.is_integer() and abs(c) < _EXACT for c in constants):
            # A whole column against 15.0 is one against 15: no copy as fractions.
            return [
                value.expr if value.constant is None else pl.lit(int(value.constant), dtype=pl.Int64)
                for value in values
            ]
        return [self._fraction(value) for value in values]

    # -- arithmetic ----------------------------------------------------------------------------------------------

    def _kind(self, node: nodes.Node) -> str:
        kind = self._kinds.of(node)
        if kind is None:
            raise DefinitionError(
                "arithmetic over a table must be known to be of numbers or of times",
                where="kinds",
                got=nodes.render(node),
                remedy="Give the kinds of its columns",
            )
        return kind

    def _one_number(
        self, node: nodes.Node, operand: nodes.Node, apply: Callable[[Any], pl.Expr], wide: Callable[[Any], pl.Expr]
    ) -> _Value:
        inner = self.value(operand)
        if self._kind(node) == "duration":
            return _Value(apply(inner.expr.cast(pl.Int64)).cast(pl.Duration("us")))
        if inner.fraction:
            return _Value(apply(inner.expr), fraction=True, nan=inner.nan)
        return _Value(wide(inner.expr.cast(pl.Int128)).cast(pl.Int64, strict=True))

    def _arithmetic(self, node: nodes.Arithmetic) -> _Value:
        left, right = self.value(node.left), self.value(node.right)
        if node.operator == "/":
            first, second = self._fraction(left), self._fraction(right)
            if right.column:
                quotient: pl.Expr = pl.when(second != pl.lit(0.0, dtype=pl.Float64)).then(_divide(first, second))
            else:
                quotient = _divide(first, second if right.constant else second.replace(0.0, None))
            return _Value(quotient, fraction=True, nan=True)
        apply = nodes.OPERATORS[node.operator]
        if self._kind(node) != "number":
            return _Value(apply(left.expr, right.expr))
        if left.fraction or right.fraction:
            return _Value(apply(self._fraction(left), self._fraction(right)), fraction=True, nan=True)
        return _Value(apply(left.expr.cast(pl.Int128), right.expr.cast(pl.Int128)).cast(pl.Int64, strict=True))

    # -- conditions ----------------------------------------------------------------------------------------------

    def _condition(self, node: nodes.Condition) -> pl.Expr:
        match node:
            case nodes.Compare():
                return self._compare(node)
            case nodes.Logic():
                parts = [self.value(part).expr for part in node.operands]
                return pl.any_horizontal(parts) if node.operator == "or" else pl.all_horizontal(parts)
            case nodes.Not():
                return ~self.value(node.operand).expr
            case nodes.IsNull():
                return self.known(self.value(node.operand)).is_null()
            case nodes.In():
                return self._in(node)
            case nodes.Between():
                return self._between(node)
            case nodes.Like():
                return self._like(self.value(node.operand).expr, node.pattern)
            case nodes.Matches():
                return self._matches(self.value(node.operand).expr, translate(node.pattern))

    def _bare(self, value: _Value) -> _Value:
        """The value, without NaN unless it is a bare column, whose comparisons are masked."""
        return value if value.column or not value.nan else _Value(self.known(value), value.fraction)

    def _masked(self, condition: pl.Expr, values: list[_Value]) -> pl.Expr:
        """The condition, null where a value is NaN."""
        present = [value.expr.is_not_nan() for value in values if value.nan]
        return pl.when(pl.all_horizontal(present)).then(condition) if present else condition

    def _compare(self, node: nodes.Compare) -> pl.Expr:
        left, right, sign = node.left, node.right, node.operator
        if not any(isinstance(part, nodes.Column) for part, _ in nodes.walk(left)):
            # With a literal first, Polars 2.1 loses rows where a choice on the right took the same branch for all.
            left, right, sign = right, left, _MIRRORED.get(sign, sign)
        values = [self._bare(self.value(side)) for side in (left, right)]
        return self._masked(nodes.OPERATORS[sign](*self._aligned(values)), values)

    def _between(self, node: nodes.Between) -> pl.Expr:
        operand, low, high = (self.value(part) for part in (node.operand, node.low, node.high))
        # A bound that is unknown leaves the other to decide; an operand that is unknown leaves nothing.
        bounds = [_Value(self.known(bound), bound.fraction, constant=bound.constant) for bound in (low, high)]
        operand = self._bare(operand)
        value, lower, upper = self._aligned([operand, *bounds])
        return self._masked(value.is_between(lower, upper), [operand])

    def _in(self, node: nodes.In) -> pl.Expr:
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
        return self._matches(text, like(pattern))

    def _matches(self, text: pl.Expr, pattern: str) -> pl.Expr:
        return text.str.contains(rf"\A(?:{pattern})\z", literal=False)

    # -- choices -------------------------------------------------------------------------------------------------

    def _of_one_type(self, operands: list[nodes.Node]) -> tuple[list[pl.Expr], bool]:
        values = [self.value(operand) for operand in operands]
        fraction = any(value.fraction for value in values)
        numbers = [_Value(self.known(value), value.fraction) for value in values]
        return [self._fraction(value) if fraction else value.expr for value in numbers], fraction

    def _call(self, node: nodes.Call) -> _Value:
        parts, fraction = self._of_one_type(list(node.arguments))
        if node.function == "coalesce":
            return _Value(pl.coalesce(parts), fraction)
        return _Value((pl.min_horizontal if node.function == "least" else pl.max_horizontal)(parts), fraction)

    def _case(self, node: nodes.Case) -> _Value:
        last = [] if node.otherwise is None else [node.otherwise]
        values, fraction = self._of_one_type([*(value for _, value in node.branches), *last])
        choice = values.pop() if last else pl.lit(None)
        for (test, _), value in zip(reversed(node.branches), reversed(values), strict=True):
            choice = pl.when(self.value(test).expr).then(value).otherwise(choice)
        return _Value(choice, fraction)
