"""Events that somebody pushes: rows of a source's table, appended to its stream unless it holds them already."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from retrodict.core.display import Block, Grid, Shown, count
from retrodict.core.errors import InputError, check_known
from retrodict.core.kinds import kind_of, reader_of
from retrodict.data.sources import Source
from retrodict.features.online import encode_event, stream_of
from retrodict.features.online.stream.record_index import RecordIndex
from retrodict.workspace import Workspace

__all__ = ["PushedEvents", "Refusal", "push_events"]


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


def push_events(workspace: Workspace, source: Source, rows: pa.Table, *, where: str = "events") -> PushedEvents:
    """Append the rows that are events of a source's table to its stream; the others are counted by reason.

    The same events again change nothing if the source declares a sequence.

    Parameters
    ----------
    workspace : Workspace
    source : Source
    rows : pyarrow.Table
        One row per event; columns of text are read as the types of the table.
    where : str
        What to call the rows in errors.

    Raises
    ------
    InputError
        If the table holds no rows yet, so that its types are unknown, or if the columns do not fit.
    """
    stream = stream_of(source.table.name)
    records, refused = _records(rows, source, _readers(workspace, source, rows.column_names, where))
    fresh = records if source.sequence is None else _missing_records(workspace, stream, records)
    if fresh:
        with workspace.events.open_writer(stream) as writer:
            writer.append(fresh)
    end = workspace.events.end(stream)
    return PushedEvents(source, stream, rows.num_rows, len(fresh), len(records) - len(fresh), refused, end)


def _readers(
    workspace: Workspace, source: Source, columns: Sequence[str], where: str
) -> dict[str, Callable[[Any], Any]]:
    """Functions that read a value of each column of the source's table, once the columns are checked."""
    table = source.table.name
    if not workspace.tables.history(table):
        raise InputError("a table must have rows before it takes events: their types are its types", where=where,
                         got=table, remedy=f"Fill it with: retrodict ingest {table} FILE")  # fmt: skip
    types = {field.name: field.type for field in workspace.tables.schema(table) if not field.name.startswith("_")}
    for expected, names, rule in (
        (columns, types, f"the columns of events must be those of table {table!r}"),
        (_needed(source), columns, f"events must have the columns that source {source.name!r} names"),
    ):
        for column in expected:
            check_known(column, names, rule, where=where, what="column", error=InputError)
    return {column: reader_of(kind_of(type_), text=True) for column, type_ in types.items()}


def _needed(source: Source) -> list[str]:
    return [column for column in (source.event_time, source.known_at, source.sequence) if column is not None]


def _records(
    rows: pa.Table, source: Source, readers: Mapping[str, Callable[[Any], Any]]
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
        if reason is None:
            records.append(encode_event(event))
        else:
            refused.setdefault(reason, []).append(number)
    return records, [Refusal(reason, len(numbers), numbers[0]) for reason, numbers in refused.items()]


def _read_event(
    row: Mapping[str, Any], readers: Mapping[str, Callable[[Any], Any]], texts: set[str]
) -> tuple[dict[str, Any], str | None]:
    """Values of one event, and why it is none."""
    event: dict[str, Any] = dict.fromkeys(readers)
    for column, read in readers.items():
        value = row.get(column)
        try:
            event[column] = None if value is None else read(value)
        except (TypeError, ValueError):  # every error of ours for a wrong value is a ValueError, too
            if value != "" or column not in texts:  # CSV has no null but the empty text
                return event, f"{column} is not of its column's type"
    return event, None


def _missing_records(workspace: Workspace, stream: str, records: Sequence[bytes]) -> list[bytes]:
    """Records that the stream does not hold to the byte; one of an event that was altered is for the engines."""
    folder = workspace.root / "state" / "pushed" / stream
    with workspace.lock(f"push/{stream}"), RecordIndex(folder, workspace.events, stream) as index:
        return index.missing(records)
