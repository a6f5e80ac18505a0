"""What a page is made of, beside the texts, facts and grids of :mod:`retrodict.core.display`."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from retrodict.core.display import Facts, Grid, Tree
from retrodict.core.errors import MissingExtraError

__all__ = ["Block", "Details", "Figure", "Note", "Row", "Section", "plot", "themed"]


@dataclass(frozen=True)
class Figure:
    """A drawing. It enters the page as it is, so whoever draws escapes the text in it."""

    svg: str


@dataclass(frozen=True)
class Note:
    """A quiet sentence, for instance why there is no figure."""

    text: str


@dataclass(frozen=True)
class Row:
    """Blocks side by side where there is room; a list among them is stacked."""

    blocks: Sequence[Block | Sequence[Block]]


@dataclass(frozen=True)
class Details:
    """Blocks folded away under a title; print shows them."""

    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Section:
    """Blocks under a heading."""

    title: str
    blocks: Sequence[Block]


Block: TypeAlias = str | Facts | Grid | Tree | Figure | Note | Row | Details | Section

# Colours of evaluation.plots, and the variable of the page that each becomes.
_VARIABLES = {
    "#1f2933": "ink",
    "#7b8794": "quiet",
    "#e4e7eb": "line",
    "#2f6690": "main",
    "#c8553d": "alert",
    "#c3d5e2": "soft",
    "#ffffff": "paper",
}


def plot(draw: Callable[..., str], *args: object, **kwargs: object) -> Figure | Note:
    """Figure that a function draws, or its install line where the library that draws is not installed."""
    try:
        return Figure(draw(*args, **kwargs))
    except MissingExtraError as error:
        return Note(str(error))


def themed_plot(key: str, draw: Callable[..., str], *args: object, **kwargs: object) -> Figure | Note:
    """The same in the page's colours (:func:`themed`)."""
    return plot(lambda: themed(draw(*args, **kwargs), key))


def themed(svg: str, key: str) -> str:
    """Drawing of ``evaluation.plots`` in the page's colours, with ids that are unique on the page.

    Parameters
    ----------
    svg : str
    key : str
        Prefix of its ids.
    """
    svg = re.sub(r"(?<=: )#[0-9a-f]{6}\b", lambda match: _variable(match[0]), svg)
    svg = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{key}-", svg)
    return re.sub(r"<style[^>]*>.*?</style>", "", svg, flags=re.DOTALL)


def _variable(colour: str) -> str:
    return f"var(--{_VARIABLES[colour]})" if colour in _VARIABLES else colour
