r"""A regular expression of shapes: ``AA999`` becomes ``[A-Z]{2}[0-9]{3}``; shapes that differ in length share one."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import groupby

from retrodict.data.profiling.profile import ValueCount

__all__ = ["pattern_of"]

_CLASSES = {"A": "[A-Z]", "a": "[a-z]", "9": "[0-9]"}
_META = frozenset("\\.+*?()|[]{}^$")
_SKELETONS = 3  # sequences of classes that one pattern may list


def pattern_of(shapes: Sequence[ValueCount]) -> str | None:
    """Pattern that all texts of some shapes match; None if it would say little, or the shapes are not all.

    Parameters
    ----------
    shapes : sequence of ValueCount
        Of a column, all of them; those of letters outside ASCII have no pattern.

    Examples
    --------
    >>> pattern_of([ValueCount("A99", 90, 0.9), ValueCount("A999", 10, 0.1)])
    '[A-Z][0-9]{2,3}'
    """
    if not shapes or sum(each.share for each in shapes) < 1 - 1e-9:
        return None
    found: dict[tuple[str, ...], list[list[tuple[int, int | None]]]] = {}
    for each in shapes:
        text = str(each.value)
        if not text or not re.fullmatch(r"[ -~]+", text) or "x" in text or "?" in text or text.count(" ") > 2:
            return None
        runs = _runs(text)
        found.setdefault(tuple(letter for letter, _ in runs), []).append([span for _, span in runs])
    if len(found) > _SKELETONS or not any(set(skeleton) & set("A9") for skeleton in found):
        return None
    if any(len(skeleton) == 1 and skeleton[0] == "a" for skeleton in found):
        return None  # words: a shape of lower-case letters is no code
    return "|".join(_written(skeleton, spans) for skeleton, spans in found.items())


def _runs(shape: str) -> list[tuple[str, tuple[int, int | None]]]:
    """Letters of a shape with how often each comes in a row; None: any number."""
    runs: list[tuple[str, tuple[int, int | None]]] = [
        (piece[0], (2, None)) if len(piece) == 2 else (piece, (1, 1)) for piece in re.findall(r"[Aa9]\+|.", shape)
    ]
    merged = []
    for letter, group in groupby(runs, key=lambda run: run[0]):
        spans = [span for _, span in group]
        most = None if any(span[1] is None for span in spans) else len(spans)
        merged.append((letter, (sum(span[0] for span in spans), most)))
    return merged


def _written(skeleton: tuple[str, ...], spans: list[list[tuple[int, int | None]]]) -> str:
    parts = []
    for place, letter in enumerate(skeleton):
        least = min(span[place][0] for span in spans)
        tops = [span[place][1] for span in spans]
        most = None if None in tops else max(top for top in tops if top is not None)
        atom = _CLASSES.get(letter) or (f"\\{letter}" if letter in _META else letter)
        if most is None:
            parts.append(f"{atom}+" if least <= 2 else f"{atom}{{{least},}}")
        elif least == most:
            parts.append(atom if least == 1 else f"{atom}{{{least}}}")
        else:
            parts.append(f"{atom}{{{least},{most}}}")
    return "".join(parts)
