"""Events that somebody pushes: rows of a source's table, appended to its stream unless it holds them already."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pyarrow as pa

from retrodict.core.clock import to_micros
from retrodict.core.display import Block, Grid, Shown, count
from retrodict.core.errors import InputError, check_known
from retrodict.core.kinds import description_of, kind_of, reader_of
from retrodict.data.definitions import Table
from retrodict.data.sources import HasName, Source
from retrodict.data.validation import row_checker
from retrodict.features.catalogue.tables import declared_kinds
from retrodict.features.definitions import FeatureView
from retrodict.features.online import encode_event, stream_of
from retrodict.features.online.stream.record_index import RecordIndex
from retrodict.features.plan import ViewPlan
from retrodict.workspace import Workspace

__all__ = ["PushedEvents", "Refusal", "event_kinds", "push_events"]

_Reader = tuple[Callable[[Any], Any], str]


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why rows are no events, how many, and the number of the first one, counted from 1."""

    reason: str
    events: int
    first_row: int


@dataclass(frozen=True, repr=False)
class PushedEvents(Shown):
    """What became of the rows that were pushed.

    Attributes
    ----------
    source : Source
    stream : str
    events : int
        Rows.
    accepted : int
        Appended to the stream.
    known_before : int
        Left out, because the stream holds them to the byte; 0 for a source without a sequence.
    reasons : list of Refusal
        Of rows that are no events.
    end : int
        End of the stream afterwards.
    """

    source: Source
    stream: str
    events: int
    accepted: int
    known_before: int
    reasons: list[Refusal]
    end: int

    @property
    def refused(self) -> int:
        """Rows that are no events."""
        return sum(refusal.events for refusal in self.reasons)

    @property
    def ok(self) -> bool:
        """Whether every row was an event."""
        return not self.reasons

    def to_dict(self) -> dict[str, Any]:
        """Plain form."""
        return {**super().to_dict(), "source": self.source.name, "refused": self.refused}

    def blocks(self) -> Sequence[Block | None]:
        """The sum of what became of them, and reasons."""
        parts = f"{count(self.accepted)} accepted + {count(self.known_before)} known before"
        reasons = [(refusal.reason, refusal.events, refusal.first_row) for refusal in self.reasons]
        return [
            f"{self.stream}: {count(self.events)} events = {parts} + {count(self.refused)} refused",
            Grid(("refused because", "events>", "first row>"), reasons) if reasons else None,
            None if self.source.sequence is not None
            else f"\n{self.source.name} declares no sequence: pushed again, these events count again.",
        ]  # fmt: skip


def event_kinds(workspace: Workspace, table: HasName, views: Iterable[FeatureView], *, where: str) -> dict[str, str]:
    """Kind of every column that an event of a table may have: as its rows have them, else as the table declares them.

    Parameters
    ----------
    workspace : Workspace
    table : Table
    views : iterable of FeatureView
        Those defined: what they read of a table without rows, it has to declare.
    where : str
        What takes the events, for the error.

    Raises
    ------
    InputError
        If the table holds no rows and does not declare its key and what the views read: it has no types yet. If it
        holds rows and a source that reads it has no sequence: an event that becomes a row would count twice.
    """
    if workspace.tables.history(table.name):
        for source in unnumbered_sources(table, views):
            raise InputError(
                "events must come from the table or from pushes, not both, where a source has no sequence",
                where=f"{where}, source {source.name!r}",
                got=f"a push to table {table.name}, which holds rows",
                remedy=f"Write Source({source.name!r}, …, sequence=…) with the column of the event's id, or ingest",
            )
        schema = workspace.tables.schema(table.name)
        return {field.name: kind_of(field.type) for field in schema if not field.name.startswith("_")}
    kinds = declared_kinds(table)
    plans = [ViewPlan(view) for view in views if view.source.table.name == table.name]
    needed = {*getattr(table, "key", ()), *(column for plan in plans for column in plan.source_columns)}
    if not kinds or needed - kinds.keys():
        raise InputError(
            "a table without rows must declare what events have: its key, and the columns that views read",
            where=where,
            got=f"table {table.name} without {', '.join(sorted(needed - kinds.keys())) or 'columns'}",
            remedy=f"Write Table({table.name!r}, columns={{…}}), or fill it with: retrodict ingest {table.name} FILE",
        )
    return kinds


def event_checker(
    workspace: Workspace, table: HasName, views: Iterable[FeatureView]
) -> Callable[[Mapping[str, Any]], list[str]]:
    """Why an event stays out: checks that would keep its row out of a batch, expressions of views that it overflows.

    Taken in, an event that a view cannot compute would stop every view of its source.
    """
    checks = row_checker(table, clock=workspace.clock, warnings=False) if isinstance(table, Table) else lambda _: []
    plans = [ViewPlan(view) for view in views if view.source.table.name == table.name]
    functions = {
        text: (expression.to_row(), expression.columns)
        for plan in plans
        for text, expression in {**plan.expressions, **plan.computed}.items()
    }

    def failing(event: Mapping[str, Any]) -> list[str]:
        titles = checks(event)
        values = {name: to_micros(v) if isinstance(v, datetime) else v for name, v in event.items()}
        for text, (compute, columns) in functions.items():
            try:
                compute({name: values.get(name) for name in columns})
            except InputError as error:
                titles = [*titles, f"{text} ({error.rule})"]
        return titles

    return failing


def unnumbered_sources(table: HasName, views: Iterable[FeatureView]) -> list[Source]:
    """Sources of a table that have no sequence: what a row of it and an event have in common, nobody can tell."""
    sources = [view.source for view in views if view.source.table.name == table.name]
    return [source for source in sources if source.sequence is None]


def push_events(
    workspace: Workspace, source: Source, views: Iterable[FeatureView], rows: pa.Table, *, where: str = "events"
) -> PushedEvents:
    """Append the rows that are events of a source's table to its stream; the others are counted by reason.

    The same events again change nothing if the source declares a sequence.

    Parameters
    ----------
    workspace : Workspace
    source : Source
    views : iterable of FeatureView
        Those defined.
    rows : pyarrow.Table
        One row per event; columns of text are read as the types of the table.
    where : str
        What to call the rows in errors.

    Raises
    ------
    InputError
        If the table holds no rows and does not declare its columns, or if the columns do not fit.
    """
    views, stream = list(views), stream_of(source.table.name)
    kinds = event_kinds(workspace, source.table, views, where=where)
    readers = _readers(source, kinds, rows.column_names, where)
    records, refused = _records(rows, source, readers, event_checker(workspace, source.table, views))
    fresh = records if source.sequence is None else _missing_records(workspace, stream, records)
    if fresh:
        with workspace.events.open_writer(stream) as writer:
            writer.append(fresh)
    end = workspace.events.end(stream)
    return PushedEvents(source, stream, rows.num_rows, len(fresh), len(records) - len(fresh), refused, end)


def _readers(source: Source, kinds: Mapping[str, str], columns: Sequence[str], where: str) -> dict[str, _Reader]:
    """Function that reads a value of each column of the source's table, and what one is; the columns are checked."""
    for expected, names, rule in (
        (columns, kinds, f"the columns of events must be those of table {source.table.name!r}"),
        (_needed(source), columns, f"events must have the columns that source {source.name!r} names"),
    ):
        for column in expected:
            check_known(column, names, rule, where=where, what="column", error=InputError)
    return {column: (reader_of(kind, text=True), description_of(kind)) for column, kind in kinds.items()}


def _needed(source: Source) -> list[str]:
    return [column for column in (source.event_time, source.known_at, source.sequence) if column is not None]


def _records(
    rows: pa.Table,
    source: Source,
    readers: Mapping[str, _Reader],
    failing: Callable[[Mapping[str, Any]], list[str]],
) -> tuple[list[bytes], list[Refusal]]:
    needed = _needed(source)
    texts = {field.name for field in rows.schema if kind_of(field.type) == "text"}
    records: list[bytes] = []
    refused: dict[str, list[int]] = {}
    for number, row in enumerate(rows.to_pylist(), start=1):
        event, reason = _read_event(row, readers, texts)
        missing = next((column for column in needed if event.get(column) in (None, "")), None)
        if reason is None and missing is not None:
            reason = f"{missing} is null"
        if reason is None and (titles := failing(event)):
            reason = f"it fails {', '.join(titles)}"
        if reason is None:
            records.append(encode_event(event))
        else:
            refused.setdefault(reason, []).append(number)
    return records, [Refusal(reason, len(numbers), numbers[0]) for reason, numbers in refused.items()]


def _read_event(
    row: Mapping[str, Any], readers: Mapping[str, _Reader], texts: set[str]
) -> tuple[dict[str, Any], str | None]:
    """Values of one event, and why it is none."""
    event: dict[str, Any] = dict.fromkeys(readers)
    for column, (read, description) in readers.items():
        value = row.get(column)
        try:
            event[column] = None if value is None else read(value)
        except (TypeError, ValueError):  # every error of ours for a wrong value is a ValueError, too
            if value != "" or column not in texts:  # CSV has no null but the empty text
                return event, f"{column} is not {description}"
    return event, None


def _missing_records(workspace: Workspace, stream: str, records: Sequence[bytes]) -> list[bytes]:
    """Records that the stream does not hold to the byte; one of an event that was altered is for the engines."""
    folder = workspace.root / "state" / "pushed" / stream
    with workspace.lock(f"push/{stream}"), RecordIndex(folder, workspace.events, stream) as index:
        return index.missing(records)
