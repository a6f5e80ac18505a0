"""Cuts the text of an expression into tokens; what is not a token of the language stops here.

Comments, semicolons, casts and dollar quotes have no token at all, so no later step has to remember to refuse them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from unicodedata import normalize

from retrodict.core.errors import DefinitionError
from retrodict.core.expressions._nodes import KEYWORDS

_UNIT = r"[0-9]+(?:us|ms|s|m|h|d|w)"
_END = r"(?![\w.])"
_TOKEN = re.compile(
    rf"""(?P<space>[ \t\r\n]+)
    | (?P<comment>--|/\*)
    | (?P<duration>{_UNIT}(?:[ \t]*{_UNIT})*{_END})
    | (?P<number>(?:[0-9]+(?:\.[0-9]+)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?{_END})
    | (?P<string>'(?:[^']|'')*')
    | (?P<quoted>"(?:[^"]|"")+")
    | (?P<member>(?:p|set|event_by)\["[^"\]]+"\]|(?:p|set|event_by)\['[^'\]]+'\])
    | (?P<name>[^\W\d]\w*)
    | (?P<sign><>|!=|<=|>=|==|[-=<>+*/(),])""",
    re.VERBOSE,
)
_LONGEST = 20_000


@dataclass(frozen=True, slots=True)
class Token:
    """One token: its sort (a group of the pattern, ``keyword`` or ``end``), its value and where it begins."""

    sort: str
    value: str
    text: str
    start: int


def tokenise(text: str, *, where: str) -> list[Token]:
    """Tokens of the text, an ``end`` token last.

    Raises
    ------
    DefinitionError
        If a character starts no token, or the text is longer than 20,000 characters.
    """
    if len(text) > _LONGEST:
        raise DefinitionError(
            f"an expression must have at most {_LONGEST} characters",
            where=where,
            got=len(text),
            remedy="Write a derived feature in Python instead",
        )
    tokens: list[Token] = []
    place = 0
    while place < len(text):
        match = _TOKEN.match(text, place)
        # A letter that is another form of one (full width, the Kelvin sign) only looks like it.
        strange = match is not None and match.lastgroup == "name" and normalize("NFKC", match.group()) != match.group()
        if match is None or match.lastgroup == "comment" or strange:
            raise _unknown(text, place, where)
        if match.lastgroup != "space":
            tokens.append(_token(str(match.lastgroup), match.group(), place))
        place = match.end()
    return [*tokens, Token("end", "", "the end", place)]


def _token(sort: str, text: str, start: int) -> Token:
    match sort:
        case "name" if text.lower() in KEYWORDS:
            return Token("keyword", text.lower(), text, start)
        case "string":
            return Token(sort, text[1:-1].replace("''", "'"), text, start)
        case "quoted":
            return Token(sort, text[1:-1].replace('""', '"'), text, start)
        case "member":  # an output of a model of several classes, whose name is written so
            word, _, name = text.partition("[")
            return Token("quoted", f'{word}["{name[1:-2]}"]', text, start)
        case "sign" if text == "!=":
            return Token(sort, "<>", text, start)
        case _:
            return Token(sort, text, text, start)


def _unknown(text: str, place: int, where: str) -> DefinitionError:
    rest = text[place:]
    if rest.startswith(("--", "/*")):
        rule, remedy = (
            "an expression must hold no comments",
            "Remove the comment, or put a space between two minus signs",
        )
    elif rest[0] in "'\"":
        rule, remedy = "a quote must be closed", f"Add the closing {rest[0]}; inside a text write it twice"
    elif rest[0].isdigit():
        rule = "a number must end before a letter or a second point"
        remedy = "Write a number like 0.25, a duration like '1h 30m', or put the column name in double quotes"
    else:
        rule = "an expression must be one condition in the small SQL subset"
        remedy = "Names with other characters stand in double quotes; anything richer is a derived feature in Python"
    return DefinitionError(rule, where=f"{where}, character {place + 1}", got=rest[:20], remedy=remedy)
