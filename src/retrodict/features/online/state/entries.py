"""Entries of online state: their names in the key store, and what the state of a view knows about itself."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass, replace
from zlib import crc32

from retrodict.core.errors import ConfigurationError
from retrodict.features.online.state.blocks import Shape
from retrodict.features.online.state.segments import Index
from retrodict.features.plan import ViewPlan

NEVER = -(1 << 62)
"""Before every event."""

_SHIFT = 1 << 62
_BLOCK, _INDEX, _SEGMENT = b"BIS"  # kinds of entries: what follows the prefix in their names
_CUT = b"\xff" * 8  # where a meta entry has its floor: later than any request
_UNFINISHED = b"\xff" * 7 + b"\xfe"  # likewise, of a state that its table is being read into

UNKNOWN = -1
"""Version of the table in a state that was loaded before versions were noted."""


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


COUNTS = ("stored", "duplicates", "too_old", "entities", "size", "segments", "segment_bytes")
"""What the state of a view is the sum of its partitions in."""


@dataclass(frozen=True)
class TablePlace:
    """How much of a source's table a state contains.

    Attributes
    ----------
    version : int, optional
        Version that was read last. None: nothing of a table was read into the state.
    rows : int
        Rows of that version that are in, in the order of the table.
    files : str
        Hash of the data files of that version.
    unfinished : bool
        Whether the table is still being read for the first time: until then no request is answered.
    ahead : int
        Rows of that version behind those that are in as well, by key, event time (not of revisions) and position:
        where a reading that was killed goes on. Another order must have another name here.
    since : int, optional
        Event time, in microseconds, before which rows were left out of that order.
    """

    version: int | None = None
    rows: int = 0
    files: str = ""
    unfinished: bool = False
    ahead: int = 0
    since: int | None = None


@dataclass(frozen=True)
class Meta:
    """What the state of a view knows about itself.

    Requests before ``floor`` cannot be answered exactly any more; ``watermark`` is the latest time at which an applied
    event became visible. ``offset`` is the one of the stream to continue from; ``positions`` says where positions came
    from if the source declares no sequence: ``table`` or ``stream``. ``kinds`` are those of the key columns, ``layout``
    is that of new blocks, empty before the first event. ``place`` is how much of the table is in. ``stored``,
    ``duplicates`` and ``too_old`` count events since the state was begun. ``entities`` are keys with a block, ``size``
    the bytes of blocks and indexes, ``segments`` and ``segment_bytes`` those of hot keys; all are counted as they are
    written, for nobody can count millions of entries each minute, and a segment that is let go of unread counts as one
    of average size. ``horizon`` is the one in effect, in microseconds: a longer one needs events that were let go of,
    until its time has passed; 0: not noted.
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
    place: TablePlace = TablePlace()
    entities: int = 0
    size: int = 0
    segments: int = 0
    segment_bytes: int = 0
    horizon: int = 0

    @classmethod
    def read(cls, blob: bytes | None) -> Meta:
        """Meta of stored bytes, the initial one for None; ConfigurationError if the state is cut into partitions."""
        if blob is None:
            return cls()
        if blob.startswith(_CUT):
            raise _cut_otherwise(_partitions_in(blob), 1)
        rest = json.loads(blob[8:])
        # A state that was loaded before versions were noted has a digest in place of a version.
        place = {"version": UNKNOWN if rest.pop("digest", "") else None} | rest.pop("place", {})
        rest |= {"kinds": tuple(rest["kinds"]), "layout": bytes.fromhex(rest["layout"]), "place": TablePlace(**place)}
        rest.pop("loaded", None)
        return cls(**{"floor": int.from_bytes(blob[:8], "big") - _SHIFT} | rest)

    def resized(
        self, keys: StateKeys, before: Mapping[bytes, bytes | None], after: Mapping[bytes, bytes | None]
    ) -> Meta:
        """Meta with the sizes as they are once ``after`` is stored, given what was read before; both by name."""
        kind = len(keys.prefix)
        blocks = [name for name in after if name[kind] == _BLOCK]
        old, new = [before.get(name) for name in blocks], [after[name] for name in blocks]
        entities = self.entities + old.count(None) - new.count(None)
        size = self.size + _bytes(new) - _bytes(old)
        count, segment_bytes = self.segments, self.segment_bytes
        for name in after if len(after) > len(blocks) + 1 else ():
            blob, old_blob = after[name], before.get(name)
            if name[kind] == _INDEX:
                size += len(blob or b"") - len(old_blob or b"")
            elif name[kind] == _SEGMENT:
                unread = blob is None and name not in before
                segment_bytes += len(blob or b"") - (segment_bytes // max(count, 1) if unread else len(old_blob or b""))
                count += (blob is not None) - (old_blob is not None or unread)
        return replace(self, entities=entities, size=size, segments=count, segment_bytes=segment_bytes)

    @property
    def total_size(self) -> int:
        """Bytes of blocks, indexes and segments."""
        return self.size + self.segment_bytes

    def write(self) -> bytes:
        """Bytes to store; the floor stands first, since every request reads it."""
        rest = vars(self) | {"layout": self.layout.hex(), "place": vars(self.place)}
        if self.place.unfinished:
            return _UNFINISHED + json.dumps(rest).encode()
        del rest["floor"]
        return (self.floor + _SHIFT).to_bytes(8, "big") + json.dumps(rest).encode()


class StateKeys:
    """Names of a view's entries in the key store; all begin with ``prefix``, those of blocks with ``blocks``.

    A state may be cut into partitions by a hash of the key. Each has a meta entry of its own, so that as many processes
    as there are partitions feed one state and never change the same entry: ``metas`` names all of them, ``meta`` that
    of one partition. The entry ``cut`` says into how many the state is cut, and holds ``mark`` then; of a whole state
    it is the meta entry. Blocks have the same names whatever the cut.
    """

    def __init__(self, plan: ViewPlan, *, partitions: int = 1, partition: int = 0) -> None:
        prefix = self.prefix = bytes.fromhex(plan.state_id[:16])
        self.blocks, self.cut = prefix + b"B", prefix + b"M"
        self.mark = _CUT + partitions.to_bytes(2, "big")
        self.metas: tuple[bytes, ...] = (self.cut,)
        if partitions > 1:
            self.metas = tuple(self.cut + struct.pack(">HH", partitions, number) for number in range(partitions))
        self.meta = self.metas[partition]
        self._indexes, self._segments = prefix + b"I", prefix + b"S"

    def meta_of(self, key: bytes) -> bytes:
        """Name of the meta entry of an encoded key's partition."""
        return self.metas[self.partition_of(key)]

    def partition_of(self, key: bytes) -> int:
        """Partition of an encoded key."""
        return crc32(key) % len(self.metas)

    def check(self, cut: bytes | None) -> None:
        """Refuse a state that is cut into another number of partitions, as its ``cut`` entry says, by both numbers."""
        partitions = len(self.metas)
        stored = partitions if cut is None else _partitions_in(cut)
        if stored != partitions:
            raise _cut_otherwise(stored, partitions)

    @staticmethod
    def is_cut(meta: bytes) -> bool:
        """Whether an entry only says into how many partitions the state is cut."""
        return meta.startswith(_CUT)

    def index(self, key: bytes) -> bytes:
        """Name of the index of a key's segments."""
        return self._indexes + key

    def is_index(self, name: bytes) -> bool:
        """Whether a name of an entry is that of an index."""
        return name.startswith(self._indexes)

    def segment(self, key: bytes, number: int) -> bytes:
        """Name of a segment of a key."""
        return self._segments + key + number.to_bytes(8, "big")

    def all(self, key: bytes, shape: Shape, index: bytes | None) -> list[bytes]:
        """Names of everything kept of a key, given its index."""
        names = [self.blocks + key]
        if index is not None:
            names += [self.index(key), *(self.segment(key, number) for number in Index.read(shape, index).numbers)]
        return names


def _bytes(blobs: list[bytes | None]) -> int:
    return sum(map(len, filter(None, blobs)))


def _partitions_in(cut: bytes) -> int:
    return int.from_bytes(cut[8:10], "big") if cut.startswith(_CUT) else 1


def _cut_otherwise(stored: int, asked_for: int) -> ConfigurationError:
    return ConfigurationError(
        f"a state must keep the number of partitions that it was made with, {stored}",
        where="online state",
        got=asked_for,
        remedy=f"Set partitions = {stored} under [features], or name an empty key store and run: "
        "retrodict features build",
    )
