"""Compiles a tree to a plain Python function of one row.

Closures, one per node: no text is ever evaluated, and a comparison of a column with a literal costs a fraction of a
microsecond. Between nodes a value is a bool, an int, a float that is not NaN, a str, or None for null.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from typing import Any

from retrodict.core.errors import InputError
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
    Negate,
    Node,
    Not,
    render,
)

__all__ = ["RowFunction", "compile_row"]

RowFunction = Callable[[Mapping[str, Any]], Any]

_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq, "<>": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip
_LEAST, _MOST = -(2**63), 2**63 - 1
_NUMBERS = frozenset({int, float})
_WORDS = {bool: "true or false", int: "a number", float: "a number", str: "text"}


def _divide(first: float, second: float) -> float | None:
    # SQL divides doubles; Python's int / int would round once instead of twice beyond 2**53.
    return float(first) / float(second) if second else None


_COMBINE: dict[str, Callable[[Any, Any], Any]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": _divide,
}


def compile_row(node: Node) -> RowFunction:
    """Return the function that evaluates the tree on one mapping of column name to value."""
    match node:
        case Literal():
            value = node.value
            return lambda _row: value
        case Column():
            return _column(node.name)
        case Negate():
            return _number_function(node, compile_row(node.operand), operator.neg)
        case Arithmetic():
            return _arithmetic(node)
        case Compare():
            return _compare(node)
        case Logic():
            return _logic(node)
        case Not():
            return _not(node)
        case IsNull():
            inner = compile_row(node.operand)
            return lambda row: inner(row) is None
        case In():
            return _in(node)
        case Between():
            return _between(node)
        case Like():
            return _like(node)
        case Call():
            return _call(node)
        case Case():
            return _case(node)


# -- values --------------------------------------------------------------------------------------------------


def _column(name: str) -> RowFunction:
    def column(row: Mapping[str, Any]) -> Any:
        try:
            value = row[name]
        except KeyError:
            raise _missing(name) from None
        kind = type(value)
        if value is None or kind is bool or kind is str:
            return value
        if kind is float:
            return value if value == value else None  # noqa: PLR0124  (only NaN differs from itself)
        if kind is int and _LEAST <= value <= _MOST:
            return value
        raise _foreign(name, value)

    return column


def _missing(name: str) -> InputError:
    return InputError(
        "a row holds every column of the expression, None for null",
        where=f"column {name!r}",
        got="no value",
        remedy="Pass the column",
    )


def _foreign(name: str, value: object) -> InputError:
    got = "a whole number beyond 64 bits" if isinstance(value, int) else type(value).__name__
    return InputError(
        "a value in a row is None, bool, int, float or str; a time is microseconds since 1970 UTC as int",
        where=f"column {name!r}",
        got=got,
        remedy="Convert it where the row is made",
    )


def _mixed(node: Node, *values: object) -> InputError:
    got = " and ".join(sorted({_WORDS[type(value)] for value in values}))
    return InputError(
        "an operator gets values of the kind it works on, and of one kind",
        where=render(node),
        got=got,
        remedy="Check the types of the columns",
    )


def _overflow(node: Node) -> InputError:
    return InputError(
        "a whole number fits in 64 bits",
        where=render(node),
        got="a result beyond them",
        remedy="Multiply by 1.0 first to compute in fractions",
    )


def _checked(node: Node, value: Any) -> Any:
    """Return the result of arithmetic: NaN (of infinities) is null, beyond 64 bits is an error, as in SQL."""
    if type(value) is int:
        if _LEAST <= value <= _MOST:
            return value
        raise _overflow(node)
    return value if value == value else None  # noqa: PLR0124  (only NaN differs from itself)


def _number_function(node: Node, inner: RowFunction, apply: Callable[[Any], Any]) -> RowFunction:
    def function(row: Mapping[str, Any]) -> Any:
        value = inner(row)
        if value is None:
            return None
        if type(value) not in _NUMBERS:
            raise _mixed(node, value)
        return _checked(node, apply(value))

    return function


def _arithmetic(node: Arithmetic) -> RowFunction:
    left, right, combine = compile_row(node.left), compile_row(node.right), _COMBINE[node.operator]

    def arithmetic(row: Mapping[str, Any]) -> Any:
        first, second = left(row), right(row)
        if first is None or second is None:
            return None
        if type(first) not in _NUMBERS or type(second) not in _NUMBERS:
            raise _mixed(node, first, second)
        return _checked(node, combine(first, second))

    return arithmetic


# -- conditions ----------------------------------------------------------------------------------------------


def _compare(node: Compare) -> RowFunction:
    left, right, test = compile_row(node.left), compile_row(node.right), _COMPARE[node.operator]
    literal = node.right

    def compare(row: Mapping[str, Any]) -> bool | None:
        first, second = left(row), right(row)
        if first is None or second is None:
            return None
        if type(first) is not type(second):
            first, second = _aligned(node, first, second)
        return test(first, second)

    if not isinstance(node.left, Column) or not isinstance(literal, Literal) or literal.value is None:
        return compare
    name, constant, same = node.left.name, literal.value, type(literal.value)

    def compare_column(row: Mapping[str, Any]) -> bool | None:
        # The common form, without calls: a value of the literal's own type that is not NaN.
        value = row.get(name)
        if type(value) is same and value == value:  # noqa: PLR0124  (only NaN differs from itself)
            return test(value, constant)
        return compare(row)

    return compare_column


def _aligned(node: Node, *values: Any) -> tuple[Any, ...]:
    """Return the values as they are if of one type, as floats if of both number types, raise otherwise."""
    kinds = {type(value) for value in values}
    if len(kinds) == 1:
        return values
    if kinds == _NUMBERS:
        return tuple(float(value) for value in values)
    raise _mixed(node, *values)


def _truth(node: Node, value: object) -> bool | None:
    if value is None or value is True or value is False:
        return value
    raise _mixed(node, value)


def _logic(node: Logic) -> RowFunction:
    parts = tuple(compile_row(part) for part in node.operands)
    decisive = node.operator == "or"

    def logic(row: Mapping[str, Any]) -> bool | None:
        result: bool | None = not decisive
        for part in parts:
            value = part(row)
            if value is decisive:
                result = decisive
                break
            if value is None:
                result = None
            elif type(value) is not bool:
                raise _mixed(node, value)
        return result

    return logic


def _not(node: Not) -> RowFunction:
    inner = compile_row(node.operand)

    def negation(row: Mapping[str, Any]) -> bool | None:
        value = _truth(node, inner(row))
        return None if value is None else not value

    return negation


def _in(node: In) -> RowFunction:
    inner = compile_row(node.operand)
    values: list[Any] = [item.value for item in node.items if item.value is not None]
    otherwise = False if len(values) == len(node.items) else None
    kinds = {type(value) for value in values}
    # As in SQL, one fraction on either side makes all of them fractions.
    sets = {kind: frozenset(values) for kind in kinds}
    if kinds <= _NUMBERS:
        floats = frozenset(float(value) for value in values)
        sets = {float: floats, int: floats if float in kinds else frozenset(values)}

    def membership(row: Mapping[str, Any]) -> bool | None:
        value = inner(row)
        if value is None or not values:
            return None
        items = sets.get(type(value))
        if items is None:
            raise _mixed(node, value, values[0])
        return True if value in items else otherwise

    return membership


def _between(node: Between) -> RowFunction:
    parts = (compile_row(node.operand), compile_row(node.low), compile_row(node.high))

    def between(row: Mapping[str, Any]) -> bool | None:
        value, low, high = (part(row) for part in parts)
        known = [one for one in (value, low, high) if one is not None]
        if not known:
            return None
        aligned = iter(_aligned(node, *known))
        value, low, high = (None if one is None else next(aligned) for one in (value, low, high))
        if value is None:
            return None
        if (low is not None and value < low) or (high is not None and value > high):
            return False
        return None if low is None or high is None else True

    return between


def _like(node: Like) -> RowFunction:
    inner = compile_row(node.operand)
    wild = {"%": ".*", "_": "."}
    matches = re.compile("".join(wild.get(letter) or re.escape(letter) for letter in node.pattern), re.DOTALL).fullmatch

    def like(row: Mapping[str, Any]) -> bool | None:
        value = inner(row)
        if value is None:
            return None
        if type(value) is not str:
            raise _mixed(node, value)
        return matches(value) is not None

    return like


# -- choices -------------------------------------------------------------------------------------------------


def _call(node: Call) -> RowFunction:
    parts = tuple(compile_row(argument) for argument in node.arguments)
    if node.function == "abs":
        return _number_function(node, parts[0], abs)

    def coalesce(row: Mapping[str, Any]) -> Any:
        return next((value for part in parts if (value := part(row)) is not None), None)

    if node.function == "coalesce":
        return coalesce
    pick: Callable[[Any], Any] = min if node.function == "least" else max

    def extreme(row: Mapping[str, Any]) -> Any:
        known = [value for part in parts if (value := part(row)) is not None]
        return pick(_aligned(node, *known)) if known else None

    return extreme


def _case(node: Case) -> RowFunction:
    branches = tuple((compile_row(test), compile_row(value)) for test, value in node.branches)
    otherwise = compile_row(node.otherwise or Literal(None, None))

    def case(row: Mapping[str, Any]) -> Any:
        for test, value in branches:
            if _truth(node, test(row)):
                return value(row)
        return otherwise(row)

    return case
