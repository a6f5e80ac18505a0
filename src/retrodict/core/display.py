"""How a result shows itself: blocks of text, facts, tables and trees, as plain text of a given width and as HTML.

A result says what there is to see (:meth:`Shown.blocks`) and this module lays it out, alike for a terminal, a notebook
and a pipe. A table wraps at words and leaves out its least important columns before it splits a word or a number.
"""

from __future__ import annotations

import html
import json
import math
import re
import shutil
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, Generic, TypeVar, overload

from retrodict.core.clock import format_time
from retrodict.core.identity import short

__all__ = [
    "Block",
    "Facts",
    "Grid",
    "Listing",
    "Record",
    "Shown",
    "Tree",
    "Verbatim",
    "count",
    "excerpt",
    "html_of",
    "number",
    "plain",
    "seconds",
    "short_hash",
    "shorten",
    "text_of",
    "to_json",
    "when",
    "yes",
]

T = TypeVar("T")

_HASH = re.compile(r"\b[0-9a-f]{64}\b")
_GAP = 2
_NARROW = 80


@dataclass(frozen=True)
class Grid:
    """Rows under headings.

    Parameters
    ----------
    columns : sequence of str
        Headings. One that ends in ``>`` aligns its column to the right, one that ends in ``?`` is the first to be left
        out where the width does not suffice.
    rows : iterable of sequences
        Cells, of any type that :func:`plain` knows.
    title : str, optional
    """

    columns: Sequence[str]
    rows: Iterable[Sequence[Any]]
    title: str | None = None


@dataclass(frozen=True)
class Facts:
    """Names and values, one per line; values of None are left out."""

    values: Mapping[str, Any]
    title: str | None = None

    def cells(self) -> list[tuple[str, str]]:
        """Names and values as text."""
        return [(name, _cell(value)) for name, value in self.values.items() if value is not None]


@dataclass
class Tree:
    """A label and the branches below it."""

    label: str
    branches: list[Tree | Grid] = field(default_factory=list)

    def add(self, label: str) -> Tree:
        """Add a branch and return it."""
        branch = Tree(label)
        self.branches.append(branch)
        return branch


class Verbatim(str):
    """Text to be copied, such as code: never wrapped."""

    __slots__ = ()


Block = str | Grid | Facts | Tree


class Record:
    """Base of results that are plain data."""

    __slots__ = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain form, unrounded: what ``--json`` prints; the fields of a data class, others write their own."""
        return _field_values(self)


class Shown(Record):
    """Base of results that can be shown: ``print`` gives text, a notebook HTML, ``to_dict`` the whole as plain data.

    Attributes
    ----------
    ok : bool
        False where the work was done and the verdict is no: exit code 1 of a command.
    """

    __slots__ = ()

    @property
    def ok(self) -> bool:
        """Whether the verdict is not a no."""
        return True

    def blocks(self) -> Sequence[Block | None]:
        """What there is to see, in order; None is left out."""
        raise NotImplementedError

    def __str__(self) -> str:
        return text_of(self.blocks(), width=shutil.get_terminal_size((_NARROW, 24)).columns)

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        return html_of(self.blocks())


class Listing(Shown, Sequence[T], Generic[T]):
    """Results in order, shown as one table.

    Parameters
    ----------
    key : str
        Under which they stand in the plain form.
    values : sequence
        The results, each of which :func:`plain` knows.
    blocks : callable
        Makes the blocks, when they are asked for.
    more : mapping, optional
        Other entries of the plain form.
    """

    def __init__(
        self,
        key: str,
        values: Sequence[T],
        blocks: Callable[[], Sequence[Block | None]],
        *,
        more: Mapping[str, Any] | None = None,
    ) -> None:
        self._key, self._values, self._blocks, self._more = key, values, blocks, dict(more or {})

    @classmethod
    def table(
        cls,
        key: str,
        values: Sequence[T],
        columns: Sequence[str],
        row: Callable[[T], Sequence[Any]],
        *,
        empty: str,
        more: Mapping[str, Any] | None = None,
    ) -> Listing[T]:
        """Make a listing with one row per result.

        Parameters
        ----------
        key, values, more
            As for the class.
        columns : sequence of str
            Headings of a :class:`Grid`.
        row : callable
            Cells of a result.
        empty : str
            What to say where there is no result.
        """
        return cls(key, values, lambda: [Grid(columns, map(row, values)) if values else empty], more=more)

    def blocks(self) -> Sequence[Block | None]:
        """What there is to see."""
        return self._blocks()

    def to_dict(self) -> dict[str, Any]:
        """Plain form."""
        return {**self._more, self._key: plain(self._values)}

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[T]: ...
    def __getitem__(self, index: int | slice) -> T | Sequence[T]:
        return self._values[index]

    def __len__(self) -> int:
        return len(self._values)


# values ---------------------------------------------------------------------------------------------------------------


def number(value: float | None, digits: int = 4) -> str:
    """Round for people; ``-`` for None and NaN.

    Examples
    --------
    >>> number(0.7312345), number(None), number(1234567.0)
    ('0.7312', '-', '1,234,567')
    """
    if value is None or not math.isfinite(value):
        return "-"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.{digits}g}" if abs(value) < 1e-3 and value else f"{value:.{digits}f}"


def count(value: int | None) -> str:
    """Whole number with separators."""
    return "-" if value is None else f"{value:,}"


def seconds(value: float | None) -> str:
    """Length of a job."""
    return "-" if value is None else f"{value:.1f} s"


def when(instant: int | None) -> str:
    """Instant to the second, UTC."""
    return "-" if instant is None else format_time(instant // 1_000_000 * 1_000_000)


def yes(value: bool) -> str:
    """Truth value as a word."""
    return "yes" if value else "no"


def short_hash(value: str | None) -> str:
    """Hash as people compare it."""
    return "-" if value is None else short(value)


def shorten(text: str) -> str:
    """Hashes in a text as people compare them."""
    return _HASH.sub(lambda match: short(match.group()), text)


def excerpt(value: Any, length: int = 24) -> str:
    """Beginning of a value's text or JSON."""
    text = value if isinstance(value, str) else to_json(value)
    return text if len(text) <= length else text[: length - 1] + "…"


def plain(value: Any) -> Any:
    """JSON form.

    NaN and infinities become null, times ISO 8601, NumPy scalars numbers, tuples lists, data classes and what has
    ``to_dict`` a dict.
    """
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if hasattr(value, "to_dict"):
        return plain(value.to_dict())
    if is_dataclass(value):
        return _field_values(value)
    if hasattr(value, "isoformat"):
        return str(value.isoformat()).replace("+00:00", "Z")
    if hasattr(value, "tolist"):  # NumPy, without importing it here
        return plain(value.tolist())
    if isinstance(value, Iterable):
        return [plain(item) for item in value]
    return str(value)


def _field_values(record: Any) -> dict[str, Any]:
    return {entry.name: plain(getattr(record, entry.name)) for entry in fields(record)}


def to_json(value: Any) -> str:
    """One line of JSON."""
    return json.dumps(plain(value), ensure_ascii=False, allow_nan=False)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return yes(value)
    if isinstance(value, int):
        return count(value)
    if isinstance(value, float):
        return number(value)
    if isinstance(value, list | tuple):
        return ", ".join(_cell(item) for item in value) or "-"
    return _printable(str(value))


def _printable(text: str) -> str:
    """Text with control characters, line ends and direction marks written out: nobody's name forges a line."""
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)


# text -----------------------------------------------------------------------------------------------------------------


def text_of(blocks: Iterable[Block | None], *, width: int | None = None) -> str:
    """Blocks as plain text.

    Parameters
    ----------
    blocks : iterable
        None is left out; a blank line stands between blocks that are not both single lines.
    width : int, optional
        Most characters of a line where words allow it; None: no limit.

    Examples
    --------
    >>> print(text_of([Grid(("name", "rows>"), [("flights", 336776)])]))
    name        rows
    flights  336,776
    """
    pieces: list[list[str]] = []
    for block in blocks:
        if isinstance(block, str):
            pieces.append(_wrapped(block, None if isinstance(block, Verbatim) else width))
        elif block is not None:
            pieces.append(list(_lines(block, width)))
    lines: list[str] = []
    for position, piece in enumerate(pieces):
        if position and (len(piece) > 1 or len(pieces[position - 1]) > 1) and lines[-1] and piece[:1] != [""]:
            lines.append("")
        lines += piece
    return "\n".join(line.rstrip() for line in lines)


def _wrapped(text: str, width: int | None) -> list[str]:
    """Lines of a text, wrapped with their own indentation; what reads like a command stays whole, to be copied."""
    lines: list[str] = []
    for line in text.split("\n"):
        indent = line[: len(line) - len(line.lstrip())]
        if width is None or len(line) <= width or "retrodict " in line:
            lines.append(line)
        else:
            lines += textwrap.wrap(
                line, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
            )
    return lines


def _lines(block: Grid | Facts | Tree, width: int | None) -> Iterator[str]:
    if isinstance(block, Tree):
        yield from _tree_lines(block, width)
        return
    if block.title is not None:
        yield block.title
    if isinstance(block, Grid):
        yield from _grid_lines(block, width)
        return
    rows = block.cells()
    left = max((len(name) for name, _ in rows), default=0) + _GAP
    for name, text in rows:
        parts = _fold(text, None if width is None else max(width - left, 20))
        yield f"{name:<{left}}{parts[0]}"
        yield from (" " * left + part for part in parts[1:])


def _fold(text: str, width: int | None) -> list[str]:
    lines = text.split("\n")
    if width is not None:
        lines = [part for line in lines for part in (
            textwrap.wrap(line, width, break_long_words=False, break_on_hyphens=False) or [""])]  # fmt: skip
    return lines


def _grid_lines(grid: Grid, width: int | None) -> Iterator[str]:
    names = [_printable(heading.rstrip(">?")) for heading in grid.columns]
    right = [">" in heading[-2:] for heading in grid.columns]
    cells = [[_cell(value) for value in row] for row in grid.rows]
    columns = [[name, *(row[place] for row in cells)] for place, name in enumerate(names)]
    visible = _visible(grid.columns, columns, width)
    widths = _widths([columns[place] for place in visible], width)
    for row in [names, *cells]:
        folded = [_fold(row[place], size) for place, size in zip(visible, widths, strict=True)]
        for line in range(max(map(len, folded), default=0)):
            parts = []
            for place, size, lines in zip(visible, widths, folded, strict=True):
                text = lines[line] if line < len(lines) else ""
                parts.append(f"{text:>{size}}" if right[place] else f"{text:<{size}}")
            yield (" " * _GAP).join(parts).rstrip()
    hidden = [name for place, name in enumerate(names) if place not in visible]
    if hidden:
        yield from _fold(f"(not shown in {width} columns: {', '.join(hidden)})", width)


def _longest_word(texts: Sequence[str]) -> int:
    return max((len(word) for text in texts for word in text.split()), default=0)


def _visible(headings: Sequence[str], columns: Sequence[Sequence[str]], width: int | None) -> list[int]:
    """Places of the columns that fit without splitting a word; the least important ones are left out first."""
    places = list(range(len(headings)))
    if width is None:
        return places
    least = [_longest_word(texts) for texts in columns]
    leaving = [place for place in reversed(places) if headings[place].endswith(("?", "?>", ">?"))]
    leaving += [place for place in reversed(places[1:]) if place not in leaving]
    while leaving and sum(least[place] + _GAP for place in places) - _GAP > width:
        places.remove(leaving.pop(0))
    return places


def _widths(columns: Sequence[Sequence[str]], width: int | None) -> list[int]:
    """Width of each column: as wide as its text, the widest ones narrowed (never below a word) until all fit."""
    # A column of nothing is one wide: no text can be wrapped into none.
    widths = [max(1, *(len(line) for text in texts for line in text.split("\n"))) for texts in columns]
    if width is None:
        return widths
    least = [_longest_word(texts) for texts in columns]
    while sum(widths) + _GAP * (len(widths) - 1) > width:
        narrowable = [place for place, size in enumerate(widths) if size > least[place]]
        if not narrowable:
            break
        widths[max(narrowable, key=widths.__getitem__)] -= 1
    return widths


def _tree_lines(tree: Tree, width: int | None, indent: str = "") -> Iterator[str]:
    if not indent:
        yield from _fold(_printable(tree.label), width)
    for position, branch in enumerate(tree.branches):
        last = position == len(tree.branches) - 1
        below = indent + ("    " if last else "│   ")
        room = None if width is None else max(width - len(below), 20)
        lines = _fold(_printable(branch.label), room) if isinstance(branch, Tree) else list(_grid_lines(branch, room))
        for number_, line in enumerate(lines):
            yield (indent + ("└── " if last else "├── ") if number_ == 0 else below) + line
        if isinstance(branch, Tree):
            yield from _tree_lines(branch, width, below)


# HTML -----------------------------------------------------------------------------------------------------------------


def html_of(blocks: Iterable[Block | None]) -> str:
    """Blocks as a fragment of HTML, everything escaped."""
    return "<div>" + "".join(_html(block) for block in blocks if block is not None and block != "") + "</div>"


def _html(block: Block) -> str:
    if isinstance(block, Verbatim):
        return f"<pre>{html.escape(block)}</pre>"
    if isinstance(block, str):
        return f"<p style='white-space:pre-wrap'>{html.escape(block.strip())}</p>"
    if isinstance(block, Tree):
        branches = "".join(f"<li>{_html(branch)}</li>" for branch in block.branches)
        return html.escape(_printable(block.label)) + (f"<ul>{branches}</ul>" if branches else "")
    head = f"<p><b>{html.escape(block.title)}</b></p>" if block.title else ""
    if isinstance(block, Facts):
        lines = "".join(f"<tr><th style='text-align:left'>{html.escape(name)}</th><td style='text-align:left'>"
                        f"{html.escape(text)}</td></tr>" for name, text in block.cells())  # fmt: skip
        return f"{head}<table>{lines}</table>"
    sides = ["right" if ">" in heading[-2:] else "left" for heading in block.columns]
    titles = "".join(f"<th style='text-align:{side}'>{html.escape(heading.rstrip('>?'))}</th>"
                     for side, heading in zip(sides, block.columns, strict=True))  # fmt: skip
    lines = "".join(
        "<tr>" + "".join(f"<td style='text-align:{side}'>{html.escape(_cell(value))}</td>"
                         for side, value in zip(sides, row, strict=True)) + "</tr>"
        for row in block.rows
    )  # fmt: skip
    return f"{head}<table><thead><tr>{titles}</tr></thead><tbody>{lines}</tbody></table>"
