"""Online state: one block of events per view and key in a key store, written with the stream offset it came from.

Writing is idempotent and does not depend on the order of arrival: an event lands where its time puts it, a redelivery
is recognised by its id, and a latest value is replaced only by a greater one. State and offset change in one
transaction, so a process that is killed continues where its state is, not where its log says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa

from retrodict.core.durations import parse_duration
from retrodict.core.errors import InputError, check_known
from retrodict.features.facts.columns import Ints, as_table
from retrodict.features.facts.keys import encode_key
from retrodict.features.online.state.blocks import Shape, unpack
from retrodict.features.online.state.entries import COUNTS, NEVER, Applied, Meta, StateKeys, TablePlace
from retrodict.features.online.write.arrivals import Arrivals
from retrodict.features.online.write.partitions import split
from retrodict.features.online.write.transaction import AskForMoreError, EventBatch, Write
from retrodict.features.plan import FeatureSet, ViewPlan
from retrodict.stores.keys.base import KeyStore

_EVENTS_PER_UPDATE = 500_000
_REMOVED_PER_UPDATE = 10_000


class OnlineState:
    """Writes events into online state.

    Parameters
    ----------
    features : FeatureSet
        Whose views to keep.
    keys : KeyStore
        Where.
    horizon : str, default "1h"
        How long before the moment at which the newest event became visible a request may still ask and get the exact
        answer.
    durable : bool, default True
        Whether a write survives a loss of power (the stream can be read again, so it need not).
    partitions : int, default 1
        Into how many partitions the state is cut by a hash of the key. Each has an offset and a floor of its own, so as
        many processes may feed the state. A state keeps the number it was made with.
    assigned : sequence of int, optional
        Partitions to write and to ask about; events of others are passed over. None: all.
    """

    def __init__(
        self,
        features: FeatureSet,
        keys: KeyStore,
        *,
        horizon: str = "1h",
        durable: bool = True,
        partitions: int = 1,
        assigned: Sequence[int] | None = None,
    ) -> None:
        self.features = features
        self.partitions = partitions
        self.assigned = tuple(range(partitions) if assigned is None else sorted(set(assigned)))
        if not all(0 <= number < partitions for number in self.assigned):
            raise InputError(
                "partitions must be numbered from 0",
                where="online state",
                got=list(self.assigned),
                remedy=f"There are {partitions}: features.partitions says so",
            )
        self._keys, self._durable = keys, durable
        self.horizon = parse_duration(horizon, where="horizon")
        self._plans = list({plan.state_id: plan for plan in features.views}.values())
        self._shapes = {plan.state_id: Shape(plan) for plan in self._plans}
        self._names = {
            plan.state_id: [StateKeys(plan, partitions=partitions, partition=place) for place in range(partitions)]
            for plan in self._plans
        }
        self._hot: dict[str, set[bytes]] = {}  # keys known to have segments: asked for at once

    def plans(self, source: str) -> list[ViewPlan]:
        """One plan per state fed by a source."""
        sources, rule = self.features.sources, "a view of the set must read this source"
        check_known(source, sources, rule, where="online state", what="source", error=InputError)
        return [plan for plan in self._plans if plan.source.name == source]

    def metas(self, plan: ViewPlan) -> dict[int, Meta]:
        """Meta entry of each of the own partitions of a view.

        Raises
        ------
        ConfigurationError
            If the stored state is cut into another number of partitions.
        """
        names = self._names[plan.state_id]
        blobs = self._keys.get_many([names[0].cut, *(names[partition].meta for partition in self.assigned)])
        names[0].check(blobs[0])
        return {partition: Meta.read(blob) for partition, blob in zip(self.assigned, blobs[1:], strict=True)}

    def meta(self, plan: ViewPlan) -> Meta:
        """What the state of a view knows about itself; of several partitions the offset of the one furthest behind.

        Every request from its floor on is answered exactly, whatever its partition. What is the matter of one partition
        only (layout, pieces of history) is left out if there are several.
        """
        metas = list(self.metas(plan).values())
        if len(metas) == 1:
            return metas[0]
        offsets = [meta.offset for meta in metas]
        return Meta(
            floor=max(meta.floor for meta in metas),
            watermark=max(meta.watermark for meta in metas),
            offset=None if None in offsets else min(offset for offset in offsets if offset is not None),
            positions=metas[0].positions,
            kinds=max(meta.kinds for meta in metas),
            **{name: sum(getattr(meta, name) for meta in metas) for name in COUNTS},
        )

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
        events : pyarrow.Table or frame, or sequence of mapping
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
        if not isinstance(events, Sequence):
            events = as_table(events, where=f"source {source!r}")
        plans, done = self.plans(source), Applied(len(events))
        for plan in plans:
            behind: Sequence[int] = self.assigned
            if offset is not None:
                metas = self.metas(plan)
                behind = [partition for partition, meta in metas.items() if meta.offset is None or meta.offset < offset]
            # Of a stream all is one transaction: its offset says that either all of it is in or nothing.
            step = _EVENTS_PER_UPDATE if offset is None else max(len(events), 1)
            for first in range(0, max(len(events), 1) if behind else 0, step):
                part = events.slice(first, step) if isinstance(events, pa.Table) else events[first : first + step]
                batch = EventBatch(part, first_position + first, now, offset)
                done = self._apply(plan, batch, behind, done)
        return done

    def take(
        self,
        rows: pa.Table,
        plan: ViewPlan,
        partitions: Sequence[int],
        place: TablePlace,
        *,
        positions: Ints,
        now: int | None = None,
        floor: int | None = None,
    ) -> Applied:
        """Take rows of a source's table into partitions of a view, noting how much of the table is in then.

        Parameters
        ----------
        rows : pyarrow.Table
        plan : ViewPlan
            One of the set's.
        partitions : sequence of int
            Which of the own partitions take them.
        place : TablePlace
            Where the state is once these rows are in.
        positions : int64 array
            Positions of the rows in their table, for a source without a sequence.
        now : int, optional
            Present time.
        floor : int, optional
            Time before which no request may be answered, because rows that it would see were left out.

        Returns
        -------
        Applied
            What became of the rows; ``events`` is 0, since the same rows are taken into other views as well.
        """
        columns = rows.select([name for name in plan.source_columns if name in rows.column_names])
        return self._apply(plan, EventBatch(columns, positions, now, None, place, floor), partitions, Applied(0))

    def advance(self, plan: ViewPlan, version: int, place: TablePlace) -> None:
        """Note of partitions that contain all of a version of the table that they contain another, too."""
        for partition, meta in self.metas(plan).items():
            if meta.place.version == version and not (meta.place.unfinished or meta.place.ahead):
                name = self._names[plan.state_id][partition].meta

                def change(values: list[bytes | None], name: bytes = name) -> dict[bytes, bytes | None]:
                    return {name: replace(Meta.read(values[0]), place=place).write()}

                self._keys.update([name], change, durable=self._durable)

    def clear(self, plan: ViewPlan, partitions: Sequence[int]) -> None:
        """Begin partitions of a view anew: what they held is removed, and nothing is answered until a table is in."""
        begun = Meta(place=TablePlace(unfinished=True)).write()
        for partition in partitions:
            names = self._names[plan.state_id][partition]
            self._keys.put_many({names.meta: begun}, durable=self._durable)
        self._hot.pop(plan.state_id, None)
        names = self._names[plan.state_id][0]
        keys = [name[len(names.blocks) :] for name, _ in self._keys.scan(names.blocks)]
        keys = [key for key in keys if names.partition_of(key) in set(partitions)]
        for first in range(0, len(keys), _REMOVED_PER_UPDATE):
            self._remove(plan, keys[first : first + _REMOVED_PER_UPDATE], durable=self._durable)
        for partition in partitions:  # what was removed had been counted by an entry that is gone
            self._keys.put_many({self._names[plan.state_id][partition].meta: begun}, durable=self._durable)

    def _apply(self, plan: ViewPlan, batch: EventBatch, numbers: Sequence[int], done: Applied) -> Applied:
        """Take a batch into some partitions, one transaction each."""
        for partition, count, visible in split(plan, batch.events, self.partitions, numbers, batch.position):
            arrivals = Arrivals(plan, self._shapes[plan.state_id], visible)
            one = self._write(plan, partition, batch, arrivals)
            done = done.plus(**vars(one.plus(never_visible=count - len(arrivals))))
        return done

    def _write(self, plan: ViewPlan, partition: int, batch: EventBatch, arrivals: Arrivals) -> Applied:
        keys, hot = self._names[plan.state_id][partition], self._hot.setdefault(plan.state_id, set())
        shape = self._shapes[plan.state_id]
        write = Write(plan, shape, arrivals, self.horizon, batch, keys)
        write.ask([keys.index(name) for name in arrivals.names if name in hot])

        def change(values: list[bytes | None]) -> dict[bytes, bytes | None]:
            result: dict[bytes, bytes | None] = {}
            if keys.cut != keys.meta:
                cut = values.pop()
                keys.check(cut)
                result = {} if cut is not None else {keys.cut: keys.mark}
            after = write.change(values)
            meta = after.get(keys.meta)
            if meta is not None:
                before = dict(zip(write.names, values, strict=True))
                after[keys.meta] = Meta.read(meta).resized(keys, before, after).write()
            return result | after

        while True:
            try:
                cut = [] if keys.cut == keys.meta else [keys.cut]
                self._keys.update([*write.names, *cut], change, durable=self._durable)
                break
            except AskForMoreError as more:  # what is needed of a hot key shows only in its block
                write.ask(more.names)
        hot |= write.hot
        return write.done  # the function may have run more than once; the last run is what was stored

    def expire(self) -> int:
        """Remove blocks that no answerable request reads; returns how many."""
        removed = 0
        for plan in self._plans:
            if plan.unbounded or plan.lifetime:
                continue
            shape, names = self._shapes[plan.state_id], self._names[plan.state_id][0]
            limits = {partition: meta.floor - plan.lookback_us for partition, meta in self.metas(plan).items()}
            old = [
                name
                for name, blob in self._keys.scan(names.blocks)
                if _newest(shape, blob) < limits.get(names.partition_of(name[len(names.blocks) :]), NEVER)
            ]
            for first in range(0, len(old), _REMOVED_PER_UPDATE):
                keys = [name[len(names.blocks) :] for name in old[first : first + _REMOVED_PER_UPDATE]]
                self._remove(plan, keys, durable=self._durable)
            removed += len(old)
        return removed

    def forget(self, view: str, entity: Sequence[object]) -> int:
        """Remove everything kept of one entity in a view; returns how many entries."""
        plan = self.features.plan(view)
        key = encode_key(entity, where=f"{plan.where}, entity")
        return 0 if key is None else self._remove(plan, [key], durable=True)

    def _remove(self, plan: ViewPlan, keys: Sequence[bytes], *, durable: bool) -> int:
        """Remove all entries of some keys; returns how many there were."""
        removed = 0
        for partition, names in enumerate(self._names[plan.state_id]):
            inside = [key for key in keys if names.partition_of(key) == partition]
            if inside:
                removed += self._remove_of(names, self._shapes[plan.state_id], inside, durable=durable)
        return removed

    def _remove_of(self, names: StateKeys, shape: Shape, keys: Sequence[bytes], *, durable: bool) -> int:
        indexes = self._keys.get_many([names.index(key) for key in keys])
        entries = [name for key, index in zip(keys, indexes, strict=True) for name in names.all(key, shape, index)]
        removed: list[int] = [0]

        def change(values: list[bytes | None]) -> dict[bytes, bytes | None]:
            before = dict(zip(entries, values, strict=False))
            after: dict[bytes, bytes | None] = dict.fromkeys(name for name, blob in before.items() if blob is not None)
            removed[0], meta = len(after), values[-1]
            if meta is not None and after:
                after[names.meta] = Meta.read(meta).resized(names, before, after).write()
            return after

        self._keys.update([*entries, names.meta], change, durable=durable)
        return removed[0]

    def unseen(self, plan: ViewPlan, entities: Sequence[Sequence[object]]) -> int:
        """How many of these keys the state of a view holds no events of; keys with a null part are none.

        Parameters
        ----------
        plan : ViewPlan
            One of the set's.
        entities : sequence of sequences
            Values of the key columns.
        """
        blocks = self._names[plan.state_id][0].blocks
        keys = [encode_key(values, where=f"{plan.where}, entity") for values in entities]
        return self._keys.get_many([blocks + key for key in keys if key is not None]).count(None)


def _newest(shape: Shape, blob: bytes) -> int:
    """Event time of the newest row; of revisions, which end one another, the greatest v."""
    block = unpack(shape, blob)
    return block.visible if shape.revised else int(block.rows[-1, 0])
