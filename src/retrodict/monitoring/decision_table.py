"""Sealed segments of the decision log as rows of the table ``decisions``, for questions, features and checks.

The log stays the proof, and each row says where in it its record stands. A version is a batch of whole segments, which
it names; so what the table holds follows from its versions as for every other table, a run that was killed anywhere is
completed by the next one, and no segment comes twice. Compacting by time was rejected: clocks are set back, segments
are not. Values that a caller names (``context``) are one column of pairs: columns of their own could be added without
end.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from retrodict.core.clock import from_micros
from retrodict.core.display import Block, Facts, Grid, Shown, count
from retrodict.core.durations import parse_duration
from retrodict.core.errors import DefinitionError, IntegrityError, RefusedError
from retrodict.core.identity import canonical_json, content_hash
from retrodict.data.versions import live_batches
from retrodict.data.versions.refs import added_digests
from retrodict.decisions.log import STREAM_PREFIX
from retrodict.decisions.records import DecisionRecord, Value, decode_record
from retrodict.features.operations.erasure import subject_digest
from retrodict.ledger import Seal
from retrodict.ledger.merkle import leaf_hash, merkle_root
from retrodict.ledger.segments import vouched_removals, vouched_seals
from retrodict.models.readers import defined_views
from retrodict.stores.urls import is_guarded
from retrodict.workspace import Workspace

__all__ = ["TABLE", "Compaction", "about_subjects", "compact_decisions", "segments_held"]

TABLE = "decisions"
"""Name of the table."""

_BATCH, _MODE, _SEGMENTS, _EXPIRED = "retrodict.batch", "retrodict.mode", "retrodict.segments", "expire"
_ROWS, _CHUNK = 200_000, 10_000
_TEXT, _INT, _MOMENT = pa.string(), pa.int64(), pa.timestamp("us", "UTC")
_PAIRS = pa.list_(pa.struct({"name": pa.string(), "value": pa.string()}))
_FIXED: dict[str, tuple[pa.DataType, Callable[[DecisionRecord], Any]]] = {
    "id": (_TEXT, lambda r: r.id),
    "time": (_MOMENT, lambda r: r.time),
    "policy": (_TEXT, lambda r: r.policy),
    "revision": (_INT, lambda r: r.revision),
    "policy_version": (_TEXT, lambda r: r.policy_version),
    "model": (_TEXT, lambda r: r.model),
    "artifact": (_TEXT, lambda r: r.artifact),
    "decision": (_TEXT, lambda r: r.decision or None),
    "raw": (pa.float64(), lambda r: r.raw),
    "score": (pa.float64(), lambda r: r.score),
    "key": (_TEXT, lambda r: r.key),
    "rule": (_TEXT, lambda r: r.rule),
    "reasons": (pa.list_(_TEXT), lambda r: r.reasons),
    "explained": (pa.bool_(), lambda r: r.explained),
    "fallback": (_TEXT, lambda r: r.fallback),
    "error": (_TEXT, lambda r: r.error),
    "request_id": (_TEXT, lambda r: r.request_id),
    "cached": (_TEXT, lambda r: r.cached),
    "share": (pa.float64(), lambda r: r.share),
    "left_out": (_INT, lambda r: r.left_out),
    "caller": (_TEXT, lambda r: r.caller),
    "views": (
        pa.list_(pa.struct({"view": _TEXT, "status": _TEXT, "age_s": pa.float64()})),
        lambda r: [{"view": view, "age_s": None, **doubt} for view, doubt in r.views.items()],
    ),
    "reads": (
        pa.list_(pa.struct({"view": _TEXT, "version": _INT, "rows": _INT, "records": _INT})),
        lambda r: [{"view": view, "version": v, "rows": n, "records": e} for view, (v, n, e) in r.reads.items()],
    ),
    "stages": (
        pa.list_(pa.struct({"stage": _TEXT, "us": _INT})),
        lambda r: [{"stage": stage, "us": spent} for stage, spent in r.stages.items()],
    ),
    "entities": (_PAIRS, lambda r: _pairs(r.entities)),
    "context": (_PAIRS, lambda r: _pairs(r.context)),
}
_OPEN = {"output__": "outputs", "entity__": "entities", "": "features"}
_WHERE = f"table {TABLE}"


@dataclass(frozen=True, slots=True, repr=False)
class Compaction(Shown):
    """What a compaction did.

    Attributes
    ----------
    versions : list of int
        Versions that this call made, in order.
    segments, decisions : int
        Segments that came into the table, and decisions out of them.
    erased : int
        Decisions of those segments that were left out, since their subject was erased after they were made.
    expired : int
        Rows that were older than ``keep``, and are in the newest version no more.
    rows : int
        Rows of the newest version.
    by_stream : dict of str to int
        By stream, segments that the table holds.
    waiting : dict of str to int
        By stream, decisions that are in no sealed segment yet.
    """

    versions: list[int]
    segments: int
    decisions: int
    erased: int
    expired: int
    rows: int
    by_stream: dict[str, int]
    waiting: dict[str, int]

    def blocks(self) -> Sequence[Block | None]:
        """Counts, and the streams."""
        facts = {"segments": self.segments, "decisions": self.decisions, "left out, erased": self.erased or None,
                 "expired": self.expired or None, "rows now": self.rows}  # fmt: skip
        rows = [(stream, self.by_stream.get(stream, 0), self.waiting.get(stream, 0))
                for stream in sorted({*self.by_stream, *self.waiting})]  # fmt: skip
        versions = ", ".join(f"dataset:{TABLE}@{version}" for version in self.versions)
        return [
            f"{versions}: {count(self.decisions)} decisions." if versions else "There was nothing new to compact.",
            Facts(facts),
            Grid(("stream", "segments in the table>", "decisions not sealed yet>"), rows) if rows else None,
        ]


def compact_decisions(workspace: Workspace, *, keep: str | None = None) -> Compaction:
    """Write what was sealed of the decision log, and is not in the table yet, into the table ``decisions``.

    Parameters
    ----------
    workspace : Workspace
    keep : str, optional
        Age from which on rows leave the newest version, like ``"400d"``; None: never. The log keeps their records, and
        older versions the rows until they are vacuumed.

    Raises
    ------
    RefusedError
        If somebody else wrote into the table.
    IntegrityError
        If a segment is not what was sealed. It is not in the table then; those before it are.
    DefinitionError
        If subjects of an entity were erased that no view is about any more: its decisions could not be left out.
    BusyError
        If another process writes the table for longer than a minute.
    """
    border = None if keep is None else workspace.clock.now() - parse_duration(keep, where="keep")
    # Where machines share the log, one at a time: the lock is of this one alone.
    shared = is_guarded(workspace.config["stores.streams"])
    alone = workspace.streams.open_writer("compaction", timeout_s=60) if shared else nullcontext()
    with workspace.lock(f"ingest/{TABLE}"), alone:
        _complete_ledger(workspace)
        present, erased = segments_held(workspace), _erased(workspace)
        before, segments, decisions, omitted = len(workspace.tables.history(TABLE)), 0, 0, 0
        for group in _groups(seal for seal in _sealed(workspace) if (seal.stream, seal.segment) not in present):
            total, skipped = _append(workspace, group, erased)
            segments, decisions, omitted = segments + len(group), decisions + total - skipped, omitted + skipped
            _complete_ledger(workspace)
            present |= {(seal.stream, seal.segment) for seal in group}
        expired = 0 if border is None else _expire(workspace, border)
        _complete_ledger(workspace)
        history = workspace.tables.history(TABLE)
        rows = sum(file.rows for file in workspace.tables.files(TABLE)) if history else 0
    streams = [stream for stream, _ in present]
    waiting = {stream: workspace.streams.end(stream) for stream in workspace.streams.names(STREAM_PREFIX)}
    for stream in waiting:
        waiting[stream] -= sum(seal.count for seal in vouched_seals(workspace.ledger, stream))
    counts = {stream: streams.count(stream) for stream in sorted(set(streams))}
    versions = [*range(before, len(history))]
    return Compaction(versions, segments, decisions, omitted, expired, rows, counts, waiting)


def segments_held(workspace: Workspace) -> set[tuple[str, str]]:
    """Stream and name of every segment whose decisions came into the table, also where rows were erased or expired.

    Raises
    ------
    RefusedError
        If a version of the table was not written by a compaction.
    """
    history = workspace.tables.history(TABLE)
    names: set[tuple[str, str]] = set()
    for version in live_batches(workspace.tables, TABLE).values():
        if _SEGMENTS not in history[version].metadata:
            raise RefusedError(
                "only a compaction must write the table of decisions", where=f"dataset:{TABLE}@{version}",
                got="a batch of other rows", remedy=f"Keep them in another table, and go back: retrodict data rollback "
                f"{TABLE}",
            )  # fmt: skip
        names |= {(stream, segment) for stream, segment, _ in json.loads(history[version].metadata[_SEGMENTS])}
    return names


def about_subjects(names: Iterable[Sequence[str]], subjects: set[tuple[Any, ...]]) -> Callable[[pa.RecordBatch], Any]:
    """What says of rows of the table, by their column ``entities``, whether they are about one of several subjects.

    ``names`` are request columns that hold the parts of a subject's key, ``subjects`` keys as requests hold them.
    """
    columns, texts = [tuple(one) for one in names], {tuple(map(_text, key)) for key in subjects}

    def belongs(rows: pa.RecordBatch) -> Any:
        pairs = rows.column("entities").to_pylist()
        values = [{pair["name"]: pair["value"] for pair in row} for row in pairs]
        mask = [any(tuple(map(row.get, one)) in texts for one in columns) for row in values]
        return pa.array(mask, pa.bool_()).to_numpy(zero_copy_only=False)

    return belongs


# the log --------------------------------------------------------------------------------------------------------------


def _sealed(workspace: Workspace) -> list[Seal]:
    """Seals that entries of the ledger vouch for, by stream, in the order of the log; not of what retention removed."""
    streams = workspace.streams.names(STREAM_PREFIX)
    removed = {(removal.stream, removal.segment) for removal in vouched_removals(workspace.ledger)}
    seals = [seal for name in streams for seal in sorted(vouched_seals(workspace.ledger, name), key=lambda s: s.first)]
    return [seal for seal in seals if (seal.stream, seal.segment) not in removed]


def _groups(seals: Iterable[Seal]) -> Iterator[list[Seal]]:
    """Whole segments in their order, some two hundred thousand decisions at a time."""
    group: list[Seal] = []
    for seal in seals:
        if group and sum(one.count for one in group) + seal.count > _ROWS:
            yield group
            group = []
        group.append(seal)
    if group:
        yield group


def _records(workspace: Workspace, seal: Seal) -> Iterator[tuple[int, DecisionRecord]]:
    for offset, data in workspace.streams.read(seal.stream, seal.first, seal.count):
        yield offset, decode_record(data)


def _check(workspace: Workspace, seal: Seal) -> None:
    leaves = [leaf_hash(data) for _, data in workspace.streams.read(seal.stream, seal.first, seal.count)]
    if merkle_root(leaves).hex() != seal.root:
        raise IntegrityError(
            "a segment must have the root that was sealed", where=f"{seal.stream}/{seal.segment}", got="another root",
            remedy="Run 'retrodict audit verify'; restore the segment from a copy",
        )  # fmt: skip


def _erased(workspace: Workspace) -> Callable[[DecisionRecord], bool]:
    """Whether the subject of a decision was erased after it was made: by the keyed digests that the ledger has."""
    times: dict[str, dict[str, int]] = {}
    for entry in workspace.ledger.entries(action="features.erase"):
        entity = entry.object_id.removeprefix("entity:")
        times.setdefault(entity, {}).update(dict.fromkeys(entry.payload["subjects"], entry.time))
    if not times:
        return lambda _: False
    views = [view for view in defined_views(workspace) if view.entity is not None]
    entities = {view.entity.name: view.entity for view in views if view.entity is not None}
    if unknown := sorted(times.keys() - entities.keys()):
        raise DefinitionError(
            "a view must be about every entity of which subjects were erased", where="definitions", got=unknown,
            remedy="Without it nobody can tell which decisions were about them: define the entity again",
        )  # fmt: skip
    columns = {(name, view.request_keys) for view in views for name, entity in entities.items()
               if name in times and view.key_columns == entity.keys}  # fmt: skip
    cached: dict[tuple[str, tuple[Value, ...]], int] = {}

    def is_erased(record: DecisionRecord) -> bool:
        for entity, names in columns:
            values = tuple(record.entities.get(name) for name in names)
            if None in values:
                continue
            if (entity, values) not in cached:
                cached[entity, values] = times[entity].get(subject_digest(workspace, entities[entity], values), -1)
            if record.made <= cached[entity, values]:
                return True
        return False

    return is_erased


# the rows -------------------------------------------------------------------------------------------------------------


def _text(value: Value) -> str | None:
    return value if value is None or isinstance(value, str) else canonical_json(value).decode()


def _pairs(values: dict[str, Value]) -> list[dict[str, str | None]]:
    return [{"name": name, "value": _text(value)} for name, value in values.items()]


class _Columns:
    """Columns of entities, outputs and features: where a value of a name and a kind stands.

    A name that is a column's own, or has values of two kinds, or differs from another in case alone, gets a further
    column; which one follows from the columns of the table alone, so every run finds the same.
    """

    def __init__(self, schema: pa.Schema | None) -> None:
        fixed = {name: kind for name, (kind, _) in _FIXED.items()} | {"stream": _TEXT, "offset": _INT, "_batch": _TEXT}
        self.types: dict[str, pa.DataType] = fixed | (
            {} if schema is None else {field.name: field.type for field in schema}
        )
        self._taken, self._fixed = {name.lower(): name for name in self.types}, set(fixed)
        self._places: dict[tuple[str, str, type], str] = {}

    def place(self, prefix: str, name: str, value: Value) -> str:
        """Column of a value."""
        column = self._places.get((prefix, name, value.__class__))
        if column is None:
            kind = {bool: "bool", str: "text", int: "int" if prefix == "entity__" else "number"}.get(
                type(value), "number"
            )
            column = self._places[prefix, name, value.__class__] = self._find(prefix, name, kind)
        return column

    def _find(self, prefix: str, name: str, kind: str) -> str:
        type_ = {"bool": pa.bool_(), "text": pa.string(), "int": pa.int64(), "number": pa.float64()}[kind]
        clean = "".join(letter if letter.isprintable() else "?" for letter in name)
        long = f"{prefix or 'feature__'}{clean}"
        further = (f"{long} ({kind} {number})" for number in itertools.count(2))
        for column in itertools.chain([f"{prefix}{clean}", long, f"{long} ({kind})"], further):
            is_free = column and column not in self._fixed and self._taken.get(column.lower(), column) == column
            if is_free and self.types.get(column, type_) == type_:
                self.types[column], self._taken[column.lower()] = type_, column
                return column
        raise AssertionError("counting does not end")

    def rows(self, items: Sequence[tuple[str, int, DecisionRecord]], batch: str, schema: pa.Schema) -> pa.RecordBatch:
        """Rows of records, each with its stream and offset."""
        values: dict[str, list[Any]] = {
            name: [get(record) for _, _, record in items] for name, (_, get) in _FIXED.items()
        }
        values |= {"stream": [one[0] for one in items], "offset": [one[1] for one in items]}
        values["_batch"] = [batch] * len(items)
        for row, (_, _, record) in enumerate(items):
            for prefix, attribute in _OPEN.items():
                for name, value in getattr(record, attribute).items():
                    if value is not None:
                        column = self.place(prefix, name, value)
                        if column not in values:
                            values[column] = [None] * len(items)
                        values[column][row] = float(value) if pa.types.is_float64(self.types[column]) else value
        return pa.RecordBatch.from_arrays(
            [pa.array(values.get(field.name) or [None] * len(items), field.type) for field in schema], schema=schema
        )


def _append(workspace: Workspace, group: Sequence[Seal], erased: Callable[[DecisionRecord], bool]) -> tuple[int, int]:
    """Write segments as one version; how many decisions they have, and how many of them were left out."""
    tables = workspace.tables
    columns = _Columns(tables.schema(TABLE) if tables.history(TABLE) else None)
    left_out = 0
    for seal in group:  # the columns must be known before the first row is written, and the bytes be what was sealed
        _check(workspace, seal)
        for _, record in _records(workspace, seal):
            if erased(record):
                left_out += 1
                continue
            for prefix, attribute in _OPEN.items():
                for name, value in getattr(record, attribute).items():
                    if value is not None:
                        columns.place(prefix, name, value)
    names = [[seal.stream, seal.segment, seal.root] for seal in group]
    batch, total = content_hash(names), sum(seal.count for seal in group)
    schema = pa.schema(columns.types)

    def rows() -> Iterator[pa.RecordBatch]:
        items = ((seal.stream, offset, record) for seal in group for offset, record in _records(workspace, seal)
                 if not erased(record))  # fmt: skip
        while chunk := list(itertools.islice(items, _CHUNK)):
            yield columns.rows(chunk, batch, schema)

    metadata = {
        _BATCH: batch, _MODE: "append", _SEGMENTS: json.dumps(names), "retrodict.checks": "[]",
        "retrodict.origin": "decision log", "retrodict.rows_in": str(total),
        "retrodict.accepted": str(total - left_out), "retrodict.quarantined": "0",
    }  # fmt: skip
    tables.write(TABLE, pa.RecordBatchReader.from_batches(schema, rows()), metadata=metadata, evolve=True)
    return total, left_out


def _expire(workspace: Workspace, border: int) -> int:
    """Write the newest version without rows from before a time; how many those are."""
    tables = workspace.tables
    if not tables.history(TABLE):
        return 0
    moment = pa.scalar(from_micros(border), _MOMENT)
    expired = sum(pc.sum(pc.less(batch.column("time"), moment)).as_py() or 0
                  for batch in tables.batches(TABLE, columns=["time"]))  # fmt: skip
    if expired:
        rest = (batch.filter(pc.greater_equal(batch.column("time"), moment)) for batch in tables.batches(TABLE))
        reader = pa.RecordBatchReader.from_batches(tables.schema(TABLE), rest)
        tables.write(TABLE, reader, mode="overwrite", metadata={_MODE: _EXPIRED, "retrodict.border": str(border)})
    return int(expired)


def _complete_ledger(workspace: Workspace) -> None:
    """Append the entries of versions that have none: whoever wrote them may have been killed."""
    for version in workspace.tables.history(TABLE):
        reference = f"dataset:{TABLE}@{version.version}"
        is_batch, is_expiry = _SEGMENTS in version.metadata, version.metadata.get(_MODE) == _EXPIRED
        if version.vacuumed or not (is_batch or is_expiry):
            continue
        action = "dataset.version" if is_batch else "dataset.expire"
        if workspace.ledger.entries(object_id=reference, action=action):
            continue
        facts: dict[str, Any] = {"files": added_digests(workspace.tables, TABLE, version.version)}
        inputs = [(f"dataset:{TABLE}@{version.version - 1}", "previous version")] if version.version else []
        if is_batch:
            counts = {name: int(version.metadata[f"retrodict.{name}"]) for name in ("rows_in", "accepted")}
            names = json.loads(version.metadata[_SEGMENTS])
            facts |= {"batch": version.metadata[_BATCH], "mode": "append", "quarantined": 0, **counts}
            inputs += [(f"segment:{stream}/{segment}", "decisions") for stream, segment, _ in names]
        else:
            facts["before"] = int(version.metadata["retrodict.border"])
        with workspace.ledger.transaction() as tx:
            if not tx.has(action, reference):
                tx.append(action, reference, facts, inputs=inputs)
    workspace.ledger.sign_end()
