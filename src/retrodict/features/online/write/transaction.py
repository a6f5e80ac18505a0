"""One transaction of online state: what is stored of the keys of a batch, and what is to be stored instead."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from retrodict.core.errors import DefinitionError, InputError
from retrodict.features.facts.columns import Ints
from retrodict.features.online.state.blocks import (
    FIXED,
    HOT,
    Layout,
    Shape,
    layout_of,
    narrow_block,
    wide_block,
    widened,
)
from retrodict.features.online.state.entries import NEVER, Applied, Meta, StateKeys, TablePlace
from retrodict.features.online.state.segments import Index, close, is_hot, reopened
from retrodict.features.online.write.arrivals import Arrivals
from retrodict.features.online.write.merge import Bounds, converted, gathered, merge
from retrodict.features.plan import ViewPlan

_MOST_ROWS = 1024


@dataclass(frozen=True)
class EventBatch:
    """Events as they were given, where they stand in their table or stream, and what to note once they are in.

    ``position`` is that of the first event, or those of all. ``offset`` is that of the stream to continue from
    afterwards, None for a table; ``place`` is how far the table is in once these rows of it are, and ``floor`` the time
    before which no request may be answered.
    """

    events: pa.Table | Sequence[Mapping[str, Any]]
    position: int | Ints
    now: int | None
    offset: int | None
    place: TablePlace | None = None
    floor: int | None = None


class AskForMoreError(Exception):
    """What is stored of a hot key shows that more of it is needed: ``names`` of entries; nothing was stored."""

    def __init__(self, names: list[bytes]) -> None:
        super().__init__(f"{len(names)} more entries")
        self.names = names


class Write:
    """One transaction: the events of a batch, merged into what is stored.

    ``horizon`` is how far behind the newest event a request may be, in microseconds; of ``keys`` the meta entry is the
    one to change. ``done`` is what the last run of :meth:`change` would store, ``hot`` are keys that have segments.
    """

    def __init__(
        self, plan: ViewPlan, shape: Shape, arrivals: Arrivals, horizon: int, batch: EventBatch, keys: StateKeys
    ) -> None:
        self._plan, self._shape, self._arrivals, self._batch, self.keys = plan, shape, arrivals, batch, keys
        self._blocks = [self.keys.blocks + name for name in arrivals.names]
        self._more: list[bytes] = []
        counted = plan.source.sequence is None and len(arrivals) > 0
        self._positions = ("table" if batch.offset is None else "stream") if counted else None
        visible = arrivals.visible_at
        newest = int(visible.max(initial=NEVER))
        present = newest if batch.now is None else min(newest, batch.now)
        # A row dated in the future is no sign of a fresh state.
        self._watermark = newest if present == newest else int(visible[visible <= present].max(initial=NEVER))
        self._horizon = horizon
        self._floor = NEVER if plan.source.timeless or not len(arrivals) else present - horizon
        self._floor = max(self._floor, NEVER if batch.floor is None else batch.floor)
        self.done, self.hot = Applied(0), set[bytes]()

    @property
    def names(self) -> list[bytes]:
        """Entries to read."""
        return [self.keys.meta, *self._blocks, *self._more]

    def ask(self, names: list[bytes]) -> None:
        """Read these entries, too."""
        self._more += names

    def change(self, values: list[bytes | None]) -> dict[bytes, bytes | None]:
        """What to store, given what is stored; AskForMoreError if segments are needed that were not read."""
        before, arrivals = Meta.read(values[0]), self._arrivals
        self.done, self.hot = Applied(0), set()
        offset, applied = self._batch.offset, NEVER if before.offset is None else before.offset
        if offset is not None and (before.place.unfinished or applied >= offset):
            return {}  # these events of a stream wait for the table, or are in
        meta = self._next(before)
        bounds = self._bounds(meta.floor)
        places = np.argsort(arrivals.codes, kind="stable")
        if not (bounds.newest or bounds.lifetime or self._shape.revised):
            places = places[arrivals.event_time[places] >= bounds.limit]
        done = Applied(0, too_old=len(arrivals) - len(places))
        stored = values[1 : 1 + len(self._blocks)]
        blobs = [None if blob is None else bytes(wide_block(self._shape, blob)) for blob in stored]
        layout, lone = self._layout(before, places, blobs)
        more = dict(zip(self._more, values[1 + len(self._blocks) :], strict=True))
        hot = _HotKeys(self._shape, self.keys, arrivals, more, streamed=offset is not None)
        groups = self._groups(layout, lone, places, blobs, hot)
        hot.check()
        result: dict[bytes, bytes | None] = {}
        for group, subset in groups:
            merged = merge(arrivals, group, subset, blobs, bounds)
            done = done.plus(stored=merged.stored, duplicates=merged.duplicates)
            result.update(zip(map(self._blocks.__getitem__, merged.codes.tolist()), merged.blocks, strict=True))
            large = gathered(merged.blocks, 0, 1)[:, 0] > _MOST_ROWS
            large |= np.isin(merged.codes, list(hot.indexes))
            for place in np.flatnonzero(large).tolist():
                result |= hot.close(int(merged.codes[place]), merged.blocks[place], bounds)
        result = {name: hot.packed(name, blob) for name, blob in result.items()}
        self.done, self.hot = done, {arrivals.names[code] for code in hot.indexes}
        counts = {name: getattr(before, name) + getattr(done, name) for name in ("stored", "duplicates", "too_old")}
        result[self.keys.meta] = replace(meta, layout=layout.key, **counts).write()
        return result

    def _bounds(self, floor: int) -> Bounds:
        plan = self._plan
        if plan.source.timeless:
            # Only the last fact is ever read; but totals need all, so that a redelivery is known as one.
            limit = NEVER if plan.lifetime else NEVER + 1
            return Bounds(limit, NEVER + 1, newest=not plan.lifetime, lifetime=plan.lifetime)
        limit = NEVER if plan.keeps_all else floor - plan.lookback_us
        return Bounds(limit, floor, plan.unbounded, plan.lifetime)

    def _layout(self, meta: Meta, places: Ints, blobs: list[bytes | None]) -> tuple[Layout, set[int]]:
        """Layout that the keys of the batch share, and the keys that need one of their own."""
        arrivals, shape = self._arrivals, self._shape
        shared = layout_of(shape, meta.layout) if meta.layout else None
        lone: set[int] = set()
        layout = arrivals.layout(places)
        wider = layout if shared is None else widened(shared, layout)
        if Arrivals.wide(wider):
            lone = set(arrivals.outliers().tolist())
            layout = arrivals.layout(places[~np.isin(arrivals.codes[places], list(lone))])
            wider = layout if shared is None else widened(shared, layout)
        if Arrivals.wide(wider):
            lone = set(arrivals.codes.tolist())
            wider = shared or arrivals.layout(places[:0])
        # A layout names the kind of its sequence, which is not zero: nothing but zeros is no block.
        layouts = gathered(blobs, 8 * FIXED, shape.layout_bytes // 8)
        other = (layouts != np.frombuffer(wider.key, dtype="<i8")).any(axis=1) & layouts.any(axis=1)
        fits: dict[bytes, bool] = {}
        for code in np.flatnonzero(other).tolist():
            blob = blobs[code] or b""
            key = blob[8 * FIXED : shape.head_bytes]
            if key not in fits:
                fits[key] = widened(layout_of(shape, key), wider).key == wider.key
            if fits[key] and not is_hot(blob):
                blobs[code] = converted(shape, blob, wider)
            else:
                lone.add(code)
        return wider, lone

    def _groups(
        self, layout: Layout, lone: set[int], places: Ints, blobs: list[bytes | None], hot: _HotKeys
    ) -> list[tuple[Layout, Ints]]:
        """Events by the layout of their blocks; segments that they fall into are reopened."""
        arrivals, shape = self._arrivals, self._shape
        codes = arrivals.codes[places]
        alone = np.isin(codes, list(lone)) if lone else np.zeros(len(places), dtype=np.bool_)
        groups = [(layout, places[~alone])]
        for code in np.unique(codes[alone]).tolist():
            subset, blob = places[codes == code], blobs[code]
            lone_layout = arrivals.layout(subset)
            if blob is None:
                groups.append((widened(layout, lone_layout), subset))
                continue
            stored_layout = layout_of(shape, blob[8 * FIXED : shape.head_bytes])
            # The segments of a hot key all have its layout, so it is widened for nothing less than its own values.
            if not is_hot(blob):
                lone_layout = widened(layout, lone_layout)
            lone_layout = widened(stored_layout, lone_layout)
            if lone_layout.key != stored_layout.key:
                opened = hot.reopen(code, blob, NEVER) if is_hot(blob) else blob
                blobs[code] = None if opened is None else converted(shape, opened, lone_layout)
            groups.append((lone_layout, subset))
        for code in np.flatnonzero(gathered(blobs, 8, 1)[:, 0] & HOT).tolist():
            if code not in hot.indexes:
                inside = codes == code
                if inside.any():
                    blobs[code] = hot.reopen(code, blobs[code] or b"", int(arrivals.event_time[places[inside]].min()))
        return groups

    def _next(self, meta: Meta) -> Meta:
        if self._positions is not None and meta.positions not in {None, self._positions}:
            raise DefinitionError(
                "a source that is fed from a table and from a stream must have a sequence",
                where=f"source {self._plan.source.name!r}",
                got=f"events from a {self._positions}, after some from a {meta.positions}",
                remedy="Declare sequence= with the column that holds the event's id",
            )
        kinds, new = meta.kinds or self._arrivals.kinds, self._arrivals.kinds
        kinds = tuple(now if old == "null" else old for old, now in zip(kinds, new, strict=True))
        if any(now not in {old, "null"} for old, now in zip(kinds, new, strict=True)):
            raise InputError(
                "the keys of a source must keep their kind",
                where=f"{self._plan.where}, online state",
                got=new,
                remedy=f"The state holds keys of kind {', '.join(kinds)}",
            )
        return replace(
            meta,
            floor=max(meta.floor, self._floor),
            watermark=max(meta.watermark, self._watermark),
            offset=meta.offset if self._batch.offset is None else self._batch.offset,
            positions=self._positions or meta.positions,
            kinds=kinds,
            place=self._batch.place or meta.place,
            horizon=self._horizon if NEVER < self._floor >= meta.floor else meta.horizon,
        )


class _HotKeys:
    """Segments of the hot keys of a batch: opened where events fall into them, closed where a block grew large."""

    def __init__(
        self,
        shape: Shape,
        keys: StateKeys,
        arrivals: Arrivals,
        more: dict[bytes, bytes | None],
        *,
        streamed: bool,
    ) -> None:
        self._shape, self._keys, self._names, self._more, self._streamed = shape, keys, arrivals.names, more, streamed
        self._missing: list[bytes] = []
        self._opened: dict[int, list[int]] = {}
        self.indexes: dict[int, Index | None] = {}

    def check(self) -> None:
        """Raise if something is needed that was not read."""
        if self._missing:
            raise AskForMoreError(self._missing)

    def reopen(self, code: int, blob: bytes, since: int) -> bytes | None:
        """Head of a key with every segment in it that holds events at or after a time; None if more must be read."""
        name = self._names[code]
        stored = self._read([self._keys.index(name)])
        if stored is None:
            return None
        index = Index.read(self._shape, stored[0])
        numbers = index.since(since)
        segments = self._read([self._keys.segment(name, number) for number in numbers])
        if segments is None:
            return None
        self.indexes[code], self._opened[code] = index, numbers
        if numbers:
            blob, self.indexes[code] = reopened(self._shape, blob, index, segments)
        return blob

    def _read(self, names: list[bytes]) -> list[bytes] | None:
        missing = [name for name in names if name not in self._more]
        self._missing += missing
        return None if missing else [self._more[name] or b"" for name in names]

    def packed(self, name: bytes, blob: bytes | None) -> bytes | None:
        """Entry as it is stored: with narrow rows, but for heads that a stream writes anew with every batch."""
        wide = blob is None or self._keys.is_index(name) or (self._streamed and is_hot(blob))
        return blob if blob is None or wide else narrow_block(self._shape, blob)

    def close(self, code: int, block: bytes, bounds: Bounds) -> dict[bytes, bytes | None]:
        """What to store of a key whose block is large or has segments."""
        name, index = self._names[code], self.indexes.get(code)
        if self._shape.revised or self._shape.timeless:
            return {}
        removed = set(self._opened.get(code, []))
        result: dict[bytes, bytes | None] = {}
        closed = close(self._shape, block, index, bounds.limit, bounds.floor)
        if closed is not None:
            index, removed = closed.index, removed | set(closed.removed)
            result = {self._keys.segment(name, number): blob for number, blob in closed.segments.items()}
            result[self._keys.blocks + name] = closed.head
            self.indexes[code] = index
        if closed is not None or removed:
            result[self._keys.index(name)] = None if index is None else index.write()
        # A segment that was opened may have been written anew under its number: what is written wins.
        return {**{self._keys.segment(name, number): None for number in removed}, **result}
