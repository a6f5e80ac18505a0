"""The one writer of an embedded stream: recovery when it opens, one sync per append, undo when an append fails."""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from retrodict.core.errors import BusyError, IntegrityError, RetryableError
from retrodict.stores._durable import make_folder, place_file, sync_data, write_all
from retrodict.stores._locks import FileLock
from retrodict.stores._ownership import Closing, check_usable
from retrodict.stores.streams._frames import HEADER_SIZE, FrameWalk, pack_frames, pack_header
from retrodict.stores.streams._layout import (
    FOREIGN,
    HEAD_NAME,
    Head,
    check_base,
    open_segment,
    pack_head,
    read_head,
    segment_name,
)
from retrodict.stores.streams.base import SegmentObserver, StreamWriter, TornTail

_TRIAL = 1 << 18  # bytes that a disk which was full must have room for


class SegmentWriter(Closing, StreamWriter):
    """Writer of one stream; made by :meth:`SegmentStreams.open_writer`.

    Threads may share it: appends follow one another. A forked child cannot use it, the lock stays with the parent.
    """

    def __init__(
        self,
        folder: Path,
        stream: str,
        *,
        segment_bytes: int,
        timeout_s: float,
        observer: SegmentObserver | None = None,
        firsts: Callable[[Head | None], list[int]],
    ) -> None:
        self._folder, self._stream, self._segment_bytes = folder, stream, segment_bytes
        self._observer, self._firsts = observer, firsts
        self._where = f"stream {stream}"
        self._mutex = threading.Lock()
        self._pid = os.getpid()
        self._recovered: list[TornTail] = []
        self._segment = self._head_file = -1
        self._usable, self._failed = False, False
        try:
            self._lock = FileLock(folder / ".lock", where=self._where, timeout_s=timeout_s)
            try:
                self._open()
            except BaseException:
                self._let_go()
                raise
        except BusyError:  # an OSError as well
            raise
        except OSError as error:
            raise self._not_stored("the stream must be open for records, and could not be", error) from error

    # opening ------------------------------------------------------------------------------------------------

    def _open(self) -> None:
        make_folder(self._folder)
        head = read_head(self._folder)
        self._head_file = os.open(self._folder / HEAD_NAME, os.O_RDWR | os.O_CREAT, 0o644)
        base = check_base(self._folder, self._stream, self._firsts(head), head)
        if base is None:
            self._begin_segment(0)
        else:
            self._segment = open_segment(self._folder, self._stream, base.first, os.O_RDWR)
            self._cut_tail(base)
            self._publish(sync=True)
            if self._offset == self._first:
                self._tell_begin()
        self._usable = True

    def _cut_tail(self, base: Head) -> None:
        """Find the end of the last segment from the acknowledged position on; cut off what is no whole record."""
        size = os.fstat(self._segment).st_size
        walk = FrameWalk(self._segment, base.position, size)
        count = sum(1 for _ in walk.records())
        self._first, self._position, self._offset = base.first, walk.position, base.offset + count
        if walk.position < size:
            torn = TornTail(self._stream, segment_name(base.first), self._offset, size - walk.position)
            os.ftruncate(self._segment, walk.position)
            self._recovered.append(torn)
        if size > base.position:
            # Whole records beyond the head were never acknowledged, so they may not have been synced either.
            os.fsync(self._segment)

    # writing ------------------------------------------------------------------------------------------------

    @property
    def recovered(self) -> list[TornTail]:
        return list(self._recovered)

    def append(self, records: Sequence[bytes]) -> int:
        data = pack_frames(records)
        with self._mutex:
            self._check_usable()
            if not data:
                self._try_disk()
                return self._offset
            try:
                if self._position >= self._segment_bytes and self._offset > self._first:
                    self._begin_segment(self._offset)
                write_all(self._segment, data, self._position)
                sync_data(self._segment)
                head = Head(self._first, self._position + len(data), self._offset + len(records))
                write_all(self._head_file, pack_head(head), 0)
            except OSError as error:
                self._failed = True
                self._undo()
                raise self._not_stored("the records could not be stored, and none of them is visible", error) from error
            except BaseException:
                self._undo()
                raise
            first, self._position, self._offset = self._offset, head.position, head.offset
            self._failed = False
            if self._observer is not None:
                self._observer.add(records, data)
            return first

    def _try_disk(self) -> None:
        """After an append that failed: whether the disk has room again, by a file that nobody sees."""
        if not self._failed:
            return
        try:
            with tempfile.TemporaryFile(dir=self._folder) as file:
                write_all(file.fileno(), bytes(_TRIAL), 0)
                os.fsync(file.fileno())
        except OSError as error:
            raise self._not_stored("the disk must have room for records", error) from error

    def roll(self) -> None:
        with self._mutex:
            self._check_usable()
            if self._offset > self._first:
                try:
                    # The next segment exists from now on: that makes this one closed, also after a loss of power.
                    self._begin_segment(self._offset)
                except OSError as error:
                    raise self._not_stored("the next segment could not be begun", error) from error

    def _not_stored(self, what: str, error: OSError) -> RetryableError:
        remedy = "Free space on the disk or repair it, then try again"
        return RetryableError(what, where=self._where, got=error.strerror, remedy=remedy)

    def _begin_segment(self, first: int) -> None:
        path = self._folder / segment_name(first)
        if os.path.lexists(path) and not (path.is_file() and path.stat().st_size <= HEADER_SIZE):
            path.rename(
                path.with_name(f"{path.name}.{os.urandom(4).hex()}{FOREIGN}")
            )  # it does not count, and may tell
        place_file(path, pack_header(first))
        fresh = open_segment(self._folder, self._stream, first, os.O_RDWR)
        if self._segment >= 0:
            os.close(self._segment)
        self._segment, self._first, self._position, self._offset = fresh, first, HEADER_SIZE, first
        self._publish(sync=True)
        self._tell_begin()

    def _tell_begin(self) -> None:
        if self._observer is not None:
            self._observer.begin(segment_name(self._first), self._first, pack_header(self._first))

    def _publish(self, *, sync: bool) -> None:
        write_all(self._head_file, pack_head(Head(self._first, self._position, self._offset)), 0)
        if sync:
            os.fsync(self._head_file)

    def _undo(self) -> None:
        """Take back a failed append; the head was not moved, so no reader has seen any of it."""
        try:
            os.ftruncate(self._segment, self._position)
            self._publish(sync=False)
            self._usable = True
        except OSError:
            # Left-over bytes would end up inside the log with the next append. That, or the next writer, cuts them off.
            self._usable = False

    def _check_usable(self) -> None:
        check_usable("a stream writer", where=self._where, owner=self._pid, closed=self._head_file < 0)
        if not self._usable:
            self._undo()
        if not self._usable:
            raise IntegrityError(
                "an append that failed must be taken back, and could not be",
                where=self._where,
                remedy="Free space on the disk or repair it: the next append cuts the left-over bytes off",
                got="left-over bytes",
            )

    # closing ------------------------------------------------------------------------------------------------

    def close(self) -> None:
        with self._mutex:
            if self._head_file >= 0 and os.getpid() == self._pid:
                os.fsync(self._head_file)
            self._let_go()

    def _let_go(self) -> None:
        for descriptor in (self._segment, self._head_file):
            if descriptor >= 0:
                os.close(descriptor)
        self._segment = self._head_file = -1
        self._lock.close()
