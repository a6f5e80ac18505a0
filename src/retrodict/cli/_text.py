"""Answers as text: aligned tables, rounded numbers, readable times. Full precision stays in ``--json``."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from retrodict.core.clock import format_time
from retrodict.core.identity import short

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["count", "facts", "number", "plain", "seconds", "short_hash", "show", "table", "to_json", "when", "yes"]

# Wide enough that a table in a pipe or a file is never folded.
_PIPE_WIDTH = 400


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]], *, title: str | None = None) -> Table:
    """Aligned columns without lines; a heading that ends in ``>`` aligns its column to the right."""
    from rich.table import Table

    made = Table(box=None, pad_edge=False, title=title, title_justify="left", title_style="bold", header_style="bold")
    for column in columns:
        made.add_column(column.removesuffix(">"), justify="right" if column.endswith(">") else "left", overflow="fold")
    for row in rows:
        made.add_row(*(_cell(value) for value in row))
    return made


def facts(values: Mapping[str, Any], *, title: str | None = None) -> Table:
    """Names and values, one per line; values of None are left out."""
    from rich.table import Table

    made = Table(box=None, pad_edge=False, show_header=False, title=title, title_justify="left", title_style="bold")
    made.add_column(style="dim", no_wrap=True)
    made.add_column(overflow="fold")
    for name, value in values.items():
        if value is not None:
            made.add_row(name, _cell(value))
    return made


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
    return str(value)


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


def plain(value: Any) -> Any:
    """JSON form of an answer.

    NaN and infinities become null, NumPy scalars numbers, tuples lists, and what has ``to_dict`` a dict.
    """
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if hasattr(value, "to_dict"):
        return plain(value.to_dict())
    if hasattr(value, "tolist"):  # NumPy, without importing it here
        return plain(value.tolist())
    if isinstance(value, Iterable):
        return [plain(item) for item in value]
    return str(value)


def to_json(value: Any) -> str:
    """One line of JSON."""
    return json.dumps(plain(value), ensure_ascii=False, allow_nan=False)


def show(text: Any) -> None:
    """Print text, a renderable, or several of them, on standard output; None is left out, ``""`` is a blank line."""
    parts = [text] if isinstance(text, str) or not isinstance(text, Sequence) else list(text)
    parts = [part for part in parts if part is not None]
    if all(isinstance(part, str) for part in parts):
        for part in parts:
            print(part)  # noqa: T201  # printing is what this function is for
        return
    import sys

    from rich.console import Console

    width = None if sys.stdout.isatty() else _PIPE_WIDTH
    console = Console(markup=False, highlight=False, emoji=False, width=width)
    for part in parts:
        console.print(part, soft_wrap=isinstance(part, str))
