"""Reading a version as of a time: the whole of it, or the rows that were known then.

Two different questions. ``flights@2024-03-01`` is what the store held then. ``known_at`` asks of one version which of
its rows could have been known before an instant, by the clock that a :class:`~retrodict.Source` of the table declares;
the right edge is strict, as everywhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from retrodict.core.clock import parse_time, to_micros
from retrodict.core.display import Block, Facts, Grid, Shown, plain
from retrodict.core.errors import InputError, check_known
from retrodict.data.sources import Source
from retrodict.data.versions.refs import DatasetRef, resolve
from retrodict.workspace import Workspace

__all__ = ["TableHead", "read", "read_batches", "read_head"]

# Column that a row's known-at follows from, and the instant it has to lie before.
_Clock = tuple[str, int]


def read(
    workspace: Workspace,
    text: str,
    *,
    columns: Sequence[str] | None = None,
    known_at: int | str | datetime | None = None,
    source: Source | str | None = None,
) -> pa.Table:
    """Rows of a version, in the order they were written.

    Parameters
    ----------
    workspace : Workspace
    text : str
        Reference, as :func:`~retrodict.data.versions.resolve` reads it.
    columns : sequence of str, optional
        What to read; everything by default.
    known_at : int, str or datetime, optional
        Keep only the rows that were known strictly before this instant (microseconds since 1970-01-01 UTC, ISO 8601
        with a zone, or an aware datetime). A row whose clock is null was never known. Rows of a timeless source always
        were. The ``where`` of the source is not applied: this reads a table.
    source : Source or str, optional
        Whose clock counts; needed only where sources of the table have different ones.

    Returns
    -------
    pyarrow.Table

    Raises
    ------
    NotFoundError
        If there is no such table, version, tag, column or source, or the version was vacuumed.
    InputError
        If no source of the table says when its rows are known, or several say different things.
    """
    return read_batches(workspace, text, columns=columns, known_at=known_at, source=source).read_all()


def read_batches(
    workspace: Workspace,
    text: str,
    *,
    columns: Sequence[str] | None = None,
    known_at: int | str | datetime | None = None,
    source: Source | str | None = None,
) -> pa.RecordBatchReader:
    """Read as :func:`read` does, a bounded number of rows at a time."""
    ref = resolve(workspace, text)
    clock = None if known_at is None else _clock(workspace, ref, _instant(known_at), source)
    if clock is None:
        return workspace.tables.batches(ref.name, ref.version, columns=columns)
    schema = workspace.tables.schema(ref.name, ref.version)
    _check_clock(schema, clock[0], ref)
    names = list(schema.names if columns is None else columns)
    read_columns = names if clock[0] in names else [*names, clock[0]]
    batches = workspace.tables.batches(ref.name, ref.version, columns=read_columns)
    return pa.RecordBatchReader.from_batches(
        pa.schema([schema.field(name) for name in names]), _known(batches, clock, names)
    )


def _known(batches: pa.RecordBatchReader, clock: _Clock, names: list[str]) -> Iterator[pa.RecordBatch]:
    name, before = clock
    for batch in batches:
        column = batch.column(name)
        visible = batch.filter(pc.less(column, pa.scalar(before, pa.int64()).cast(column.type)))
        if visible.num_rows:
            yield visible.select(names)


def _instant(value: int | str | datetime) -> int:
    if isinstance(value, str):
        return parse_time(value, where="known_at")
    return to_micros(value, where="known_at") if isinstance(value, datetime) else value


def _clock(workspace: Workspace, ref: DatasetRef, instant: int, source: Source | str | None) -> _Clock | None:
    """What a row's clock has to be before; None where every row is always known."""
    sources = _sources(workspace, ref.name, source)
    clocks = {_clock_of(one, instant) for one in sources}
    if len(clocks) != 1:
        raise InputError(
            "the sources of a table must agree on when its rows are known, or one of them must be named",
            where=f"dataset:{ref.name}",
            got=[one.name for one in sources],
            remedy="Name one with source=" if sources else "Define a Source of this table with a known_at or a delay",
        )
    return clocks.pop()


def _sources(workspace: Workspace, table: str, source: Source | str | None) -> list[Source]:
    if isinstance(source, Source):
        sources = [source]
    else:
        every = [one for one in workspace.definitions.of(Source) if one.table.name == table]
        sources = every if source is None else [one for one in every if one.name == source]
        if source is not None:
            names = [one.name for one in every]
            check_known(source, names, "the table must have this source", where=f"dataset:{table}", what="source")
    if any(one.table.name != table for one in sources):
        raise InputError(
            "the source must read this table",
            where=f"dataset:{table}",
            got=sources[0].name,
            remedy=f"It reads {sources[0].table.name}",
        )
    return sources


def _clock_of(source: Source, instant: int) -> _Clock | None:
    if source.known_at is not None:
        return source.known_at, instant
    return None if source.event_time is None else (source.event_time, instant - source.delay_us)


def _check_clock(schema: pa.Schema, column: str, ref: DatasetRef) -> None:
    check_known(column, schema.names, "the version must have the column of the clock", where=str(ref), what="column")
    kind = schema.field(column).type
    if not (pa.types.is_timestamp(kind) or pa.types.is_int64(kind)):
        raise InputError(
            "a clock must be a time with its zone, or whole microseconds",
            where=f"{ref}, column {column!r}",
            got=str(kind),
            remedy="Declare the column as 'time' in its Table",
        )


# the first rows -----------------------------------------------------------------------------------------------


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
