"""The decision log on NATS JetStream: what one machine appends, every machine reads, seals and compacts.

A segment is what stands between two marks: messages on a subject of their own in the stream of the records, so that one
order decides everything. Whoever opens a stream puts a mark, on the condition that it knows all that came before; from
then on the server takes nothing of an earlier writer, whose every record has a place as its condition. A lease was
rejected: a writer that stood still would outlive it. That a writer is there is asked by a message which only it
answers, and this only spares it being put out; the order of the marks is what excludes.

The bytes of a segment are those that a file of it would have, made of its records: seals and proofs are the same.
"""

from __future__ import annotations

import asyncio
import base64
import bisect
import contextlib
import json
import os
import socket
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from typing import Any

from retrodict.core.errors import BusyError, FencedError, IntegrityError, RefusedError, RetryableError, check_known
from retrodict.stores._ownership import check_usable
from retrodict.stores.streams._frames import HEADER_SIZE, pack_frames, pack_header
from retrodict.stores.streams._layout import segment_name
from retrodict.stores.streams._nats import ApiError, Connection, ask
from retrodict.stores.streams._nats_reader import NO_MESSAGE, NO_STREAM, Puller, find_bounds, missing
from retrodict.stores.streams._nats_writer import MESSAGE_ID, Append, JetStreamWriter
from retrodict.stores.streams.base import Segment, SegmentObserver, StreamStore, StreamWriter, TornTail
from retrodict.stores.streams.jetstream import JetStreams

__all__ = ["JetStreamLog"]

_ASK_S, _LOOK_S = 1.0, 0.1
# For which nobody must answer for a stream that was not let go of: a writer connects again within a second or two.
_GRACE_S = 3.0
PASSED_BY = {10071, 10070}


@dataclass(frozen=True, slots=True)
class _Mark:
    """Where a segment begins: sequence of the mark, offset of the record after it, who writes it ("": nobody)."""

    sequence: int
    first: int
    writer: str


class JetStreamLog(JetStreams, StreamStore):
    """Server twin of :class:`~retrodict.stores.streams.base.StreamStore` on NATS JetStream.

    Promises as those of the embedded log, but for these: an append that raises may have stored some of its records;
    what the server acknowledged survives a loss of power as far as the server syncs or its replicas keep power; there
    is no torn tail. A writer that the server takes for gone for some seconds may lose its stream to another one: its
    next append is a FencedError, and nothing that it appended is lost.

    Parameters
    ----------
    servers : sequence of str
        As for :class:`~retrodict.stores.streams.jetstream.JetStreams`, and so are the options.
    segment_bytes : int, default 64 MiB
        An append that finds the current segment at this size or above begins a new one.
    admitted : callable, optional
        As for :class:`~retrodict.stores.streams.segments.SegmentStreams`.
    owner : callable, optional
        Says whose log it is: a writer refuses one of somebody else.
    """

    def __init__(
        self,
        servers: Sequence[str],
        *,
        segment_bytes: int = 64 << 20,
        admitted: Callable[[str], Collection[str] | None] = lambda _: None,
        owner: Callable[[], str] = lambda: "",
        **options: Any,
    ) -> None:
        super().__init__(servers, **options)
        self._segment_bytes, self._admitted, self._owner = segment_bytes, admitted, owner
        self.prefix, self.replicas, self.connection = self._prefix, self._replicas, self._connection
        self.working_on: set[str] = set()
        """Names that calls of this process work on, as its writers answer whoever asks (see ``jetstream_names``)."""
        self._marks: dict[str, list[_Mark]] = {}
        self._writers: dict[str, JetStreamLogWriter] = {}
        self._heads = f"{self._prefix}{self.divider * 2}heads"

    def open_writer(
        self, stream: str, *, timeout_s: float = 10.0, observer: SegmentObserver | None = None
    ) -> JetStreamLogWriter:
        name, where = self._place(stream)
        subjects, end = [_subject(name), _mark_subject(name)], time.monotonic() + timeout_s
        settings = {"deny_purge": False, "description": self._owner()}
        self._connection.call(lambda client: self._ensure(client, name, subjects, where, **settings), where)
        writer = JetStreamLogWriter(
            self._connection,
            name,
            where=where,
            observer=observer,
            segment_bytes=self._segment_bytes,
            working_on=self.working_on,
        )
        while (holder := writer.take(partial(self._look, name=name))) is not None:
            if holder and time.monotonic() > end:
                raise BusyError("a stream must have one writer at a time", where=where, got=f"held by {holder}",
                                remedy="Wait until it ends, or use another stream")  # fmt: skip
            time.sleep(_LOOK_S)
        self._writers[stream] = writer
        return writer

    def segments(self, stream: str) -> list[Segment]:
        marks, end = self._state(*self._place(stream))
        names = self._admitted(stream)
        return [piece for piece in _pieces(marks, end) if names is None or piece.name in names]

    def files(self, stream: str) -> list[str]:
        return [piece.name for piece in _pieces(*self._state(*self._place(stream)))]

    def read_segment(self, stream: str, segment: str) -> bytes:
        pieces = {piece.name: piece for piece in _pieces(*self._state(*self._place(stream)))}
        check_known(segment, pieces, "the stream must have this segment", where=f"stream {stream}", what="segment")
        piece = pieces[segment]
        records = [record for _, record in self.read(stream, piece.first, piece.count)]
        return pack_header(piece.first) + pack_frames(records)

    def remove_segment(self, stream: str, segment: str) -> None:
        name, where = self._place(stream)
        marks, end = self._state(name, where)
        pieces = _pieces(marks, end)
        if not pieces or pieces[0].name != segment or not pieces[0].closed:
            raise RefusedError("only the oldest segment, and a closed one, must be removed", where=where,
                               got=segment, remedy="What comes before it goes first")  # fmt: skip
        until = next(mark.sequence for mark in marks if mark.first >= pieces[0].first + pieces[0].count)
        self._connection.call(lambda client: ask(client, f"STREAM.PURGE.{name}", {"seq": until}), where)

    def name_of(self, stream: str) -> str:
        """Name of a stream on the server."""
        return self._place(stream)[0]

    def position(self, stream: str) -> tuple[str, int]:
        """Identity of the writer that this store has opened for a stream, and an offset before any that follows."""
        writer = self._writers[stream]
        return writer.identity, writer.end

    # statements on what is signed of a stream, beside it -----------------------------------------------------

    def read_head(self, stream: str) -> bytes | None:
        """Newest statement on a stream; None if there is none."""
        question = {"last_by_subj": self._head_subject(stream)}

        async def get(client: Any) -> bytes | None:
            try:
                answer = await ask(client, f"STREAM.MSG.GET.{self._heads}", question)
            except ApiError as error:
                if error.code in (NO_STREAM, NO_MESSAGE):
                    return None
                raise
            return base64.b64decode(answer["message"].get("data", ""))

        return self._connection.call(get, f"head of {stream}")

    def write_head(self, stream: str, data: bytes) -> None:
        """Put a statement in the place of the one before; FencedError unless a writer of this store has the stream."""
        name, where = self._place(stream)
        writer = self._writers[stream]
        subjects = [f"{self.divider}{self._prefix}.head.>"]

        async def put(client: Any) -> None:
            marks, _ = await self._look(client, name)
            if not marks or marks[-1].writer != writer.identity:
                raise fenced(where)
            for attempt in (0, 1):
                answer = await publish(client, self._head_subject(stream), data)
                if attempt == 0 and answer.get("error", {}).get("code") == 503:
                    await self._ensure(client, self._heads, subjects, where, max_msgs_per_subject=1, deny_purge=False)
                elif "error" in answer:
                    raise ApiError(answer["error"])
                else:
                    return

        self._connection.call(put, f"head of {stream}")

    def heads(self) -> list[str]:
        """Streams that there is a statement on."""

        async def listed(client: Any) -> list[str]:
            try:
                info = await ask(client, f"STREAM.INFO.{self._heads}", {"subjects_filter": ">"})
            except ApiError as error:
                if error.code == NO_STREAM:
                    return []
                raise
            return list(info["state"].get("subjects") or ())

        begin = self._head_subject("")
        subjects = self._connection.call(listed, "heads of streams")
        return sorted(subject.removeprefix(begin).replace(".", "/") for subject in subjects)

    def _head_subject(self, stream: str) -> str:
        return f"{self.divider}{self._prefix}.head.{stream.replace('/', '.')}"

    # reading ------------------------------------------------------------------------------------------------

    def _state(self, name: str, where: str) -> tuple[list[_Mark], int]:
        """Marks of a stream that are there, and the offset after its last record."""
        marks, last = self._connection.call(partial(self._look, name=name), where)
        return marks, marks[-1].first + last - marks[-1].sequence if marks else 0

    async def _look(self, client: Any, name: str) -> tuple[list[_Mark], int]:
        """Marks, and the last sequence; marks never change, so only newer ones are asked for."""
        first, last = await find_bounds(client, name)
        marks = [mark for mark in self._marks.get(name, ()) if first < mark.sequence <= last]
        while True:
            question = {"seq": marks[-1].sequence + 1 if marks else max(first, 1), "next_by_subj": _mark_subject(name)}
            try:
                message = (await ask(client, f"STREAM.MSG.GET.{name}", question))["message"]
            except ApiError as error:
                if error.code in (NO_STREAM, NO_MESSAGE):
                    break
                raise
            if message["seq"] > last:
                break
            body = json.loads(base64.b64decode(message["data"]))
            marks.append(_Mark(message["seq"], message["seq"] - 1 - body["number"], body["writer"]))
        self._marks[name] = marks
        return marks, last

    def _bounds(self, name: str, where: str) -> tuple[int, int]:
        marks, end = self._state(name, where)
        return marks[0].first if marks else 0, end

    def _read(self, name: str, where: str, offset: int, left: int | None) -> Iterator[tuple[int, bytes]]:
        puller = Puller(name, where)
        try:
            while left is None or left > 0:
                marks, end = self._state(name, where)
                if offset >= end:
                    return
                place = bisect.bisect_right(marks, offset, key=lambda mark: mark.first) - 1
                if place < 0:
                    raise missing(where, offset)
                until = marks[place + 1].first if place + 1 < len(marks) else end
                if left is not None:
                    until = min(until, offset + left)
                    left -= until - offset
                marks_before = marks[place].sequence - marks[place].first  # which have places among the records
                while offset < until:
                    pull = partial(puller.pull, offset=offset + marks_before, until=until + marks_before)
                    for message in self._connection.call(pull, where):
                        yield offset, message.data
                        offset += 1
        finally:
            self._connection.forget(puller.close)


def _pieces(marks: list[_Mark], end: int) -> list[Segment]:
    firsts = [*(mark.first for mark in marks), end]
    return [Segment(segment_name(first), first, until - first, place + 1 < len(marks))
            for place, (first, until) in enumerate(pairwise(firsts)) if until > first]  # fmt: skip


@dataclass(slots=True)
class _LogAppend(Append):
    """An append that knows which records took the places it passed, in their order."""

    log: list[bytes] = field(default_factory=list)

    def land(self, offset: int) -> None:
        self.log.append(self.records[self.landed])
        Append.land(self, offset)


class JetStreamLogWriter(JetStreamWriter, StreamWriter):
    """The writer of one stream; made by :meth:`JetStreamLog.open_writer`."""

    headers_only = False  # what an append that failed has stored is told to the observer, by whatever call meets it

    def __init__(
        self,
        connection: Connection,
        name: str,
        *,
        where: str,
        observer: SegmentObserver | None,
        segment_bytes: int,
        working_on: Collection[str] = (),
    ) -> None:
        super().__init__(connection, name, _subject(name), where=where, end=0)
        self.identity, self._working_on = self._id, working_on
        self._observer, self._segment_bytes, self._size = observer, segment_bytes, 0
        self._marks_before = 0
        self._alone_since: float | None = None
        self._presence: Any = None
        self._pending: _LogAppend | None = None  # a mark that is not known to be there

    @property
    def recovered(self) -> list[TornTail]:
        return []

    def append(self, records: Sequence[bytes]) -> int:
        try:
            return super().append(records)
        except IntegrityError as error:  # the server has lost what it acknowledged: an audit names it; this goes on
            raise FencedError(
                error.rule, where=error.where, got=error.got, remedy="See 'retrodict audit verify'"
            ) from error

    # becoming the writer ------------------------------------------------------------------------------------

    def take(self, look: Callable[[Any], Any]) -> str | None:
        """Take the stream, unless somebody has it: who that is; "" where it may be free at another look."""
        holder = self._connection.call(lambda client: self._claim(client, look), self._where)
        if holder is None:
            self._begin_segment()
        return holder

    async def _claim(self, client: Any, look: Callable[[Any], Any]) -> str | None:
        marks, last = await look(client)
        newest = marks[-1] if marks else _Mark(0, 0, "")
        number = newest.sequence - newest.first
        if newest.writer != self.identity:  # the answer to our mark may have been lost
            now = asyncio.get_running_loop().time()
            if (holder := await holder_of(client, self._name)) is not None:
                self._alone_since = None
                return holder
            self._alone_since = now if self._alone_since is None else self._alone_since
            if newest.writer and now - self._alone_since < _GRACE_S:
                return ""
            await self._greet(client)
            conditions = {MESSAGE_ID: f"{self.identity}.open", "Nats-Expected-Last-Sequence": str(last)}
            answer = await publish(client, _mark_subject(self._name), _body(number, self.identity), conditions)
            if "error" in answer:
                await self._leave(client)
                if answer["error"].get("err_code") in PASSED_BY:
                    return ""
                raise ApiError(answer["error"])
            self._next, self._marks_before = answer["seq"], number + 1
        else:
            self._next, self._marks_before = newest.sequence, number
        self._connection.greetings.append(self._greet)
        return None

    async def _greet(self, client: Any) -> None:
        """Answer for the stream on a connection, as long as it stands."""

        async def answer(message: Any) -> None:
            is_free = message.data and message.data.decode() not in self._working_on
            await message.respond(b"free" if is_free else f"process {os.getpid()} on {socket.gethostname()}".encode())

        self._presence = await client.subscribe(_holder_subject(self._name), cb=answer)

    async def _leave(self, client: Any) -> None:
        with contextlib.suppress(Exception):  # of a connection that is gone
            await self._presence.unsubscribe()
        await client.flush()

    # appending ----------------------------------------------------------------------------------------------

    @property
    def end(self) -> int:
        """Offset of the next record, unless some that were refused have taken their places."""
        return self._end()

    def roll(self) -> None:
        with self._mutex:
            check_usable("a stream writer", where=self._where, owner=self._pid, closed=self._closed)
            if self._size > HEADER_SIZE or self._pending is not None:
                self._mark(self.identity)

    def close(self) -> None:
        with self._mutex:
            if self._closed or os.getpid() != self._pid:
                return
            self._closed = True
            self._connection.greetings.remove(self._greet)
            with contextlib.suppress(RetryableError):  # then the next writer waits some seconds longer
                self._mark("")
                self._connection.call(self._leave, self._where)

    def _end(self) -> int:
        return self._next - self._marks_before

    def _begin(self, records: list[bytes]) -> _LogAppend:
        append = _LogAppend(records, self._number)
        self._number += len(records)
        return append

    def _finish(self, append: Append) -> int:
        assert isinstance(append, _LogAppend)
        if self._pending is not None or (self._size >= self._segment_bytes and not append.landed):
            self._mark(self.identity)
        try:
            return super()._finish(append) - self._marks_before
        finally:
            self._tell(append)

    def _see(self, message: Any, append: Append) -> None:
        name = (message.headers or {}).get(MESSAGE_ID, "")
        if not name.startswith(f"{self.identity}."):
            raise fenced(self._where)
        assert isinstance(append, _LogAppend)
        if name == self._name_of(append.number + append.landed):
            append.land(self._next)
            return
        append.log.append(message.data)
        if (
            message.data in append.records[append.landed :]
        ):  # of an append that failed, and is made again in another one
            append.records.remove(message.data)
            append.first = min(append.first, self._next) if append.first >= 0 else self._next
            append.number = self._number - append.landed
            self._number += len(append.records) - append.landed

    def _tell(self, append: _LogAppend) -> None:
        """Say what was stored to whoever signs it."""
        records, append.log = append.log, []
        if records:
            frames = pack_frames(records)
            self._size += len(frames)
            if self._observer is not None:
                self._observer.add(records, frames)

    def _mark(self, writer: str) -> None:
        """Close the segment, and begin another one for a writer."""
        if self._pending is None:
            self._pending = self._begin([_body(self._marks_before, writer)])
        mark, records, self._unfinished = self._pending, self._subject, None
        self._subject = _mark_subject(self._name)
        try:
            super()._finish(mark)
        finally:
            self._subject = records
            if mark.landed:
                mark.log.pop()
            self._tell(mark)
        self._pending = None
        self._marks_before += 1
        if writer:
            self._begin_segment()

    def _begin_segment(self) -> None:
        self._size, first = HEADER_SIZE, self._end()
        if self._observer is not None:
            self._observer.begin(segment_name(first), first, pack_header(first))


def _body(number: int, writer: str) -> bytes:
    """Content of a mark: how many were before it, and who put it."""
    return json.dumps({"number": number, "writer": writer}).encode()


def fenced(where: str) -> FencedError:
    """Say that another writer has the stream now."""
    return FencedError("a stream must still be held by the writer that appends to it", where=where,
                       got="another writer, which took this one for gone",
                       remedy="Open a stream again. What was acknowledged is in this one")  # fmt: skip


async def holder_of(client: Any, name: str, question: bytes = b"") -> str | None:
    """Who answers for a stream; None if nobody does, "free" where it does not work on the name in question."""
    import nats.errors

    try:
        reply = await client.request(_holder_subject(name), question, timeout=_ASK_S)
    except nats.errors.NoRespondersError:
        return None
    except nats.errors.TimeoutError:
        return "a process that does not answer"
    return str(reply.data.decode())


async def publish(client: Any, subject: str, data: bytes, headers: dict[str, str] | None = None) -> dict[str, Any]:
    """Answer of the stream that takes a subject; an error of code 503 if there is none."""
    import nats.errors

    try:
        answer: dict[str, Any] = json.loads((await client.request(subject, data, timeout=3600, headers=headers)).data)
    except nats.errors.NoRespondersError:
        return {"error": {"code": 503, "description": "no stream takes it"}}
    return answer


def _subject(name: str) -> str:
    return name.replace(JetStreams.divider, ".")


# No name of a stream has a divider, so these are nobody's records.
def _mark_subject(name: str) -> str:
    return f"{_subject(name)}.{JetStreams.divider}"


def _holder_subject(name: str) -> str:
    return f"{JetStreams.divider}{_subject(name)}.writer"
