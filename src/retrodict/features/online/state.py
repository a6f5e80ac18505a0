"""Online state: one block of events per view and key in a key store, written with the stream offset it came from.

Writing is idempotent and does not depend on the order of arrival: an event lands where its time puts it, a redelivery
is recognised by its id, and a latest value is replaced only by a greater one. State and offset change in one
transaction, so a process that is killed continues where its state is, not where its log says.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from retrodict.core.durations import parse_duration
from retrodict.core.errors import InputError, near
from retrodict.features.facts.events import read_events
from retrodict.features.facts.keys import encode_key
from retrodict.features.online.arrivals import Arrivals
from retrodict.features.online.blocks import Shape, unpack
from retrodict.features.online.decoding import plain_time, tabulate
from retrodict.features.online.entries import NEVER, Applied, Meta, StateKeys
from retrodict.features.online.writing import AskForMoreError, Write
from retrodict.features.plan import FeatureSet, ViewPlan
from retrodict.stores.keys.base import KeyStore

__all__ = ["Applied", "Health", "Meta", "OnlineState", "StateKeys"]

_EVENTS_PER_UPDATE = 500_000
_REMOVED_PER_UPDATE = 10_000


@dataclass(frozen=True)
class Health:
    """How the state of a view is.

    Attributes
    ----------
    view : str
        Name of the view.
    entities : int
        Keys with an entry.
    bytes : int
        Bytes of all entries.
    watermark, floor : int, optional
        Latest time at which an applied event became visible; earliest request that is answered. None before any event.
    offset : int, optional
        Stream offset to continue from; None if it was never fed by a stream.
    stored, duplicates, too_old : int
        As in :class:`Meta`.
    """

    view: str
    entities: int
    bytes: int
    watermark: int | None
    floor: int | None
    offset: int | None
    stored: int
    duplicates: int
    too_old: int


class OnlineState:
    """Writes events into online state.

    Parameters
    ----------
    features : FeatureSet
        Whose views to keep.
    keys : KeyStore
        Where.
    horizon : str, default "1h"
        How far behind the newest event a request may still ask and get the exact answer.
    durable : bool, default True
        Whether a write survives a loss of power (the stream can be read again, so it need not).
    """

    def __init__(self, features: FeatureSet, keys: KeyStore, *, horizon: str = "1h", durable: bool = True) -> None:
        self.features = features
        self._keys, self._durable = keys, durable
        self._horizon = parse_duration(horizon, where="horizon")
        self._plans = list({plan.state_id: plan for plan in features.views}.values())
        self._shapes = {plan.state_id: Shape(plan) for plan in self._plans}
        self._hot: dict[str, set[bytes]] = {}  # keys known to have segments: asked for at once

    def plans(self, source: str) -> list[ViewPlan]:
        """One plan per state fed by a source."""
        found = [plan for plan in self._plans if plan.source.name == source]
        if not found:
            raise InputError(
                "a view of the set reads this source",
                where="online state",
                got=source,
                remedy=near(source, self.features.sources, what="source"),
            )
        return found

    def meta(self, plan: ViewPlan) -> Meta:
        """Meta entry of a view."""
        return Meta.read(self._keys.get_many([StateKeys(plan).meta])[0])

    def apply(
        self,
        events: pa.Table | Sequence[Mapping[str, Any]],
        source: str,
        *,
        offset: int | None = None,
        first_position: int = 0,
        now: int | None = None,
    ) -> Applied:
        """Take in events of a source; each view of the source is updated in one transaction per half a million events.

        Parameters
        ----------
        events : pyarrow.Table or sequence of mapping
            In any order, redeliveries allowed.
        source : str
            Name of the source.
        offset : int, optional
            Stream offset to continue from once these events are in; views that are there already are left alone. None:
            the events are not from a stream.
        first_position : int, default 0
            Position of the first event in its table or stream, for a source without a sequence.
        now : int, optional
            Present time: a wrong event in the far future then does not make the present too old.

        Returns
        -------
        Applied
        """
        plans, done = self.plans(source), Applied(len(events))
        for plan in plans:
            known = None if offset is None else self.meta(plan).offset
            if known is not None and offset is not None and known >= offset:
                continue
            # Of a stream all is one transaction: its offset says that either all of it is in or nothing.
            step = _EVENTS_PER_UPDATE if offset is None else max(len(events), 1)
            for first in range(0, max(len(events), 1), step):
                part = events.slice(first, step) if isinstance(events, pa.Table) else events[first : first + step]
                done = self._apply(plan, part, offset, first_position + first, now, done)
        return done

    def load(self, history: pa.Table, source: str, *, now: int | None = None) -> Applied:
        """Take in the history of a source, piece by piece; what an earlier call took in already is passed over.

        Parameters
        ----------
        history : pyarrow.Table
            All rows of the source; it may have grown at its end since the last call.
        source : str
            Name of the source.
        now : int, optional
            Present time.

        Raises
        ------
        InputError
            If the rows loaded before are others now and a view has a lifetime: of what a total holds no event can be
            told from its redelivery.
        """
        done = Applied(history.num_rows)
        for plan in self.plans(source):
            meta = self.meta(plan)
            columns = history.select([name for name in plan.source_columns if name in history.column_names])
            pieces, digest = meta.loaded, _digest(columns, meta.loaded)
            if digest.hexdigest() != meta.digest and meta.loaded:
                if plan.lifetime:
                    raise InputError(
                        "the history behind a lifetime only grows at its end",
                        where=f"{plan.where}, source {source!r}",
                        got=f"{history.num_rows} rows, of which the first {pieces[-1]} are not those loaded before",
                        remedy="Apply only the new rows, or begin with an empty key store",
                    )
                pieces, digest = (), hashlib.sha256()
            for first in range(pieces[-1] if pieces else 0, history.num_rows, _EVENTS_PER_UPDATE):
                part = columns.slice(first, _EVENTS_PER_UPDATE)
                pieces = (*pieces, first + part.num_rows)
                digest.update(_bytes(part))
                done = self._apply(plan, part, None, first, now, done, loaded=(pieces, digest.hexdigest()))
        return done

    def _apply(
        self,
        plan: ViewPlan,
        events: pa.Table | Sequence[Mapping[str, Any]],
        offset: int | None,
        position: int,
        now: int | None,
        done: Applied,
        *,
        loaded: tuple[tuple[int, ...], str] | None = None,
    ) -> Applied:
        shape = self._shapes[plan.state_id]
        if not isinstance(events, pa.Table) and getattr(plan.source.table, "columns", None):
            events = tabulate(plan.source, {n: [plain_time(row.get(n)) for row in events] for n in plan.source_columns})
        arrivals = Arrivals(plan, shape, read_events(plan, events, first_position=position))
        write = Write(plan, shape, arrivals, self._horizon, now, offset)
        write.loaded = loaded
        hot = self._hot.setdefault(plan.state_id, set())
        write.ask([write.keys.index(name) for name in arrivals.names if name in hot])
        while True:
            try:
                self._keys.update(write.names, write.change, durable=self._durable)
                break
            except AskForMoreError as more:  # what is needed of a hot key shows only in its block
                write.ask(more.names)
        hot |= write.hot
        one = write.done  # the function may have run more than once; the last run is what was stored
        return done.plus(
            stored=one.stored,
            duplicates=one.duplicates,
            too_old=one.too_old,
            never_visible=len(events) - len(arrivals),
        )

    def expire(self) -> int:
        """Remove blocks that no answerable request reads; returns how many."""
        removed = 0
        for plan in self._plans:
            if plan.unbounded or plan.lifetime:
                continue
            shape, limit, names = self._shapes[plan.state_id], self.meta(plan).floor - plan.lookback_us, StateKeys(plan)
            old = [name for name, blob in self._keys.scan(names.blocks) if _newest(shape, blob) < limit]
            for first in range(0, len(old), _REMOVED_PER_UPDATE):
                keys = [name[len(names.blocks) :] for name in old[first : first + _REMOVED_PER_UPDATE]]
                self._remove(names, shape, keys, durable=self._durable)
            removed += len(old)
        return removed

    def forget(self, view: str, entity: Sequence[object]) -> int:
        """Remove everything kept of one entity in a view; returns how many entries."""
        plan = self.features.plan(view)
        key = encode_key(entity, where=f"{plan.where}, entity")
        if key is None:
            return 0
        return self._remove(StateKeys(plan), Shape(plan), [key], durable=True)

    def _remove(self, names: StateKeys, shape: Shape, keys: list[bytes], *, durable: bool) -> int:
        """Remove all entries of some keys; returns how many there were."""
        indexes = self._keys.get_many([names.index(key) for key in keys])
        found = [name for key, index in zip(keys, indexes, strict=True) for name in names.all(key, shape, index)]
        there = [name for name, blob in zip(found, self._keys.get_many(found), strict=True) if blob is not None]
        self._keys.put_many(dict.fromkeys(there), durable=durable)
        return len(there)

    def health(self) -> list[Health]:
        """Size and freshness of each state, by a scan of all its entries; views that share a state are one."""
        found = []
        for plan in self._plans:
            meta, entities, size = self.meta(plan), 0, 0
            names = StateKeys(plan)
            for name, blob in self._keys.scan(names.prefix):
                entities, size = entities + name.startswith(names.blocks), size + len(blob)
            watermark, floor = (None if moment == NEVER else moment for moment in (meta.watermark, meta.floor))
            counts = meta.stored, meta.duplicates, meta.too_old
            found.append(Health(plan.name, entities, size, watermark, floor, meta.offset, *counts))
        return found


def _digest(table: pa.Table, pieces: Sequence[int]) -> hashlib._Hash:
    """Hash of the first rows of a table, piece by piece as they were loaded."""
    digest, first = hashlib.sha256(), 0
    for end in pieces:
        digest.update(_bytes(table.slice(first, end - first)))
        first = end
    return digest


def _bytes(piece: pa.Table) -> pa.Buffer:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, piece.schema) as writer:
        writer.write_table(piece.combine_chunks())
    return sink.getvalue()


def _newest(shape: Shape, blob: bytes) -> int:
    """Event time of the newest row; of revisions, which end one another, the greatest v."""
    block = unpack(shape, blob)
    return block.visible if shape.revised else int(block.rows[-1, 0])
