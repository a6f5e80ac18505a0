"""Reading a version as of a time: the whole of it, or the rows that were known then.

Two different questions. ``flights@2024-03-01`` is what the store held then. ``known_at`` asks of one version which of
its rows could have been known before an instant, by the clock that a :class:`~retrodict.Source` of the table declares;
the right edge is strict, as everywhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

import pyarrow as pa
import pyarrow.compute as pc

from retrodict.core.clock import parse_time, to_micros
from retrodict.core.errors import InputError, NotFoundError, near
from retrodict.data.sources import Source
from retrodict.data.versions.refs import DatasetRef, resolve
from retrodict.workspace import Workspace

__all__ = ["read", "read_batches"]


@dataclass(frozen=True, slots=True)
class _Clock:
    """Column that a row's known-at follows from, and the instant it has to lie before."""

    column: str
    before: int


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
    if known_at is None:
        return workspace.tables.batches(ref.name, ref.version, columns=columns)
    clock = _clock(workspace, ref, _instant(known_at), source)
    if clock is None:
        return workspace.tables.batches(ref.name, ref.version, columns=columns)
    schema = workspace.tables.schema(ref.name, ref.version)
    _check_clock(schema, clock, ref)
    names = list(schema.names if columns is None else columns)
    read_columns = names if clock.column in names else [*names, clock.column]
    batches = workspace.tables.batches(ref.name, ref.version, columns=read_columns)
    return pa.RecordBatchReader.from_batches(
        pa.schema([schema.field(name) for name in names]), _known(batches, clock, names)
    )


def _known(batches: pa.RecordBatchReader, clock: _Clock, names: list[str]) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        column = batch.column(clock.column)
        visible = batch.filter(pc.less(column, pa.scalar(clock.before, pa.int64()).cast(column.type)))
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
        if source is not None and not sources:
            raise NotFoundError(
                "the table must have this source",
                where=f"dataset:{table}",
                got=source,
                remedy=near(source, [one.name for one in every], what="source"),
            )
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
        return _Clock(source.known_at, instant)
    return None if source.event_time is None else _Clock(source.event_time, instant - source.delay_us)


def _check_clock(schema: pa.Schema, clock: _Clock, ref: DatasetRef) -> None:
    if clock.column not in schema.names:
        raise NotFoundError(
            "the version must have the column of the clock",
            where=str(ref),
            got=clock.column,
            remedy=near(clock.column, schema.names, what="column"),
        )
    kind = schema.field(clock.column).type
    if not (pa.types.is_timestamp(kind) or pa.types.is_int64(kind)):
        raise InputError(
            "a clock must be a time with its zone, or whole microseconds",
            where=f"{ref}, column {clock.column!r}",
            got=str(kind),
            remedy="Declare the column as 'time' in its Table",
        )
