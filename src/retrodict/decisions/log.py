"""Reading the decision log: one record by id, or a span of decisions as a table."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from retrodict.core.clock import format_time
from retrodict.core.errors import IntegrityError, NotFoundError
from retrodict.core.identity import Ref
from retrodict.decisions.records import DecisionRecord, decode_record
from retrodict.evaluation.reference import feature_column
from retrodict.ledger import SEALED_STREAMS
from retrodict.ledger.segments import vouched_removals
from retrodict.ledger.verify import altered_segments
from retrodict.stores.streams.base import Segment
from retrodict.workspace import Workspace

__all__ = [
    "STREAM_PREFIX",
    "LogSpan",
    "LoggedDecision",
    "check_whole",
    "count_decisions",
    "decisions_table",
    "find_decision",
    "log_spans",
    "read_decisions",
    "read_span",
    "recent_decisions",
]

STREAM_PREFIX = SEALED_STREAMS
_VARIANTS = pa.list_(pa.struct({"experiment": pa.string(), "variant": pa.string()}))
_VIEWS = pa.list_(pa.struct({"view": pa.string(), "status": pa.string()}))


@dataclass(frozen=True, slots=True)
class LoggedDecision:
    """A record and its place in the log: stream and offset, for the inclusion proof."""

    record: DecisionRecord
    stream: str
    offset: int


def read_decisions(
    workspace: Workspace, *, policy: str | None = None, start: int | None = None, end: int | None = None
) -> Iterator[LoggedDecision]:
    """Decisions in log order, of one policy or all, with ``start <= time < end``.

    Raises
    ------
    NotFoundError
        If ``start`` is from before the newest decision that retention has removed. Without it, what is left is given.
    """
    check_whole(workspace, start)
    for stream, offset, data in _records(workspace):
        record = decode_record(data)
        if policy is not None and record.policy != policy:
            continue
        if (start is None or record.time >= start) and (end is None or record.time < end):
            yield LoggedDecision(record, stream, offset)


def check_whole(workspace: Workspace, start: int | None) -> None:
    """Refuse to read from a time on if retention has removed decisions of then or later; see :func:`read_decisions`."""
    removals = [] if start is None else [one for one in vouched_removals(workspace.ledger) if one.until >= start]
    if removals:
        newest = max(removals, key=lambda one: one.until)
        raise NotFoundError(
            "decisions of the whole span must be in the log", where="decision log", got=f"some {newest}",
            remedy=f"Ask for those after {format_time(newest.until)}; the table 'decisions' may have the others",
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class LogSpan:
    """Some records of the log, one after the other: a piece of work for one process."""

    stream: str
    first: int
    count: int


def log_spans(workspace: Workspace, size: int) -> list[LogSpan]:
    """All records that the log has now, in spans of at most ``size``, none of which lies in two segments."""
    return [
        LogSpan(stream, first, min(size, segment.first + segment.count - first))
        for stream in workspace.streams.names(STREAM_PREFIX)
        for segment in workspace.streams.segments(stream)
        for first in range(segment.first, segment.first + segment.count, size)
    ]


def read_span(workspace: Workspace, span: LogSpan) -> Iterator[DecisionRecord]:
    """Records of a span, in log order."""
    for _, data in workspace.streams.read(span.stream, span.first, span.count):
        yield decode_record(data)


def _records(workspace: Workspace) -> Iterator[tuple[str, int, bytes]]:
    """Stream, offset and bytes of every record; only of segments that a seal or the signed head of a stream names."""
    for stream in workspace.streams.names(STREAM_PREFIX):
        for segment in workspace.streams.segments(stream):
            for offset, data in workspace.streams.read(stream, segment.first, segment.count):
                yield stream, offset, data


def recent_decisions(workspace: Workspace, limit: int = 1_000) -> list[DecisionRecord]:
    """Newest decisions of every log stream, at most ``limit`` of each."""
    records = []
    for stream in workspace.streams.names(STREAM_PREFIX):
        newest: list[DecisionRecord] = []
        for segment in reversed(workspace.streams.segments(stream)):
            count = min(segment.count, limit - len(newest))
            start = segment.first + segment.count - count
            newest = [decode_record(data) for _, data in workspace.streams.read(stream, start, count)] + newest
        records += newest
    return records


def count_decisions(workspace: Workspace, keys: Iterable[Sequence[str]], subjects: set[tuple[Any, ...]]) -> int:
    """Number of logged decisions about one of several subjects.

    Parameters
    ----------
    workspace : Workspace
    keys : iterable of sequences of str
        Names of request columns that hold a subject's key, in the order of its parts.
    subjects : set of tuple
        Keys as requests hold them: times as microseconds.
    """
    columns = [tuple(names) for names in keys]
    return sum(
        any(tuple(logged.record.entities.get(name) for name in names) in subjects for names in columns)
        for logged in read_decisions(workspace)
    )


def find_decision(workspace: Workspace, ref: str) -> LoggedDecision:
    """One decision by ``decision:ULID`` (or the bare ULID).

    Ids are ordered by time, and so nearly is the log: a binary search over the first records of the segments says where
    to look first. It is no more than an order, so that a clock that was set back costs time and hides nothing: an id
    that is in no segment is one that every segment was read for.
    """
    name = Ref.parse(ref, kind="decision").name
    needle = name.encode()
    for stream, segment in _nearest_segments(workspace, name):
        for offset, data in workspace.streams.read(stream, segment.first, segment.count):
            if needle in data:  # decoding costs ten times as much as looking
                record = decode_record(data)
                if record.id == name:
                    return LoggedDecision(record, stream, offset)
    for finding in altered_segments(workspace.ledger, workspace.streams):  # its record may be another one by now
        raise IntegrityError(
            "records of decisions must be as they were written; this one is not among those that are",
            where=finding.where, got=f"{finding.kind}: {finding.detail}",
            remedy="See 'retrodict audit verify', and restore the segment from a copy",
        )  # fmt: skip
    for removal in vouched_removals(workspace.ledger):
        if removal.ids[0] <= name <= removal.ids[1]:
            raise NotFoundError(
                "a decision of this id must be in the log", where="decision log",
                got=f"{name}; decisions of its time were {removal}",
                remedy="Its row may be in the table 'decisions'; without the record nothing is proved or replayed",
            )  # fmt: skip
    raise NotFoundError(
        "a decision of this id must be in the log",
        where="decision log",
        got=name,
        remedy="Ids come with every answer as decision_id; one whose answer said 'recorded: no' has no record, "
        "nor perhaps one that said 'recorded: async' just before a server was killed",
    )


def _nearest_segments(workspace: Workspace, name: str) -> list[tuple[str, Segment]]:
    """Segments of all streams, those first that an id may be in by its time."""

    def first_id(segment: Segment) -> str:
        return decode_record(next(workspace.streams.read(stream, segment.first, 1))[1]).id

    ranked = []
    for stream in workspace.streams.names(STREAM_PREFIX):
        segments = workspace.streams.segments(stream)
        place = bisect_right(segments, name, key=first_id) - 1
        ranked += [(abs(number - place), stream, segment) for number, segment in enumerate(segments)]
    return [(stream, segment) for _, stream, segment in sorted(ranked, key=lambda one: one[0])]


def decisions_table(workspace: Workspace, policy: str, *, start: int | None = None, end: int | None = None) -> pa.Table:
    """Decisions of a policy as columns, in order of time.

    Returns
    -------
    pyarrow.Table
        ``id, time, key, revision, model, decision, raw, score, fallback``, ``record__share`` (of the decisions that are
        recorded), ``record__error`` (why the fallback answered), ``record__arm`` (in a rollout), ``record__micros``
        (of all stages before it), ``record__variants`` (of experiments), ``record__views`` (view and status of each
        view that was not simply read) and ``record__lacks`` (features that it never asked for), then one column per
        output of another task than yes or no (``output__name``), per entity (``entity__name``), per context value
        (``context__name``) and per feature (its full name, or ``feature__name`` where that is one of these columns).
        A feature that is text in any decision is text in all; one that is masked in any is left out.
    """
    records = sorted(
        (logged.record for logged in read_decisions(workspace, policy=policy, start=start, end=end)),
        key=lambda r: (r.time, r.id),
    )
    columns: dict[str, pa.Array] = {
        "id": pa.array([r.id for r in records], pa.string()),
        "time": pa.array([r.time for r in records], pa.int64()),
        "key": pa.array([r.key for r in records], pa.string()),
        "revision": pa.array([r.revision for r in records], pa.int64()),
        "model": pa.array([r.model for r in records], pa.string()),
        "decision": pa.array([r.decision for r in records], pa.string()),
        "raw": pa.array([r.raw for r in records], pa.float64()),
        "score": pa.array([r.score for r in records], pa.float64()),
        "fallback": pa.array([r.fallback for r in records], pa.string()),
        "record__share": pa.array([r.share for r in records], pa.float64()),
        "record__error": pa.array([r.error for r in records], pa.string()),
        "record__arm": pa.array([r.arm for r in records], pa.string()),
        "record__micros": pa.array([sum(r.stages.values()) for r in records], pa.int64()),
        "record__variants": pa.array(
            [[{"experiment": name, "variant": variant} for name, variant in r.variants.items()] for r in records],
            _VARIANTS,
        ),
        "record__views": pa.array(
            [[{"view": view, "status": doubt["status"]} for view, doubt in r.views.items()] for r in records], _VIEWS
        ),
    }
    fields = {"output__": "outputs", "entity__": "entities", "context__": "context", "": "features"}
    masked = {name for record in records for name in record.masked}
    for prefix, field in fields.items():
        dicts = [getattr(record, field) for record in records]
        names = list(dict.fromkeys(name for values in dicts for name in values))
        if field == "features":
            total, names = len(names), [name for name in names if name not in masked]
            lacks = [[] if len(values) == total else [feature_column(name) for name in names if name not in values]
                     for values in dicts]  # fmt: skip
            columns["record__lacks"] = pa.array(lacks, pa.list_(pa.string()))
        for name in names:
            column = prefix + name if prefix else feature_column(name)
            columns[column] = _column([values.get(name) for values in dicts])
    return pa.table(columns)


def _column(values: list[Any]) -> pa.Array:
    """Numbers as float64, text as text; a column that is text once is text throughout."""
    try:
        return pa.array(values, pa.float64(), from_pandas=False)
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        if any(isinstance(value, str) for value in values):
            return pa.array([None if value is None else str(value) for value in values], pa.string())
        return pa.array([None if value is None else float(value) for value in values], pa.float64())  # beyond 2**53
