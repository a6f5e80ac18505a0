"""The first rows of a version, for people who look before they read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from retrodict.core.display import Block, Facts, Grid, Shown, plain
from retrodict.data.versions.reads import read_batches
from retrodict.data.versions.refs import resolve
from retrodict.workspace import Workspace

__all__ = ["TableHead", "read_head"]


class TableHead(Shown):
    """First rows of a version of a table.

    Attributes
    ----------
    table, version : str, int
    rows : int
        Rows of the version, or those of them that were known.
    head : pyarrow.Table
        The first ones.

    Examples
    --------
    >>> project.data.show("flights@golden", limit=5).head.num_rows  # doctest: +SKIP
    5
    """

    __slots__ = ("head", "rows", "table", "version")

    def __init__(self, table: str, version: int, rows: int, head: pa.Table) -> None:
        self.table, self.version, self.rows, self.head = table, version, rows, head

    @property
    def columns(self) -> dict[str, str]:
        """Column to type."""
        return {field.name: str(field.type) for field in self.head.schema}

    def to_dict(self) -> dict[str, Any]:
        """Plain form."""
        return {"table": self.table, "version": self.version, "rows": self.rows, "columns": self.columns,
                "head": plain(self.head.to_pylist())}  # fmt: skip

    def blocks(self) -> Sequence[Block | None]:
        """Columns, then rows."""
        rows = [list(row.values()) for row in plain(self.head.to_pylist())]
        return [
            Facts({"table": f"{self.table}@{self.version}", "rows": self.rows}),
            Grid(("column", "type"), list(self.columns.items())),
            Grid(list(self.columns), rows, f"first {len(rows)} rows"),
        ]


def read_head(
    workspace: Workspace, text: str, *, limit: int, known_at: int | None = None, source: str | None = None
) -> TableHead:
    """Read the first rows of a version; with ``known_at`` all of them, to count those that were known.

    Parameters
    ----------
    workspace : Workspace
    text : str
        Reference, as :func:`~retrodict.data.versions.resolve` reads it.
    limit : int
        Rows to keep.
    known_at, source
        As in :func:`~retrodict.data.versions.read`.
    """
    ref = resolve(workspace, text)
    reader = read_batches(workspace, str(ref), known_at=known_at, source=source)
    rows, first = 0, []
    for batch in reader:
        if rows < limit:
            first.append(batch.slice(0, limit - rows))
        rows += batch.num_rows
        if known_at is None and rows >= limit:
            break
    if known_at is None:
        rows = sum(file.rows for file in workspace.tables.files(ref.name, ref.version))
    return TableHead(ref.name, ref.version, rows, pa.Table.from_batches(first, schema=reader.schema))
