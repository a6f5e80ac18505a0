"""Blocks for commands that are not yet methods of the project."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from retrodict.core.display import Facts, Grid, count, number, plain, seconds, short_hash, to_json, when, yes

__all__ = ["count", "facts", "number", "plain", "seconds", "short_hash", "table", "to_json", "when", "yes"]


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]], *, title: str | None = None) -> Grid:
    """Rows under headings."""
    return Grid(columns, list(rows), title)


def facts(values: Mapping[str, Any], *, title: str | None = None) -> Facts:
    """Names and values."""
    return Facts(values, title)
