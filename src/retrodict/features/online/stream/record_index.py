"""Which records a stream holds already, without reading all of it each time.

An index beside the stream, one short hash per record, in a folder of this machine. It is brought up to the end of the
stream before it is asked: whoever wrote the records, and wherever a writer was killed, the answer is about the stream
as it is, and a record is read once, by the first question after it came. To remember only the files that were pushed
was rejected: two exports that overlap are different files.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import Self

from retrodict.stores.keys.lmdb import LmdbKeys
from retrodict.stores.streams.base import EventStreams

__all__ = ["RecordIndex"]

_TOGETHER = 20_000
_HASH = 16
_END = b"end"


class RecordIndex:
    """Index of the records of one stream; a context manager, held by one process at a time.

    Parameters
    ----------
    folder : Path
        Where the index is kept; it can be deleted at any time, and is then made again from the whole stream.
    streams : EventStreams
    stream : str
        Name of the stream.

    Examples
    --------
    >>> import tempfile
    >>> from retrodict.stores.streams.segments import SegmentStreams
    >>> folder = Path(tempfile.mkdtemp())
    >>> streams = SegmentStreams(folder / "streams")
    >>> with streams.open_writer("events/s") as writer:
    ...     _ = writer.append([b"one", b"two"])
    >>> with RecordIndex(folder / "known", streams, "events/s") as known:
    ...     known.missing([b"two", b"three", b"three"])
    [b'three']
    """

    def __init__(self, folder: Path, streams: EventStreams, stream: str) -> None:
        self._streams, self._stream = streams, stream
        self._keys = LmdbKeys(folder)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._keys.close()

    def missing(self, records: Sequence[bytes]) -> list[bytes]:
        """Records that the stream does not hold to the byte, each once, in their order."""
        self._catch_up()
        distinct, absent = list(dict.fromkeys(records)), []
        for first in range(0, len(distinct), _TOGETHER):
            batch = distinct[first : first + _TOGETHER]
            entries = self._keys.get_many([_hash(record) for record in batch])
            absent += [record for record, entry in zip(batch, entries, strict=True) if entry is None]
        return absent

    def _catch_up(self) -> None:
        """Take in what was appended since the last time."""
        offset = self._continued()
        while True:
            records = list(islice(self._streams.read(self._stream, offset, _TOGETHER), _TOGETHER))
            if not records:
                return
            offset = records[-1][0] + 1
            items: dict[bytes, bytes | None] = {_hash(record): b"" for _, record in records}
            items[_END] = offset.to_bytes(8, "big") + _hash(records[-1][1])
            self._keys.put_many(items, durable=False)  # what is lost is read again

    def _continued(self) -> int:
        """Offset to go on from: 0, and an empty index, if the stream is another than it was."""
        (end,) = self._keys.get_many([_END])
        if end is None:
            return 0
        offset, last = int.from_bytes(end[:8], "big"), end[8:]
        stored = next(iter(self._streams.read(self._stream, offset - 1, 1)), None)
        # A server may have let go of old records; then the next one that is there has another offset.
        other = stored is not None and stored[0] == offset - 1 and _hash(stored[1]) != last
        if other or self._streams.end(self._stream) < offset:
            names = [name for name, _ in self._keys.scan(b"") if name != _END]
            for first in range(0, len(names), _TOGETHER):
                self._keys.put_many(dict.fromkeys(names[first : first + _TOGETHER]), durable=False)
            self._keys.put_many({_END: None})  # last: a call that is killed before begins again
            return 0
        return offset


def _hash(record: bytes) -> bytes:
    return blake2b(record, digest_size=_HASH).digest()
