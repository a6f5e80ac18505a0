"""Feature values of one request from online state: one read of the key store, then searches in packed blocks.

A live read goes from the newest block to the oldest with one running total, so all windows of a view share the work.
The same rule of visibility as offline applies to every event, so the state may be ahead of the request: a value is
exactly what a training frame at that time holds, or it is null and the status says why.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from retrodict.core.errors import InputError, near
from retrodict.features.blocks import FIXED, FLOAT, MONOTONE, NULL, PER_SUM, decode, encode, take, value_of
from retrodict.features.evaluation import derive_row
from retrodict.features.finishing import Finisher, Parts
from retrodict.features.keys import encode_key
from retrodict.features.plan import FeatureSet, ViewPlan
from retrodict.features.state import StateKeys
from retrodict.stores.keys.base import KeyStore

__all__ = ["FeatureRow", "OnlineFeatures"]

_SHIFT = 1 << 62


@dataclass(slots=True)
class FeatureRow:
    """Features of one request.

    Attributes
    ----------
    values : dict of str to int, float, bool, str or None
        By full name, in the order of the feature set; times as microseconds.
    statuses : dict of str to str
        Per view: ``ok``; ``null_key``; ``no_state`` (nothing was ever written for the view); ``unseen`` (no visible
        event of this key within reach); ``beyond_horizon`` (the request is too old for the state: values are null).
    events : dict of str to int
        Per view: visible events within reach of its widest window, or 1 for a latest value.
    """

    values: dict[str, Any] = field(default_factory=dict)
    statuses: dict[str, str] = field(default_factory=dict)
    events: dict[str, int] = field(default_factory=dict)


class OnlineFeatures:
    """Reads the features of a set for one request at a time.

    Safe to share between threads if the key store is.

    Parameters
    ----------
    features : FeatureSet
        What to read.
    keys : KeyStore
        Where :class:`~retrodict.features.state.OnlineState` writes.
    """

    def __init__(self, features: FeatureSet, keys: KeyStore) -> None:
        self.features = features
        self._keys = keys
        self._views = [_ViewReader(plan) for plan in features.views]
        self._all = set(features.columns)

    def read(self, entities: Mapping[str, Any], context: Mapping[str, Any], at: int) -> FeatureRow:
        """Features of a request at a time, with one read of the key store.

        Parameters
        ----------
        entities : mapping
            Value of every entity column; None gives null features.
        context : mapping
            Other columns of the request: inputs of derived functions, the request's own event.
        at : int
            Microseconds since 1970-01-01 UTC.

        Raises
        ------
        InputError
            If an entity or an input is missing.
        """
        request = {**entities, **context}
        names: list[bytes] = []
        spans = []
        for view in self._views:
            first = len(names)
            spans.append((first, view.names(request, at, names)))
        blobs = self._keys.get_many(names) if names else []
        row = FeatureRow()
        for view, (first, bucket) in zip(self._views, spans, strict=True):
            view.read(request, at, blobs, first, bucket, row)
        if self.features.derived:
            derive_row(self.features, request, row.values)
            row.values = {name: row.values[name] for name in self.features.columns}
        return row

    def explain(self, entities: Mapping[str, Any], context: Mapping[str, Any], at: int) -> dict[str, list[Any]]:
        """Sequence ids of the events each feature is made of (positions if the source declares no sequence)."""
        request = {**entities, **context}
        found: dict[str, list[Any]] = {}
        for view in self._views:
            names: list[bytes] = []
            bucket = view.names(request, at, names)
            found |= view.explain(at, self._keys.get_many(names) if names else [], bucket)
        return found


class _ViewReader:
    """Everything about a view that can be prepared before the first request."""

    def __init__(self, plan: ViewPlan) -> None:
        self.plan, self.keys = plan, StateKeys(plan)
        self._bucket_us, self._lookback = self.keys.bucket_us, plan.lookback_us
        self._windows = [(window.length_us, window.hop_us, i) for i, window in enumerate(plan.windows)]
        self._sums = [i for i, channel in enumerate(plan.channels) if channel.monoid == "sum"]
        self._extremes = [i for i, channel in enumerate(plan.channels) if channel.monoid != "sum"]
        self._largest = [plan.channels[i].monoid == "max" for i in self._extremes]
        self._head = FIXED + PER_SUM * len(self._sums) + len(self._extremes) + len(plan.latest)
        self._columns = 4 + len(plan.channels) + 2 * len(plan.latest)
        self._layout_end = 8 * (FIXED + PER_SUM * len(self._sums))
        self._finisher = Finisher(plan)
        self._latest = [(o.column, o.parts[0], o.max_age) for o in plan.outputs if o.op == "latest"]
        self._where = f"{plan.where}, request"

    def names(self, request: Mapping[str, Any], at: int, names: list[bytes]) -> int | None:
        """Append the entries to read; returns the bucket of the first block, None if a part of the key is null."""
        try:
            values = [request[key] for key in self.plan.request_keys]
        except KeyError as error:
            missing = str(error.args[0])
            raise InputError(
                "the request has every entity of its features",
                where=self._where,
                got=missing,
                remedy=near(missing, request, what="entity"),
            ) from error
        key = encode_key(values, where=self._where)
        if key is None:
            return None
        names.append(self.keys.meta)
        if self.plan.unbounded:
            names.append(self.keys.newest(key))
        if not self._bucket_us:
            return 0
        first = (at - self._lookback) // self._bucket_us
        prefix = self.keys.prefix + b"W" + key
        names += [
            prefix + (bucket + _SHIFT).to_bytes(8, "big") for bucket in range(first, (at - 1) // self._bucket_us + 1)
        ]
        return first

    def read(
        self,
        request: Mapping[str, Any],
        at: int,
        blobs: list[bytes | None],
        first: int,
        bucket: int | None,
        row: FeatureRow,
    ) -> None:
        """Fill in the view's features from what was read."""
        name = self.plan.name
        row.events[name] = 0
        problem = "null_key" if bucket is None else None
        if bucket is not None:
            meta = blobs[first]
            if meta is None:
                problem = "no_state"
            elif int.from_bytes(meta[:8], "big") - _SHIFT > at:
                problem = "beyond_horizon"
        if problem in {"null_key", "beyond_horizon"} or bucket is None:
            row.statuses[name] = problem or "null_key"
            row.values.update(dict.fromkeys(o.column for o in self.plan.outputs))
            return
        place = first + 1 + self.plan.unbounded
        parts, newest = [Parts() for _ in self._windows], None
        if self._bucket_us:
            count = (at - 1) // self._bucket_us - bucket + 1
            newest, row.events[name] = self._walk(at, blobs[place : place + count], bucket, parts)
        self._finisher.finish(parts, request, row.values)
        if self._latest:
            if self.plan.unbounded:
                newest = self._newest(at, blobs[first + 1])
                row.events[name] = max(row.events[name], int(newest is not None))
            self._read_latest(at, newest, row.values)
        row.statuses[name] = problem or ("ok" if row.events[name] else "unseen")

    def _walk(self, at: int, blobs: list[bytes | None], bucket: int, parts: list[Parts]) -> tuple[Any, int]:
        """From the newest block to the oldest; a window is complete in the block that its start lies in."""
        pending = sorted((((at - length) // hop * hop if hop else at - length), i) for length, hop, i in self._windows)
        running, newest, events = Parts(), None, 0
        begin = (bucket + len(blobs)) * self._bucket_us
        for blob in reversed(blobs):
            begin -= self._bucket_us
            opened = None if blob is None else self._open(blob, at)
            if opened is None:
                while pending and pending[-1][0] >= begin:
                    parts[pending.pop()[1]].copy_from(running)
                continue
            words, n, seen, packed = opened
            if newest is None:
                newest = (packed, words, n, seen - 1, self._head, len(self._extremes), len(self._sums))
            while pending and pending[-1][0] >= begin:
                start, window = pending.pop()
                left = bisect_left(words, start, self._head, self._head + seen) - self._head
                parts[window].copy_from(running)
                self._add(parts[window], packed, words, n, left, seen)
                if not pending:
                    return newest, events + seen - left
            events += seen
            self._add(running, packed, words, n, 0, seen)
        return newest, events

    def _open(self, blob: bytes, at: int) -> tuple[memoryview, int, int, bytes] | None:
        """Words of a block, its size and how many of its first events are visible; None if none is."""
        words = memoryview(blob).cast("q")
        n = words[0]
        head = self._head
        if words[2] < at:
            return words, n, n, blob
        if words[1] & MONOTONE:
            seen = bisect_left(words, at, head + n, head + 2 * n) - head - n
            return (words, n, seen, blob) if seen else None
        # Late events out of order, and the request is before the last of them: keep what it may see.
        rows = decode(self.plan.channels, len(self.plan.latest), blob)
        rows = take(rows, rows.visible_at < at)
        if not len(rows):
            return None
        blob = encode(self.plan.channels, rows)
        return memoryview(blob).cast("q"), len(rows), len(rows), blob

    def _add(self, parts: Parts, blob: bytes, words: memoryview, n: int, left: int, right: int) -> None:
        """Add the events [left, right) of a block."""
        if left >= right:
            return
        width = words[3]
        if width:
            first = self._head + n * self._columns
            total = words[first + right * width : first + (right + 1) * width].tolist()
            if left:
                before = words[first + left * width : first + (left + 1) * width].tolist()
                total = [a - b for a, b in zip(total, before, strict=True)]
            parts.add_sums(blob[8 * FIXED : self._layout_end], total)
        for i, largest in enumerate(self._largest):
            kind = words[FIXED + PER_SUM * len(self._sums) + i]
            begin = self._head + n * (4 + i)
            run = (words.cast("B").cast("d") if kind == FLOAT else words)[begin + left : begin + right]
            parts.add_extreme(i, max(run) if largest else min(run), largest=largest)

    def _newest(self, at: int, blob: bytes | None) -> Any:
        """Newest visible event of an entry that holds only latest values."""
        if blob is None:
            return None
        words = memoryview(blob).cast("q")
        n, head = words[0], FIXED + len(self.plan.latest)
        seen = bisect_left(words, at, head + n, head + 2 * n) - head - n
        return (blob, words, n, seen - 1, head, 0, 0) if seen else None

    def _read_latest(self, at: int, newest: Any, values: dict[str, Any]) -> None:
        if newest is None:
            values.update(dict.fromkeys(column for column, _, _ in self._latest))
            return
        blob, words, n, place, head, extremes, sums = newest
        count = len(self.plan.latest)
        age = at - words[head + place]
        for column, i, max_age in self._latest:
            at_word = head + n * (4 + extremes + sums + 2 * i) + place
            kind = words[head - count + i]
            if kind == NULL or not words[at_word + n] or (max_age is not None and age > max_age):
                values[column] = None
            else:
                heap = 8 * (head + n * (4 + extremes + sums + 2 * count) + (n + 1) * words[3])
                values[column] = value_of(blob, heap, kind, words[at_word])

    def explain(self, at: int, blobs: list[bytes | None], bucket: int | None) -> dict[str, list[Any]]:
        """Sequence ids behind each feature of the view."""
        plan = self.plan
        found: dict[str, list[Any]] = {output.column: [] for output in plan.outputs}
        if bucket is None or blobs[0] is None:
            return found
        rows = [
            decode(plan.channels, len(plan.latest), blob) for blob in blobs[1 + plan.unbounded :] if blob is not None
        ]
        rows = [take(part, part.visible_at < at) for part in rows]
        for output in plan.outputs:
            if output.op == "latest":
                continue
            start = plan.windows[output.window].start(at)
            for part in rows:
                # The last channel of every aggregate counts the events its value is made of.
                inside = (part.event_time >= start) & (part.channels[output.parts[-1]] != 0)
                found[output.column] += part.sequence[inside].tolist()
        last = next((part for part in reversed(rows) if len(part)), None)
        if plan.unbounded:
            kept = None if blobs[1] is None else decode((), len(plan.latest), blobs[1])
            last = None if kept is None else take(kept, kept.visible_at < at)
        for column, _, max_age in self._latest:
            if last is not None and len(last) and (max_age is None or at - int(last.event_time[-1]) <= max_age):
                found[column] = [last.sequence[-1:].tolist()[0]]
        return found
