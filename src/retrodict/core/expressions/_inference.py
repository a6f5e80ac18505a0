"""Which kind each part of an expression has, as far as the text and the columns tell.

Kinds are sets that only shrink: every rule of the language (both sides of a comparison are of one kind, ``and`` takes
booleans, time minus time is a duration) removes what cannot be, until nothing changes. An empty set is a mistake that
is reported before anything runs. Full type inference was rejected: the columns' types are often not known where a
definition is written, and the sets already find what matters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

from retrodict.core.errors import DefinitionError
from retrodict.core.expressions import _nodes as nodes

_ANY = frozenset({"bool", "number", "text", "time", "duration"})
# A duration is not a column: only the difference of two times, or a literal.
_COLUMN = _ANY - {"duration"}
_BOOL, _NUMBER, _TEXT = frozenset({"bool"}), frozenset({"number"}), frozenset({"text"})

_N, _T, _D = "number", "time", "duration"
_FORMS: dict[str, list[tuple[str, str, str]]] = {  # left, right, result
    "+": [(_N, _N, _N), (_T, _D, _T), (_D, _T, _T), (_D, _D, _D)],
    "-": [(_N, _N, _N), (_T, _D, _T), (_T, _T, _D), (_D, _D, _D)],
    "*": [(_N, _N, _N)],
    "/": [(_N, _N, _N)],
}


class KindInference:
    """Possible kinds of every node of one tree, which must outlive this object.

    A column whose kind is missing or None may have any. A part that would have to be of two kinds is a DefinitionError.
    """

    def __init__(self, root: nodes.Node, columns: Mapping[str, str | None] | None = None, *, where: str) -> None:
        self._where = where
        self._columns = dict(columns or {})
        self._sets: dict[str | int, frozenset[str]] = {}
        order = [node for node, _ in nodes.walk(root)]
        for node in order:
            self._sets[_key(node)] = _start(node, columns or {})
        # The inner nodes come last in the walk; going backwards settles most trees in one round.
        order.reverse()
        while True:
            before = dict(self._sets)
            for node in order:
                self._apply(node)
            if before == self._sets:
                return

    def of(self, node: nodes.Node) -> str | None:
        """Return the kind of a node of this tree, None where it stays open."""
        possible = self._sets[_key(node)]
        return next(iter(possible)) if len(possible) == 1 else None

    def given(self, name: str) -> str | None:
        """Return the kind that was given for a column, None where none was."""
        return self._columns.get(name)

    def _narrow(self, node: nodes.Node, allowed: frozenset[str]) -> None:
        key = _key(node)
        left = self._sets[key] & allowed
        if not left:
            raise DefinitionError(
                f"this must be {_words(allowed)}, and is {_words(self._sets[key])}",
                where=self._where,
                got=nodes.render(node),
                remedy="Compare and combine values of one kind",
            )
        self._sets[key] = left

    def _same(self, parts: Sequence[nodes.Node]) -> None:
        for first, second in pairwise(parts):
            self._narrow(second, self._sets[_key(first)])
        for part in parts:
            self._narrow(part, self._sets[_key(parts[-1])])

    def _apply(self, node: nodes.Node) -> None:
        match node:
            case nodes.Arithmetic():
                self._arithmetic(node)
            case nodes.Negate():
                self._same([node, node.operand])
                self._narrow(node, frozenset({_N, _D}))
            case nodes.Compare() | nodes.Between() | nodes.In():
                self._same(nodes.children(node))
            case nodes.Logic() | nodes.Not():
                for part in nodes.children(node):
                    self._narrow(part, _BOOL)
            case nodes.Like() | nodes.Matches():
                self._narrow(node.operand, _TEXT)
            case nodes.Call() if node.function in nodes.CONVERSIONS:
                self._narrow(node, _NUMBER)
                self._narrow(node.arguments[0], frozenset({nodes.CONVERSIONS[node.function]}))
            case nodes.Call():
                if node.function == "abs":
                    self._narrow(node, _NUMBER)
                self._same([node, *node.arguments])
            case nodes.Case():
                for test, _ in node.branches:
                    self._narrow(test, _BOOL)
                values = [value for _, value in node.branches]
                self._same([node, *values, *([] if node.otherwise is None else [node.otherwise])])
            case nodes.Literal() | nodes.Column() | nodes.IsNull():
                pass

    def _arithmetic(self, node: nodes.Arithmetic) -> None:
        parts = (node.left, node.right, node)
        sets = [self._sets[_key(part)] for part in parts]
        forms = [form for form in _FORMS[node.operator] if all(k in s for k, s in zip(form, sets, strict=True))]
        if not forms:
            raise DefinitionError(
                "arithmetic must be of numbers, a time and a duration, two durations, or time minus time",
                where=self._where,
                got=nodes.render(node),
                remedy=f"The left side is {_words(sets[0])}, the right side {_words(sets[1])}",
            )
        for place, part in enumerate(parts):
            self._narrow(part, frozenset(form[place] for form in forms))


def _key(node: nodes.Node) -> str | int:
    # A column is one thing wherever it stands; two equal nulls are not.
    return node.name if isinstance(node, nodes.Column) else id(node)


def _start(node: nodes.Node, columns: Mapping[str, str | None]) -> frozenset[str]:
    match node:
        case nodes.Literal(kind=str(kind)):
            return frozenset({kind})
        case nodes.Column():
            column_kind = columns.get(node.name)
            return _COLUMN if column_kind is None else frozenset({"time" if column_kind == "date" else column_kind})
        case _:
            return _BOOL if isinstance(node, nodes.Condition) else _ANY


def _words(kinds: frozenset[str]) -> str:
    descriptions = {
        "bool": "true or false",
        "number": "a number",
        "text": "text",
        "time": "a time",
        "duration": "a duration",
    }
    return " or ".join(descriptions[kind] for kind in sorted(kinds))
