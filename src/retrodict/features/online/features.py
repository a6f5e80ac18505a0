"""Feature values of requests from online state: one read of the key store, then searches in packed blocks.

The same rule of visibility as offline applies to every event, so the state may be ahead of the request: a value is
exactly what a training frame at that time holds, or it is null and the status says why.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from retrodict.core.errors import InputError, RetryableError, near
from retrodict.features.facts.evaluation import derive_row
from retrodict.features.facts.keys import encode_key
from retrodict.features.online.blocks import FIXED, HOT, Layout, Shape, Summed, base_row, layout_of, pack, unpack
from retrodict.features.online.entries import StateKeys
from retrodict.features.online.explaining import explained
from retrodict.features.online.finishing import OwnEvent
from retrodict.features.online.reading import Read, compiled, restricted
from retrodict.features.online.segments import Index, agree, edges_of, joined, needed
from retrodict.features.plan import FeatureSet, ViewPlan
from retrodict.stores.keys.base import KeyStore

__all__ = ["FeatureRow", "OnlineFeatures", "Status"]

_SHIFT = 1 << 62
_TRIES = 20  # a hot key is written some times a second, a read takes a fraction of a millisecond
_REMEMBERED = 10_000  # hot keys
_WHOLE = 1 << 63
_NO_SUM = Summed(1, 0, floats=False)

_Entry = tuple[bytes | None, bytes | None, bytes | None]

Status = Literal["present", "null", "expired", "not_found", "late"]


@dataclass(slots=True)
class FeatureRow:
    """Features of one request.

    Attributes
    ----------
    values : dict of str to value or None
        By full name, in the order of the feature set; times as microseconds, maps as dict, several values as list.
    statuses : dict of str to str
        Per view: ``ok``; ``null_key``; ``no_state`` (nothing was ever written for the view); ``unseen`` (no visible
        event of this key within reach); ``beyond_horizon`` (the request is too old for the state: values are null).
    events : dict of str to int
        Per view: visible events within reach of its widest window, or 1 for a latest value.
    expired : set of str
        Latest values that are older than their ``max_age``, and views whose events are all out of reach.
    """

    values: dict[str, Any] = field(default_factory=dict)
    statuses: dict[str, str] = field(default_factory=dict)
    events: dict[str, int] = field(default_factory=dict)
    expired: set[str] = field(default_factory=set)

    def status(self, name: str) -> Status:
        """Why a feature has the value it has.

        Parameters
        ----------
        name : str
            Full name of a feature of a view.

        Returns
        -------
        str
            ``present``; ``null`` (the newest event says so, or nothing in the window gives a value, or a part of the
            key is null); ``expired`` (events of the key are known, all out of reach); ``not_found`` (the key has
            none); ``late`` (the request is older than what the state answers exactly).
        """
        view = name.partition("__")[0]
        found = self.statuses.get(view, "ok")
        if found == "beyond_horizon":
            return "late"
        if found in {"unseen", "no_state"}:
            return "expired" if view in self.expired else "not_found"
        if self.values[name] is not None:
            return "present"
        return "expired" if name in self.expired else "null"


class OnlineFeatures:
    """Reads the features of a set for one request at a time.

    Safe to share between threads if the key store is.

    Parameters
    ----------
    features : FeatureSet
        What to read.
    keys : KeyStore
        Where :class:`~retrodict.features.online.state.OnlineState` writes.
    """

    def __init__(self, features: FeatureSet, keys: KeyStore) -> None:
        self.features = features
        self._keys = keys
        self._views = [_ViewReader(plan) for plan in features.views]

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
        return self._row(request, at, (at + _SHIFT).to_bytes(8, "big"), self._fetch(request, at))

    def read_many(self, requests: Sequence[Mapping[str, Any]], at: int) -> list[FeatureRow]:
        """Features of many requests at one time, with one read of the key store; equal to one :meth:`read` each.

        Parameters
        ----------
        requests : sequence of mapping
            Entity columns and other columns of each request.
        at : int
            Microseconds since 1970-01-01 UTC.
        """
        moment = (at + _SHIFT).to_bytes(8, "big")
        fetched = zip(*self._fetch_many(requests, at), strict=True)
        return [
            self._row(request, at, moment, entries)
            for request, entries in zip(requests, fetched if self._views else [()] * len(requests), strict=True)
        ]

    def _row(self, request: Mapping[str, Any], at: int, moment: bytes, entries: Sequence[_Entry]) -> FeatureRow:
        row = FeatureRow()
        for view, (key, meta, blob) in zip(self._views, entries, strict=True):
            if key is None:
                view.absent("null_key", request, at, row)
            else:
                view.read(request, at, moment, meta, blob, row)
        if self.features.derived:
            derive_row(self.features, request, row.values)
            row.values = {name: row.values[name] for name in self.features.columns}
        return row

    def _fetch_many(self, requests: Sequence[Mapping[str, Any]], at: int) -> list[list[_Entry]]:
        """What ``_fetch`` gives, per view and request; each meta entry is read once."""
        names = [view.meta for view in self._views]
        known: dict[tuple[str, ...], list[bytes | None]] = {}
        for view in self._views:
            if view.request_keys not in known:
                known[view.request_keys] = [view.key(request) for request in requests]
            names += [view.prefix + key for key in known[view.request_keys] if key is not None]
        blobs = self._keys.get_many(names) if names else []
        found, rest = [], iter(blobs[len(self._views) :])
        for view, meta in zip(self._views, blobs, strict=False):
            entries: list[_Entry] = []
            for key in known[view.request_keys]:
                blob = None if key is None else next(rest)
                if key is not None and blob is not None and blob[8] & HOT:
                    blob = view.gather(self._keys, key, at, None, None, whole=False)
                entries.append((key, meta, blob))
            found.append(entries)
        return found

    def _fetch(self, request: Mapping[str, Any], at: int, *, whole: bool = False) -> list[_Entry]:
        """Key, meta entry and block of every view; of a hot key what the request needs of it, as one block."""
        names: list[bytes] = []
        known: list[bytes | None] = []
        seen: dict[tuple[str, ...], bytes | None] = {}
        for view in self._views:
            columns = view.request_keys
            key = seen[columns] if columns in seen else seen.setdefault(columns, view.key(request))
            known.append(key)
            if key is not None:
                names += (view.meta, view.prefix + key)
                if key in view.hot:
                    names.append(view.index(key))
        blobs = self._keys.get_many(names) if names else []
        found: list[_Entry] = []
        place = 0
        for view, key in zip(self._views, known, strict=True):
            if key is None:
                found.append((None, None, None))
                continue
            meta, blob = blobs[place : place + 2]
            place += 2
            index = None
            if key in view.hot:
                index, place = blobs[place], place + 1
            if blob is not None and blob[8] & HOT:
                blob = view.gather(self._keys, key, at, blob, index, whole=whole)
            found.append((key, meta, blob))
        return found

    def explain(self, entities: Mapping[str, Any], context: Mapping[str, Any], at: int) -> dict[str, list[Any]]:
        """Sequence ids of the events each feature is made of (positions if the source declares no sequence)."""
        found: dict[str, list[Any]] = {}
        for view, (_, _, blob) in zip(self._views, self._fetch({**entities, **context}, at, whole=True), strict=True):
            found |= view.explain(at, blob)
        return found


class _ViewReader:
    """Everything about a view that can be prepared before the first request."""

    def __init__(self, plan: ViewPlan) -> None:
        self.plan, self._shape = plan, Shape(plan)
        names = self._names = StateKeys(plan)
        self.index = names.index
        self.hot: set[bytes] = set()  # keys seen to have segments: their index is read at once
        self.meta, self.prefix, self.request_keys = names.meta, names.blocks, plan.request_keys
        self._name, self._where = plan.name, f"{plan.where}, request"
        self._head, self._layout_end = 8 * FIXED, self._shape.head_bytes
        self._readers: dict[bytes, Read] = {}
        self._own = OwnEvent(plan) if plan.needs_current else None
        self._nulls = dict.fromkeys(output.column for output in plan.outputs)
        layout = Layout(
            self._shape,
            tuple(_NO_SUM for _ in self._shape.sums),
            1,
            (1,) * len(self._shape.extremes),
            (0,) * len(plan.kept),
        )
        self._empty = pack(layout, base_row(layout), b"", flags=0, visible=-_SHIFT, heap_rows=0)
        self._nothing: dict[str, Any] = {}

    def key(self, request: Mapping[str, Any]) -> bytes | None:
        """Encoded key of the view in a request, None if a part of it is null."""
        try:
            values = [request[key] for key in self.request_keys]
        except KeyError as error:
            missing = str(error.args[0])
            raise InputError(
                "the request has every entity of its features",
                where=self._where,
                got=missing,
                remedy=near(missing, request, what="entity"),
            ) from error
        if len(values) == 1 and type(values[0]) is int and -_WHOLE <= values[0] < _WHOLE:
            return b"i\0\x08" + values[0].to_bytes(8, "big", signed=True)  # what encode_key gives, for a frequent key
        return encode_key(values, where=self._where)

    def gather(
        self, keys: KeyStore, key: bytes, at: int, head: bytes | None, index: bytes | None, *, whole: bool
    ) -> bytes | None:
        """Block of a hot key: its head, and of its segments those that a request reads; all of them if ``whole``.

        Head and index come from one read, the segments from the next. A writer may come in between: pieces that do not
        agree are read again.
        """
        if len(self.hot) < _REMEMBERED:
            self.hot.add(key)
        for _ in range(_TRIES):
            if index is None:
                head, index = keys.get_many([self.prefix + key, self.index(key)])
            if head is None or not head[8] & HOT:
                return head
            if index is not None:
                opened = Index.read(self._shape, index)
                ahead = int.from_bytes(head[16:24], "little", signed=True) >= at
                numbers = opened.numbers if whole else needed(self.plan, opened, at, ahead=ahead)
                found = keys.get_many([self._names.segment(key, number) for number in numbers]) if numbers else []
                segments = {number: blob for number, blob in zip(numbers, found, strict=True) if blob is not None}
                if len(segments) == len(numbers) and agree(self._shape, head, opened, segments):
                    edges = None if whole or self.plan.bags else edges_of(self.plan, at)
                    return joined(self._shape, head, opened, segments, at=at, edges=edges)
            index = None
        raise RetryableError(
            "the events of a key hold still for the time of a read", where=self._where, remedy="Ask again"
        )

    def read(
        self,
        request: Mapping[str, Any],
        at: int,
        moment: bytes,
        meta: bytes | None,
        blob: bytes | None,
        row: FeatureRow,
    ) -> None:
        """Fill in the view's features from what was read."""
        if meta is None or meta[:8] > moment:
            self.absent("no_state" if meta is None else "beyond_horizon", request, at, row)
            return
        if blob is None:
            self.absent("unseen", request, at, row)
            return
        own = {} if self._own is None else self._own.lift(request)
        events = self._reader(blob)(blob, at, row.values, row.expired, own)
        row.events[self._name] = events
        row.statuses[self._name] = "ok" if events else "unseen"
        if not events:
            row.expired.add(self._name)

    def absent(self, status: str, request: Mapping[str, Any], at: int, row: FeatureRow) -> None:
        """Fill in what the features are without events, or null where that cannot be said."""
        row.events[self._name] = 0
        row.statuses[self._name] = status
        if status in {"null_key", "beyond_horizon"}:
            row.values.update(self._nulls)
        elif self._own is not None:
            self._reader(self._empty)(self._empty, at, row.values, set(), self._own.lift(request))
        else:
            if not self._nothing:
                self._reader(self._empty)(self._empty, at, self._nothing, set(), {})
            row.values.update(self._nothing)

    def _reader(self, blob: bytes) -> Read:
        key = blob[self._head : self._layout_end]
        found = self._readers.get(key)
        if found is None:
            found = self._readers[key] = compiled(self.plan, layout_of(self._shape, key))
        return found

    def explain(self, at: int, blob: bytes | None) -> dict[str, list[Any]]:
        """Sequence ids behind each feature of the view."""
        plan = self.plan
        if blob is None:
            return {output.column: [] for output in plan.outputs}
        return explained(plan, self._shape, unpack(self._shape, restricted(self._shape, blob, at)), at)
