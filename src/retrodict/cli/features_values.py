"""``features online, push``: values and events by hand, files in and out."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from retrodict.cli._command import Answer, Session, command
from retrodict.cli._features import (
    defined_features,
    defined_views,
    request_types,
    source_schemas,
    sources,
)
from retrodict.cli._frames import check_output, read_rows, typed, write_rows
from retrodict.cli._text import count, table
from retrodict.cli._types import complete, instant
from retrodict.cli.features import features
from retrodict.cli.features_frames import FEATURES, written
from retrodict.core.kinds import kind_of, reader_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import pyarrow as pa

    from retrodict.data.sources import Source
    from retrodict.features.plan import FeatureSet
    from retrodict.workspace import Workspace

_OUTPUT = click.option("--output", required=True, metavar="FILE", type=click.Path(dir_okay=False, path_type=Path),
                       help="Where the rows go: a .csv or .parquet file.")  # fmt: skip
_TOGETHER = 1_000


@command(
    features,
    "online",
    examples=[
        "retrodict features online --keys now.csv --features origin_delays --output values.csv",
        "retrodict features online --keys now.csv --at 2013-09-01T17:50Z --features last_leg --output values.parquet",
    ],
)
@click.option("--keys", "keys_file", required=True, metavar="FILE", help="CSV or Parquet: entity keys, request values.")
@click.option("--at", metavar="TIME", callback=instant, help="Time of the requests.  [default: now]")
@FEATURES
@_OUTPUT
def online(session: Session, keys_file: str, at: int | None, wanted: list[str], output: Path) -> Answer:
    """Read features of a file's keys from online state, as a server would at that time.

    A value that online state cannot tell is null, and the answer counts why by view: no_state, unseen, beyond_horizon …
    """
    from retrodict.core.clock import format_time
    from retrodict.core.errors import InputError, near
    from retrodict.features.catalogue import select
    from retrodict.features.online import online_features

    project = session.project.workspace
    check_output(output)
    moment = project.clock.now() if at is None else at
    chosen, columns = select(defined_features(project), wanted)
    schemas = source_schemas(project, chosen)
    rows = typed(read_rows(keys_file), request_types(chosen, schemas), where=f"keys {keys_file}")
    for name in (*chosen.request_keys, *chosen.request_columns):
        if name not in rows.column_names:
            raise InputError("the file has every key and input of the features", where=f"keys {keys_file}", got=name,
                             remedy=near(name, rows.column_names, what="column"))  # fmt: skip
    reader, statuses, found = online_features(project, chosen), Counter[tuple[str, str]](), []
    with session.progress("online features") as progress:
        for first in range(0, rows.num_rows, _TOGETHER):
            progress("online features", first, rows.num_rows)
            for row in reader.read_many(rows.slice(first, _TOGETHER).to_pylist(), moment):
                statuses.update(row.statuses.items())
                found.append(row.values)
    values = _value_columns(chosen, columns, found, schemas, rows)
    for name in columns:
        rows = rows.append_column(name, values[name])
    write_rows(rows, output)
    nulls = {name: rows.column(name).null_count for name in columns}
    by_view = {plan.name: {s: n for (v, s), n in statuses.items() if v == plan.name} for plan in chosen.views}
    data = {"rows": rows.num_rows, "at": format_time(moment), "features": columns, "nulls": nulls, "statuses": by_view,
            "output": str(output)}  # fmt: skip
    told = [(view, ", ".join(f"{count(n)} {s}" for s, n in sorted(by.items()))) for view, by in by_view.items()]
    return Answer(data, [*written(data, nulls), "", table(("view", "statuses"), told)])


def _value_columns(
    chosen: FeatureSet,
    columns: Sequence[str],
    found: Sequence[Mapping[str, Any]],
    schemas: Mapping[str, pa.Schema],
    rows: pa.Table,
) -> dict[str, pa.Array[Any]]:
    """Values as Arrow columns of the types that a training frame of no rows has: times are times, not numbers."""
    import pyarrow as pa

    from retrodict.features.offline import training_frame

    at = "_at"
    empty = rows.slice(0, 0).append_column(at, pa.array([], pa.timestamp("us", "UTC")))
    none = {name: schemas[s.table.name].empty_table() for name, s in chosen.sources.items() if s.table.name in schemas}
    if len(none) < len(chosen.sources):  # nothing to learn types from: nothing was ever stored, either
        return {name: pa.array([row[name] for row in found]) for name in columns}
    types = training_frame(empty, at, chosen, none).schema
    made = {}
    for name in columns:
        type_, values = types.field(name).type, [row[name] for row in found]
        if pa.types.is_timestamp(type_):
            made[name] = pa.array(values, pa.int64()).cast(type_)
        else:
            made[name] = pa.array(values, None if pa.types.is_null(type_) else type_)
    return made


@command(features, "push", examples=["retrodict features push flown --events landed.csv"])
@click.argument("source", shell_complete=complete(sources))
@click.option(
    "--events", required=True, metavar="FILE", help="CSV or Parquet, one row per event of the source's table."
)
def push(session: Session, source: str, events: str) -> Answer:
    """Append the events of a file to the stream of a source's table.

    Rows that are no event of the table are refused, one by one, and the others are taken; exit code 1 if one was
    refused. The same events again change nothing if the source declares a sequence.
    """
    from retrodict.features.online import stream_of

    project = session.project.workspace
    found = _find_source(project, source)
    stream, rows = stream_of(found.table.name), read_rows(events)
    with session.progress(f"push {source}"):
        records, refused = _events(rows, found, _readers(project, found, rows.column_names, events))
        fresh = _not_there(project, stream, records) if found.sequence is not None else records
        if fresh:
            with project.events.open_writer(stream) as writer:
                writer.append(fresh)
    reasons = [{"reason": reason, "events": len(at), "first_row": at[0]} for reason, at in refused.items()]
    data = {"source": source, "stream": stream, "events": rows.num_rows, "accepted": len(fresh),
            "known_before": len(records) - len(fresh), "refused": rows.num_rows - len(records), "reasons": reasons,
            "end": project.events.end(stream)}  # fmt: skip
    split = (
        f"{count(len(fresh))} accepted + {count(data['known_before'])} known before + {count(data['refused'])} refused"
    )
    parts: list[Any] = [f"{stream}: {count(rows.num_rows)} events = {split}"]
    if reasons:
        shown = [(each["reason"], each["events"], each["first_row"]) for each in reasons]
        parts += ["", table(("refused because", "events>", "first row>"), shown)]
    if found.sequence is None:
        parts.append(f"\n{source} declares no sequence: pushed again, these events count again.")
    return Answer(data, parts, passed=not reasons)


def _find_source(project: Workspace, name: str) -> Source:
    from retrodict.core.errors import NotFoundError, near

    known = {view.source.name: view.source for view in defined_views(project)}
    if name not in known:
        raise NotFoundError(
            "a view reads this source", where="definitions", got=name, remedy=near(name, known, what="source")
        )
    return known[name]


def _readers(project: Workspace, source: Source, given: Sequence[str], file: str) -> dict[str, Callable[[Any], Any]]:
    """How to read a value of each column of the source's table; the file has no other, and those the source needs."""
    from retrodict.core.errors import InputError, near

    name, where = source.table.name, f"events {file}"
    if not project.tables.history(name):
        raise InputError("a table has rows before it takes events: their types are its types", where=where,
                         got=name, remedy=f"Fill it with: retrodict ingest {name} FILE")  # fmt: skip
    types = {field.name: field.type for field in project.tables.schema(name) if not field.name.startswith("_")}
    for column in given:
        if column not in types:
            raise InputError(f"an event has columns of table {name!r} only", where=where, got=column,
                             remedy=near(column, types, what="column"))  # fmt: skip
    for column in _needed(source):
        if column not in given:
            raise InputError(f"an event has the columns that source {source.name!r} names", where=where, got=column,
                             remedy=near(column, given, what="column"))  # fmt: skip
    return {column: reader_of(kind_of(type_), text=True) for column, type_ in types.items()}


def _needed(source: Source) -> list[str]:
    return [column for column in (source.event_time, source.known_at, source.sequence) if column is not None]


def _events(
    rows: pa.Table, source: Source, readers: Mapping[str, Callable[[Any], Any]]
) -> tuple[list[bytes], dict[str, list[int]]]:
    """Records of the rows that are events, and by reason the numbers of those that are not."""
    from retrodict.features.online import encode_event

    needed = _needed(source)
    empty_is_null = {field.name: "" for field in rows.schema if str(field.type) == "string"}
    records: list[bytes] = []
    refused: dict[str, list[int]] = {}
    for place, row in enumerate(rows.to_pylist(), start=1):
        event: dict[str, Any] = {}
        reason = None
        for column, reader in readers.items():
            value = row.get(column)
            try:
                event[column] = None if value is None else reader(value)
            except (TypeError, ValueError):  # every error of ours for a wrong value is a ValueError, too
                event[column] = None
                if value != empty_is_null.get(column):
                    reason = f"{column} is not of its column's type"
                    break
        missing = next((column for column in needed if event.get(column) in (None, "")), None)
        if reason is None and missing is not None:
            reason = f"{missing} is null"
        if reason is None:
            records.append(encode_event(event))
        else:
            refused.setdefault(reason, []).append(place)
    return records, refused


def _not_there(project: Workspace, stream: str, records: Sequence[bytes]) -> list[bytes]:
    """Records that the stream does not hold to the byte; one of an event that was altered is for the engines."""
    from retrodict.features.online.stream.record_index import RecordIndex

    with project.lock(f"push/{stream}"), RecordIndex(project.root / "state" / "pushed" / stream, project.events,
                                                      stream) as known:  # fmt: skip
        return known.missing(records)
