"""Row conditions of Great Expectations as conditions of the house language.

Three forms exist: trees of comparisons (1.x), ``col("x") > 5`` (0.18, parser ``great_expectations``), and the text of
``DataFrame.query`` (parser ``pandas``). The two texts are read sign by sign and written anew; whatever is in neither
grammar is refused, and what comes out is parsed like any other condition. Unknown is not true: a row whose value is
null meets no condition but ``is null``.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from typing import Any

from retrodict.core.expressions import parse
from retrodict.data.checks.base import column_text
from retrodict.data.interchange._values import plain, time_or_text, value_text
from retrodict.data.interchange.imported import Refused

_SIGNS = {"==": "=", "!=": "<>", "<": "<", "<=": "<=", ">": ">", ">=": ">=", "IN": "in", "NOT_IN": "not in"}
_TOKEN = re.compile(
    r"""\s*(?:
    (?P<col>col\(\s*(?P<colname>"[^"]*"|'[^']*')\s*\))
  | (?P<text>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')
  | (?P<tick>`[^`]+`)
  | (?P<number>\d+(?:\.\d*)?(?:[eE][+-]?\d+)?)
  | (?P<null>\.(?:notnull|notna|notNull|isnull|isna|isNull)\(\))
  | (?P<word>[A-Za-z_]\w*)
  | (?P<sign>==|!=|<=|>=|<|>|&&?|\|\|?|~|\(|\)|\[|\]|,|\+|-|\*|/)
    )""",
    re.VERBOSE,
)
_WORDS = {"and": "and", "or": "or", "not": "not", "in": "in", "True": "true", "False": "false"}
_PLAIN = {"&": "and", "&&": "and", "|": "or", "||": "or", "~": "not", "[": "(", "]": ")", "==": "=", "!=": "<>"}


def condition_of(condition: Any) -> str | None:
    """Return a row condition as canonical text; None if there is none.

    Raises
    ------
    Refused
        If it is in none of the forms.
    DefinitionError
        If what it says is not in the house language.
    """
    if condition is None or condition == "":
        return None
    text = _of_text(condition) if isinstance(condition, str) else _of_tree(condition)
    return parse(text, where="row_condition").text


def _of_tree(node: Any) -> str:
    if not isinstance(node, Mapping):
        raise Refused("its row condition has a form that is not known")
    match node.get("type"):
        case "and" | "or" as word:
            parts = [_of_tree(part) for part in node.get("conditions", ())]
            if not parts:
                raise Refused("its row condition is empty")
            return f" {word} ".join(f"({part})" for part in parts)
        case "nullity":
            return f"{_column(node)} is {'' if node.get('is_null') else 'not '}null"
        case "comparison":
            sign, value = _SIGNS.get(str(node.get("operator"))), node.get("parameter")
            if sign is None:
                raise Refused("its row condition has an operator that is not known")
            if sign not in ("in", "not in"):
                return f"{_column(node)} {sign} {value_text(time_or_text(value))}"
            if isinstance(value, str) or not value:
                raise Refused("its row condition has no set of values")
            return f"{_column(node)} {sign} ({', '.join(value_text(plain(part)) for part in value)})"
        case "pass_through":
            return _of_text(str(node.get("pass_through_filter", "")))
    raise Refused("its row condition has a form that is not known")


def _column(node: Mapping[str, Any]) -> str:
    column = node.get("column")
    name = column.get("name") if isinstance(column, Mapping) else column
    if not isinstance(name, str) or not name:
        raise Refused("its row condition names no column")
    return column_text(name)


def _of_text(text: str) -> str:
    return " ".join(_rewritten(text))


def _rewritten(text: str) -> Iterator[str]:
    place = 0
    while text[place:].strip():
        match = _TOKEN.match(text, place)
        if match is None:
            raise Refused(f"its row condition cannot be read from character {place + 1} on")
        place = match.end()
        kind, token = str(match.lastgroup if match["col"] is None else "col"), match.group().strip()
        match kind:
            case "col":
                yield column_text(match["colname"][1:-1])
            case "text":
                yield value_text(ast.literal_eval(token))
            case "tick":
                yield column_text(token[1:-1])
            case "null":
                yield "is not null" if token.startswith(".not") else "is null"
            case "word":
                if text[place : place + 1] == "(":
                    raise Refused("its row condition calls a function")
                yield _WORDS.get(token) or column_text(token)
            case _:
                yield _PLAIN.get(token, token)
