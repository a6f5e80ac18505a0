"""Online state: blocks of events in a key store, written together with the stream offset they came from.

Writing is idempotent and does not depend on the order of arrival: an event lands in the block of its own time, a
redelivery is recognised by its id, and a latest value is replaced only by a greater one. State and offset change in one
transaction, so a process that is killed continues where its state is, not where its log says.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from retrodict.core.durations import MINUTE, parse_duration
from retrodict.core.errors import DefinitionError, InputError, IntegrityError, near
from retrodict.features.blocks import Rows, decode, encode, join, newest_only, take
from retrodict.features.columns import Ints, kind_of, pick, plain
from retrodict.features.events import Events, lift, read_events
from retrodict.features.keys import encode_key, key_kind
from retrodict.features.plan import FeatureSet, ViewPlan
from retrodict.stores.keys.base import KeyStore

__all__ = ["Applied", "Meta", "OnlineState", "StateKeys"]

_BLOCKS_PER_LOOKBACK = 3  # for windows: more means more entries per read, fewer means larger entries per write
_GROUPS_PER_UPDATE = 2_000
_NEVER = -(1 << 62)
_SHIFT = 1 << 62


@dataclass(frozen=True)
class Applied:
    """What one call of ``apply`` did, summed over the views of the source.

    Attributes
    ----------
    events : int
        Events given.
    stored : int
        Events now in the state that were not before.
    duplicates : int
        Redeliveries left out.
    too_old : int
        Events that no answerable request can see.
    never_visible : int
        Events without a time or key, or left out by the source's condition.
    """

    events: int
    stored: int = 0
    duplicates: int = 0
    too_old: int = 0
    never_visible: int = 0

    def plus(self, **more: int) -> Applied:
        """Sum with further counts."""
        return replace(self, **{name: getattr(self, name) + value for name, value in more.items()})


@dataclass(frozen=True)
class Meta:
    """What the state of a view knows about itself.

    Attributes
    ----------
    floor : int
        Requests before this time cannot be answered exactly any more.
    watermark : int
        Latest time at which an applied event became visible.
    offset : int, optional
        Stream offset to continue from.
    positions : str, optional
        Where positions came from if the source declares no sequence: ``table`` or ``stream``.
    kinds : tuple of str
        Kinds of the key columns.
    """

    floor: int = _NEVER
    watermark: int = _NEVER
    offset: int | None = None
    positions: str | None = None
    kinds: tuple[str, ...] = ()

    @classmethod
    def read(cls, blob: bytes | None) -> Meta:
        """Meta of stored bytes, the initial one for None."""
        if blob is None:
            return cls()
        known = json.loads(blob[8:])
        return cls(int.from_bytes(blob[:8], "big") - _SHIFT, known[0], known[1], known[2], tuple(known[3]))

    def write(self) -> bytes:
        """Bytes to store; the floor stands first, since every request reads it."""
        rest = json.dumps([self.watermark, self.offset, self.positions, self.kinds])
        return (self.floor + _SHIFT).to_bytes(8, "big") + rest.encode()


class StateKeys:
    """Names of a view's entries in the key store.

    Attributes
    ----------
    meta : bytes
        Where the meta entry is.
    bucket_us : int
        Length of a block in microseconds; 0 if the view keeps no blocks by time.
    """

    def __init__(self, plan: ViewPlan) -> None:
        self.prefix = bytes.fromhex(plan.state_id[:16])
        self.meta = self.prefix + b"M"
        bounded = bool(plan.windows) or bool(plan.latest and not plan.unbounded)
        length = -(-plan.lookback_us // (_BLOCKS_PER_LOOKBACK if plan.windows else 1))
        self.bucket_us = max(length, MINUTE) if bounded else 0

    def block(self, key: bytes, bucket: int) -> bytes:
        """Block of a key that begins at ``bucket * bucket_us``."""
        return self.prefix + b"W" + key + (bucket + _SHIFT).to_bytes(8, "big")

    def newest(self, key: bytes) -> bytes:
        """Newest events of a key, for latest values of any age."""
        return self.prefix + b"L" + key


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
        """Take in events of a source; every view of the source is updated in one transaction per two thousand blocks.

        Parameters
        ----------
        events : pyarrow.Table or sequence of mapping
            In any order, redeliveries allowed.
        source : str
            Name of the source.
        offset : int, optional
            Stream offset to continue from once these events are in. None: the events are not from a stream.
        first_position : int, default 0
            Position of the first event in its table or stream, for a source without a sequence.
        now : int, optional
            Present time: a wrong event in the far future then does not make the present too old.

        Returns
        -------
        Applied
        """
        plans = self.plans(source)
        done = Applied(len(events))
        for plan in plans:
            batch = _Batch(
                plan,
                read_events(plan, events, first_position=first_position),
                self._horizon,
                now,
                "table" if offset is None else "stream",
            )
            done = done.plus(never_visible=len(events) - batch.size, too_old=batch.too_old)
            done = self._store(batch, offset, done)
        return done

    def _store(self, batch: _Batch, offset: int | None, done: Applied) -> Applied:
        groups = batch.groups
        for first in range(0, max(len(groups), 1), _GROUPS_PER_UPDATE):
            part = groups[first : first + _GROUPS_PER_UPDATE]
            last = first + _GROUPS_PER_UPDATE >= len(groups)
            counts: list[Applied] = []
            change = batch.change(part, offset if last else None, counts)
            self._keys.update([batch.names.meta, *(group.name for group in part)], change, durable=self._durable)
            one = counts[-1]  # the function may have run more than once; the last run is what was stored
            done = done.plus(stored=one.stored, duplicates=one.duplicates, too_old=one.too_old)
        return done

    def expire(self) -> int:
        """Remove blocks that no answerable request reads; returns how many."""
        removed = 0
        for plan in self._plans:
            names, floor = StateKeys(plan), self.meta(plan).floor
            old = [key for key, _ in self._keys.scan(names.prefix + b"W") if _ended(key, names, plan) <= floor]
            for first in range(0, len(old), _GROUPS_PER_UPDATE):
                self._keys.put_many(dict.fromkeys(old[first : first + _GROUPS_PER_UPDATE]), durable=self._durable)
            removed += len(old)
        return removed

    def forget(self, view: str, entity: Sequence[object]) -> int:
        """Remove everything kept of one entity in a view; returns how many entries."""
        plan = self.features.plan(view)
        key = encode_key(entity, where=f"{plan.where}, entity")
        if key is None:
            return 0
        names = StateKeys(plan)
        found = [entry for kind in (b"W", b"L") for entry, _ in self._keys.scan(names.prefix + kind + key)]
        self._keys.put_many(dict.fromkeys(found), durable=True)
        return len(found)


def _ended(key: bytes, names: StateKeys, plan: ViewPlan) -> int:
    """Time from which on no request reads a block."""
    bucket = int.from_bytes(key[-8:], "big") - _SHIFT
    return (bucket + 1) * names.bucket_us + plan.lookback_us


@dataclass(frozen=True)
class _Group:
    """Events of one entry of the key store; ``until`` is the floor from which on the entry is of no use."""

    name: bytes
    rows: Rows
    newest: bool
    until: int


class _Batch:
    """Events of one call, sorted into the entries they belong to."""

    def __init__(self, plan: ViewPlan, events: Events, horizon: int, now: int | None, positions: str) -> None:
        self.plan, self.names = plan, StateKeys(plan)
        columns = events.keys(plan)
        where = f"{plan.where}, source {plan.source.name!r}"
        self._kinds = tuple(key_kind(column, where=where) for column in columns)
        self._positions = positions if plan.source.sequence is None else None
        self._rows = _rows(plan, events)
        visible = self._rows.visible_at
        self._watermark = int(visible.max(initial=_NEVER))
        present = self._watermark if now is None else min(self._watermark, now)
        self._floor = _NEVER if plan.source.timeless or not len(visible) else present - horizon
        self.too_old = 0
        self.groups, self.size = self._group([column.to_pylist() for column in columns], where)

    def _group(self, columns: list[list[Any]], where: str) -> tuple[list[_Group], int]:
        numbers: dict[Any, int] = {}
        encoded: list[bytes] = []
        codes = np.empty(len(self._rows), dtype=np.int64)
        for i, values in enumerate(zip(*columns, strict=True)):
            code = numbers.get(values)
            if code is None:
                key = encode_key(values, where=where)
                code = numbers[values] = -1 if key is None else len(encoded)
                if key is not None:
                    encoded.append(key)
            codes[i] = code
        groups: list[_Group] = []
        if self.names.bucket_us:
            buckets = self._rows.event_time // self.names.bucket_us
            # Known to be too old already: counted here, so that history costs nothing per block nobody would read.
            old = (buckets + 1) * self.names.bucket_us + self.plan.lookback_us <= self._floor
            self.too_old = int((old & (codes >= 0)).sum())
            for chosen in _runs(np.where(old, -1, codes), buckets):
                code, bucket = int(codes[chosen[0]]), int(buckets[chosen[0]])
                name = self.names.block(encoded[code], bucket)
                groups.append(
                    _Group(name, take(self._rows, chosen), newest=False, until=_ended(name, self.names, self.plan))
                )
        if self.plan.unbounded:
            bare = replace(self._rows, channels=())
            for chosen in _runs(codes, np.zeros_like(codes)):
                name = self.names.newest(encoded[int(codes[chosen[0]])])
                groups.append(_Group(name, take(bare, chosen), newest=True, until=_SHIFT))
        return groups, int((codes >= 0).sum())

    def change(
        self, groups: list[_Group], offset: int | None, counts: list[Applied]
    ) -> Callable[[list[bytes | None]], Mapping[bytes, bytes | None]]:
        """Return the function that merges these groups into what is stored."""

        def merge(values: list[bytes | None]) -> dict[bytes, bytes | None]:
            meta = self._next(Meta.read(values[0]), offset)
            done, result = Applied(0), {self.names.meta: meta.write()}
            for group, blob in zip(groups, values[1:], strict=True):
                if group.until <= meta.floor:
                    done = done.plus(too_old=len(group.rows))
                    continue
                channels = () if group.newest else self.plan.channels
                before = None if blob is None else decode(channels, len(self.plan.latest), blob)
                merged, duplicates = join(channels, before, group.rows)
                if group.newest:
                    merged = newest_only(merged, meta.floor)
                added = len(merged) - (0 if before is None else len(before))
                done = done.plus(duplicates=duplicates, stored=max(added, 0))
                result[group.name] = encode(channels, merged)
            counts.append(done)
            return result  # type: ignore[return-value]  # dict is invariant in its values

        return merge

    def _next(self, meta: Meta, offset: int | None) -> Meta:
        where = f"{self.plan.where}, online state"
        if self._positions is not None and meta.positions not in {None, self._positions}:
            raise DefinitionError(
                "events from a table and from a stream are told apart by a sequence",
                where=f"source {self.plan.source.name!r}",
                remedy="Declare sequence= with the column that holds the event's id",
            )
        kinds = (
            self._kinds
            if not meta.kinds
            else tuple(new if old == "null" else old for old, new in zip(meta.kinds, self._kinds, strict=True))
        )
        if any(new not in {old, "null"} for old, new in zip(kinds, self._kinds, strict=True)):
            raise InputError(
                "the keys of a source keep their kind",
                where=where,
                got=self._kinds,
                remedy=f"The state holds keys of kind {', '.join(kinds)}",
            )
        if offset is not None and meta.offset is not None and offset < meta.offset:
            offset = meta.offset
        return Meta(
            max(meta.floor, self._floor),
            max(meta.watermark, self._watermark),
            meta.offset if offset is None else offset,
            self._positions or meta.positions,
            kinds,
        )


def _runs(codes: Ints, buckets: Ints) -> list[Ints]:
    """Events of each (key, bucket), without those of a null key."""
    order = np.lexsort((buckets, codes))
    order = order[codes[order] >= 0]
    if not len(order):
        return []
    change = (codes[order][1:] != codes[order][:-1]) | (buckets[order][1:] != buckets[order][:-1])
    return np.split(order, np.flatnonzero(change) + 1)


def _rows(plan: ViewPlan, events: Events) -> Rows:
    channels = tuple(lift(channel, events.inputs, len(events.row)) for channel in plan.channels)
    latest = []
    for name in plan.latest:
        column = plain(pick(events.table, name, where=plan.where))
        kind = kind_of(column.type)
        if kind == "other":
            raise IntegrityError(
                "a latest value is a number, a boolean, text, a time or a date",
                where=f"{plan.where}, column {name!r}",
                got=str(column.type),
            )
        if kind == "time":
            column = column.cast(pa.timestamp("us", column.type.tz), safe=False).cast(pa.int64())
        values = np.empty(len(column), dtype=object)
        values[:] = column.to_pylist()
        latest.append(values)
    return Rows(events.event_time, events.known_at, events.sequence, channels, tuple(latest))
