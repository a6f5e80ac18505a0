"""Entries of online state: their names in the key store, and what the state of a view knows about itself."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

from retrodict.features.online.blocks import Shape
from retrodict.features.online.segments import Index
from retrodict.features.plan import ViewPlan

__all__ = ["NEVER", "Applied", "Meta", "StateKeys"]

NEVER = -(1 << 62)
"""Before every event."""

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
    layout : bytes
        Layout that new blocks have; empty before the first event.
    loaded : tuple of int
        Rows of the history that are in, after each piece of it.
    digest : str
        Hash of those rows, piece by piece.
    stored, duplicates, too_old : int
        Events taken in since the state was begun, redeliveries, and events that came too late for any request.
    """

    floor: int = NEVER
    watermark: int = NEVER
    offset: int | None = None
    positions: str | None = None
    kinds: tuple[str, ...] = ()
    layout: bytes = b""
    stored: int = 0
    duplicates: int = 0
    too_old: int = 0
    loaded: tuple[int, ...] = ()
    digest: str = ""

    @classmethod
    def read(cls, blob: bytes | None) -> Meta:
        """Meta of stored bytes, the initial one for None."""
        if blob is None:
            return cls()
        floor = int.from_bytes(blob[:8], "big") - _SHIFT
        rest = json.loads(blob[8:])
        rest |= {
            "kinds": tuple(rest["kinds"]),
            "loaded": tuple(rest["loaded"]),
            "layout": bytes.fromhex(rest["layout"]),
        }
        return cls(floor, **rest)

    def write(self) -> bytes:
        """Bytes to store; the floor stands first, since every request reads it."""
        rest = {name: value for name, value in vars(self).items() if name != "floor"} | {"layout": self.layout.hex()}
        return (self.floor + _SHIFT).to_bytes(8, "big") + json.dumps(rest).encode()


class StateKeys:
    """Names of a view's entries in the key store.

    Attributes
    ----------
    meta : bytes
        Name of the meta entry.
    prefix : bytes
        What the names of all entries begin with.
    blocks : bytes
        What the name of every block begins with; the encoded key follows.
    """

    def __init__(self, plan: ViewPlan) -> None:
        prefix = self.prefix = bytes.fromhex(plan.state_id[:16])
        self.meta, self.blocks = prefix + b"M", prefix + b"B"
        self._indexes, self._segments = prefix + b"I", prefix + b"S"

    def index(self, key: bytes) -> bytes:
        """Name of the index of a key's segments."""
        return self._indexes + key

    def segment(self, key: bytes, number: int) -> bytes:
        """Name of a segment of a key."""
        return self._segments + key + number.to_bytes(8, "big")

    def all(self, key: bytes, shape: Shape, index: bytes | None) -> list[bytes]:
        """Names of everything kept of a key, given its index."""
        found = [self.blocks + key]
        if index is not None:
            found += [self.index(key), *(self.segment(key, number) for number in Index.read(shape, index).numbers)]
        return found
