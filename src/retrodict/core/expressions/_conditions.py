"""The conditions of the row function: each takes its operands compiled and returns a closure.

Checks of a table run forty at a time on every row that is served, so the forms they take (a column against literals)
have closures of their own, without calls into further ones; the general closure stands behind each of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from retrodict.core.expressions import _nodes as nodes
from retrodict.core.expressions import patterns
from retrodict.core.expressions._values import LEAST, MOST, NUMBERS, RowFunction, aligned, missing, mixed, truth

_EXACT = 2**53  # whole numbers up to here are the same as fractions


def compare(node: nodes.Compare, left: RowFunction, right: RowFunction) -> RowFunction:
    """``=``, ``<>``, ``<``, ``<=``, ``>`` and ``>=``."""
    test = nodes.OPERATORS[node.operator]

    def comparison(row: Mapping[str, Any]) -> Any:
        first, second = left(row), right(row)
        if first is None or second is None:
            return None
        if type(first) is not type(second):
            first, second = aligned(node, first, second)
        return test(first, second)

    if isinstance(node.right, nodes.Literal) and node.right.value is not None:
        return _compare_literal(node, left, comparison)
    if isinstance(node.left, nodes.Column) and isinstance(node.right, nodes.Column):
        return _compare_columns(node.left.name, node.right.name, test, comparison)
    return comparison


def _compare_literal(node: nodes.Compare, left: RowFunction, general: RowFunction) -> RowFunction:
    test = nodes.OPERATORS[node.operator]
    assert isinstance(node.right, nodes.Literal)
    constant: Any = node.right.value
    same = type(constant)
    # A whole literal is compared with a fraction as a fraction.
    other, fraction = (float, float(constant)) if same is int else (None, constant)

    def compare_value(row: Mapping[str, Any]) -> Any:
        value = left(row)
        if type(value) is same:
            return test(value, constant)
        if value is None:
            return None
        if type(value) is other:
            return test(value, fraction)
        return general(row)

    if not isinstance(node.left, nodes.Column):
        return compare_value
    name = node.left.name

    def compare_column(row: Mapping[str, Any]) -> Any:
        value = row.get(name)
        if type(value) is same and value == value:  # noqa: PLR0124  (only NaN differs from itself)
            return test(value, constant)
        if type(value) is other and value == value:  # noqa: PLR0124
            return test(value, fraction)
        return general(row)

    return compare_column


def _compare_columns(first: str, second: str, test: Callable[[Any, Any], bool], general: RowFunction) -> RowFunction:
    def compare_columns(row: Mapping[str, Any]) -> Any:
        left, right = row.get(first), row.get(second)
        kind = type(left)
        if kind is type(right) and (
            (kind is float and left == left and right == right)  # noqa: PLR0124  (only NaN differs from itself)
            or (kind is int and LEAST <= left <= MOST and LEAST <= right <= MOST)  # type: ignore[operator]
            or kind is str
        ):
            return test(left, right)
        return general(row)

    return compare_columns


def logic(node: nodes.Logic, *parts: RowFunction) -> RowFunction:
    """``and`` and ``or``; the first operand that decides ends it."""
    decisive = node.operator == "or"

    def several(row: Mapping[str, Any]) -> bool | None:
        result: bool | None = not decisive
        for part in parts:
            value = part(row)
            if value is decisive:
                result = decisive
                break
            if value is None:
                result = None
            elif type(value) is not bool:
                raise mixed(node, value)
        return result

    return several


def negation(node: nodes.Not, inner: RowFunction) -> RowFunction:
    """``not``."""

    def opposite(row: Mapping[str, Any]) -> bool | None:
        value = inner(row)
        return not value if value is True or value is False else truth(node, value)

    if isinstance(node.operand, nodes.IsNull) and isinstance(node.operand.operand, nodes.Column):
        return _known(node.operand.operand.name, opposite, present=True)
    return opposite


def is_null(node: nodes.IsNull, inner: RowFunction) -> RowFunction:
    """``is null``."""

    def unknown(row: Mapping[str, Any]) -> bool:
        return inner(row) is None

    return _known(node.operand.name, unknown, present=False) if isinstance(node.operand, nodes.Column) else unknown


def _known(name: str, general: RowFunction, *, present: bool) -> RowFunction:
    def test(row: Mapping[str, Any]) -> Any:
        try:
            value = row[name]
        except KeyError:
            raise missing(name) from None
        kind = type(value)
        if kind is float:
            return (value == value) is present  # noqa: PLR0124  (only NaN differs from itself)
        if kind is str or kind is bool or (kind is int and LEAST <= value <= MOST):
            return present
        return general(row)

    return test


def contains(node: nodes.In, inner: RowFunction, *_items: RowFunction) -> RowFunction:
    """``in``."""
    values: list[Any] = [item.value for item in node.items if item.value is not None]
    otherwise = False if len(values) == len(node.items) else None
    kinds = {type(value) for value in values}
    # As in SQL, one fraction on either side makes all of them fractions.
    sets = {kind: frozenset(values) for kind in kinds}
    rounds = float in kinds
    if kinds <= NUMBERS:
        floats = frozenset(float(value) for value in values)
        sets = {float: floats, int: floats if rounds else frozenset(values)}

    def membership(row: Mapping[str, Any]) -> bool | None:
        value = inner(row)
        if value is None or not values:
            return None
        items = sets.get(type(value))
        if items is None:
            raise mixed(node, value, values[0])
        if rounds:
            value = float(value)
        return True if value in items else otherwise

    if kinds not in ({str}, {int}) or not isinstance(node.operand, nodes.Column):
        return membership
    name, same, only = node.operand.name, kinds.pop(), frozenset(values)

    def column_membership(row: Mapping[str, Any]) -> bool | None:
        value = row.get(name)
        if type(value) is same:
            if value in only:
                return True
            if same is str:
                return otherwise
        return membership(row)

    return column_membership


def between(node: nodes.Between, operand: RowFunction, low: RowFunction, high: RowFunction) -> RowFunction:
    """``between``."""
    parts = (operand, low, high)

    def general(row: Mapping[str, Any]) -> bool | None:
        value, lower, upper = (part(row) for part in parts)
        present = [one for one in (value, lower, upper) if one is not None]
        if not present:
            return None
        same = iter(aligned(node, *present))
        value, lower, upper = (None if one is None else next(same) for one in (value, lower, upper))
        if value is None:
            return None
        if (lower is not None and value < lower) or (upper is not None and value > upper):
            return False
        return None if lower is None or upper is None else True

    if isinstance(node.low, nodes.Literal) and isinstance(node.high, nodes.Literal):
        return _between_literals(node, operand, node.low.value, node.high.value) or general
    return general


def _between_literals(node: nodes.Between, inner: RowFunction, low: Any, high: Any) -> RowFunction | None:
    """The form of most checks; None if the bounds are not two texts or two numbers."""
    kinds = {type(low), type(high)}
    if kinds == {str}:

        def between_texts(row: Mapping[str, Any]) -> Any:
            value = inner(row)
            if type(value) is str:
                return low <= value <= high
            if value is None:
                return None
            raise mixed(node, value, low)

        return between_texts
    if not kinds <= NUMBERS:
        return None
    lower, upper = float(low), float(high)
    exact = float not in kinds

    def between_numbers(row: Mapping[str, Any]) -> Any:
        value = inner(row)
        kind = type(value)
        if kind is float:
            return lower <= value <= upper
        if value is None:
            return None
        if kind is not int:
            raise mixed(node, value, low)
        return low <= value <= high if exact or -_EXACT <= value <= _EXACT else lower <= float(value) <= upper

    if not isinstance(node.operand, nodes.Column):
        return between_numbers
    name, within = node.operand.name, exact or (abs(low) <= _EXACT and abs(high) <= _EXACT)

    def between_column(row: Mapping[str, Any]) -> Any:
        # A value inside the bounds is a number of 64 bits and not NaN, without another look.
        value: Any = row.get(name)
        kind = type(value)
        if (kind is float and lower <= value <= upper) or (kind is int and within and low <= value <= high):
            return True
        return between_numbers(row)

    return between_column


def like(node: nodes.Like, inner: RowFunction) -> RowFunction:
    """``like``."""
    return _whole(node, inner, re.compile(patterns.like(node.pattern)))


def matches(node: nodes.Matches, inner: RowFunction) -> RowFunction:
    """``matches``."""
    return _whole(node, inner, re.compile(patterns.translate(node.pattern)))


def _whole(node: nodes.Node, inner: RowFunction, pattern: re.Pattern[str]) -> RowFunction:
    test = pattern.fullmatch

    def whole(row: Mapping[str, Any]) -> bool | None:
        value = inner(row)
        if type(value) is str:
            return test(value) is not None
        if value is None:
            return None
        raise mixed(node, value)

    return whole


COMPILERS: dict[type[nodes.Node], Callable[..., RowFunction]] = {
    nodes.Compare: compare,
    nodes.Logic: logic,
    nodes.Not: negation,
    nodes.IsNull: is_null,
    nodes.In: contains,
    nodes.Between: between,
    nodes.Like: like,
    nodes.Matches: matches,
}
"""How each kind of condition is compiled: from its node and its operands, which are compiled already."""
