r"""Regular expressions that other tools search for, as patterns of the whole text.

Great Expectations finds a pattern anywhere, Pandera's ``str_matches`` at the beginning; ``matches`` is about the whole
text. Each branch gets what its anchors leave out, so ``^a|b$`` becomes ``a[\s\S]*|[\s\S]*b`` and ``^[A-Z]{3}$`` stays
``[A-Z]{3}``. ``$`` means the end here; Python also lets it stand before a line feed at the end.
"""

from __future__ import annotations

from typing import Literal

_ANYTHING = r"[\s\S]*"


def whole_pattern(pattern: str, *, starts: Literal["anywhere", "first"] = "anywhere") -> str:
    r"""Return the pattern of the whole text that holds where a search for another one finds something.

    Parameters
    ----------
    pattern : str
        What is searched for.
    starts : {"anywhere", "first"}
        ``first``: the match begins with the text, as with ``re.match``.

    Examples
    --------
    >>> whole_pattern("^[A-Z]{3}$"), whole_pattern("x|^y$")
    ('[A-Z]{3}', '[\\s\\S]*x[\\s\\S]*|y')
    """
    return "|".join(_branch(branch, starts) for branch in _branches(pattern))


def literal_pattern(text: str, *, at: Literal["start", "end"]) -> str:
    """Return the pattern of texts that start, or end, with a text."""
    escaped = "".join(f"\\{letter}" if letter in r"\.+*?()|[]{}^$" else letter for letter in text)
    return escaped + _ANYTHING if at == "start" else _ANYTHING + escaped


def _branches(pattern: str) -> list[str]:
    """Split at the bars that stand in no group and in no class."""
    branches, start, depth, inside, place = [], 0, 0, -1, 0
    while place < len(pattern):
        letter = pattern[place]
        if letter == "\\":
            place += 1
        elif inside >= 0:
            # A bracket that comes first in a class is one of its characters.
            if letter == "]" and place > inside + 1 + (pattern[inside + 1 : inside + 2] == "^"):
                inside = -1
        elif letter == "[":
            inside = place
        elif letter in "()":
            depth += 1 if letter == "(" else -1
        elif letter == "|" and depth == 0:
            branches.append(pattern[start:place])
            start = place + 1
        place += 1
    return [*branches, pattern[start:]]


def _branch(text: str, starts: str) -> str:
    body = text.removeprefix("^")
    before = "" if starts == "first" or body != text else _ANYTHING
    closed = body.endswith("$") and (len(body) - len(body[:-1].rstrip("\\"))) % 2 == 1
    return before + (body[:-1] if closed else body + _ANYTHING)
