"""Names of types in other tools, as the six words of a declared column type."""

from __future__ import annotations

import re

# Kinds, not widths: an int32 is an int. What several kinds answer to (object, category) is not here.
_WORDS = (
    ("bool", r"bool|boolean|bool_|booleantype"),
    (
        "int",
        r"u?int(?:8|16|32|64)?|integer|bigint|smallint|tinyint|hugeint|long|integertype|longtype|shorttype|bytetype",
    ),
    ("float", r"float(?:16|32|64)?|double|real|numeric|double_precision|floattype|doubletype"),
    ("string", r"str|string(?:\[\w+\])?|utf8|text|varchar|char|nvarchar|stringtype|large_string"),
    ("date", r"date|date32(?:\[day\])?|datetype"),
    ("time", r"datetime(?:64)?(?:[\[(].*[\])])?|timestamp(?:[\[(].*[\])]|tz)?|timestamptype|timestamp_?ntz"),
)


def word_of(name: object) -> str | None:
    """Return bool, date, float, int, string or time for the name of a type; None for any other.

    Examples
    --------
    >>> word_of("Int32"), word_of("datetime64[ns, UTC]"), word_of("object")
    ('int', 'time', None)
    """
    text = re.sub(r"^(?:pl|pa|np|numpy|sa|pd)\.", "", str(name).strip()).lower().removesuffix("()")
    text = re.sub(r"\(\d+\)$", "", text)  # VARCHAR(20)
    return next((word for word, pattern in _WORDS if re.fullmatch(pattern, text)), None)


def zoned(name: object) -> bool:
    """Whether the name of a type of times has a zone in it."""
    text = str(name)
    return bool(
        re.search(r"time_zone='|datetime64\[\w+, |timestamp\[\w+, tz|timestamptz|TimestampType", text, re.IGNORECASE)
    )
