"""The writer of a stream whose segments are signed while they grow and sealed when they are full, or old enough.

What is signed and sealed is what this process wrote: a hash of the bytes and a Merkle frontier run along in memory, and
nothing is read back from the disk, where somebody may have altered it. Both happen in a thread of their own, so an
append waits for neither the database nor a signature. One entry per decision was rejected: a hundred times as slow.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections.abc import Sequence

from retrodict.core.durations import MINUTE, SECOND
from retrodict.ledger.heads import Prefix, SignedHead, read_head, write_head
from retrodict.ledger.ledger import Ledger
from retrodict.ledger.merkle import Frontier, leaf_hash
from retrodict.ledger.segments import Seal, append_seal, seal_left
from retrodict.stores._ownership import Closing
from retrodict.stores.streams.base import StreamStore, TornTail

__all__ = ["SealedWriter"]

_log = logging.getLogger(__name__)


class _Running:
    """What was written of one segment so far."""

    def __init__(self, name: str, first: int, header: bytes) -> None:
        self.name, self.first, self.size = name, first, len(header)
        self.since: float | None = None  # of the first record, by the monotonic clock
        self._bytes, self._tree = hashlib.sha256(header), Frontier()

    def add(self, records: Sequence[bytes], frames: bytes) -> None:
        if self.since is None:
            self.since = time.monotonic()
        self._bytes.update(frames)
        self.size += len(frames)
        for record in records:
            self._tree.add(leaf_hash(record))

    @property
    def count(self) -> int:
        return self._tree.size

    @property
    def prefix(self) -> Prefix:
        digest = self._bytes.copy().hexdigest()
        return Prefix(self.name, self.first, self.count, self.size, digest, self._tree.root().hex())


class SealedWriter(Closing):
    """The one writer of a stream; threads may share it.

    Promises: those of :class:`~retrodict.stores.streams.base.StreamWriter` for ``append``. No record is written to a
    segment that no signed head names. What was appended is signed within ``sign_every``, also where it goes on without
    a pause, and sealed within ``seal_every`` or when its segment is full; if the database does not take the seal, that
    is logged and tried again, and appends go on. What a writer that died left is sealed first, as its head says.

    Parameters
    ----------
    ledger : Ledger
    streams : StreamStore
    stream : str
    sign_every, seal_every : int
        How old an unsigned record and an unsealed segment may become, microseconds.
    timeout_s : float, default 0
        How long to wait for another writer of the stream, seconds.

    Attributes
    ----------
    seals : list of Seal
        What this writer sealed, beginning with what was left of the one before it.
    """

    def __init__(
        self,
        ledger: Ledger,
        streams: StreamStore,
        stream: str,
        *,
        sign_every: int = SECOND,
        seal_every: int = 5 * MINUTE,
        timeout_s: float = 0.0,
    ) -> None:
        self.stream, self._ledger = stream, ledger
        self._sign_every, self._seal_every = sign_every / SECOND, seal_every / SECOND
        self._state = threading.Lock()  # over what was written
        self._signing = threading.Lock()  # one statement after the other, each of what was written by then
        self._open: _Running | None = None
        self._closed: list[Prefix] = []
        self._unsealable: list[Prefix] = []
        self._head: SignedHead | None = None
        self._began = False
        self._problem = ""
        self._stop = threading.Event()
        self._writer = streams.open_writer(stream, timeout_s=timeout_s, observer=self)
        try:
            self._writer.roll()
            self.seals: list[Seal]
            self.seals, self._unsealable = seal_left(ledger, streams, stream)
            self._began = True
            self._sign()
        except BaseException:
            self._writer.close()
            raise
        self._thread = threading.Thread(target=self._keep, name="retrodict-seal", daemon=True)
        self._thread.start()

    @property
    def recovered(self) -> list[TornTail]:
        """What was cut off the end of the stream when it was opened."""
        return self._writer.recovered

    def append(self, records: Sequence[bytes]) -> int:
        """Append records, durably, and return the offset of the first; errors as for any writer of a stream."""
        if self._head is None or self._open is None or self._head.prefixes[-1].segment != self._open.name:
            self._sign()  # it failed when the segment began
        return self._writer.append(records)

    # what the writer of the segments tells, in the thread that appends ----------------------------------------

    def begin(self, segment: str, first: int, header: bytes) -> None:
        """Take note that a segment begins, and sign that it is ours before it holds anything."""
        with self._state:
            if self._open is not None and self._open.count:
                self._closed.append(self._open.prefix)
            self._open = _Running(segment, first, header)
        if self._began:
            self._sign()

    def add(self, records: Sequence[bytes], frames: bytes) -> None:
        """Take note of what was written; nothing is counted that was written before a segment began here."""
        with self._state:
            if self._open is not None:
                self._open.add(records, frames)

    # signing and sealing, in a thread of its own -------------------------------------------------------------

    def _prefixes(self) -> list[Prefix]:
        with self._state:
            last = [] if self._open is None else [self._open.prefix]
            return [*self._unsealable, *self._closed, *last]

    def _sign(self) -> None:
        with self._signing:
            self._head = write_head(self._ledger, self.stream, self._prefixes())

    def _keep(self) -> None:
        """Sign and seal again and again, until the end."""
        while not self._stop.wait(self._sign_every):
            try:
                self._look()
                self._problem = ""
            except Exception as error:  # noqa: BLE001  # tried again: what is not sealed now is sealed later
                if str(error) != self._problem:
                    self._problem = str(error)
                    _log.error("%s cannot be signed or sealed: %s", self.stream, error)

    def _look(self) -> None:
        head = self._head
        # An older statement in the place of the newest one would leave more unsigned than its age says.
        stored = read_head(self._ledger.heads, self.stream)
        if head is None or list(head.prefixes) != self._prefixes() or stored != head:
            self._sign()
        since = self._open.since if self._open is not None else None
        if since is not None and time.monotonic() - since >= self._seal_every:
            self._ledger.reach()  # an error while the records are away, which would not take the seal: it grows on
            self._writer.roll()
        if self._closed:
            self._seal()

    def _seal(self) -> None:
        for prefix in list(self._closed):
            seal = append_seal(self._ledger, self.stream, prefix)
            self.seals += [seal] if seal is not None else []
            with self._state:
                self._closed.remove(prefix)
        self._sign()

    def close(self) -> None:
        """Close the open segment, seal it and let go of the stream; a second call does nothing.

        Where the database does not take the seal, the error is raised, and the next writer of the stream seals it.
        """
        if self._stop.is_set():
            return
        self._stop.set()
        self._thread.join()
        try:
            self._writer.roll()
            with self._state:
                self._open = None  # the head names no segment any more that somebody could fill
            self._seal()
        finally:
            self._writer.close()
