r"""The regular expressions of ``matches``: a subset that means the same in every engine, read and rewritten by us.

Python's ``re``, RE2 (DuckDB) and the regex crate (Polars) agree on much, but not on what ``\d``, ``.``, ``$`` and a
class inside a class mean, nor on the size of a repeat. Handing the text through and hoping was rejected: a check that
holds in the scan and fails on the row is worse than none. So a pattern is parsed here and written anew with explicit
classes only; what is not in the grammar is refused. Java's expressions read the rewritten form alike.

::

    pattern  = ["^"] branches ["$"]          both are allowed and change nothing: the whole text is matched
    branches = sequence { "|" sequence }
    sequence = { atom [ ( "*" | "+" | "?" | "{m}" | "{m,}" | "{m,n}" ) ["?"] ] }
    atom     = letter | escape | "." | "[" ["^"] { letter | escape | range } "]" | "(" ["?:"] branches ")"
    escape   = "\d" "\D" "\w" "\W" "\s" "\S" "\t" "\n" "\r" "\f" "\v" | "\" and an ASCII sign

``.`` is any character but a line feed; ``\d`` is ``[0-9]``, ``\w`` ``[0-9A-Za-z_]``, ``\s`` the six ASCII spaces.
A lazy ``?`` after a repeat is dropped: it cannot change whether the whole text matches.
"""

from __future__ import annotations

import re

from retrodict.core.errors import DefinitionError

__all__ = ["escape", "like", "translate"]

_Ranges = list[tuple[int, int]]

_REPEAT = re.compile(r"\{(?P<least>[0-9]{1,4})(?P<comma>,(?P<most>[0-9]{1,4})?)?\}")
_MOST = 1000  # what RE2 admits, for one repeat and for nested ones multiplied
_NESTED = 24
_LAST = 0x10FFFF - 0x800  # characters without the 2048 surrogates, which are none
_META = frozenset("\\.+*?()|[]{}^$#&-~")
_CONTROL = {"t": "\t", "n": "\n", "r": "\r", "f": "\f", "v": "\v"}
_SHORT: dict[str, _Ranges] = {
    "d": [(48, 57)],
    "w": [(48, 57), (65, 90), (95, 95), (97, 122)],
    "s": [(9, 13), (32, 32)],
}


def translate(pattern: str, *, where: str = "pattern") -> str:
    r"""Return the pattern written so that every engine reads it alike; it is to match the whole text.

    Parameters
    ----------
    pattern : str
        A regular expression of the subset.
    where : str, default "pattern"
        What to name in the error.

    Raises
    ------
    DefinitionError
        If the pattern is not in the subset, or its repeats written out have more than 1000 characters.

    Examples
    --------
    >>> translate(r"^[A-Z]{2}\d+$")
    '[A-Z]{2}[0-9]+'
    """
    reader = _Reader(pattern, where)
    text, size = reader.whole()
    if size > _MOST:
        raise DefinitionError(
            f"a pattern must have at most {_MOST} characters when its repeats are written out",
            where=where,
            got=size,
            remedy="Make the repeats shorter, or check length() beside a simpler pattern",
        )
    return text


class _Reader:
    """Reads by recursive descent; every method returns the rewritten text and its size with repeats written out."""

    def __init__(self, pattern: str, where: str) -> None:
        self._text, self._where = pattern, where
        self._place = 0
        self._depth = 0

    def _next(self, what: str) -> bool:
        """Whether the text goes on with these signs, which it then passes."""
        follows = self._text.startswith(what, self._place)
        self._place += len(what) if follows else 0
        return follows

    def _error(self, rule: str, remedy: str, start: int | None = None) -> DefinitionError:
        start = min(self._place, len(self._text)) if start is None else start
        return DefinitionError(
            rule,
            where=f"{self._where}, pattern character {start + 1}",
            got=self._text[start : start + 10] or "the end",
            remedy=remedy,
        )

    def whole(self) -> tuple[str, int]:
        self._next("^")
        text, size = self._branches()
        self._next("$")
        if self._place < len(self._text):
            if self._text[self._place] == ")":
                raise self._error(
                    "a parenthesis must be opened before it is closed", r"Write \) for the character itself"
                )
            raise self._anchor()
        return text, size

    def _anchor(self) -> DefinitionError:
        return self._error(
            "'^' must stand first only and '$' last only: the whole text is matched",
            "Take it away, or write a backslash before it for the character itself",
        )

    def _branches(self) -> tuple[str, int]:
        parts = [self._sequence()]
        while self._next("|"):
            parts.append(self._sequence())
        return "|".join(text for text, _ in parts), sum(size for _, size in parts)

    def _sequence(self) -> tuple[str, int]:
        texts, total = [], 0
        while self._place < len(self._text) and self._text[self._place] not in "|)^$":
            text, size = self._atom()
            repeat, times = self._repeat()
            texts.append(text + repeat)
            total += max(size, 1) * times
        return "".join(texts), total

    def _atom(self) -> tuple[str, int]:
        letter = self._text[self._place]
        if letter == "(":
            return self._group()
        if letter == "[":
            return self._class(), 1
        if letter in "*+?{":
            raise self._error("a repeat must follow what it repeats, once", r"Write \* for the character itself")
        if letter in "]}":
            raise self._error(
                "a bracket must be opened before it is closed", rf"Write \{letter} for the character itself"
            )
        self._place += 1
        if letter == ".":
            return r"[^\x0a]", 1
        if letter != "\\":
            return escape(letter), 1
        escaped = self._escape()
        return (escape(escaped) if isinstance(escaped, str) else _written(escaped)), 1

    def _group(self) -> tuple[str, int]:
        start = self._place
        self._place += 1
        if not self._next("?:") and self._text.startswith("?", self._place):
            raise self._error(
                "a group must be plain: look-around, names, flags and atomic groups are not in the subset",
                "Write (…) or (?:…)",
                start,
            )
        self._depth += 1
        if self._depth > _NESTED:
            raise self._error(f"groups must nest at most {_NESTED} deep", "Take some away", start)
        text, size = self._branches()
        self._depth -= 1
        if not self._next(")"):
            if self._place < len(self._text):
                raise self._anchor()
            raise self._error("a group must be closed", "Add ')'", start)
        return f"(?:{text})", size

    def _repeat(self) -> tuple[str, int]:
        """The repeat that follows, and how often it writes its atom out."""
        start = self._place
        for sign in "*+?":
            if self._next(sign):
                self._end_of_repeat()
                return sign, 2 if sign == "+" else 1
        if not self._text.startswith("{", start):
            return "", 1
        match = _REPEAT.match(self._text, start)
        lower = int(match["least"]) if match else 0
        upper = int(match["most"]) if match and match["most"] else lower
        if match is None or upper < lower or upper > _MOST:
            raise self._error(
                f"a repeat must be {{m}}, {{m,}} or {{m,n}} with m <= n <= {_MOST}",
                r"Write \{ for the character itself",
                start,
            )
        self._place = match.end()
        self._end_of_repeat()
        if not match["comma"]:
            return f"{{{lower}}}", max(lower, 1)
        if not match["most"]:
            return f"{{{lower},}}", lower + 1
        return f"{{{lower},{upper}}}", max(upper, 1)

    def _end_of_repeat(self) -> None:
        self._next("?")  # lazy
        if self._place < len(self._text) and self._text[self._place] in "*+?{":
            raise self._error(
                "a repeat must follow what it repeats, once",
                "Put what is repeated again in a group, or take one sign away",
            )

    # -- characters --------------------------------------------------------------------------------------------------

    def _escape(self) -> str | _Ranges:
        """What stands after a backslash: one character, or the ranges of a class."""
        start = self._place - 1
        letter = self._text[self._place : self._place + 1]
        self._place += 1
        if letter in _CONTROL:
            return _CONTROL[letter]
        if letter and letter.lower() in _SHORT:
            ranges = _SHORT[letter.lower()]
            return ranges if letter.islower() else _inverse(ranges)
        if letter.isascii() and letter.isprintable() and letter and not letter.isalnum() and letter != " ":
            return letter
        raise self._error(
            r"a backslash must stand before a sign or one of d D w W s S t n r f v: back-references, \b and classes of "
            "Unicode are not in the subset",
            "Write the characters out in a class like [A-Za-z]",
            start,
        )

    def _class(self) -> str:
        start = self._place
        self._place += 1
        inverse = self._next("^")
        ranges: _Ranges = []
        while not self._next("]"):
            ranges += self._class_item(start)
        if not ranges:
            raise self._error("a class must hold characters", r"Write \] for the character itself", start)
        ranges = _merged(ranges)
        if inverse:
            ranges = _inverse(ranges)
        if not ranges:
            raise self._error("a class must leave characters to match", "Remove it", start)
        return _written(ranges)

    def _class_item(self, start: int) -> _Ranges:
        first = self._class_letter(start)
        if not isinstance(first, str):
            return first
        after = self._text[self._place + 1 : self._place + 2]
        if not self._text.startswith("-", self._place) or after in {"]", ""}:
            return [(_index(first), _index(first))]
        self._place += 1
        last = self._class_letter(start)
        if not isinstance(last, str) or last < first:
            raise self._error("a range must go from a lower character to a higher one", r"Write \- for the sign", start)
        return [(_index(first), _index(last))]

    def _class_letter(self, start: int) -> str | _Ranges:
        if self._place >= len(self._text):
            raise self._error("a class must be closed", "Add ']'", start)
        letter = self._text[self._place]
        if letter == "[":
            raise self._error("a class must hold no class", r"Write \[ for the character itself")
        self._place += 1
        return self._escape() if letter == "\\" else letter


def escape(letter: str) -> str:
    """Return one character as every engine reads it, inside a class and outside."""
    if letter in _META:
        return "\\" + letter
    return letter if letter >= " " and letter != "\x7f" else f"\\x{ord(letter):02x}"


def like(pattern: str) -> str:
    """Return a pattern of ``like`` as a regular expression for the whole text."""
    wild = {"%": ".*", "_": "."}
    return "(?s:" + "".join(wild.get(letter) or escape(letter) for letter in pattern) + ")"


def _index(letter: str) -> int:
    code = ord(letter)
    return code if code < 0xD800 else code - 0x800


def _letter(index: int) -> str:
    return chr(index if index < 0xD800 else index + 0x800)


def _merged(ranges: _Ranges) -> _Ranges:
    merged: _Ranges = []
    for low, high in sorted(ranges):
        if merged and low <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(merged[-1][1], high))
        else:
            merged.append((low, high))
    return merged


def _inverse(ranges: _Ranges) -> _Ranges:
    """The other characters; the ranges are sorted and do not touch."""
    edges = [-1, *(edge for pair in ranges for edge in pair), _LAST + 1]
    pairs = zip(edges[::2], edges[1::2], strict=True)
    return [(before + 1, after - 1) for before, after in pairs if before + 1 <= after - 1]


def _written(ranges: _Ranges) -> str:
    """A class as text; one that reaches the last character is written as what it leaves out."""
    inverse = ranges[-1][1] == _LAST and ranges != [(0, _LAST)]
    parts = []
    for low, high in _inverse(ranges) if inverse else ranges:
        first, last = escape(_letter(low)), escape(_letter(high))
        parts.append(first if low == high else f"{first}-{last}" if high > low + 1 else first + last)
    return f"[{'^' if inverse else ''}{''.join(parts)}]"
