"""Events pushed over HTTP: checked against their table, appended durably to its stream.

The feature consumer takes them from there. The stream is named after the table, not after a source: one event serves
every source that reads the table.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec

from retrodict.core.errors import InputError, NotFoundError, near
from retrodict.core.kinds import kind_error, reader_of
from retrodict.data.definitions import Table
from retrodict.decisions.requests import check_unique, form_fault, json_fault
from retrodict.features.online import Upkeep, encode_event, stream_of
from retrodict.features.operations.pushed_events import event_checker, event_kinds, unnumbered_sources
from retrodict.models.readers import defined_views
from retrodict.registry.feature_sets import served_feature_sets
from retrodict.stores.streams.base import EventWriter
from retrodict.stores.streams.segments import SegmentStreams
from retrodict.workspace import Workspace

__all__ = ["EventInlet"]

_decoder = msgspec.json.Decoder(list[dict[str, bool | int | float | str | None]])


class EventInlet:
    """Takes events for the tables of one project; for one event loop, appends in a thread of its own.

    Parameters
    ----------
    workspace : Workspace
    shared : bool, default False
        Let go of a stream after each body, so that other processes get their turn: a stream in files has one writer at
        a time. That costs one more sync per body.

    Attributes
    ----------
    waiting : int
        Bodies that wait for their stream, also of callers who no longer do.
    """

    def __init__(self, workspace: Workspace, *, shared: bool = False) -> None:
        self._workspace = workspace
        self._shared = shared and isinstance(workspace.events, SegmentStreams)
        self._kinds: dict[str, dict[str, str]] = {}
        self._checkers: dict[str, Callable[[dict[str, Any]], list[str]]] = {}
        self._writers: dict[str, EventWriter] = {}
        self._upkeep = Upkeep(workspace, served_feature_sets)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="retrodict-events")
        self.waiting = 0

    async def push(self, table: str, body: bytes) -> dict[str, Any]:
        """Append the events of a JSON body (a list of objects, one per row of the table).

        Returns
        -------
        dict
            ``accepted`` (events), ``stream`` and ``end`` (offset after the last one): durable when this returns.

        Raises
        ------
        NotFoundError
            If the project has no such table.
        InputError
            If the body is not a list of rows of the table, or one fails a check that would keep its row out of a
            batch. All events of a body are taken or none.
        """
        self.waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, self._push, table, body)
        finally:
            self.waiting -= 1

    def lags(self) -> dict[str, dict[str, int]]:
        """Events appended and not yet in the online state, per source that the deployed policies read."""
        return self._upkeep.lags()

    def close(self) -> None:
        """Let go of the streams."""
        self._thread.shutdown()
        for writer in self._writers.values():
            writer.close()

    def _push(self, table: str, body: bytes) -> dict[str, Any]:
        kinds = self._kinds_of(table)
        try:
            events = _decoder.decode(body)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            rule, expected = "the body must be a JSON list of flat objects, one per event", "[{...}, {...}]"
            if isinstance(error, msgspec.ValidationError):
                message, _, path = str(error).partition(" - at `$[")
                where = f"event {path.partition(']')[0]} of the body" if path else "body"
                raise InputError(rule, where=where, **form_fault(message, sorted(kinds), "the table")) from error
            raise InputError(rule, where="body", **json_fault(error, body, expected=expected)) from error
        check_unique(body)
        rows = [_read(event, kinds, place, table) for place, event in enumerate(events)]
        for place, row in enumerate(rows):
            if titles := self._checkers[table](row):
                raise InputError("an event must pass the checks of its table", where=f"event {place} of the body",
                                 got=f"one that fails {', '.join(titles)}",
                                 remedy="Correct it, or send the others alone")  # fmt: skip
        stream = stream_of(table)
        writer = self._writers.get(stream)
        if writer is None:
            writer = self._writers[stream] = self._workspace.events.open_writer(stream)
        try:
            first = writer.append([encode_event(row) for row in rows]) if rows else self._workspace.events.end(stream)
        finally:
            if self._shared:
                self._writers.pop(stream).close()
        return {"accepted": len(rows), "stream": stream, "end": first + len(rows)}

    def _kinds_of(self, table: str) -> dict[str, str]:
        if table not in self._kinds:
            defined = {definition.name: definition for definition in self._workspace.definitions.of(Table)}
            if table not in defined:
                raise NotFoundError(
                    "the table must be defined", where="address", got=table, remedy=near(table, defined, what="table")
                )
            views = defined_views(self._workspace)
            self._checkers[table] = event_checker(self._workspace, defined[table], views)
            kinds = event_kinds(self._workspace, defined[table], views, where=f"table {table}")
            if unnumbered_sources(defined[table], views):  # refused once the table holds rows: ask again
                return kinds
            self._kinds[table] = kinds
        return self._kinds[table]


def _read(event: dict[str, Any], kinds: dict[str, str], place: int, table: str) -> dict[str, Any]:
    """One event with the types of its table; what was sent stays out of the error."""
    where = f"event {place} of the body"
    unknown = len(event.keys() - kinds.keys())
    if unknown:
        raise InputError(f"an event must have columns of table {table!r} only", where=where, got=f"{unknown} others",
                         remedy=f"Its columns are {', '.join(sorted(kinds))}")  # fmt: skip
    row = {}
    for name, kind in kinds.items():
        value = event.get(name)
        try:
            row[name] = None if value is None else reader_of(kind)(value)
        except (TypeError, ValueError):
            raise kind_error(kind, value, where=f"{where}, column {name!r}") from None
    return row
