"""Retention of the decision log: whole sealed segments that are in the table ``decisions`` are deleted, oldest first.

The ledger says first what will be gone, in entries that are signed; only then a file goes. So an audit accepts exactly
those, whatever moment a run was killed at, and the next run deletes what is named and still there. Single records stay
or go with their segment: its seal is of all of them. Segments from the middle were rejected: a log without gaps says by
its first offset what is missing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import msgspec

from retrodict.core.clock import format_time
from retrodict.core.display import Block, Grid, Shown, count
from retrodict.core.durations import parse_duration
from retrodict.core.errors import InputError, IntegrityError
from retrodict.core.identity import digest, is_ulid, ulid_number
from retrodict.decisions.log import STREAM_PREFIX
from retrodict.ledger import Seal
from retrodict.ledger.segments import append_removals, vouched_removals, vouched_seals
from retrodict.monitoring.decision_table import TABLE, segments_held
from retrodict.workspace import Workspace

__all__ = ["Retention", "retain_decisions"]


class _Place(msgspec.Struct):
    id: str
    time: int


_places = msgspec.msgpack.Decoder(_Place)


@dataclass(frozen=True, slots=True, repr=False)
class Retention(Shown):
    """What leaves the log, or would.

    Attributes
    ----------
    before : int
        Moment; decisions from then on stay, and with them the segment that they are in.
    segments : list of dict
        ``stream``, ``segment``, ``decisions`` and ``until``, the newest moment, of each that goes.
    deleted : bool
        False where it is only said what would be.
    stays : dict of str to str
        By stream, why its next segment stays.
    """

    before: int
    segments: list[dict[str, object]]
    deleted: bool
    stays: dict[str, str]

    def blocks(self) -> Sequence[Block | None]:
        """Segments, and what stays."""
        rows = [(f"{one['stream']}", f"{one['segment']}", one["decisions"], f"{one['until']}") for one in self.segments]
        verb = "were deleted" if self.deleted else "would be deleted; --yes deletes them"
        total = sum(int(str(one["decisions"])) for one in self.segments)
        return [
            f"{count(len(rows))} segments with {count(total)} decisions {verb}." if rows else
            f"Nothing of the log is from before {format_time(self.before)} and in the table {TABLE!r}.",
            Grid(("stream", "segment", "decisions>", "newest"), rows) if rows else None,
            Grid(("stream", "stays because"), sorted(self.stays.items())) if self.stays else None,
        ]  # fmt: skip


def retain_decisions(workspace: Workspace, older_than: str, *, reason: str = "", dry_run: bool = True) -> Retention:
    """Delete segments of the log whose every decision is older than an age, and in the table ``decisions``.

    Raises
    ------
    InputError
        If the age is no longer than ``serving.request_ids_kept``: answers are repeated from the log.
    IntegrityError
        If a segment is not what was sealed, or is missing without an entry that says so: an audit must see it as it is.
    BusyError
        If another process compacts, or deletes, for longer than a minute.
    """
    age, shortest = parse_duration(older_than, where="older_than"), workspace.config["serving.request_ids_kept"]
    if age <= parse_duration(shortest):
        raise InputError("decisions must be kept for longer than their request ids", where="older_than", got=older_than,
                         remedy=f"serving.request_ids_kept is {shortest}")  # fmt: skip
    border = workspace.clock.now() - age
    with workspace.lock(f"ingest/{TABLE}"):
        history = workspace.tables.history(TABLE)
        version = f"dataset:{TABLE}@{history[-1].version}" if history else ""
        segments, stays = [], dict[str, str]()
        for stream in workspace.streams.names(STREAM_PREFIX):
            segments += list(_due(workspace, stream, border, stays))
        if not dry_run:
            names = {(removal.stream, removal.segment) for removal in vouched_removals(workspace.ledger)}
            fresh = [one for one in segments if (one[0].stream, one[0].segment) not in names]
            if fresh:
                append_removals(workspace.ledger, fresh, before=border, kept_in=version, reason=reason)
            for seal, _, _ in segments:
                workspace.streams.remove_segment(seal.stream, seal.segment)
    rows = [{"stream": seal.stream, "segment": seal.segment, "decisions": seal.count, "until": format_time(until)}
            for seal, _, until in segments]  # fmt: skip
    return Retention(border, list(rows), not dry_run, stays)


def _due(
    workspace: Workspace, stream: str, border: int, stays: dict[str, str]
) -> Iterator[tuple[Seal, tuple[str, str], int]]:
    """Oldest segments of a stream that may go, with the least and the greatest id and the newest moment of each."""
    seals = {seal.segment: seal for seal in vouched_seals(workspace.ledger, stream)}
    removals = {removal.segment: removal for removal in vouched_removals(workspace.ledger, stream)}
    present, compacted = workspace.streams.segments(stream), segments_held(workspace)
    missing = seals.keys() - removals.keys() - {segment.name for segment in present}
    if missing:
        raise _unlike(f"{stream}/{min(missing)}", "no such file")
    for segment in present:
        if removal := removals.get(segment.name):  # whoever was deleting it was killed
            yield seals[segment.name], removal.ids, removal.until
            continue
        seal = seals.get(segment.name)
        if seal is None or not segment.closed or (stream, segment.name) not in compacted:
            stays[stream] = (
                "it is not sealed yet" if seal is None else "it is not in the table: retrodict decisions compact"
            )
            return
        if digest(workspace.streams.read_segment(stream, segment.name)) != seal.digest:
            raise _unlike(f"{stream}/{segment.name}", "another hash than was sealed")
        places = [_places.decode(data) for _, data in workspace.streams.read(stream, segment.first, segment.count)]
        until = max(max(one.time, _moment(one.id)) for one in places)
        if until >= border:
            stays[stream] = f"it has a decision of {format_time(until)}"
            return
        yield seal, (min(one.id for one in places), max(one.id for one in places)), until


def _moment(name: str) -> int:
    return (ulid_number(name) >> 80) * 1_000 if is_ulid(name) else 0


def _unlike(where: str, got: str) -> IntegrityError:
    return IntegrityError("a segment must be what was sealed before it is deleted", where=where, got=got,
                          remedy="Run 'retrodict audit verify'")  # fmt: skip
