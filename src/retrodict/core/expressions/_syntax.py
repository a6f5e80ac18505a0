"""Reads the text of an expression into its tree.

A parser of our own, by recursive descent, so that the language is exactly what is written here. Parsing with a full
SQL parser and allowing some of its nodes was rejected: it drops comments silently, reads ``sched_dep - 1h`` as an
alias named ``h``, accepts many spellings that then have to be refused one by one, and costs a quarter of a second to
import in every process that only evaluates one rule.

::

    or        = and { "or" and }
    and       = not { "and" not }
    not       = "not" not | predicate
    predicate = sum [ ( "=" | "<>" | "!=" | "<" | "<=" | ">" | ">=" ) sum
                    | "is" ["not"] "null"
                    | ["not"] "in" "(" literal { "," literal } ")"
                    | ["not"] "between" sum "and" sum
                    | ["not"] "like" text ]
    sum       = product { ( "+" | "-" ) product }
    product   = sign { ( "*" | "/" ) sign }
    sign      = "-" sign | atom
    atom      = literal | column | "(" or ")" | function "(" or { "," or } ")"
              | "matches" "(" or "," text ")"
              | "case" "when" or "then" or { "when" or "then" or } [ "else" or ] "end"
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from retrodict.core.clock import format_time, parse_time
from retrodict.core.durations import parse_duration
from retrodict.core.errors import DefinitionError, InputError, near
from retrodict.core.expressions import _nodes as nodes
from retrodict.core.expressions._tokens import Token, tokenise
from retrodict.core.expressions.patterns import translate

_Item = TypeVar("_Item")

_COMPARISONS = frozenset({"=", "<>", "<", "<=", ">", ">="})
_FUNCTIONS = frozenset({"abs", "coalesce", "greatest", "least", "matches", *nodes.CONVERSIONS})
_OF_ONE = frozenset({"abs", *nodes.CONVERSIONS})
# All compilers recurse over the tree; these limits keep them far from Python's own.
_DEEPEST, _NESTED = 64, 24
_INT64 = 2**63


def read(text: str, *, where: str) -> nodes.Node:
    """Tree of an expression.

    Raises
    ------
    DefinitionError
        If the text is not in the language, with the offending piece and its place.
    """
    parser = _Parser(tokenise(text, where=where), where)
    tree = parser.whole()
    if max(depth for _, depth in nodes.walk(tree)) > _DEEPEST:
        raise DefinitionError(
            f"an expression must nest at most {_DEEPEST} deep",
            where=where,
            remedy="Split it into derived columns",
            got=f"more than {_DEEPEST}",
        )
    return tree


class _Parser:
    def __init__(self, tokens: list[Token], where: str) -> None:
        self._tokens, self._where = tokens, where
        self._place = 0
        self._depth = 0

    # -- tokens ------------------------------------------------------------------------------------------------------

    @property
    def _now(self) -> Token:
        return self._tokens[self._place]

    def _take(self) -> Token:
        token = self._now
        self._place += 1
        return token

    def _accept(self, *values: str) -> str | None:
        """Value of the present token if it is one of these keywords or signs, which it passes."""
        if self._now.sort in {"keyword", "sign"} and self._now.value in values:
            return self._take().value
        return None

    def _expect(self, value: str, after: str) -> None:
        if self._accept(value) is None:
            raise self._error(f"{after} must be followed by {value!r}", self._now, f"Write {value!r} here")

    def _error(self, rule: str, token: Token, remedy: str) -> DefinitionError:
        where = f"{self._where}, character {token.start + 1}"
        return DefinitionError(rule, where=where, got=token.text, remedy=remedy)

    @contextmanager
    def _inside(self) -> Iterator[None]:
        self._depth += 1
        if self._depth > _NESTED:
            raise self._error(
                f"parentheses, signs and 'not' must nest at most {_NESTED} deep", self._now, "Take some away"
            )
        yield
        self._depth -= 1

    # -- conditions --------------------------------------------------------------------------------------------------

    def whole(self) -> nodes.Node:
        tree = self._or()
        if self._now.sort != "end":
            raise self._unexpected()
        return tree

    def _unexpected(self) -> DefinitionError:
        token = self._now
        if token.value == "==":
            return self._error("equality must be one sign", token, "Write '='")
        if token.value in _COMPARISONS or token.value in {"is", "in", "between", "like"}:
            return self._error("comparisons must not follow one another", token, "Put one of them in parentheses")
        return self._error(
            "an expression must be one condition in the small SQL subset", token, "Remove what starts here"
        )

    def _or(self) -> nodes.Node:
        return self._chain("or", self._and)

    def _and(self) -> nodes.Node:
        return self._chain("and", self._not)

    def _chain(self, operator: str, part: Callable[[], nodes.Node]) -> nodes.Node:
        parts = [part()]
        while self._accept(operator):
            parts.append(part())
        if len(parts) == 1:
            return parts[0]
        # (a or b) or c is a or b or c: equal meaning, equal text, equal hash.
        flat: list[nodes.Node] = []
        for one in parts:
            flat.extend(one.operands if isinstance(one, nodes.Logic) and one.operator == operator else [one])
        return nodes.Logic(operator, tuple(flat))

    def _not(self) -> nodes.Node:
        if self._accept("not"):
            with self._inside():
                return nodes.Not(self._not())
        return self._predicate()

    def _predicate(self) -> nodes.Node:
        left = self._sum()
        operator = self._accept(*_COMPARISONS)
        if operator:
            return nodes.Compare(operator, left, self._sum())
        if self._accept("is"):
            negated = bool(self._accept("not"))
            self._expect("null", "'is'")
            node: nodes.Node = nodes.IsNull(left)
        else:
            negated = bool(self._accept("not"))
            membership = self._membership(left)
            if membership is None:
                if negated:
                    raise self._error("'not' after a value must go with in, between or like", self._now, "Write one")
                return left
            node = membership
        return nodes.Not(node) if negated else node

    def _membership(self, left: nodes.Node) -> nodes.Node | None:
        if self._accept("in"):
            self._expect("(", "'in'")
            return nodes.In(left, self._list(self._constant))
        if self._accept("between"):
            low = self._sum()
            self._expect("and", "the lower bound of 'between'")
            return nodes.Between(left, low, self._sum())
        if self._accept("like"):
            return nodes.Like(left, self._text(self._pattern("like", "B%")))
        return None

    def _pattern(self, after: str, example: str) -> Token:
        token = self._take()
        if token.sort != "string":
            raise self._error(f"{after!r} must have a pattern in single quotes", token, f"Write it like '{example}'")
        return token

    def _list(self, item: Callable[[], _Item]) -> tuple[_Item, ...]:
        items = [item()]
        while self._accept(","):
            items.append(item())
        self._expect(")", "a list")
        return tuple(items)

    def _constant(self) -> nodes.Literal:
        token = self._now
        node = self._sign()
        if not isinstance(node, nodes.Literal):
            raise self._error("the list of 'in' must hold literals", token, "Compare with a column by '='")
        return node

    # -- values ------------------------------------------------------------------------------------------------------

    def _sum(self) -> nodes.Node:
        return self._series(self._product, "+", "-")

    def _product(self) -> nodes.Node:
        return self._series(self._sign, "*", "/")

    def _series(self, part: Callable[[], nodes.Node], *signs: str) -> nodes.Node:
        left = part()
        while operator := self._accept(*signs):
            right = part()
            if _always_null(left) or _always_null(right):
                raise self._null_operand(operator)
            left = nodes.Arithmetic(operator, left, right)
        return left

    def _null_operand(self, operator: str) -> DefinitionError:
        return DefinitionError(
            "arithmetic must not have an operand that is always null",
            where=self._where,
            got=operator,
            remedy="Remove it",
        )

    def _sign(self) -> nodes.Node:
        if not self._accept("-"):
            return self._atom()
        with self._inside():
            operand = self._sign()
        if _always_null(operand):
            raise self._null_operand("-")
        if isinstance(operand, nodes.Literal) and operand.kind == "number" and isinstance(operand.value, int | float):
            return nodes.Literal(-operand.value, "number")
        return nodes.Negate(operand)

    def _atom(self) -> nodes.Node:
        token = self._take()
        match token.sort, token.value:
            case "number", _:
                return self._number(token)
            case "string", _:
                return nodes.Literal(self._text(token), "text")
            case "duration", _:
                return self._duration(token)
            case "keyword", ("true" | "false"):
                return nodes.Literal(token.value == "true", "bool")
            case "keyword", "null":
                return nodes.Literal(None, None)
            case "keyword", "case":
                with self._inside():
                    return self._case()
            case "quoted", _:
                return nodes.Column(self._text(token))
            case "name", _:
                return self._named(token)
            case "sign", "(":
                with self._inside():
                    node = self._or()
                self._expect(")", "what stands in parentheses")
                return node
        self._place -= 1
        if token.sort == "keyword":
            remedy = f'A column of this name is written in double quotes: "{token.text}"'
        else:
            remedy = "Write a column, a literal or an expression in parentheses"
        raise self._error("a value must stand here", token, remedy)

    def _case(self) -> nodes.Node:
        branches: list[tuple[nodes.Node, nodes.Node]] = []
        while not branches or self._now.value == "when":
            self._expect("when", "'case'")
            test = self._or()
            self._expect("then", "the condition of 'when'")
            branches.append((test, self._or()))
        otherwise = self._or() if self._accept("else") else None
        self._expect("end", "'case'")
        return nodes.Case(tuple(branches), otherwise)

    def _named(self, token: Token) -> nodes.Node:
        if self._now.sort == "string" and token.value.lower() == "timestamp":
            return self._time(self._take())
        if not self._accept("("):
            return nodes.Column(token.value)
        name = token.value.lower()
        if name not in _FUNCTIONS:
            raise self._error(
                "a function of the small SQL subset must stand here", token, near(name, _FUNCTIONS, what="function")
            )
        with self._inside():
            if name == "matches":
                return self._matches()
            arguments = self._list(self._or)
        if name in _OF_ONE and len(arguments) > 1:
            raise self._error(f"{name} must have one argument", token, "Remove the others")
        return nodes.Call(name, arguments)

    def _matches(self) -> nodes.Node:
        operand = self._or()
        self._expect(",", "the text of 'matches'")
        token = self._pattern("matches", "[A-Z]{3}")
        pattern = self._text(token)
        translate(pattern, where=f"{self._where}, character {token.start + 1}")
        self._expect(")", "the pattern of 'matches'")
        return nodes.Matches(operand, pattern)

    # -- literals ----------------------------------------------------------------------------------------------------

    def _number(self, token: Token) -> nodes.Literal:
        if token.text.isdigit():
            if len(token.text) > 19 or int(token.text) >= _INT64:
                raise self._error("a whole number must fit in 64 bits", token, "Write it as a fraction, like 1e20")
            return nodes.Literal(int(token.text), "number")
        value = float(token.text)
        if math.isinf(value):
            raise self._error("a fraction fits in a double", token, "Write a smaller one")
        return nodes.Literal(value, "number")

    def _duration(self, token: Token) -> nodes.Literal:
        try:
            return nodes.Literal(parse_duration(token.text), "duration")
        except InputError as error:
            raise self._error(error.rule, token, error.remedy or "Write a shorter one") from error

    def _time(self, token: Token) -> nodes.Literal:
        try:
            instant = parse_time(token.value)
            format_time(instant)  # the canonical text must exist too
        except (InputError, OverflowError) as error:
            raise self._error(
                "a timestamp is ISO 8601 with a zone", token, "Write it like timestamp '2013-01-01T00:00:00Z'"
            ) from error
        return nodes.Literal(instant, "time")

    def _text(self, token: Token) -> str:
        # A NUL ends a text early in some engines, and half a surrogate pair has no UTF-8.
        if "\0" in token.value or any("\ud800" <= letter <= "\udfff" for letter in token.value):
            raise self._error("text holds no NUL and no half characters", token, "Remove that character")
        return token.value


def _always_null(node: nodes.Node) -> bool:
    """Whether no row can make it anything but null; as an operand it would have no type to add or subtract."""
    match node:
        case nodes.Literal():
            return node.value is None
        case nodes.Call():
            return all(_always_null(argument) for argument in node.arguments)
        case nodes.Case():
            values = [value for _, value in node.branches]
            return all(_always_null(value) for value in (*values, node.otherwise or nodes.Literal(None, None)))
        case _:
            return False
