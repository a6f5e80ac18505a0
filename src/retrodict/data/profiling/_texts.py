r"""Shapes of texts, their regular expressions, and whether a column of texts looks personal: then none is ever shown.

The guess leans to silence. A profile is passed on by mail and pinned to walls, so a column of names on display is worse
than a column of codes that is hidden; shapes are made of classes of characters and cannot carry a name.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import groupby

import polars as pl

from retrodict.data.profiling.profile import ValueCount

_EMAIL = r"^[^@\s]+@[^@\s]+\.[A-Za-z]{2,}$"
_PHONE = r"^\+?[0-9][0-9 ()/.\-]{7,}[0-9]$"
_PERSONAL_NAME = re.compile(
    r"(^|[_\W])(e_?mail|mail|phone|mobile|fax|address|street|(first|last|full|given|family|maiden|customer|user|person)"
    r"_?name|surname|name_?(first|last)|ssn|iban|passport|birth\w*|dob|patient|password|secret|token)([_\W]|$)",
    re.IGNORECASE,
)
_LONG = 16  # characters of a shape; runs of longer ones are written with a plus
_CLASSES = {"A": "[A-Z]", "a": "[a-z]", "9": "[0-9]"}
_META = frozenset("\\.+*?()|[]{}^$")
_SKELETONS = 3  # sequences of classes that one pattern may list

Span = tuple[int, int | None]


def personal(name: str, values: pl.Series, *, distinct_share: float, distinct: int) -> str | None:
    """Why the values of a column of texts are not shown; None if they may be.

    ``values`` is a sample without nulls; distinct values, and their share of all values, are those of the whole column.
    """
    if _PERSONAL_NAME.search(name):
        return "named like personal data"
    if not len(values):
        return None
    phones = values.str.contains(_PHONE) & values.str.contains(r"[+() ]") & ~values.str.contains(r"^\d{4}-\d\d-\d\d")
    for matches, reason in (
        (values.str.contains(_EMAIL), "looks like e-mail addresses"), (phones, "looks like telephone numbers"),
    ):  # fmt: skip
        if int(matches.sum()) > 0.05 * len(values):
            return reason
    blanks = int(values.str.count_matches(r"\s+").sum())
    if int(values.str.len_chars().sum()) > 40 * len(values) and blanks >= 3 * len(values):
        return "looks like free text"
    return "nearly all distinct" if distinct > 20 and distinct_share > 0.9 else None


def count_shapes(values: pl.Series) -> list[tuple[str, int]]:
    """Shapes of texts and how often they occur, the most frequent first.

    ``A`` upper case, ``a`` lower case, ``x`` another letter, ``9`` a digit, blanks and signs as they are.
    """
    shape = (
        values.str.slice(0, 200)
        .str.replace_all(r"\p{Lu}", "A")
        .str.replace_all(r"\p{Ll}", "a")
        .str.replace_all(r"[\p{L}--[Aa]]|\p{M}", "x")
        .str.replace_all(r"\p{N}", "9")
        .str.replace_all(r"[\p{C}\p{So}]", "?")
    )
    folded = pl.col("shape")
    for letter in "Aax9":
        folded = folded.str.replace_all(f"{letter}{{2,}}", f"{letter}+")
    short = pl.col("shape").str.len_chars() <= _LONG
    frame = pl.DataFrame({"shape": shape}).with_columns(pl.when(short).then(pl.col("shape")).otherwise(folded))
    counts = frame.group_by("shape").len().sort("len", "shape", descending=[True, False])
    return [(str(text), int(count)) for text, count in counts.iter_rows()]


def pattern_of(shapes: Sequence[ValueCount]) -> str | None:
    """Pattern that all texts of some shapes match; None if it would say little, or the shapes are not all.

    Shapes that differ in length only share one alternative.

    Parameters
    ----------
    shapes : sequence of ValueCount
        Of a column, all of them; those of letters outside ASCII have no pattern.

    Examples
    --------
    >>> pattern_of([ValueCount("A99", 90, 0.9), ValueCount("A999", 10, 0.1)])
    '[A-Z][0-9]{2,3}'
    """
    if not shapes or sum(shape.share for shape in shapes) < 1 - 1e-9:
        return None
    skeletons: dict[tuple[str, ...], list[list[Span]]] = {}
    for shape in shapes:
        text = str(shape.value)
        if not text or not re.fullmatch(r"[ -~]+", text) or "x" in text or "?" in text or text.count(" ") > 2:
            return None
        runs = _runs(text)
        skeletons.setdefault(tuple(letter for letter, _ in runs), []).append([span for _, span in runs])
    if len(skeletons) > _SKELETONS or not any(set(skeleton) & set("A9") for skeleton in skeletons):
        return None
    if ("a",) in skeletons:
        return None  # words: a shape of lower-case letters is no code
    return "|".join(
        "".join(_atom(letter, [span[place] for span in spans]) for place, letter in enumerate(skeleton))
        for skeleton, spans in skeletons.items()
    )


def _runs(shape: str) -> list[tuple[str, Span]]:
    """Letters of a shape with how often each comes in a row; None: any number."""
    runs: list[tuple[str, Span]] = [
        (piece[0], (2, None)) if len(piece) == 2 else (piece, (1, 1)) for piece in re.findall(r"[Aa9]\+|.", shape)
    ]
    merged: list[tuple[str, Span]] = []
    for letter, group in groupby(runs, key=lambda run: run[0]):
        spans = [span for _, span in group]
        endless = any(span[1] is None for span in spans)
        merged.append((letter, (sum(span[0] for span in spans), None if endless else len(spans))))
    return merged


def _atom(letter: str, spans: Sequence[Span]) -> str:
    atom = _CLASSES.get(letter) or (f"\\{letter}" if letter in _META else letter)
    low, highs = min(span[0] for span in spans), [span[1] for span in spans if span[1] is not None]
    if len(highs) < len(spans):
        return f"{atom}+" if low <= 2 else f"{atom}{{{low},}}"
    if low == max(highs):
        return atom if low == 1 else f"{atom}{{{low}}}"
    return f"{atom}{{{low},{max(highs)}}}"
