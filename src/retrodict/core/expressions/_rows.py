"""Compiles a tree to a plain Python function of one row.

Closures, one per node: no text is ever evaluated, and a comparison of a column with a literal costs a fraction of a
microsecond. Between nodes a value is a bool, an int, a float that is not NaN, a str, or None for null.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any

from retrodict.core.errors import InputError
from retrodict.core.expressions import _conditions as conditions
from retrodict.core.expressions import _nodes as nodes
from retrodict.core.expressions._values import LEAST, MOST, NUMBERS, RowFunction, aligned, mixed, read_column, truth


def _divide(first: float, second: float) -> float | None:
    # SQL divides doubles; Python's int / int would round once instead of twice beyond 2**53.
    return float(first) / float(second) if second else None


_COMBINE = {**nodes.OPERATORS, "/": _divide}


def compile_row(node: nodes.Node) -> RowFunction:
    """Return the function that evaluates the tree on one mapping of column name to value."""
    match node:
        case nodes.Literal():
            value = node.value
            return lambda _row: value
        case nodes.Column():
            return read_column(node.name)
        case nodes.Negate():
            return _number_function(node, compile_row(node.operand), operator.neg)
        case nodes.Arithmetic():
            return _arithmetic(node)
        case nodes.Call():
            return _call(node)
        case nodes.Case():
            return _case(node)
        case _:
            return conditions.COMPILERS[type(node)](node, *map(compile_row, nodes.children(node)))


def _overflow(node: nodes.Node) -> InputError:
    return InputError(
        "a whole number must fit in 64 bits",
        where=nodes.render(node),
        got="a result beyond them",
        remedy="Multiply by 1.0 first to compute in fractions",
    )


def _checked(node: nodes.Node, value: Any) -> Any:
    """Return the result of arithmetic: NaN (of infinities) is null, beyond 64 bits is an error, as in SQL."""
    if type(value) is int:
        if LEAST <= value <= MOST:
            return value
        raise _overflow(node)
    return value if value == value else None  # noqa: PLR0124  (only NaN differs from itself)


def _number_function(node: nodes.Node, inner: RowFunction, apply: Callable[[Any], Any]) -> RowFunction:
    def function(row: Mapping[str, Any]) -> Any:
        value = inner(row)
        if value is None:
            return None
        if type(value) not in NUMBERS:
            raise mixed(node, value)
        return _checked(node, apply(value))

    return function


def _arithmetic(node: nodes.Arithmetic) -> RowFunction:
    left, right, combine = compile_row(node.left), compile_row(node.right), _COMBINE[node.operator]

    def arithmetic(row: Mapping[str, Any]) -> Any:
        first, second = left(row), right(row)
        if first is None or second is None:
            return None
        if type(first) not in NUMBERS or type(second) not in NUMBERS:
            raise mixed(node, first, second)
        return _checked(node, combine(first, second))

    return arithmetic


def _call(node: nodes.Call) -> RowFunction:
    parts = tuple(compile_row(argument) for argument in node.arguments)
    if node.function == "abs":
        return _number_function(node, parts[0], abs)
    if node.function in nodes.CONVERSIONS:
        return _conversion(node, parts[0])

    def coalesce(row: Mapping[str, Any]) -> Any:
        return next((value for part in parts if (value := part(row)) is not None), None)

    if node.function == "coalesce":
        return coalesce
    pick: Callable[[Any], Any] = min if node.function == "least" else max

    def extreme(row: Mapping[str, Any]) -> Any:
        values = [value for part in parts if (value := part(row)) is not None]
        return pick(aligned(node, *values)) if values else None

    return extreme


def _conversion(node: nodes.Call, inner: RowFunction) -> RowFunction:
    takes: type = str if node.function == "length" else int
    convert = _CONVERT[node.function]

    def conversion(row: Mapping[str, Any]) -> Any:
        value = inner(row)
        if type(value) is takes:
            return convert(value)
        if value is None:
            return None
        raise mixed(node, value)

    return conversion


def _cycle(name: str) -> Callable[[Any], int]:
    shift, cycle, unit = nodes.CYCLES[name]
    return lambda micros: (micros + shift) % cycle // unit


_CONVERT: dict[str, Callable[[Any], Any]] = {
    "hour": _cycle("hour"),
    "length": len,
    "seconds": lambda micros: micros / 1e6,
    "weekday": _cycle("weekday"),
}


def _case(node: nodes.Case) -> RowFunction:
    branches = tuple((compile_row(test), compile_row(value)) for test, value in node.branches)
    otherwise = compile_row(node.otherwise or nodes.Literal(None, None))

    def case(row: Mapping[str, Any]) -> Any:
        for test, value in branches:
            if truth(node, test(row)):
                return value(row)
        return otherwise(row)

    return case
