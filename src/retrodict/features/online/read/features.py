"""Feature values of requests from online state: one read of the key store, then searches in packed blocks.

The same rule of visibility as offline applies to every event, so the state may be ahead of the request: a value is
exactly what a training frame at that time holds, or it is null and the status says why.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from retrodict.core.errors import InputError, check_known
from retrodict.features.facts.evaluation import derive_row
from retrodict.features.online.read.programs import PARTED
from retrodict.features.online.read.rows import FeatureRow
from retrodict.features.online.read.views import ViewReader, floor_at
from retrodict.features.online.read.whole import WholeBlocks
from retrodict.features.plan import FeatureSet
from retrodict.stores.keys.base import KeyStore, SnapshotReads

__all__ = ["OnlineFeatures"]


class OnlineFeatures:
    """Reads the features of a set for one request at a time.

    Safe to share between threads if the key store is.

    Parameters
    ----------
    features : FeatureSet
        What to read.
    keys : KeyStore
        Where :class:`~retrodict.features.online.write.writer.OnlineState` writes.
    partitions : int, default 1
        How many partitions the state has; a state with another number is refused when it is read.
    """

    def __init__(self, features: FeatureSet, keys: KeyStore, *, partitions: int = 1) -> None:
        self.features = features
        self._keys, self._whole = keys, WholeBlocks(keys)
        views = [ViewReader(plan, partitions) for plan in features.views]
        columns = list(dict.fromkeys(view.request_keys for view in views))
        self._key_makers = [next(view.key for view in views if view.request_keys == group) for group in columns]
        self._views = [(view, columns.index(view.request_keys)) for view in views]
        # Every row begins as a copy: a dict that has its keys is filled in half the time.
        inner = [output.column for plan in features.views for output in plan.outputs]
        self._unfilled: dict[str, Any] = dict.fromkeys([*features.columns, *inner])
        self._hidden = len(self._unfilled) > len(features.columns)

    @property
    def on_server(self) -> bool:
        """Whether a read waits for a server, which may be away, and not for this machine's memory alone."""
        return not isinstance(self._keys, SnapshotReads)

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
        encoded = [make(request) for make in self._key_makers]
        names: list[bytes] = []
        hot, entries = set(), {}
        for view, place in self._views:
            key = encoded[place]
            if key is not None:
                name = view.prefix + key
                names.append(view.meta or view.meta_of(key))
                entry = self._whole.get(name, at)
                if entry is not None:
                    entries[view] = entry
                    continue
                names.append(name)
                if view.hot and key in view.hot:
                    names.append(view.index(key))
                    hot.add(view)
        revision, values = self._whole.read(names) if names else (-1, [])
        blobs = iter(values)
        row, floor = FeatureRow(self._unfilled.copy(), {}, {}, set()), floor_at(at)
        for view, place in self._views:
            key = encoded[place]
            if key is None:
                view.absent("null_key", request, at, row)
                continue
            meta, entry = next(blobs), entries.get(view)
            blob = entry.block if entry is not None else next(blobs)
            index = next(blobs) if view in hot else None
            row.places[view.name] = view.place(meta)
            if meta is None or meta[:8] > floor or blob is None:
                view.unanswered(self._keys, meta, floor, request, at, row)
            elif (entry is not None and entry.revision != revision) or view.read(request, at, blob, row) == PARTED:
                block = self._whole.ask(view, key, revision, at)
                if block is None:
                    self._read_hot(view, key, blob, index, request, at, row)
                else:
                    view.read(request, at, block, row)
        return self._derived(request, row)

    def read_many(self, requests: Sequence[Mapping[str, Any]], at: int) -> list[FeatureRow]:
        """Features of many requests at one time, with one read of the key store; equal to one :meth:`read` each.

        Parameters
        ----------
        requests : sequence of mapping
            Entity columns and other columns of each request.
        at : int
            Microseconds since 1970-01-01 UTC.
        """
        rows, floor = [FeatureRow(self._unfilled.copy(), {}, {}, set()) for _ in requests], floor_at(at)
        encoded = [[make(request) for request in requests] for make in self._key_makers]
        metas = [name for view, _ in self._views for name in view.metas]
        names = metas + [view.prefix + key for view, place in self._views for key in encoded[place] if key is not None]
        blobs = iter(self._keys.get_many(names)) if names else iter(())
        stored = {name: next(blobs) for name in metas}
        for view, place in self._views:
            read, one = view.read, stored[view.meta] if view.meta else None
            for request, key, row in zip(requests, encoded[place], rows, strict=True):
                if key is None:
                    view.absent("null_key", request, at, row)
                    continue
                blob, meta = next(blobs), one or stored[view.meta_of(key)]
                row.places[view.name] = view.place(meta)
                if meta is None or meta[:8] > floor or blob is None:
                    view.unanswered(self._keys, meta, floor, request, at, row)
                elif read(request, at, blob, row) == PARTED:
                    self._read_hot(view, key, blob, None, request, at, row)
        return [self._derived(request, row) for request, row in zip(requests, rows, strict=True)]

    def _read_hot(
        self,
        view: ViewReader,
        key: bytes,
        head: bytes,
        index: bytes | None,
        request: Mapping[str, Any],
        at: int,
        row: FeatureRow,
    ) -> None:
        """Fill in the features of a key whose older events lie in segments."""
        blob = view.gather(self._keys, key, at, head, index, complete=False, places=row.places)
        if blob is None:
            view.absent("unseen", request, at, row)
        else:
            view.read(request, at, blob, row)

    def _derived(self, request: Mapping[str, Any], row: FeatureRow) -> FeatureRow:
        for name in self.features.own:
            rule = "the request must have the columns that are features themselves"
            check_known(name, request, rule, where="request", what="column", error=InputError)
            row.values[name] = request[name]
        if self.features.derived:
            derive_row(self.features, request, row.values)
        if self._hidden:
            row.values = {name: row.values[name] for name in self.features.columns}
        return row

    def unread(self) -> FeatureRow:
        """What is known of a request whose read failed, of a state that is cut otherwise, say: no value of any view."""
        return FeatureRow(dict.fromkeys(self.features.columns), {view.name: "not_read" for view, _ in self._views})

    def watermarks(self, views: Collection[str]) -> dict[str, int | None]:
        """When the newest event in the state of each of these views became visible; None before any."""
        readers = [view for view, _ in self._views if view.name in views]
        blobs = iter(self._keys.get_many([name for view in readers for name in view.metas]))
        return {view.name: view.watermark([next(blobs) for _ in view.metas]) for view in readers}

    def reach(self) -> dict[str, tuple[int, int]]:
        """Earliest and latest request that the state of each view answers as its source would; views with a clock only.

        A later one is answered as well, but facts may have come into being that have not reached the state.
        """
        reaches = {view.name: view.reach(self._keys) for view, _ in self._views}
        return {name: reach for name, reach in reaches.items() if reach is not None}

    def explain(self, entities: Mapping[str, Any], context: Mapping[str, Any], at: int) -> dict[str, list[Any]]:
        """Sequence ids of the events each feature is made of (positions if the source declares no sequence)."""
        events: dict[str, list[Any]] = {}
        encoded = [make({**entities, **context}) for make in self._key_makers]
        for view, place in self._views:
            key = encoded[place]
            blob = None if key is None else view.gather(self._keys, key, at, None, None, complete=True)
            events |= view.explain(at, blob)
        return events
