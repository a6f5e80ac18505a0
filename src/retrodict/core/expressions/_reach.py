"""Whether a condition over one bounded number can be true: a threshold that nothing reaches decides nothing.

The truth of comparisons with constants changes only at the constants: it is asked there, right beside and between. For
arithmetic, where it may change elsewhere, a fine grid is asked as well.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise

from retrodict.core.errors import DefinitionError, InputError
from retrodict.core.expressions import _nodes as nodes
from retrodict.core.expressions.expression import Expression, parse

_STEPS = 1_000
_FAR = 1e6  # where a number without an end is looked at beyond its constants


def can_hold(
    expression: Expression, name: str, span: tuple[float, float] | None, *, unless: Sequence[Expression] = ()
) -> bool:
    """Return whether some value of one column may make a condition true, whatever the other columns hold.

    Parameters
    ----------
    expression : Expression
    name : str
        The column; where the condition does not read it, or ``span`` is None, there is nothing to rule out.
    span : tuple of float or None
        Lowest and highest value, both included; the highest may be infinite.
    unless : sequence of Expression
        Conditions over the same column alone that take their values first.

    Examples
    --------
    >>> from retrodict.core.expressions import parse
    >>> can_hold(parse("score >= 0.5"), "score", (0, 1)), can_hold(parse("score >= 50"), "score", (0, 1))
    (True, False)
    >>> can_hold(parse("score > 0.5"), "score", (0, 1), unless=[parse("score >= 0.4")])
    False
    """
    others = [column for column in expression.columns if column != name]
    # Unknown others leave a comparison unknown; of these nodes they may decide the value, so nothing can be said.
    opaque = (nodes.IsNull, nodes.Case, nodes.Call)
    if span is None or name not in expression.columns:
        return True
    if others and any(isinstance(node, opaque) for node, _ in nodes.walk(expression.tree)):
        return True
    holds, earlier = expression.to_row(), [condition.to_row() for condition in unless]
    unknown = dict.fromkeys(others)
    try:
        return any(
            holds(row) is not False and not any(takes(row) is True for takes in earlier)
            for row in ({name: value, **unknown} for value in _points([expression, *unless], *span))
        )
    except InputError:  # a number compared with what is none: said where the condition is evaluated
        return True


def check_reach(text: str, spans: Mapping[str, tuple[float, float]], rule: str, *, where: str) -> None:
    """Refuse a condition over bounded numbers that no value of one of them meets; the error says its range."""
    expression = parse(text, where=where)
    for name in expression.columns:
        if not can_hold(expression, name, spans.get(name)):
            low, high = spans[name]
            remedy = f"{name} lies between {low:g} and {high:g}"
            raise DefinitionError(rule, where=where, got=text, remedy=remedy)


def compared_texts(expression: Expression, name: str) -> Iterator[str]:
    """Texts that a column is held against, by ``=``, ``<>`` or ``in``.

    Examples
    --------
    >>> from retrodict.core.expressions import parse
    >>> sorted(compared_texts(parse("decision = 'warn' or 'ok' <> decision or decision in ('no', 'x')"), "decision"))
    ['no', 'ok', 'warn', 'x']
    """
    column = nodes.Column(name)
    for node, _ in nodes.walk(expression.tree):
        parts: tuple[nodes.Node, ...] = ()
        if isinstance(node, nodes.Compare) and node.operator in ("=", "<>"):
            parts = (node.left, node.right)
        elif isinstance(node, nodes.In):
            parts = (node.operand, *node.items)
        if column in parts:
            yield from (one.value for one in parts if isinstance(one, nodes.Literal) and isinstance(one.value, str))


def _points(expressions: Iterable[Expression], low: float, high: float) -> list[float]:
    """Values between which no comparison with a constant changes, those constants and their neighbours among them."""
    literals = [node.value for e in expressions for node, _ in nodes.walk(e.tree) if isinstance(node, nodes.Literal)]
    constants = {float(value) for value in literals if isinstance(value, int | float) and not isinstance(value, bool)}
    top = min(high, max([abs(value) for value in constants], default=0.0) * 2 + _FAR)
    edges = {low, top, *constants}
    beside = {math.nextafter(edge, way) for edge in edges for way in (-math.inf, math.inf)}
    ordered = sorted(edges)
    between = {(first + second) / 2 for first, second in pairwise(ordered)}
    grid = {low + (top - low) * step / _STEPS for step in range(_STEPS + 1)}
    return sorted(value for value in edges | beside | between | grid if low <= value <= high)
