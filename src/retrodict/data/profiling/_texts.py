"""Shapes of texts, and whether a column of texts looks personal: then no value of it is ever shown.

The guess leans to silence. A profile is passed on by mail and pinned to walls, so a column of names shown is worse than
a column of codes hidden; shapes are made of classes of characters and cannot carry a name.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import polars as pl

__all__ = ["count_shapes", "personal"]

_EMAIL = r"^[^@\s]+@[^@\s]+\.[A-Za-z]{2,}$"
_PHONE = r"^\+?[0-9][0-9 ()/.\-]{7,}[0-9]$"
_NAMED = re.compile(
    r"(^|[_\W])(e_?mail|mail|phone|mobile|fax|address|street|(first|last|full|given|family|maiden|customer|user|person)"
    r"_?name|surname|name_?(first|last)|ssn|iban|passport|birth\w*|dob|patient|password|secret|token)([_\W]|$)",
    re.IGNORECASE,
)
_LONG = 16  # characters of a shape; runs of longer ones are written with a plus


def personal(name: str, values: pl.Series, *, distinct_share: float, distinct: int) -> str | None:
    """Why the values of a column of texts are not shown; None if they may be.

    Parameters
    ----------
    name : str
        Of the column.
    values : polars.Series of String
        A sample, without nulls.
    distinct_share : float
        Distinct values by values, of the whole column.
    distinct : int
    """
    if _NAMED.search(name):
        return "named like personal data"
    if not len(values):
        return None
    for pattern, said in ((_EMAIL, "looks like e-mail addresses"), (_PHONE, "looks like telephone numbers")):
        matching = values.str.contains(pattern)
        if said.endswith("numbers"):
            matching &= values.str.contains(r"[+() ]") & ~values.str.contains(r"^\d{4}-\d\d-\d\d")
        if float(matching.mean() or 0.0) > 0.05:  # type: ignore[arg-type]  # the mean of truth values is a float
            return said
    words = values.str.count_matches(r"\s+").mean()
    if float(values.str.len_chars().mean() or 0) > 40 and float(words or 0) >= 3:  # type: ignore[arg-type]
        return "looks like free text"
    return "nearly all distinct" if distinct > 20 and distinct_share > 0.9 else None


def count_shapes(values: pl.Series) -> list[tuple[str, int]]:
    """Shapes and how often they occur, the most frequent first.

    Parameters
    ----------
    values : polars.Series of String
        Without nulls.

    Returns
    -------
    list of (str, int)
        ``A`` upper case, ``a`` lower case, ``x`` another letter, ``9`` a digit, blanks and signs as they are.
    """
    import polars as pl

    shape = (
        values.str.slice(0, 200)
        .str.replace_all(r"\p{Lu}", "A")
        .str.replace_all(r"\p{Ll}", "a")
        .str.replace_all(r"[\p{L}--[Aa]]|\p{M}", "x")
        .str.replace_all(r"\p{N}", "9")
        .str.replace_all(r"[\p{C}\p{So}]", "?")
    )
    frame = pl.DataFrame({"shape": shape})
    runs = pl.col("shape")
    for letter in "Aax9":
        runs = runs.str.replace_all(f"{letter}{{2,}}", f"{letter}+")
    frame = frame.with_columns(pl.when(pl.col("shape").str.len_chars() > _LONG).then(runs).otherwise(pl.col("shape")))
    counts = frame.group_by("shape").len().sort("len", "shape", descending=[True, False])
    return [(str(text), int(count)) for text, count in counts.iter_rows()]
