"""Durable before the answer: decision records are appended and synced in groups, one sync for all that wait.

While one group is being synced the next one gathers, so the cost of a sync is shared by as many requests as arrive
meanwhile, and no timer adds latency. Each writer has a stream of its own; the streams' locks settle which.

A policy may ask to be answered before its record is durable. Those records go the same way, and only
their number and age are bounded: a queue of their own, flushed by a timer, would be behind the disk for longer.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from queue import SimpleQueue
from threading import Lock, Thread
from time import perf_counter_ns
from typing import Any, NamedTuple

from retrodict.core.durations import parse_duration
from retrodict.core.errors import BusyError, FencedError, RetrodictError, RetryableError
from retrodict.decisions.log import STREAM_PREFIX
from retrodict.decisions.masks import Masks
from retrodict.ledger import SealedWriter
from retrodict.stores._ownership import Closing
from retrodict.stores.streams.base import TornTail
from retrodict.workspace import Workspace

__all__ = ["LATER_MS", "LATER_RECORDS", "LogWriter", "Recorder", "noting", "open_stream"]

_log = logging.getLogger(__name__)
_MAX_WRITERS = 64
_CLOSING_NS = 1_000_000_000  # for which a full disk is tried again at the end
_RETRY_S = 0.05  # after a group with records that were answered could not be written

LATER_RECORDS, LATER_MS = 1_000, 50
"""How many records may be answered before they are durable, and for how long: what a crash may take."""


class _Member(NamedTuple):
    """Records of one caller, and their claims."""

    records: Sequence[bytes]
    claims: Sequence[Any]
    done: asyncio.Future[None]
    answered_ns: int | None = None  # None: the caller waits


_Group = list[_Member]


class LogWriter(Closing):
    """Appends records to the first decision stream that nobody else writes; a context manager. Threads may share it.

    Promises: when :meth:`append` returns, the records survive ``kill -9`` and a loss of power; when it raises, none of
    them is in the log. They are signed and sealed beside it, as ``ledger.sign_every`` and ``ledger.seal_every`` say.
    """

    def __init__(self, workspace: Workspace) -> None:
        self._workspace, self._writer, self._opening = workspace, _open_free_stream(workspace), Lock()
        self.stream, self.masks = self._writer.stream, Masks(workspace)
        self._problem: Exception | None = None

    @property
    def recovered(self) -> list[TornTail]:
        """What was cut off the stream's end when it was opened."""
        return self._writer.recovered

    def append(self, records: Sequence[bytes], before: Callable[[str, int], None] | None = None) -> None:
        """Append records and sync them; RetryableError if the disk refuses.

        ``before`` is called first, with the stream and the offset that the first record will have: threads that pass it
        take turns.
        """
        writer = self._writer
        try:
            try:
                _append(writer, records, before)
            except FencedError as error:
                _append(self._reopened(writer, error), records, before)
            self._problem = None
        except RetrodictError as error:
            self._problem = error
            raise
        except OSError as error:
            self._problem = error
            raise RetryableError(
                "the decision log must be writable",
                where=self.stream,
                got=type(error).__name__,
                remedy="Check the disk; no answer is given before its record is durable",
            ) from error

    def find_problem(self) -> Exception | None:
        """Why the log cannot be written, where the last append failed and the disk still takes nothing.

        A log on a server has a breaker, which says so by itself.
        """
        if self._problem is not None and "streams" not in self._workspace.breakers:
            try:
                self.append([])
            except (RetrodictError, OSError) as error:
                return error
        return None

    def _reopened(self, former: SealedWriter, error: FencedError) -> SealedWriter:
        """Writer of another stream in the place of one that was put out; its next one seals what it wrote."""
        with self._opening:
            if self._writer is former:
                _log.warning("%s; another stream is opened", error)
                self._writer = _open_free_stream(self._workspace)
                self.stream = self._writer.stream
                with suppress(RetrodictError):
                    former.close()
            return self._writer

    def close(self) -> None:
        """Close the segment, seal it, and release the stream."""
        self._writer.close()


def _append(writer: SealedWriter, records: Sequence[bytes], before: Callable[[str, int], None] | None) -> None:
    if before is not None:
        first = writer.append([])
        before(writer.stream, first)
    writer.append(records)


class Recorder:
    """Gathers the records of concurrent requests into groups for a :class:`LogWriter`.

    Promises: those of the writer, for ``await write(...)``. Of what ``write_later`` has taken, a crash may take records
    that were answered within ``LATER_MS``, ``LATER_RECORDS`` at most; a full disk takes none. For one event loop; the
    sync runs in a thread of its own.
    """

    def __init__(self, workspace: Workspace) -> None:
        self.workspace, self.log = workspace, LogWriter(workspace)
        self._waiting: _Group = []
        self._answered: deque[_Member] = deque()  # and not durable yet
        self._answered_records = 0
        self._give_up_ns: int | None = None
        self._writing = False
        self._closed: asyncio.Future[None] | None = None
        self._groups: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread = Thread(target=self._work, name="retrodict-log", daemon=True)
        self._thread.start()

    async def write(self, *records: bytes, claims: Sequence[Any] = ()) -> None:
        """Wait until records are durable, all in one group.

        ``claims``, one for each record or None, are of request ids that the caller holds: their places are noted in
        their index before, and they are let go of after, whatever becomes of the caller.
        """
        await self._take(_Member(records, claims, asyncio.get_running_loop().create_future()))

    def write_later(self, *records: bytes, durable: Callable[[], None]) -> bool:
        """Take records whose caller is answered now, and call ``durable`` when they are.

        False, and nothing is taken, where as many wait as a crash may take, or the oldest for as long: then the disk
        is what a caller has to wait for.
        """
        now, oldest = perf_counter_ns(), self._answered[0].answered_ns if self._answered else None
        full = self._answered_records + len(records) > LATER_RECORDS
        if full or (oldest is not None and now - oldest > LATER_MS * 1_000_000):
            return False
        member = _Member(records, (), asyncio.get_running_loop().create_future(), now)
        self._answered.append(member)
        self._answered_records += len(records)
        self._take(member).add_done_callback(lambda done: durable() if done.exception() is None else None)
        return True

    def _take(self, member: _Member) -> asyncio.Future[None]:
        self._waiting.append(member)
        if not self._writing:
            self._writing = True
            asyncio.get_running_loop().call_soon(self._begin)  # with what else comes in this turn of the loop
        return member.done

    def _begin(self) -> None:
        group, self._waiting = self._waiting, []
        self._append(group, [claim for one in group for claim in one.claims or [None] * len(one.records)])

    def _append(self, group: _Group, claims: Sequence[Any]) -> None:
        """Have a group written by the thread; no task and no future between, each of which is a turn of the loop."""
        loop, before = asyncio.get_running_loop(), noting(claims)
        records = [data for one in group for data in one.records]

        def append() -> None:
            error: BaseException | None = None
            try:
                self.log.append(records, before)
            except BaseException as failure:  # noqa: BLE001  # to every waiting request: a thread that ends answers none
                error = failure
            with suppress(RuntimeError):  # the loop is closed: nobody waits
                loop.call_soon_threadsafe(self._ended, group, claims, error)

        self._groups.put(append)

    def _work(self) -> None:
        while (append := self._groups.get()) is not None:
            append()

    def _ended(self, group: _Group, claims: Sequence[Any], error: BaseException | None) -> None:
        if error is not None and any(claims):  # what failed may be their index, which the others do not need
            _settle([member for member in group if any(member.claims)], error)
            _release(claims)
            others = [member for member in group if not any(member.claims)]
            if others:
                self._append(others, ())
            else:
                self._go_on()
            return
        answered = [member for member in group if member.answered_ns is not None]
        patience = self._give_up_ns is None or perf_counter_ns() < self._give_up_ns
        if error is not None and answered and patience:  # their callers cannot be told: tried again
            group = [member for member in group if member.answered_ns is None]
            self._waiting = answered + self._waiting
        elif answered:
            total = sum(len(self._answered.popleft().records) for _ in answered)
            self._answered_records -= total
            if error is not None:
                _log.error(
                    "%d decisions that were answered before their record was durable have none: %s", total, error
                )
        _settle(group, error)
        _release(claims)
        if error is not None and answered:
            asyncio.get_running_loop().call_later(_RETRY_S, self._go_on)
        else:
            self._go_on()

    def _go_on(self) -> None:
        if self._waiting:
            self._begin()
            return
        self._writing = False
        if self._closed is not None and not self._closed.done():
            self._closed.set_result(None)

    async def close(self) -> None:
        """Finish what waits, close the segment and seal it, release the stream."""
        self._give_up_ns = perf_counter_ns() + _CLOSING_NS
        if self._writing:
            self._closed = asyncio.get_running_loop().create_future()
            await self._closed
        self._groups.put(None)
        self._thread.join()
        self.log.close()


def noting(claims: Sequence[Any]) -> Callable[[str, int], None] | None:
    """What notes the places of claims before their records are appended; None if there are none."""
    index = next((claim.index for claim in claims if claim is not None), None)
    return None if index is None else lambda stream, first: index.note(stream, first, claims)


def _release(claims: Sequence[Any]) -> None:
    for claim in filter(None, claims):
        claim.release()


def _settle(group: _Group, error: BaseException | None) -> None:
    for done in (member.done for member in group):
        if done.cancelled():
            continue
        if error is None:
            done.set_result(None)
        else:
            done.set_exception(error)


def open_stream(workspace: Workspace, stream: str) -> SealedWriter:
    """Become the writer of a decision stream; BusyError if another process is."""
    every = {name: parse_duration(workspace.config[f"ledger.{name}"]) for name in ("sign_every", "seal_every")}
    return SealedWriter(workspace.ledger, workspace.streams, stream, **every)


def _open_free_stream(workspace: Workspace) -> SealedWriter:
    for number in range(_MAX_WRITERS):
        try:
            return open_stream(workspace, f"{STREAM_PREFIX}{number}")
        except BusyError as error:
            if error.where != f"stream {STREAM_PREFIX}{number}":  # not the stream is taken, but the database
                raise
    raise BusyError(
        "one of the decision streams must be free",
        where="decision log",
        got=f"{_MAX_WRITERS} writers",
        remedy="Stop a server or another writer of this project first",
    )
