"""The same question asked twice: a caller's request id leads to the record of the answer, in every process.

The log is the truth, and the id is in the record. The index beside it says only where a record stands. It is written
just before the record is, which needs no sync: whenever a process dies, what the log holds at that place decides. A
table of leases was rejected, since a process that stood still would outlive its lease: a call holds its id by a lock on
one byte of a file, which the kernel lets go of when the process ends. The index belongs to one boot of the machine. A
loss of power may take the end of it, so the index of another boot is made again from the log. The age of an entry is
told by a count that nobody sets: a clock that is put forward by a day must not free an id. For a log on a
server there is ``shared_requests``.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import shutil
import struct
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from threading import Lock

from retrodict.core.durations import parse_duration
from retrodict.core.errors import (
    BusyError,
    ConfigurationError,
    InputError,
    IntegrityError,
    RefusedError,
    RetrodictError,
    RetryableError,
)
from retrodict.core.identity import canonical_json, digest
from retrodict.decisions.log import STREAM_PREFIX
from retrodict.decisions.records import DecisionRecord, Value, decode_record
from retrodict.decisions.requests import DecisionRequest
from retrodict.stores._durable import make_folder
from retrodict.stores._locks import FileLock, lock_range
from retrodict.stores._ownership import Closing
from retrodict.stores.keys.lmdb import LmdbKeys
from retrodict.stores.streams._layout import this_boot
from retrodict.workspace import Workspace

__all__ = ["Claim", "RequestIndex", "RequestUnderWayError", "check_request_id", "request_hash"]

WAIT_S = 5.0
"""Seconds that a call waits for another one with its id."""

_log = logging.getLogger(__name__)
TAIL_S = 2.0  # in which whoever opens a stream has cut off what its last writer left half written
_LONGEST = 200
_BUILD_S = 600.0
_SWEEP = 256  # ids between two looks for those whose time is over
_READY = b"ready"
NEEDLE = b"request_id"
_FIRST = 1 << 60  # so that what is older than the machine's start is positive as well, and in order
_PLACE = struct.Struct(">qq")  # time and offset; the name of the stream follows


class RequestUnderWayError(BusyError):
    """Another call with the same request id has no answer yet."""


def check_request_id(text: str, *, where: str) -> str:
    """Request id without the quotes that the header may have; InputError unless it is 1 to 200 printable characters."""
    name = text[1:-1] if len(text) > 1 and text[0] == text[-1] == '"' else text
    if not (0 < len(name) <= _LONGEST and name.isascii() and name.isprintable()):
        raise InputError(
            f"a request id must have 1 to {_LONGEST} printable ASCII characters", where=where,
            got=f"{len(name)} characters", remedy="Send a UUID, new for each decision and kept for its repetitions",
        )  # fmt: skip
    return name


def request_hash(policy: str, request: DecisionRequest, at: int | None) -> str:
    """Hash of what was asked, whatever the order of its names and the spelling of its numbers.

    ``at`` is the simulated moment that was asked for, None where it was not.
    """
    content = [policy, at, request.key, request.explain, _plain(request.entities), _plain(request.context)]
    return digest(canonical_json(content))


def _plain(values: dict[str, Value]) -> dict[str, Value]:
    return {n: int(v) if isinstance(v, float) and v.is_integer() else v for n, v in values.items()}


@dataclass(slots=True, eq=False)
class Claim:
    """A request id that one call holds: nobody else decides by it until :meth:`release`."""

    index: RequestIndex
    request_id: str
    content: str
    slot: int
    place: tuple[str, int] | None = None
    noted: tuple[LmdbKeys, str, int] | None = None
    _open: bool = field(default=True, repr=False)

    def recorded(self, caller: str | None = None) -> DecisionRecord | None:
        """Record of the answer that was given before; None if there is none. Reads the log.

        Raises
        ------
        RefusedError
            If the id was used for something else, or by another caller than this one; None may read everything.
        """
        record = None if self.place is None else self.index.find(self.request_id, *self.place)
        if record is not None and record.request_hash != self.content:
            raise RefusedError(
                "a request id must come with the same policy and the same request as the first time",
                where="request id", got="another request", remedy="Give each decision an id of its own",
            )  # fmt: skip
        if record is not None and caller is not None and record.caller != caller:
            raise RefusedError(
                "a request id must be the caller's own", where="request id", got="one that another caller has used",
                remedy="Make ids that nobody else makes, such as UUIDs",
            )  # fmt: skip
        return record

    def release(self) -> None:
        """Let go of the id; a second call does nothing."""
        if self._open:
            self._open = False
            try:
                if self.noted is not None and not self.noted[0].stands():  # made anew before the record was in the log
                    self.index.note(self.noted[1], self.noted[2], [self])
            except RetrodictError as error:  # whoever releases has answered already
                _log.error("the place of a request id cannot be noted again: %s", error)
            finally:
                self.index.let_go(self.slot)


class RequestIndex(Closing):
    """Where the records of request ids are, for all processes of a project; threads may share it.

    Promises: of several calls with one id, in whatever processes, one decides and records, and the others get its
    record, for ``serving.request_ids_kept`` after it, also after ``kill -9`` and a loss of power. A claim costs some
    microseconds; the index costs about 150 bytes per id, and drops those whose time is over.

    Parameters
    ----------
    workspace : Workspace
    stream : str
        The decision stream that this process writes.
    """

    def __init__(self, workspace: Workspace, stream: str) -> None:
        self._clock, self._streams, self._own = workspace.clock, workspace.streams, stream
        self._kept = parse_duration(workspace.config["serving.request_ids_kept"])
        self._root = workspace.config.path("stores.streams")
        self._mutex, self._held = Lock(), set[int]()
        self._opening, self._replaced = Lock(), list[LmdbKeys]()
        self._keys: LmdbKeys | None = None
        self._descriptor, self._unswept = -1, 0

    def open(self) -> LmdbKeys:
        """Open the index, or take the one that it is now.

        It is made from the log, about 0.3 s per 100,000 decisions, after a loss of power, and where its folder was
        removed or cannot be read.

        Raises
        ------
        RetryableError
            If the disk has no room for it.
        """
        with self._opening:
            if self._keys is not None and self._keys.stands():
                return self._keys
            try:
                keys = self._ready()
                if self._descriptor < 0:
                    self._descriptor = os.open(self._root / ".requests.lock", os.O_RDWR | os.O_CREAT, 0o644)
            except BusyError:
                raise
            except (OSError, ConfigurationError) as error:
                raise _unusable(type(error).__name__) from error
            if self._keys is not None:
                self._replaced.append(self._keys)  # other threads may be inside of it
            self._keys = keys
        return keys

    def _ready(self) -> LmdbKeys:
        """Index of this boot, made if there is none that can be read."""
        path = self._root / f".requests-ticks-{(this_boot() or bytes(16)).hex()}"
        make_folder(self._root)
        with self._making():
            try:
                return self._read(path)
            except (IntegrityError, FileExistsError, NotADirectoryError) as error:
                self._put_aside(path, error)
            return self._read(path)

    def _read(self, path: Path) -> LmdbKeys:
        keys = LmdbKeys(path, synced=False)
        try:
            keys.check_length()
            if keys.get_many([_READY]) == [None]:
                self._make(keys, path.name)
        except BaseException:
            keys.close()
            raise
        return keys

    def _making(self) -> FileLock:
        return FileLock(self._root / ".requests.made", where="index of request ids", timeout_s=_BUILD_S)

    def _put_aside(self, path: Path, error: Exception) -> None:
        _log.error("the index of request ids cannot be read, so it is made again from the log: %s", error)
        aside = self._root / ".requests.damaged"
        shutil.rmtree(aside, ignore_errors=True)
        aside.unlink(missing_ok=True)
        path.rename(aside)

    @contextmanager
    def _using(self, keys: LmdbKeys) -> Iterator[None]:
        """Put an index aside that turns out to be damaged; whoever comes next makes it again."""
        try:
            yield
        except IntegrityError as error:
            self._replace(keys, error)
            raise _unusable("a damaged index", "Send the same request again") from error
        except ConfigurationError as error:  # its map is full
            raise _unusable("a full index", "Keep ids for a shorter time") from error

    def _replace(self, keys: LmdbKeys, error: Exception) -> None:
        with self._making():
            if keys.stands():
                self._put_aside(keys.path, error)

    def _make(self, keys: LmdbKeys, name: str) -> None:
        for folder in self._root.glob(".requests-*"):
            if folder.name != name:
                shutil.rmtree(folder, ignore_errors=True)
        now, newest = self._clock.now(), dict[str, tuple[int, str, int]]()
        oldest = now - self._kept
        for stream in self._streams.names(STREAM_PREFIX):
            for moment, offset, record in self._kept_records(stream, oldest):
                place = (moment, stream, offset)
                if record.request_id is not None and oldest <= moment >= newest.get(record.request_id, place)[0]:
                    newest[record.request_id] = place
        items: dict[bytes, bytes | None] = {_READY: b"1"}
        for request_id, (moment, stream, offset) in newest.items():
            # By the time of day, which is all that a record has; one from the future is as old as one of now.
            items |= _entry(request_id, self._now() - max(0, now - moment), stream, offset)
        keys.put_many(items, durable=False)

    def _kept_records(self, stream: str, oldest: int) -> Iterator[tuple[int, int, DecisionRecord]]:
        """Time, offset and record of what has an id in the segments that may hold newer ones, oldest segment last."""
        for segment in reversed(self._streams.segments(stream)):
            first = None
            for offset, data in self._streams.read(stream, segment.first, segment.count):
                if first is None or NEEDLE in data:
                    record = decode_record(data)
                    moment = record.made
                    first = moment if first is None else first
                    yield moment, offset, record
            if first is not None and first < oldest:
                return

    # claiming ------------------------------------------------------------------------------------------------

    def claim(self, request_id: str, content: str) -> Claim | None:
        """Hold an id, if no other call holds it; ``content`` is the :func:`request_hash`."""
        name = name_of(request_id)
        if self._descriptor < 0:
            self.open()
        slot = int.from_bytes(name[:8], "big") >> 2  # two ids of one slot wait for each other, and that is all
        with self._mutex:
            if slot in self._held:
                return None
            self._held.add(slot)
        try:
            self._lock(fcntl.F_WRLCK, slot)
        except BlockingIOError:
            with self._mutex:
                self._held.discard(slot)
            return None
        claim = Claim(self, request_id, content, slot)
        try:
            claim.place = self._place(name)
        except BaseException:
            claim.release()
            raise
        return claim

    def _place(self, name: bytes) -> tuple[str, int] | None:
        keys = self._standing() or self.open()  # which may be another one since the id is held
        with self._using(keys):
            value = keys.get_many([b"i" + name])[0]
        if value is None:
            return None
        try:
            moment, offset = _PLACE.unpack_from(value)
            place = value[_PLACE.size :].decode(), offset
        except (struct.error, UnicodeDecodeError):
            self._replace(keys, _wrong("bytes that name no place"))
            return self._place(name)
        return place if moment >= self._now() - self._kept else None

    def _now(self) -> int:
        """Where time stands, by a count that is the same in all processes and that nobody sets."""
        return _FIRST + self._clock.ticks()

    def _standing(self) -> LmdbKeys | None:
        """The open index, unless its folder was removed or replaced."""
        keys = self._keys
        return keys if keys is not None and keys.stands() else None

    async def opened(self, limit_s: float = WAIT_S) -> None:
        """Open the index beside the event loop; RequestUnderWayError if that takes longer than the caller waits."""
        if self._standing() is None:
            opening = asyncio.get_running_loop().run_in_executor(None, self.open)
            try:
                await asyncio.wait_for(asyncio.shield(opening), min(WAIT_S, limit_s))
            except TimeoutError:
                raise under_way("an index that is made again") from None

    async def hold(self, request_id: str, content: str, limit_s: float = WAIT_S) -> Claim:
        """Hold an id as soon as no other call does.

        ``limit_s`` is how long the caller waits, if that is shorter than ``WAIT_S``.

        Raises
        ------
        RequestUnderWayError
            If another still holds it after that.
        """
        await self.opened(limit_s)
        looks = self._looks(request_id, content, limit_s)
        while isinstance(look := next(looks), float):  # noqa: ASYNC110  # another process lets go of it
            await asyncio.sleep(look)
        return look

    def wait(self, request_id: str, content: str) -> Claim:
        """Hold an id as :meth:`hold` does, in a thread."""
        looks = self._looks(request_id, content, WAIT_S)
        while isinstance(look := next(looks), float):
            time.sleep(look)
        return look

    def _looks(self, request_id: str, content: str, limit_s: float) -> Iterator[float | Claim]:
        """Seconds to wait before the next look, and the claim in the end."""
        end, pause = time.monotonic() + min(WAIT_S, limit_s), 0.001
        while (claim := self.claim(request_id, content)) is None:
            if time.monotonic() > end:
                raise under_way()
            yield pause
            pause = min(2 * pause, 0.02)
        yield claim

    def let_go(self, slot: int) -> None:
        """Let others hold an id; for :meth:`Claim.release`."""
        if self._descriptor >= 0:
            self._lock(fcntl.F_UNLCK, slot)
        with self._mutex:
            self._held.discard(slot)

    def _lock(self, kind: int, slot: int) -> None:
        lock_range(self._descriptor, fcntl.F_OFD_SETLK, kind, slot, 1)

    # noting and finding ----------------------------------------------------------------------------------------

    def note(self, stream: str, first: int, claims: Sequence[Claim | None]) -> None:
        """Note where the records of claims are about to be written: from an offset on, in this order."""
        keys, now, items = self._standing() or self.open(), self._now(), dict[bytes, bytes | None]()
        for offset, claim in enumerate(claims, first):
            if claim is not None:
                items |= _entry(claim.request_id, now, stream, offset)
                claim.noted = keys, stream, offset
        self._unswept += len(items) // 2
        with self._using(keys):
            if self._unswept >= _SWEEP:
                items = {**self._over(keys, now - self._kept, 2 * self._unswept), **items}
                self._unswept = 0
            keys.put_many(items, durable=False)

    def _over(self, keys: LmdbKeys, oldest: int, limit: int) -> dict[bytes, bytes | None]:
        """Oldest entries whose time is over, to be removed."""
        items: dict[bytes, bytes | None] = {}
        for (key, _), _ in zip(keys.scan(b"t"), range(limit), strict=False):
            if int.from_bytes(key[1:9], "big") >= oldest:
                break
            items[key], name = None, b"i" + key[9:]
            value = keys.get_many([name])[0]
            if value is not None and value[:8] == key[1:9]:  # not one that was used again since
                items[name] = None
        return items

    def find(self, request_id: str, stream: str, offset: int) -> DecisionRecord | None:
        """Record at a place, if it is that of a request id; for whoever holds the id."""
        record = self._at(request_id, stream, offset)
        if record is not None:
            return record
        # The writer of that stream died between noting and writing, or shortly after: what lies behind the end of the
        # stream counts or does not once somebody has opened it. Whoever holds it this long has done so.
        if stream != self._own and stream in self._streams.names(STREAM_PREFIX):
            with suppress(BusyError):
                self._streams.open_writer(stream, timeout_s=TAIL_S).close()
            if (record := self._at(request_id, stream, offset)) is not None:
                return record
        # Or the index is wrong: only the log knows whether the id was used.
        if (keys := self._standing()) is not None:
            self._replace(keys, _wrong("a place where another record is"))
        place = self._place(name_of(request_id))
        return None if place is None else self._at(request_id, *place)

    def _at(self, request_id: str, stream: str, offset: int) -> DecisionRecord | None:
        try:
            records = self._streams.read(stream, offset, 1) if stream.startswith(STREAM_PREFIX) else iter(())
        except InputError:  # no stream is called so, or an offset below 0
            return None
        for _, data in records:
            record = decode_record(data)
            return record if record.request_id == request_id else None
        return None

    def close(self) -> None:
        """Let go of everything; a second call does nothing."""
        with self._opening:
            for keys in [*self._replaced, *([] if self._keys is None else [self._keys])]:
                keys.close()
            self._replaced.clear()
            if self._descriptor >= 0:
                os.close(self._descriptor)
            self._keys, self._descriptor = None, -1


def name_of(request_id: str) -> bytes:
    return blake2b(request_id.encode(), digest_size=16).digest()


def _entry(request_id: str, moment: int, stream: str, offset: int) -> dict[bytes, bytes | None]:
    """Entry of an id, and its name by time, by which it is dropped."""
    name, place = name_of(request_id), _PLACE.pack(moment, offset) + stream.encode()
    return {b"i" + name: place, b"t" + place[:8] + name: b""}


def _wrong(got: str) -> IntegrityError:
    return IntegrityError("the index of request ids must say where records are", where="index of request ids", got=got,
                          remedy="It is made again from the log")  # fmt: skip


def under_way(got: str = "a call under way") -> RequestUnderWayError:
    return RequestUnderWayError(
        "the call that came first with this request id must have its answer", where="request id",
        got=got, remedy="Send the same request again in a second",
    )  # fmt: skip


def _unusable(got: str, remedy: str = "Make room on the disk, and send the same request again") -> RetryableError:
    return RetryableError("the index of request ids must take new ids", where="request id", got=got, remedy=remedy)
