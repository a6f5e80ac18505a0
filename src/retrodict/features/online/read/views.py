"""One view of a feature set at request time: its keys, its hot keys, and how its blocks become values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, cast

from retrodict.core.errors import InputError, IntegrityError, RetryableError, check_known
from retrodict.features.facts.keys import encode_key
from retrodict.features.online.read.event import OwnEvent
from retrodict.features.online.read.explanation import explained
from retrodict.features.online.read.programs import OTHER, PARTED, RESTRICT, program_of
from retrodict.features.online.read.reader import BlockReader, restricted
from retrodict.features.online.read.rows import FeatureRow, Place
from retrodict.features.online.state.blocks import (
    HOT,
    Layout,
    Shape,
    SummedBlock,
    base_row,
    layout_in,
    pack,
    unpack,
    visible_in,
)
from retrodict.features.online.state.entries import NEVER, Meta, StateKeys
from retrodict.features.online.state.segments import Index, agree, edges_of, joined, needed
from retrodict.features.plan import ViewPlan
from retrodict.stores.keys.base import KeyStore, SnapshotReads

_TRIES = 20  # a hot key is written some times a second, a read takes a fraction of a millisecond
_REMEMBERED = 10_000  # hot keys
_PLACES = 100
_WHOLE = 1 << 63
_NEVER = -(1 << 62)
_NO_SUM = SummedBlock(1, 0, floats=False)

_Program = Callable[[bytes, int, dict[str, Any], set[str], bool], int]
_Reading = tuple[_Program, BlockReader | None]
"""A program, and what reads the features that it skips."""


@lru_cache
def _lends(store: type) -> bool:
    """Whether stores of a class have snapshot reads: to look through a protocol costs as much as a read."""
    return issubclass(store, SnapshotReads)


def floor_at(at: int) -> bytes:
    """A time as the floors of meta entries are written."""
    return (at - _NEVER).to_bytes(8, "big")


def _no_program(*_: object) -> int:
    return OTHER


class ViewReader:
    """Everything about a view that can be prepared before the first request.

    ``metas`` are the names of its meta entries, one per partition, and ``meta`` is the only one of them, None if the
    key says which; ``prefix`` begins the names of blocks, and the encoded key follows. ``hot`` are keys seen to have
    segments: their index is read at once.
    """

    def __init__(self, plan: ViewPlan, partitions: int) -> None:
        self.request_keys, self.hot = plan.request_keys, set[bytes]()
        self._plan, self._shape = plan, Shape(plan)
        names = self._names = StateKeys(plan, partitions=partitions)
        self.metas, self.prefix, self.index, self.meta_of = names.metas, names.blocks, names.index, names.meta_of
        self.meta = names.meta if partitions == 1 else None
        self.name, self._where = plan.name, f"{plan.where}, request"
        self._program: _Reading = _no_program, None  # those of the layout met last: most blocks have the same
        self._programs: dict[bytes, tuple[_Reading, BlockReader]] = {}
        self._own = OwnEvent(plan) if plan.needs_current else None
        self.revised = self._shape.revised
        self._nulls = dict.fromkeys(output.column for output in plan.outputs)
        self._nothing: dict[str, Any] = {}
        self._watermark: tuple[list[bytes | None], int | None] = [], None
        self._places: dict[bytes | None, Place] = {}

    def key(self, request: Mapping[str, Any]) -> bytes | None:
        """Encoded key of the view in a request, None if a part of it is null."""
        try:
            values = [request[key] for key in self.request_keys]
        except KeyError as error:
            rule = "the request must have every entity of its features"
            check_known(str(error.args[0]), request, rule, where=self._where, what="entity", error=InputError)
            raise
        if len(values) == 1 and type(values[0]) is int and -_WHOLE <= values[0] < _WHOLE:
            return b"i\0\x08" + values[0].to_bytes(8, "big", signed=True)  # what encode_key gives, for a frequent key
        return encode_key(values, where=self._where)

    def gather(
        self,
        keys: KeyStore,
        key: bytes,
        at: int,
        head: bytes | None,
        index: bytes | None,
        *,
        complete: bool,
        places: dict[str, Place] | None = None,
    ) -> bytes | None:
        """Block of a key; of a hot one its head, and of its segments those that a request reads, or all (``complete``).

        An embedded store gives all of it of one state, and copies nothing. From a server head and index come in one
        read and the segments in the next. A writer may come in between: pieces that do not agree are read again. What
        the state contains that is read is noted in ``places``.
        """
        if _lends(type(keys)):
            with cast("SnapshotReads", keys).reading() as get:
                if places is not None and (state := get(self.meta_of(key))) is not None:
                    places[self.name] = self.place(bytes(state))
                return self._gathered(get, key, at, complete=complete)
        for _ in range(_TRIES):
            if index is None:
                head, index, meta = keys.get_many([self.prefix + key, self.index(key), self.meta_of(key)])
                if places is not None:
                    places[self.name] = self.place(meta)
            if head is None or not head[8] & HOT:
                return head
            if len(self.hot) < _REMEMBERED:
                self.hot.add(key)
            if index is not None:
                opened = Index.read(self._shape, index)
                numbers = self._needed(opened, head, at, complete=complete)
                blobs = keys.get_many([self._names.segment(key, number) for number in numbers]) if numbers else []
                segments = {number: blob for number, blob in zip(numbers, blobs, strict=True) if blob is not None}
                if len(segments) == len(numbers) and agree(self._shape, head, opened, segments):
                    return self._joined(head, opened, segments, at, complete=complete)
            index = None
        raise RetryableError(
            "the events of a key must stand still for the time of a read",
            where=self._where,
            got=f"{_TRIES} reads, each overtaken by a write",
            remedy="Ask again",
        )

    def _gathered(
        self, get: Callable[[bytes], memoryview | None], key: bytes, at: int, *, complete: bool
    ) -> bytes | None:
        head = get(self.prefix + key)
        if head is None or not head[8] & HOT:
            return None if head is None else bytes(head)
        index = get(self.index(key))
        opened = None if index is None else Index.read(self._shape, index)
        numbers = [] if opened is None else self._needed(opened, head, at, complete=complete)
        segments = {number: get(self._names.segment(key, number)) for number in numbers}
        stored = {number: blob for number, blob in segments.items() if blob is not None}
        if opened is None or len(stored) < len(numbers):
            raise IntegrityError(
                "the segments of a key must be in the state beside its head",
                where=self._where,
                got=f"{len(stored)} of {len(numbers)}",
                remedy="Name an empty key store and run: retrodict features build",
            )
        return self._joined(head, opened, stored, at, complete=complete)

    def whole(self, keys: SnapshotReads, key: bytes, limit: int) -> tuple[int, bytes | None]:
        """Greatest v and block of a hot key in one piece; None where its segments have more than ``limit`` bytes."""
        with keys.reading() as get:
            head, index = get(self.prefix + key), get(self.index(key))
            if head is None or index is None or not head[8] & HOT:
                return _NEVER, None
            opened = Index.read(self._shape, index)
            if opened.events * opened.layout.words * 8 > limit:
                return _NEVER, None
            return visible_in(head), self._gathered(get, key, 0, complete=True)

    def _needed(self, index: Index, head: bytes | memoryview, at: int, *, complete: bool) -> list[int]:
        ahead = visible_in(head) >= at
        return index.numbers if complete else needed(self._plan, index, at, ahead=ahead)

    def _joined(
        self,
        head: bytes | memoryview,
        index: Index,
        segments: Mapping[int, bytes | memoryview],
        at: int,
        *,
        complete: bool,
    ) -> bytes:
        edges = None if complete or self._plan.bags else edges_of(self._plan, at)
        return joined(self._shape, head, index, segments, at=at, edges=edges)

    def read(self, request: Mapping[str, Any], at: int, blob: bytes, row: FeatureRow) -> int:
        """Fill in the view's features from a block; ``PARTED`` if it is only the head of a hot key."""
        program, rest = self._program
        events = program(blob, at, row.values, row.expired, False)
        if events < 0:
            events = self._slowly(request, at, blob, row)
            if events == PARTED:
                return PARTED
        elif rest is not None:
            rest.read(blob, at, row.values, row.expired, self._lifted(request, at))
        row.events[self.name] = events
        row.statuses[self.name] = "ok" if events else "unseen"
        if not events:
            row.expired.add(self.name)
        return events

    def _slowly(self, request: Mapping[str, Any], at: int, blob: bytes, row: FeatureRow) -> int:
        """The same for a block that the program at hand did not take."""
        if blob[8] & HOT:
            return PARTED
        layout = layout_in(self._shape, blob)
        self._program, reader = self._programs.get(layout.key) or self._prepare(layout)
        program, rest = self._program
        events = program(blob, at, row.values, row.expired, False)
        if events == RESTRICT:
            blob = restricted(self._shape, blob, at)
            events = program(blob, at, row.values, row.expired, True)
        if events < 0:
            return reader.read(blob, at, row.values, row.expired, self._lifted(request, at))
        if rest is not None:
            rest.read(blob, at, row.values, row.expired, self._lifted(request, at))
        return events

    def _prepare(self, layout: Layout) -> tuple[_Reading, BlockReader]:
        """What reads the blocks of a layout: its program, and the reader of all features."""
        plan = self._plan
        program, skipped = program_of(plan, layout) or (_no_program, [])
        rest = BlockReader(plan, layout, skipped) if skipped else None
        self._programs[layout.key] = (program, rest), BlockReader(plan, layout)
        return self._programs[layout.key]

    def _lifted(self, request: Mapping[str, Any], at: int) -> dict[int, Any]:
        return {} if self._own is None else self._own.lift(request, at)

    def reach(self, keys: KeyStore) -> tuple[int, int] | None:
        """Earliest and latest request that the state answers for certain, of all partitions; None without a clock."""
        if self._plan.source.timeless:
            return None
        metas = [Meta.read(blob) for blob in keys.get_many(self.metas)]
        return max(meta.floor for meta in metas), max(meta.watermark for meta in metas) + 1

    def watermark(self, metas: list[bytes | None]) -> int | None:
        """When the newest event in the state became visible, by the meta entries of its partitions."""
        if metas != self._watermark[0]:  # a busy state changes some times a second, requests come more often
            newest = max(Meta.read(blob).watermark for blob in metas)
            self._watermark = metas, newest if newest != NEVER else None
        return self._watermark[1]

    def place(self, meta: bytes | None) -> Place:
        """What of table and stream a partition contains, by its meta entry."""
        place = self._places.get(meta)
        if place is None:
            if len(self._places) > _PLACES:  # a busy state changes some times a second
                self._places.clear()
            state = Meta() if meta is None or self._names.is_cut(meta) else Meta.read(meta)
            version = None if state.place.unfinished else state.place.version
            place = self._places[meta] = version, state.place.rows, state.offset
        return place

    def unanswered(
        self, keys: KeyStore, meta: bytes | None, floor: bytes, request: Mapping[str, Any], at: int, row: FeatureRow
    ) -> None:
        """Fill in the features where there is no state, none for so old a request, or none of the key.

        ConfigurationError if the state has another number of partitions.
        """
        if meta is not None and meta[:8] <= floor:
            self.absent("unseen", request, at, row)
            return
        self._names.check(meta if self.meta else keys.get_many([self._names.cut])[0])
        state = None if meta is None else Meta.read(meta)
        empty = state is None or state.place.unfinished
        self.absent("no_state" if empty else "beyond_horizon", request, at, row)

    def absent(self, status: str, request: Mapping[str, Any], at: int, row: FeatureRow) -> None:
        """Fill in what the features are without events, or null where that cannot be said."""
        row.events[self.name] = 0
        row.statuses[self.name] = status
        if status in {"null_key", "beyond_horizon", "no_state"}:
            row.values.update(self._nulls)
        elif self._own is not None:
            self._without_events(at, row.values, self._lifted(request, at))
        else:
            if not self._nothing:
                self._without_events(at, self._nothing, {})
            row.values.update(self._nothing)

    def _without_events(self, at: int, values: dict[str, Any], current: Mapping[int, Any]) -> None:
        shape = self._shape
        sums = tuple(_NO_SUM for _ in shape.sums)
        layout = Layout(shape, sums, 1, (1,) * len(shape.extremes), (0,) * len(self._plan.kept))
        empty = pack(layout, base_row(layout), b"", flags=0, visible=_NEVER, heap_rows=0)
        _, reader = self._programs.get(layout.key) or self._prepare(layout)
        reader.read(empty, at, values, set(), current)

    def explain(self, at: int, blob: bytes | None) -> dict[str, list[Any]]:
        """Sequence ids behind each feature of the view."""
        plan = self._plan
        if blob is None:
            return {output.column: [] for output in plan.outputs}
        return explained(plan, self._shape, unpack(self._shape, restricted(self._shape, blob, at)), at)
