"""The typed tree of an expression, and its one canonical text.

The tree is closed: what is not one of these classes cannot be said, so no compiler ever meets a surprise. The
canonical text is what a definition's hash is taken over: spelling (case of keywords, spaces, needless parentheses,
``!=``) does not change a version, meaning does.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from retrodict.core.clock import format_time
from retrodict.core.durations import DAY, HOUR, format_duration

KEYWORDS = frozenset(
    "and between case else end false in is like not null or then true when".split()  # noqa: SIM905  (reads as a list)
)
OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "=": operator.eq, "<>": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
    "+": operator.add, "-": operator.sub, "*": operator.mul,
}  # fmt: skip
"""What comparisons and arithmetic do to two values; division, which can be of zero, is each compiler's own."""
CONVERSIONS = {"hour": "time", "length": "text", "seconds": "duration", "weekday": "time"}
"""Functions that make a number of one value of another kind, and that kind."""
CYCLES = {"hour": (0, DAY, HOUR), "weekday": (3 * DAY, 7 * DAY, DAY)}
"""Parts of a time in UTC: what is added to its microseconds (1970 began on a Thursday), the cycle, and the unit."""
_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True, slots=True)
class Literal:
    """A constant; ``kind`` is None for null. Times and durations are held as microseconds."""

    value: bool | int | float | str | None
    kind: str | None


@dataclass(frozen=True, slots=True)
class Column:
    """The value of a column of the row."""

    name: str


@dataclass(frozen=True, slots=True)
class Negate:
    """Unary minus on anything but a number literal, which carries its own sign."""

    operand: Node


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """``+``, ``-``, ``*`` or ``/`` of two operands."""

    operator: str
    left: Node
    right: Node


@dataclass(frozen=True, slots=True)
class Compare:
    """``=``, ``<>``, ``<``, ``<=``, ``>`` or ``>=`` of two operands."""

    operator: str
    left: Node
    right: Node


@dataclass(frozen=True, slots=True)
class Logic:
    """``and`` or ``or`` of two or more operands; flat, so that long lists do not nest."""

    operator: str
    operands: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Not:
    """Negation in three values."""

    operand: Node


@dataclass(frozen=True, slots=True)
class IsNull:
    """Never null itself."""

    operand: Node


@dataclass(frozen=True, slots=True)
class In:
    """Membership in a list of literals, which may hold null."""

    operand: Node
    items: tuple[Literal, ...]


@dataclass(frozen=True, slots=True)
class Between:
    """``low <= operand and operand <= high``, the operand evaluated once."""

    operand: Node
    low: Node
    high: Node


@dataclass(frozen=True, slots=True)
class Like:
    """Whole-text match of a literal pattern: ``%`` any text, ``_`` one character, case counts, no escape."""

    operand: Node
    pattern: str


@dataclass(frozen=True, slots=True)
class Matches:
    """Whole-text match of a literal regular expression of the subset that patterns.py reads."""

    operand: Node
    pattern: str


@dataclass(frozen=True, slots=True)
class Call:
    """``abs``, ``coalesce``, ``greatest``, ``least``, or one of :data:`CONVERSIONS`."""

    function: str
    arguments: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Case:
    """``case when … then … else … end``; ``otherwise`` is None when there is no else."""

    branches: tuple[tuple[Node, Node], ...]
    otherwise: Node | None


Condition = Compare | Logic | Not | IsNull | In | Between | Like | Matches
Node = Literal | Column | Negate | Arithmetic | Call | Case | Condition


def children(node: Node) -> tuple[Node, ...]:
    """Direct operands of a node, in the order of the text."""
    match node:
        case Literal() | Column():
            return ()
        case Arithmetic() | Compare():
            return (node.left, node.right)
        case Between():
            return (node.operand, node.low, node.high)
        case In():
            return (node.operand, *node.items)
        case Logic():
            return node.operands
        case Call():
            return node.arguments
        case Case():
            pairs = tuple(part for branch in node.branches for part in branch)
            return pairs if node.otherwise is None else (*pairs, node.otherwise)
        case Negate() | Not() | IsNull() | Like() | Matches():
            return (node.operand,)


def walk(root: Node) -> Iterator[tuple[Node, int]]:
    """Every node with its depth (the root's is 1), without recursion: the depth limit is checked with this."""
    stack = [(root, 1)]
    while stack:
        node, depth = stack.pop()
        yield node, depth
        stack.extend((child, depth + 1) for child in children(node))


# How tightly a node binds; an operand that binds less than its place asks for is put in parentheses.
_OR, _AND, _NOT, _PREDICATE, _SUM, _PRODUCT, _SIGN, _ATOM = range(8)
_STRENGTH = {"or": _OR, "and": _AND, "+": _SUM, "-": _SUM, "*": _PRODUCT, "/": _PRODUCT}


def render(node: Node) -> str:
    """Canonical text of a tree; parsing it gives the same tree."""
    return _text(node, _OR)


def _text(node: Node, place: int) -> str:
    strength, text = _unparenthesised(node)
    return f"({text})" if strength < place else text


def _unparenthesised(node: Node) -> tuple[int, str]:
    match node:
        case Literal():
            signed = node.kind == "number" and str(node.value).startswith("-")
            return (_SIGN if signed else _ATOM), _literal(node)
        case Column():
            plain = _PLAIN.fullmatch(node.name) and node.name.lower() not in KEYWORDS
            return _ATOM, node.name if plain else quote_name(node.name)
        case Negate():
            # Two signs in a row would read as a comment.
            return _SIGN, "-" + _text(node.operand, _ATOM)
        case Arithmetic():
            strength = _STRENGTH[node.operator]
            return strength, f"{_text(node.left, strength)} {node.operator} {_text(node.right, strength + 1)}"
        case Compare():
            return _PREDICATE, f"{_text(node.left, _SUM)} {node.operator} {_text(node.right, _SUM)}"
        case Logic():
            strength = _STRENGTH[node.operator]
            return strength, f" {node.operator} ".join(_text(part, strength + 1) for part in node.operands)
        case Matches():
            return _ATOM, f"matches({render(node.operand)}, {quote_text(node.pattern)})"
        case Call():
            return _ATOM, f"{node.function}({', '.join(render(part) for part in node.arguments)})"
        case Case():
            arms = "".join(f" when {render(test)} then {render(value)}" for test, value in node.branches)
            last = "" if node.otherwise is None else f" else {render(node.otherwise)}"
            return _ATOM, f"case{arms}{last} end"
        case Not(operand=IsNull() | In() | Between() | Like() as inner):
            return _PREDICATE, _predicate(inner, "not ")
        case Not():
            return _NOT, "not " + _text(node.operand, _NOT)
        case IsNull() | In() | Between() | Like():
            return _PREDICATE, _predicate(node, "")


def _predicate(node: IsNull | In | Between | Like, negation: str) -> str:
    operand = _text(node.operand, _SUM)
    match node:
        case IsNull():
            return f"{operand} is {negation}null"
        case In():
            return f"{operand} {negation}in ({', '.join(render(item) for item in node.items)})"
        case Between():
            return f"{operand} {negation}between {_text(node.low, _SUM)} and {_text(node.high, _SUM)}"
        case Like():
            return f"{operand} {negation}like {quote_text(node.pattern)}"


def _literal(node: Literal) -> str:
    match node.value, node.kind:
        case None, _:
            return "null"
        case bool(value), _:
            return "true" if value else "false"
        case str(value), _:
            return quote_text(value)
        case int(value), "time":
            return f"timestamp '{format_time(value)}'"
        case int(value), "duration":
            return format_duration(value)
        case value, _:
            return repr(value)


def quote_name(name: str) -> str:
    """Name of a column in double quotes."""
    return '"' + name.replace('"', '""') + '"'


def quote_text(text: str) -> str:
    """Text in single quotes."""
    return "'" + text.replace("'", "''") + "'"
