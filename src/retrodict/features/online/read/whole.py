"""Blocks of hot keys in one piece, as long as the store stands still.

To put the segments of a key together costs more than everything else of a request, and gives the same bytes until
somebody writes. An embedded store says by a number whether anybody did. What comes back for one request only is not
worth its whole block: the first requests of a state read the pieces that they need, until that has cost what making the
block whole does. So a state that is written to all the time costs about twice the pieces at most.
"""

from __future__ import annotations

from typing import NamedTuple

from retrodict.features.online.read.views import ViewReader
from retrodict.stores.keys.base import KeyStore, SnapshotReads

_MOST = 64 << 20  # bytes of all blocks together
_REQUEST = 128 << 10  # bytes put together in the time that a request in pieces takes
_REQUESTS = 32  # that a block must be worth at most, or it stays in pieces


class Whole(NamedTuple):
    """A block in one piece (None: not made so far, or too large), its greatest v, and the state that it is of."""

    revision: int
    visible: int = 0
    block: bytes | None = None
    requests: int = 1


class WholeBlocks:
    """The blocks of one key store held in one piece, by the name of the head. Threads may share it.

    Parameters
    ----------
    keys : KeyStore
        Nothing is held of one without :class:`~retrodict.stores.keys.base.SnapshotReads`.
    """

    def __init__(self, keys: KeyStore) -> None:
        self._store: SnapshotReads | None = keys if isinstance(keys, SnapshotReads) else None
        self._keys = keys
        self._blocks: dict[bytes, Whole] = {}
        self._bytes = 0

    def read(self, names: list[bytes]) -> tuple[int, list[bytes | None]]:
        """Values of the store, and the number of its state; -1 of a store that has no such number."""
        return (-1, self._keys.get_many(names)) if self._store is None else self._store.get_revised(names)

    def get(self, name: bytes, at: int) -> Whole | None:
        """What is held of a key for requests of a time; of one that came after the request its pieces must be read."""
        entry = self._blocks.get(name)
        return entry if entry is not None and entry.block is not None and entry.visible < at else None

    def ask(self, view: ViewReader, key: bytes, revision: int, at: int) -> bytes | None:
        """Block of a hot key that was asked for often in this state; None if it is to be read in pieces."""
        if self._store is None or view.revised:
            return None
        name = view.prefix + key
        entry = self._blocks.get(name)
        if entry is None or entry.revision != revision:
            self._hold(name, Whole(revision))
        elif entry.block is None and entry.requests <= _REQUESTS and entry.visible < at:
            visible, block = view.whole(self._store, key, entry.requests * _REQUEST)
            if self._store.get_revised([])[0] == revision:  # it grows, so the block, read in between, is of this state
                self._hold(name, Whole(revision, visible, block, entry.requests + 1))
                return block if visible < at else None
        return None

    def _hold(self, name: bytes, entry: Whole) -> None:
        before = self._blocks.get(name)
        size = len(entry.block or b"") - (0 if before is None else len(before.block or b""))
        if self._bytes + size > _MOST:
            self._blocks.clear()
            self._bytes, size = 0, len(entry.block or b"")
        self._blocks[name] = entry
        self._bytes += size
